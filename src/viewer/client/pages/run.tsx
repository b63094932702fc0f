// A run at a glance: is it learning, what does it cost, where is it, is anything failing.
import { useEffect, useState } from 'preact/hooks';
import type { LiveEvent, PhaseView, RunAnswer } from '../../api.ts';
import { count, duration, Figure, Line, moment, number, Problem, Shown, Table, Text } from '../parts.tsx';
import { Plot } from '../plot.tsx';
import { href } from '../route.ts';
import { follow, isStatic, revision, useAnswer } from '../source.ts';
import { Change, State } from './runs.tsx';

export function Run({ run }: { run: string }) {
  const answer = useAnswer('/api/runs/{run}', { run });
  return <Shown answer={answer}>{(value) => <Overview run={run} {...value} />}</Shown>;
}

function Overview({ run, ...answer }: { run: string } & RunAnswer) {
  const { entry, phases, warnings, dialogues, failedDialogues, sampledTokens, events } = answer;
  const now = phases.at(-1);
  const isRunning = entry.state === 'running';
  return (
    <>
      <RunTabs run={run} here="overview" />
      {entry.failure !== null && <Problem failure={entry.failure} />}
      {warnings.map((warning) => (
        <Problem key={warning} failure={{ code: 'warning', message: warning }} />
      ))}
      <dl class="figures">
        <Figure
          name="state"
          value={<State state={entry.state} />}
          note={now === undefined ? undefined : now.name}
        />
        <Figure
          name="task score"
          value={<Change from={entry.base?.taskScore} to={entry.latest?.taskScore} decimals={3} />}
          note={intervalNote(entry.latest?.interval ?? null)}
        />
        <Figure
          name="tokens per dialogue"
          value={<Change from={entry.base?.tokens} to={entry.latest?.tokens} decimals={1} less />}
        />
        <Figure name="dialogues" value={count(dialogues)} note={`${count(sampledTokens)} tokens sampled`} />
        <Figure
          name="failed dialogues"
          value={<span class={failedDialogues > 0 ? 'worse' : ''}>{count(failedDialogues)}</span>}
        />
        <Figure name="work" value={duration(entry.seconds)} note={`since ${moment(entry.startedAt)}`} />
        <Figure name="events" value={count(events)} />
      </dl>
      <Curves {...answer} />
      <Phases run={run} phases={phases} isRunning={isRunning} />
      {!isStatic && <Live run={run} from={Math.max(0, events - 12)} isRunning={isRunning} />}
      <Begun {...answer} />
    </>
  );
}

const intervalNote = (interval: readonly [number, number] | null) =>
  interval === null ? undefined : `95 %: ${number(interval[0])} – ${number(interval[1])}`;

const tabs = [
  ['overview', []],
  ['tasks', ['tasks']],
  ['machines', ['machines']],
] as const;

/** The ways that lead from a run. */
export const RunTabs = ({ run, here }: { run: string; here: string }) => (
  <nav class="tabs" aria-label="Of this run">
    {tabs.map(([name, path]) => (
      <a key={name} href={href(['run', run, ...path])} aria-current={name === here ? 'page' : undefined}>
        {name}
      </a>
    ))}
  </nav>
);

function Curves({ curve, steps }: Pick<RunAnswer, 'curve' | 'steps'>) {
  const labels = curve.map(({ label, isTest, phase }, x): [number, string] => [
    x,
    isTest || !/pilot|evaluate/.test(phase) ? label : '',
  ]);
  const pointsOf = (figureOf: (point: RunAnswer['curve'][number]) => number | null) =>
    curve.flatMap((point, x) => {
      const y = figureOf(point);
      return y === null ? [] : [{ x, y, name: point.phase, isApart: point.isTest }];
    });
  const scores = curve.map(({ taskScore: y, phase: name, interval, isTest: isApart }, x) => ({
    ...{ x, y, name, interval, isApart },
  }));
  const losses = steps.map(({ loss: y, phase, step }, x) => ({ x, y, name: `${phase}, step ${step + 1}` }));
  const starts = steps.flatMap(({ phase }, x): [number, string][] =>
    x === 0 || steps[x - 1]!.phase !== phase ? [[x, phase.split('/')[0]!]] : [],
  );
  return (
    <section aria-label="How it goes">
      <div class="plots">
        <Plot title="task score" points={scores} labels={labels} decimals={3} />
        <Plot
          title="tokens per dialogue"
          points={pointsOf(({ tokens }) => tokens)}
          labels={labels}
          decimals={1}
        />
        <Plot title="mean reward" points={pointsOf(({ reward }) => reward)} labels={labels} decimals={3} />
        <Plot title="training loss" points={losses} labels={starts} decimals={4} />
      </div>
      {curve.length > 0 && (
        <p class="faint">
          Rings are test tasks, dots the training tasks of an iteration; bars are 95 % intervals.
        </p>
      )}
    </section>
  );
}

/** What came of a phase, in a few words. */
function outcomeOf({ output }: PhaseView): string {
  switch (output?.kind) {
    case 'generate':
      return `${count(output.dialogues)} dialogues${output.failed > 0 ? `, ${output.failed} failed` : ''}`;
    case 'rank':
      return `mean reward ${number(output.meanReward)}, score ${number(output.metrics.taskScore)}`;
    case 'select':
      return `${output.kept} kept${output.threshold === null ? '' : `, down to ${number(output.threshold)}`}`;
    case 'search':
      return `${output.trees} trees, ${count(output.dialogues)} roll-outs, ${count(output.merged)} merged turns, mean reward ${number(output.meanReward)}`;
    case 'pair':
      return `${output.kept} of ${output.found} pairs, mean gap ${number(output.meanGap)}`;
    case 'train':
      return `${output.steps} steps, loss ${number(output.loss, 4)}`;
    case 'evaluate':
      return `score ${number(output.metrics.taskScore)}, ${number(output.metrics.tokens, 1)} tokens${output.metrics.failed > 0 ? `, ${count(output.metrics.failed)} failed` : ''}`;
    default:
      return '';
  }
}

function Phases({
  run,
  phases,
  isRunning,
}: {
  run: string;
  phases: readonly PhaseView[];
  isRunning: boolean;
}) {
  return (
    <>
      <h2>Phases</h2>
      <Table caption="Phases" head={['phase', 'what came of it', '#dialogues', '#took']}>
        {phases.map((phase) => {
          const { name, dialogues, startedAt, endedAt } = phase;
          const took = endedAt === null ? null : (Date.parse(endedAt) - Date.parse(startedAt)) / 1000;
          return (
            <tr key={name}>
              <th scope="row">
                {dialogues > 0 ? <a href={href(['run', run, 'tasks'], { phase: name })}>{name}</a> : name}
              </th>
              <td>{outcomeOf(phase) || (took === null && (isRunning ? 'under way' : 'cut off'))}</td>
              <td class="number">{dialogues > 0 ? count(dialogues) : ''}</td>
              <td class="number">{took === null ? '…' : duration(took)}</td>
            </tr>
          );
        })}
      </Table>
    </>
  );
}

/** Events that the page keeps. */
const shownEvents = 12;

/** What is happening: the last events, and figures asked for again while they come. */
function Live({ run, from, isRunning }: { run: string; from: number; isRunning: boolean }) {
  const [events, setEvents] = useState<readonly LiveEvent[]>([]);
  useEffect(() => {
    let askedAt = Date.now();
    return follow(run, from, (more) => {
      setEvents((known) => [...known, ...more].slice(-shownEvents));
      const isNews = more.some(({ type }) => type === 'phase.completed' || type === 'run.completed');
      if (isNews || Date.now() - askedAt > 3000) {
        askedAt = Date.now();
        revision.value++;
      }
    });
  }, [run]);
  return (
    <>
      <h2>{isRunning ? 'Now' : 'Last events'}</h2>
      <Table caption="Last events" head={['event', 'what', 'of', 'says']}>
        {events.toReversed().map(({ seq, type, phase, of, speaker, text }) => (
          <tr key={seq}>
            <td class="number faint">{seq}</td>
            <td>{type}</td>
            <td class="mono">{of !== null ? <Line value={of} /> : (phase ?? '')}</td>
            <td>
              {speaker !== null && <b>{speaker} </b>}
              {text !== '' && <Line value={text} />}
            </td>
          </tr>
        ))}
      </Table>
    </>
  );
}

function Begun({ command, versions, base, partners, judge, recipe }: RunAnswer) {
  return (
    <details class="below">
      <summary>How it was begun</summary>
      <dl class="pairs">
        <dt>command</dt>
        <dd class="mono">
          <Text value={`optima ${command.join(' ')}`} />
        </dd>
        <dt>base</dt>
        <dd class="mono">{base}</dd>
        {Object.entries(partners).map(([role, folder]) => (
          <>
            <dt>{role}</dt>
            <dd>
              <Text value={folder} />
            </dd>
          </>
        ))}
        {judge !== null && (
          <>
            <dt>judge</dt>
            <dd>
              <Text value={judge} />
            </dd>
          </>
        )}
        <dt>engine</dt>
        <dd>
          <Text value={`${versions.engine}, optima-actors ${versions.package}, Node ${versions.node}`} />
        </dd>
        <dt>recipe</dt>
        <dd class="mono">
          <Text value={JSON.stringify(recipe, null, 2)} />
        </dd>
      </dl>
    </details>
  );
}
