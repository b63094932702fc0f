// A dialogue: what its actors said to each other, as a sequence diagram, and in which state each was after every message.
import { useState } from 'preact/hooks';
import type { DialogueAnswer } from '../../api.ts';
import { environment, judge, type SequenceMessage, sequenceOf, statesAfter } from '../../sequence.ts';
import { ChartView } from '../chart.tsx';
import { Figure, Line, number, Shown } from '../parts.tsx';
import { href } from '../route.ts';
import { useAnswer } from '../source.ts';

export function Dialogue({ run, dialogue }: { run: string; dialogue: string }) {
  const answer = useAnswer('/api/runs/{run}/dialogues/{dialogue}', { run, dialogue });
  return (
    <Shown answer={answer}>{(value) => <DialogueView key={dialogue} run={run} dialogue={value} />}</Shown>
  );
}

function DialogueView({ run, dialogue }: { run: string; dialogue: DialogueAnswer }) {
  const {
    root,
    outcome,
    failure,
    reward,
    terms,
    taskScore,
    answer,
    seats,
    tokens,
    kept,
    edgeCases,
    roles,
    way,
  } = dialogue;
  const messages = sequenceOf(dialogue);
  const [at, setAt] = useState(messages.length - 1);
  const before = way.filter(({ isOwn }) => !isOwn);
  return (
    <>
      <dl class="figures">
        <Figure
          name="outcome"
          value={outcome ?? 'under way'}
          note={failure === null ? undefined : <Line value={failure} />}
        />
        <Figure
          name="score"
          value={number(taskScore, 2)}
          note={answer === null ? 'no answer' : <Line value={`answer ${answer}`} limit={40} />}
        />
        <Figure
          name="reward"
          value={number(reward)}
          note={kept === null ? undefined : kept ? 'trained on' : 'not selected'}
        />
        {terms !== null && (
          <Figure
            name="its terms"
            value={`${number(terms.task, 2)} · ${number(terms.tokenShare, 2)} · ${number(terms.loss, 2)}`}
            note="task · token share · R_loss"
          />
        )}
        <Figure name="tokens" value={tokens} note={`${way.length} turns`} />
        {seats !== null &&
          Object.entries(seats).map(([role, score]) => (
            <Figure key={role} name={`score of ${role}`} value={number(score, 2)} />
          ))}
        {edgeCases.length > 0 && <Figure name="open cases" value={edgeCases.join(', ')} />}
      </dl>
      <p>
        <a href={href(['run', run, 'tree', root], { node: dialogue.leaf })}>In its tree</a>
      </p>
      {before.length > 0 && (
        <p class="faint">
          It goes on from{' '}
          <a href={href(['run', run, 'turn', before.at(-1)!.id])}>
            {before.length} {before.length === 1 ? 'turn' : 'turns'} that another dialogue said
          </a>
          .
        </p>
      )}
      <h2>What was said to whom</h2>
      <Sequence run={run} roles={roles} messages={messages} at={at} onAt={setAt} />
      <h2>The actors after message {at + 1}</h2>
      <Actors run={run} roles={roles} messages={messages.slice(0, at + 1)} outcome={outcome} />
    </>
  );
}

/** Lifelines as columns, messages as rows; one row is chosen. */
function Sequence({
  run,
  roles,
  messages,
  at,
  onAt,
}: {
  run: string;
  roles: readonly string[];
  messages: readonly SequenceMessage[];
  at: number;
  onAt: (index: number) => void;
}) {
  const actors = [environment, ...roles, judge];
  const walk = (event: KeyboardEvent) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const next = at + (step ?? 0);
    if (step === undefined || messages[next] === undefined) return;
    event.preventDefault();
    onAt(next);
    (event.currentTarget as HTMLElement).querySelectorAll<HTMLElement>('button.message-row')[next]?.focus();
  };
  return (
    <section class="wide sequence" aria-label="Sequence of messages" onKeyDown={walk}>
      <div class="lifelines" style={{ '--actors': String(actors.length) }}>
        <svg class="definitions" aria-hidden="true">
          <defs>
            <marker
              id="head"
              viewBox="0 0 8 8"
              refX="8"
              refY="4"
              markerWidth="8"
              markerHeight="8"
              orient="auto"
            >
              <path d="M0 0L8 4L0 8z" />
            </marker>
          </defs>
        </svg>
        <div class="actors">
          {actors.map((actor) => (
            <span key={actor}>{actor}</span>
          ))}
        </div>
        <div class="rails" aria-hidden="true">
          {actors.map((actor) => (
            <span key={actor} />
          ))}
        </div>
        <ol>
          {messages.map((message, index) => (
            <li key={index} class={index === at ? 'chosen' : ''}>
              <Message
                run={run}
                actors={actors}
                message={message}
                isChosen={index === at}
                onChoose={() => onAt(index)}
              />
            </li>
          ))}
        </ol>
      </div>
    </section>
  );
}

function Message({
  run,
  actors,
  message: { from, to, type, text, node },
  isChosen,
  onChoose,
}: {
  run: string;
  actors: readonly string[];
  message: SequenceMessage;
  isChosen: boolean;
  onChoose: () => void;
}) {
  const place = (actor: string) => actors.indexOf(actor);
  const ends = to.map(place).filter((end) => end >= 0);
  const start = place(from);
  const across = (index: number) => `${((index + 0.5) / actors.length) * 100}%`;
  return (
    <>
      <svg class="arrows" aria-hidden="true" width="100%" height="14">
        {ends
          .filter((end) => end !== start)
          .map((end) => (
            <line
              key={end}
              class="shaft"
              x1={across(start)}
              x2={across(end)}
              y1="7"
              y2="7"
              marker-end="url(#head)"
            />
          ))}
        <circle class="start" cx={across(start)} cy="7" r="3.5" />
      </svg>
      <button type="button" class="message-row" aria-pressed={isChosen} onClick={onChoose}>
        <span class="faint">
          {from} → {to.join(', ')}: {type}
        </span>{' '}
        {text !== '' && <Line value={text} limit={isChosen ? 4000 : 220} />}
      </button>
      {isChosen && node !== null && (
        <a class="small" href={href(['run', run, 'turn', node])}>
          open the turn
        </a>
      )}
    </>
  );
}

/** The statecharts of a dialogue's actors, with the states that they are in. */
function Actors({
  run,
  roles,
  messages,
  outcome,
}: {
  run: string;
  roles: readonly string[];
  messages: readonly SequenceMessage[];
  outcome: string | null;
}) {
  const answer = useAnswer('/api/runs/{run}/machines', { run });
  const actors = statesAfter(roles, messages, outcome);
  return (
    <>
      <ul class="actor-states" aria-live="polite">
        {actors.map(({ name, state, note }) => (
          <li key={name}>
            <b>{name}</b> {state}
            {note !== '' && <small>{note}</small>}
          </li>
        ))}
      </ul>
      <Shown answer={answer}>
        {({ charts }) => (
          <div class="charts">
            {charts
              .filter(({ id }) => actors.some(({ machine }) => machine === id))
              .map((chart) => (
                <ChartView
                  key={chart.id}
                  chart={chart}
                  current={[
                    ...new Set(actors.flatMap(({ machine, state }) => (machine === chart.id ? state : []))),
                  ]}
                />
              ))}
          </div>
        )}
      </Shown>
    </>
  );
}
