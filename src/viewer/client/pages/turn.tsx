// A turn: what was said, what each role had before it, how likely each token was, what it was worth and why it was chosen.
import { useState } from 'preact/hooks';
import type { NodeAnswer, TokenView, TreeNode } from '../../api.ts';
import { count, Figure, Line, number, Problem, Shown, Table, Text } from '../parts.tsx';
import { href } from '../route.ts';
import { useAnswer } from '../source.ts';
import { lineOf } from '../visible.ts';
import { Dialogues } from './dialogues.tsx';
import { ForkForm } from './fork.tsx';

export function Turn({ run, node }: { run: string; node: string }) {
  const answer = useAnswer('/api/runs/{run}/nodes/{node}', { run, node });
  return <Shown answer={answer}>{(turn) => <TurnBody run={run} turn={turn} />}</Shown>;
}

/** `onSelect`: where the turn is shown below its tree, in which another one can be chosen. */
export function TurnBody({
  run,
  turn,
  onSelect,
  isBrief = false,
}: {
  run: string;
  turn: NodeAnswer;
  onSelect?: (id: string) => void;
  isBrief?: boolean;
}) {
  const { id, speaker, text, written, observed, finish, why, siblings, children, path, dialogues, merged } =
    turn;
  return (
    <>
      {!isBrief && <Way run={run} turn={turn} />}
      <div class="said-block">
        <h2>
          {speaker}{' '}
          {isBrief && (
            <a class="small" href={href(['run', run, 'turn', id])}>
              open the turn
            </a>
          )}
        </h2>
        <blockquote>
          <Text value={text} />
          {finish === 'length' && <span class="chip">cut off at the limit</span>}
        </blockquote>
        {written !== null && (
          <details>
            <summary>with its private notes</summary>
            <blockquote>
              <Text value={written} />
            </blockquote>
          </details>
        )}
        {observed.map((observation, index) => (
          <p key={index} class="observed">
            environment{observation.to === undefined ? '' : ` (to ${observation.to.join(', ')})`}:{' '}
            <Text value={observation.text} />
          </p>
        ))}
      </div>
      <Facts turn={turn} />
      {why.length > 0 && (
        <>
          <h3>Why it was trained on, or not</h3>
          <Why why={why} />
        </>
      )}
      <h3>What each role had before it</h3>
      <Views turn={turn} />
      {!isBrief && (
        <>
          <h2>Tokens</h2>
          <Tokens run={run} turn={turn} />
          <Pairs run={run} turn={turn} />
          {merged.length > 0 && (
            <>
              <h2>Said in its place</h2>
              <ul>
                {merged.map(({ dialogue, text: said }) => (
                  <li key={dialogue}>
                    <a class="mono" href={href(['run', run, 'dialogue', dialogue])}>
                      {dialogue.slice(dialogue.lastIndexOf('/') + 1)}
                    </a>{' '}
                    <Line value={said} />
                  </li>
                ))}
              </ul>
            </>
          )}
          <h2>Fork</h2>
          <ForkForm key={id} run={run} turn={turn} />
          <h2>Instead of it</h2>
          <Turns run={run} name="Instead of it" turns={siblings} none="Nothing else was said here." />
          <h2>After it</h2>
          <Turns
            run={run}
            name="After it"
            turns={children}
            none={`A dialogue ended here, ${path.length + 1} turns from its root.`}
          />
          <h2>Dialogues through it</h2>
          <Dialogues run={run} dialogues={dialogues} />
        </>
      )}
      {onSelect !== undefined && siblings.length > 0 && (
        <p class="faint">
          Beside it: {siblings.length} other {siblings.length === 1 ? 'turn answers' : 'turns answer'} the
          same.
        </p>
      )}
    </>
  );
}

/** The turns from the root to this one. */
function Way({ run, turn }: { run: string; turn: NodeAnswer }) {
  return (
    <ol class="way" aria-label="The turns before it">
      <li>
        <a href={href(['run', run, 'tree', turn.root], { node: turn.id })}>{turn.taskId}</a>
      </li>
      {turn.path.map(({ id, speaker, text }) => (
        <li key={id}>
          <a href={href(['run', run, 'turn', id])}>
            <b>{speaker}</b> <Line value={text} limit={48} />
          </a>
        </li>
      ))}
    </ol>
  );
}

function Facts({ turn }: { turn: NodeAnswer }) {
  const { value, visits, tokens, baseLoss, promptTokens, provenance, policy, seed } = turn;
  const said = tokens.flatMap((token) => token.policy ?? []);
  const surprise = said.length === 0 ? null : -said.reduce((sum, each) => sum + each, 0) / said.length;
  return (
    <dl class="figures">
      <Figure
        name="value"
        value={number(value)}
        note={`${visits} ${visits === 1 ? 'dialogue' : 'dialogues'}`}
      />
      <Figure name="tokens" value={tokens.length} note={`read ${count(promptTokens)}`} />
      <Figure name="surprise of the policy" value={number(surprise)} note="nats per token" />
      <Figure name="surprise of the base" value={number(baseLoss)} note="nats per token" />
      <Figure
        name="from"
        value={provenance}
        note={
          <span class="mono">
            {policy.slice(0, 8)}, seed {seed}
          </span>
        }
      />
    </dl>
  );
}

function Why({ why }: { why: readonly string[] }) {
  const [isWhole, setWhole] = useState(false);
  // What was trained on first: it is what one looks for.
  const sorted = [...why].sort(
    (one, other) => Number(other.includes('Trained on')) - Number(one.includes('Trained on')),
  );
  return (
    <ul class="why">
      {(isWhole ? sorted : sorted.slice(0, 4)).map((reason) => (
        <li key={reason} class={reason.includes('Trained on') ? 'yes' : ''}>
          {reason}
        </li>
      ))}
      {!isWhole && why.length > 4 && (
        <li class="none">
          <button type="button" class="quiet" onClick={() => setWhole(true)}>
            {why.length - 4} more
          </button>
        </li>
      )}
    </ul>
  );
}

/** The private views of all roles, side by side. */
function Views({ turn: { views, speaker } }: { turn: NodeAnswer }) {
  return (
    <div class="views">
      {Object.entries(views).map(([role, messages]) => (
        <section
          key={role}
          class={role === speaker ? 'view own' : 'view'}
          aria-label={`What ${role} had before it`}
        >
          <h3>
            {role} {role === speaker && <small class="inline">is to speak</small>}
          </h3>
          {messages.map(({ role: kind, content }, index) => (
            <div key={index} class={`message ${kind}`}>
              <span class="kind">{kind === 'assistant' ? role : kind === 'user' ? 'heard' : 'told'}</span>
              <Text value={content} />
            </div>
          ))}
        </section>
      ))}
    </div>
  );
}

/** How surprising a token was, from 0 to 1: at 6 nats it cannot be more. */
const surpriseOf = (logprob: number | null) =>
  logprob === null ? 0 : Math.min(1, Math.sqrt(-Math.min(0, logprob) / 6));

/** Every token with how surprised the policy was, and the base where it was asked; one can be looked at. */
function Tokens({ run, turn: { id, tokens } }: { run: string; turn: NodeAnswer }) {
  const [chosen, setChosen] = useState(0);
  const [isAsked, setAsked] = useState(false);
  const { value: list } = useAnswer('/api/runs', {});
  const canAsk = list?.abilities.score === true;
  const scores = useAnswer('/api/runs/{run}/nodes/{node}/scores', isAsked ? { run, node: id } : null);
  const base = scores.value?.logprobs ?? null;
  const token = tokens[chosen];
  const walk = (event: KeyboardEvent) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    setChosen(Math.min(tokens.length - 1, Math.max(0, chosen + step)));
  };
  if (tokens.length === 0) return <p class="faint">It has no tokens: a person wrote it.</p>;
  return (
    <>
      <Strip
        name="policy"
        tokens={tokens}
        logprobs={tokens.map(({ policy }) => policy)}
        {...{ chosen, setChosen, walk }}
      />
      {base !== null && (
        <Strip name="base" tokens={tokens} logprobs={base} {...{ chosen, setChosen, walk }} />
      )}
      {token !== undefined && (
        <p class="token-facts" aria-live="polite">
          token {chosen + 1} of {tokens.length}, id {token.id}
          {token.text !== null && (
            <>
              , <code>{lineOf(JSON.stringify(token.text))}</code>
            </>
          )}
          : policy {number(token.policy, 4)}
          {base !== null && `, base ${number(base[chosen], 4)}`} nats
        </p>
      )}
      {base === null && !isAsked && (
        <p>
          <button type="button" disabled={!canAsk} onClick={() => setAsked(true)}>
            Ask the frozen base, token by token
          </button>{' '}
          {!canAsk && <span class="faint">Not here: this page was given no model to ask.</span>}
        </p>
      )}
      {isAsked && scores.state === 'loading' && <p class="faint loading">asking the base …</p>}
      {scores.failure !== null && <Problem failure={scores.failure} />}
    </>
  );
}

function Strip({
  name,
  tokens,
  logprobs,
  chosen,
  setChosen,
  walk,
}: {
  name: string;
  tokens: readonly TokenView[];
  logprobs: readonly (number | null)[];
  chosen: number;
  setChosen: (index: number) => void;
  walk: (event: KeyboardEvent) => void;
}) {
  return (
    <div class="strip">
      <span class="faint">{name}</span>
      <div
        class="tokens"
        role="listbox"
        aria-label={`Tokens, by the surprise of the ${name}`}
        tabIndex={0}
        onKeyDown={walk}
        aria-activedescendant={`${name}-${chosen}`}
      >
        {tokens.map(({ id, text }, index) => (
          <span
            key={index}
            id={`${name}-${index}`}
            role="option"
            aria-selected={index === chosen}
            class="token"
            style={{ '--shade': `${Math.round(100 * surpriseOf(logprobs[index] ?? null))}%` }}
            onClick={() => setChosen(index)}
          >
            {text === null ? id : lineOf(text.replaceAll('\n', '⏎')) || '␣'}
          </span>
        ))}
      </div>
    </div>
  );
}

function Pairs({ run, turn: { id, pairs, rows } }: { run: string; turn: NodeAnswer }) {
  if (pairs.length === 0 && rows.length === 0) return null;
  const end = (node: string) => node.slice(node.lastIndexOf('/') + 1);
  return (
    <>
      {pairs.length > 0 && (
        <>
          <h2>Pairs</h2>
          <Table caption="Pairs" head={['beside', 'this one is', '#value', '#gap', 'what became of it']}>
            {pairs.map(({ better, worse, value, gap, reason }) => {
              const other = better === id ? worse : better;
              return (
                <tr key={other}>
                  <th scope="row" class="mono">
                    <a href={href(['run', run, 'turn', other])}>{end(other)}</a>
                  </th>
                  <td>{better === id ? 'better' : 'worse'}</td>
                  <td class="number">{number(value)}</td>
                  <td class="number">{number(gap)}</td>
                  <td>{reason === null ? <b>trained on</b> : reason}</td>
                </tr>
              );
            })}
          </Table>
        </>
      )}
      <h2>Training rows</h2>
      {rows.length === 0 && <p class="faint">None: it was not trained on.</p>}
      <ul>
        {rows.map(({ kind, of, note }) => (
          <li key={`${kind} ${of}`}>
            {kind === 'pair' ? 'A pair with ' : 'Dialogue '}
            <a class="mono" href={href(['run', run, kind === 'pair' ? 'turn' : 'dialogue', of])}>
              {end(of)}
            </a>
            , {note}
          </li>
        ))}
      </ul>
    </>
  );
}

function Turns({
  run,
  name,
  turns,
  none,
}: {
  run: string;
  name: string;
  turns: readonly TreeNode[];
  none: string;
}) {
  if (turns.length === 0) return <p class="faint">{none}</p>;
  return (
    <Table caption={name} head={['turn', 'speaker', 'says', '#value', '#dialogues', '#tokens']}>
      {turns.map(({ id, speaker, text, value, visits, tokens }) => (
        <tr key={id}>
          <th scope="row" class="mono">
            <a href={href(['run', run, 'turn', id])}>{id.slice(id.lastIndexOf('/') + 1)}</a>
          </th>
          <td>{speaker}</td>
          <td class="says">
            <Line value={text} limit={160} />
          </td>
          <td class="number">{number(value)}</td>
          <td class="number">{visits}</td>
          <td class="number">{tokens}</td>
        </tr>
      ))}
    </Table>
  );
}
