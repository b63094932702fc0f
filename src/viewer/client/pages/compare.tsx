// Two runs side by side: their figures, and the same task in both, two dialogues next to each other.
import { useEffect, useState } from 'preact/hooks';
import type { RunAnswer, TaskRow } from '../../api.ts';
import { Figure, number, Problem, Shown, Table, Text } from '../parts.tsx';
import { Plot } from '../plot.tsx';
import { href } from '../route.ts';
import { type AnswerError, ask, useAnswer } from '../source.ts';
import { Change } from './runs.tsx';
import { Choice } from './tasks.tsx';

type Query = Readonly<Record<string, string>>;

export function Compare({ one, other, query }: { one: string; other: string; query: Query }) {
  const first = useAnswer('/api/runs/{run}', { run: one });
  const second = useAnswer('/api/runs/{run}', { run: other });
  return (
    <Shown answer={first}>
      {(left) => (
        <Shown answer={second}>
          {(right) => <Both ids={[one, other]} runs={[left, right]} query={query} />}
        </Shown>
      )}
    </Shown>
  );
}

function Both({
  ids,
  runs,
  query,
}: {
  ids: readonly [string, string];
  runs: readonly [RunAnswer, RunAnswer];
  query: Query;
}) {
  const shared = runs[0].phases
    .filter(
      ({ dialogues, name }) =>
        dialogues > 0 && runs[1].phases.some((phase) => phase.name === name && phase.dialogues > 0),
    )
    .map(({ name }) => name);
  const phase =
    shared.find((name) => name === query.phase) ??
    shared.findLast((name) => !name.includes('/')) ??
    shared.at(-1);
  const go = (change: Query) => location.replace(href(['compare', ...ids], { ...query, ...change }));
  return (
    <>
      <div class="views">
        {runs.map((run, index) => (
          <section key={ids[index]} aria-label={ids[index]}>
            <h2>
              <a href={href(['run', ids[index]!])}>{ids[index]}</a>
            </h2>
            <dl class="figures">
              <Figure
                name="task score"
                value={
                  <Change from={run.entry.base?.taskScore} to={run.entry.latest?.taskScore} decimals={3} />
                }
              />
              <Figure
                name="tokens per dialogue"
                value={
                  <Change from={run.entry.base?.tokens} to={run.entry.latest?.tokens} decimals={1} less />
                }
              />
              <Figure name="recipe" value={run.entry.recipe} note={run.entry.preset} />
            </dl>
            <Plot
              title="task score"
              decimals={3}
              points={run.curve.map(({ taskScore: y, phase: name, interval, isTest: isApart }, x) => ({
                x,
                y,
                name,
                interval,
                isApart,
              }))}
              labels={run.curve.map(({ label }, x): [number, string] => [x, label])}
            />
          </section>
        ))}
      </div>
      <Settings ids={ids} runs={runs} />
      {phase === undefined ? (
        <p class="faint">No phase is in both runs.</p>
      ) : (
        <SameTasks ids={ids} phase={phase} phases={shared} task={query.task} go={go} />
      )}
    </>
  );
}

/** What differs between the recipes. */
function Settings({ ids, runs }: { ids: readonly [string, string]; runs: readonly [RunAnswer, RunAnswer] }) {
  const [left, right] = runs.map(({ recipe }) => flat(recipe));
  const keys = [...new Set([...Object.keys(left!), ...Object.keys(right!)])].filter(
    (key) => left![key] !== right![key],
  );
  if (keys.length === 0) return <p class="faint">Their recipes are the same.</p>;
  return (
    <details>
      <summary>{keys.length} settings differ</summary>
      <Table caption="Settings" head={['setting', ...ids]}>
        {keys.map((key) => (
          <tr key={key}>
            <th scope="row" class="mono">
              {key}
            </th>
            <td>{left![key] ?? '–'}</td>
            <td>{right![key] ?? '–'}</td>
          </tr>
        ))}
      </Table>
    </details>
  );
}

/** A recipe's settings by their names, as `--set` has them. */
function flat(settings: Readonly<Record<string, unknown>>, before = ''): Record<string, string> {
  return Object.assign(
    {},
    ...Object.entries(settings).map(([key, value]) =>
      typeof value === 'object' && value !== null
        ? flat(value as Record<string, unknown>, `${before}${key}.`)
        : { [`${before}${key}`]: String(value) },
    ),
  );
}

/** Most rows that are compared, in pages of a run's tasks. */
const mostPages = 10;
type Pair = readonly [TaskRow, TaskRow];

async function rowsOf(run: string, phase: string): Promise<TaskRow[]> {
  const rows: TaskRow[] = [];
  for (let page = 0; page < mostPages; page++) {
    const answer = await ask('/api/runs/{run}/tasks', { run }, { phase, sort: 'task', page: String(page) });
    rows.push(...answer.rows);
    if (rows.length >= answer.total) break;
  }
  return rows;
}

function SameTasks({
  ids,
  phase,
  phases,
  task,
  go,
}: {
  ids: readonly [string, string];
  phase: string;
  phases: readonly string[];
  task: string | undefined;
  go: (change: Query) => void;
}) {
  const [pairs, setPairs] = useState<readonly Pair[] | null>(null);
  const [failure, setFailure] = useState<AnswerError | null>(null);
  const [left, right] = ids;
  useEffect(() => {
    let isWanted = true;
    setPairs(null);
    Promise.all([rowsOf(left, phase), rowsOf(right, phase)]).then(
      ([one, other]) => {
        const byTask = new Map(other.map((row) => [row.taskId, row]));
        const both = one.flatMap((row): Pair[] => {
          const same = byTask.get(row.taskId);
          return same === undefined ? [] : [[row, same]];
        });
        const size = ([a, b]: Pair) => Math.abs((b.taskScore ?? 0) - (a.taskScore ?? 0));
        const tokens = ([a, b]: Pair) => Math.abs((b.tokens ?? 0) - (a.tokens ?? 0));
        both.sort((a, b) => size(b) - size(a) || tokens(b) - tokens(a));
        if (isWanted) setPairs(both);
      },
      (error) => {
        if (isWanted) setFailure(error);
      },
    );
    return () => {
      isWanted = false;
    };
  }, [left, right, phase]);
  const chosen = pairs?.find(([{ taskId }]) => taskId === task) ?? pairs?.[0];
  const won = pairs?.filter(([a, b]) => (b.taskScore ?? 0) > (a.taskScore ?? 0)).length ?? 0;
  const lost = pairs?.filter(([a, b]) => (b.taskScore ?? 0) < (a.taskScore ?? 0)).length ?? 0;
  return (
    <>
      <h2>The same tasks</h2>
      <div class="controls">
        <Choice
          name="phase"
          value={phase}
          options={phases.map((name) => [name, name])}
          onChange={(value) => go({ phase: value })}
        />
        {pairs !== null && (
          <span class="faint">
            {pairs.length} tasks in both: {right} scores more on {won}, less on {lost}
          </span>
        )}
      </div>
      {failure !== null && <Problem failure={failure.failure} />}
      {pairs === null && failure === null && <p class="faint loading">reading …</p>}
      {pairs !== null && pairs.length > 0 && (
        <div class="short">
          <Table
            caption="Tasks in both"
            head={['task', `#score, ${left}`, `#score, ${right}`, `#tokens, ${left}`, `#tokens, ${right}`]}
          >
            {pairs.slice(0, 200).map(([a, b]) => (
              <tr key={a.taskId} class={a.taskId === chosen?.[0].taskId ? 'chosen' : ''}>
                <th scope="row">
                  <button type="button" class="quiet" onClick={() => go({ task: a.taskId })}>
                    {a.taskId}
                  </button>
                </th>
                <td class="number">{number(a.taskScore, 2)}</td>
                <td class="number">
                  <Signed from={a.taskScore} to={b.taskScore} decimals={2} />
                </td>
                <td class="number">{number(a.tokens, 1)}</td>
                <td class="number">
                  <Signed from={a.tokens} to={b.tokens} decimals={1} less />
                </td>
              </tr>
            ))}
          </Table>
        </div>
      )}
      {chosen !== undefined && (
        <div class="views below">
          {chosen.map((row, index) => (
            <First key={`${ids[index]} ${row.tree}`} run={ids[index]!} tree={row.tree} />
          ))}
        </div>
      )}
    </>
  );
}

const Signed = ({
  from,
  to,
  decimals,
  less = false,
}: {
  from: number | null;
  to: number | null;
  decimals: number;
  less?: boolean;
}) => {
  const gain = from === null || to === null ? 0 : less ? from - to : to - from;
  return <span class={gain > 0 ? 'better' : gain < 0 ? 'worse' : ''}>{number(to, decimals)}</span>;
};

/** The first dialogue of a task in a run. */
function First({ run, tree }: { run: string; tree: string }) {
  const answer = useAnswer('/api/runs/{run}/trees/{tree}', { run, tree });
  const dialogue = answer.value?.dialogues[0]?.id;
  const held = useAnswer(
    '/api/runs/{run}/dialogues/{dialogue}',
    dialogue === undefined ? null : { run, dialogue },
  );
  return (
    <section class="view tall" aria-label={`Dialogue of ${run}`}>
      <h3>
        {run} <small class="inline">{tree}</small>
      </h3>
      <Shown answer={held}>
        {({ way, outcome, taskScore, tokens, answer: said, id, reward }) => (
          <>
            <p class="faint">
              {outcome}, score {number(taskScore, 2)}, {tokens} tokens
              {reward !== null && `, reward ${number(reward)}`}, answer{' '}
              <Text value={said ?? 'none'} limit={80} />
            </p>
            {way.map((turn) => (
              <div key={turn.id} class="message">
                <span class="kind">{turn.speaker}</span>
                <Text value={turn.text} limit={800} />
              </div>
            ))}
            <p>
              <a href={href(['run', run, 'dialogue', id])}>the whole dialogue</a>
            </p>
          </>
        )}
      </Shown>
    </section>
  );
}
