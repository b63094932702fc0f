// Forking from the page: a person changes a turn or adds one, or lets the policy speak again; the new branch is shown beside what
// stands there, and their pair can be kept.
import { useState } from 'preact/hooks';
import type { Branch, Failure, ForkAnswer, ForkRequest, KeptAnswer, NodeAnswer } from '../../api.ts';
import { number, Problem, Text } from '../parts.tsx';
import { href } from '../route.ts';
import { AnswerError, isStatic, revision, send, useAnswer } from '../source.ts';

const failureOf = (error: unknown): Failure =>
  error instanceof AnswerError ? error.failure : { code: 'internal', message: String(error) };

export function ForkForm({ run, turn }: { run: string; turn: NodeAnswer }) {
  const { id, text, written, speaker } = turn;
  const [at, setAt] = useState<ForkRequest['at']>('instead-of');
  const [say, setSay] = useState(written ?? text);
  const [state, setState] = useState<'idle' | 'working' | Failure | ForkAnswer>('idle');
  const { value: list } = useAnswer('/api/runs', {});
  if (isStatic) return null;
  if (list?.abilities.fork !== true)
    return <p class="faint">This page cannot fork: it was given no model to speak on.</p>;
  const fork = async (own?: string) => {
    setState('working');
    const request: ForkRequest = { at, node: id, ...(own !== undefined && { say: own }) };
    try {
      const answer = await send<ForkAnswer>('/api/runs/{run}/forks', { run }, request);
      setState(answer);
      revision.value++;
    } catch (error) {
      setState(failureOf(error));
    }
  };
  const turnTo = (next: ForkRequest['at']) => {
    setAt(next);
    setSay(next === 'after' ? '' : (written ?? text));
  };
  const isUnchanged = at === 'instead-of' ? say === (written ?? text) : say === '';
  return (
    <section aria-label="Fork" class="fork">
      <form
        onSubmit={(event) => {
          event.preventDefault();
          void fork(say);
        }}
      >
        <fieldset>
          <legend>Let the dialogue go on otherwise</legend>
          <label>
            <input
              type="radio"
              name="at"
              checked={at === 'instead-of'}
              onChange={() => turnTo('instead-of')}
            />{' '}
            instead of this turn (a sibling, of {speaker})
          </label>
          <label>
            <input type="radio" name="at" checked={at === 'after'} onChange={() => turnTo('after')} /> after
            it (another answer to it)
          </label>
        </fieldset>
        <label>
          what is said
          <textarea rows={3} value={say} onInput={({ currentTarget }) => setSay(currentTarget.value)} />
        </label>
        <p class="controls">
          <button type="submit" class="primary" disabled={state === 'working' || isUnchanged}>
            Say this and go on
          </button>
          <button type="button" disabled={state === 'working'} onClick={() => void fork()}>
            Let the policy speak again
          </button>
          <span role="status" class="faint">
            {state === 'working' ? 'the dialogue is held and scored …' : ''}
          </span>
        </p>
      </form>
      {typeof state === 'object' &&
        ('message' in state ? <Problem failure={state} /> : <Forked run={run} fork={state} />)}
    </section>
  );
}

/** The new branch beside what stands there. */
function Forked({
  run,
  fork: { fork, branch, beside, besideValue, keeps },
}: {
  run: string;
  fork: ForkAnswer;
}) {
  const [kept, setKept] = useState<KeptAnswer | Failure | null>(null);
  const gap = besideValue === null || branch.reward === null ? null : branch.reward - besideValue;
  const keep = async () => {
    try {
      setKept(await send<KeptAnswer>('/api/runs/{run}/pairs', { run }, { fork }));
    } catch (error) {
      setKept(failureOf(error));
    }
  };
  return (
    <div class="forked" role="status">
      <div class="views">
        <BranchView run={run} name={`fork ${fork}`} branch={branch} />
        {beside !== null && <BranchView run={run} name="beside it" branch={beside} />}
      </div>
      {gap !== null && (
        <p>
          The fork is{' '}
          <b class={gap >= 0 ? 'better' : 'worse'}>
            {gap >= 0 ? 'better' : 'worse'} by {number(Math.abs(gap))}
          </b>{' '}
          than what stands beside it ({number(besideValue)}).
        </p>
      )}
      {keeps && kept === null && (
        <button type="button" onClick={() => void keep()}>
          Keep the pair, to train on
        </button>
      )}
      {kept !== null &&
        ('message' in kept ? (
          <Problem failure={kept} />
        ) : (
          <p class="better">
            Kept: {kept.chosen} over {kept.rejected}, gap {number(kept.gap)}.{' '}
            <code>optima train --resume … --with-forks</code> trains on it.
          </p>
        ))}
    </div>
  );
}

function BranchView({ run, name, branch }: { run: string; name: string; branch: Branch }) {
  const { dialogue, turns, outcome, failure, answer, taskScore, tokens, reward, terms } = branch;
  return (
    <section class="view" aria-label={name}>
      <h3>
        {name} <b class="number">{number(reward)}</b>
      </h3>
      <p class="faint">
        {outcome}, score {number(taskScore, 2)}, {tokens} tokens
        {terms !== null && `, token share ${number(terms.tokenShare, 2)}, R_loss ${number(terms.loss, 2)}`},
        answer <Text value={answer ?? 'none'} limit={80} />
      </p>
      {failure !== null && (
        <p class="worse">
          <Text value={failure} />
        </p>
      )}
      {turns.map(({ id, speaker, text, provenance }) => (
        <div key={id} class="message">
          <span class="kind">
            {speaker}
            {provenance !== 'sampled' && <small>{provenance}</small>}
          </span>
          <a class="plain" href={href(['run', run, 'turn', id])}>
            <Text value={text} limit={600} />
          </a>
        </div>
      ))}
      <p>
        <a href={href(['run', run, 'dialogue', dialogue])}>the whole dialogue</a>
      </p>
    </section>
  );
}
