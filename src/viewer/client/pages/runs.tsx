// The runs: which there are, how far each is, and whether it learned.
import { useState } from 'preact/hooks';
import type { RunEntry, RunState } from '../../api.ts';
import { duration, moment, number, Shown, Table, Text } from '../parts.tsx';
import { usePoll } from '../poll.ts';
import { href } from '../route.ts';
import { useAnswer } from '../source.ts';

const stateNames: Readonly<Record<RunState, string>> = {
  running: 'running',
  completed: 'done',
  failed: 'failed',
  stopped: 'stopped',
  unreadable: 'unreadable',
};

export const State = ({ state }: { state: RunState }) => (
  <span class={`state ${state}`}>
    <span aria-hidden="true" class="dot" />
    {stateNames[state]}
  </span>
);

export function Runs() {
  const answer = useAnswer('/api/runs', {});
  usePoll(answer.value?.runs.every(({ isRead }) => isRead) === false ? 500 : 4000);
  const [marked, setMarked] = useState<readonly string[]>([]);
  const toggle = (id: string) =>
    setMarked(marked.includes(id) ? marked.filter((other) => other !== id) : [...marked.slice(-1), id]);
  return (
    <Shown answer={answer}>
      {({ runs }) => (
        <>
          {runs.length === 0 && (
            <p>
              No run here yet. <code>optima train two-hop-qa</code> makes one.
            </p>
          )}
          {runs.length > 0 && (
            <Table
              caption="Runs, newest first"
              head={['compare', 'run', 'state', '#task score', '#tokens', 'began', '#work', 'recipe']}
            >
              {runs.map((run) => (
                <Row
                  key={run.id}
                  run={run}
                  isMarked={marked.includes(run.id)}
                  onMark={() => toggle(run.id)}
                />
              ))}
            </Table>
          )}
          {runs.length > 1 && (
            <p class="below">
              {marked.length === 2 ? (
                <a class="button" href={href(['compare', ...marked])}>
                  Compare {marked[0]} and {marked[1]}
                </a>
              ) : (
                <span class="faint">Mark two runs to compare them.</span>
              )}
            </p>
          )}
        </>
      )}
    </Shown>
  );
}

function Row({ run, isMarked, onMark }: { run: RunEntry; isMarked: boolean; onMark: () => void }) {
  const { id, state, scenario, recipe, preset, isRead, base, latest, startedAt, seconds, failure } = run;
  if (state === 'unreadable') {
    return (
      <tr>
        <td />
        <td>
          <Text value={id} />
        </td>
        <td>
          <State state={state} />
        </td>
        <td colSpan={5} class="faint">
          <Text value={failure?.message ?? ''} />
        </td>
      </tr>
    );
  }
  return (
    <tr>
      <td>
        <input type="checkbox" checked={isMarked} onChange={onMark} aria-label={`Compare ${id}`} />
      </td>
      <th scope="row">
        <a href={href(['run', id])}>
          <Text value={id} />
        </a>
        <small class="faint">{scenario}</small>
      </th>
      <td>
        <State state={state} />
      </td>
      <td class="number">
        {isRead ? (
          <Change from={base?.taskScore} to={latest?.taskScore} decimals={3} />
        ) : (
          <span class="faint">reading</span>
        )}
      </td>
      <td class="number">
        <Change from={base?.tokens} to={latest?.tokens} decimals={1} less />
      </td>
      <td class="faint">{moment(startedAt)}</td>
      <td class="number">{duration(seconds)}</td>
      <td>
        <Text value={`${recipe}, ${preset}`} />
      </td>
    </tr>
  );
}

/** How a figure was and has become; `less`: the lower, the better. */
export function Change({
  from,
  to,
  decimals,
  less = false,
}: {
  from: number | undefined;
  to: number | undefined;
  decimals: number;
  less?: boolean;
}) {
  if (from === undefined || to === undefined) return <>{number(to ?? from, decimals)}</>;
  const gain = less ? from - to : to - from;
  const kind = Math.abs(gain) < 0.5 * 10 ** -decimals ? '' : gain > 0 ? 'better' : 'worse';
  return (
    <>
      <span class="faint">{number(from, decimals)} → </span>
      <span class={kind}>
        {number(to, decimals)}
        {kind !== '' && <span class="only-heard"> ({kind})</span>}
      </span>
    </>
  );
}
