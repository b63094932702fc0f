// How results are shown: the comparison of two teams, an evaluation, and dialogues before and after.
import { failedOf, type TeamMetrics } from '../domain/metrics.ts';
import {
  messageTokens,
  type Observation,
  type Trajectory,
  type Verdict,
  writtenOf,
} from '../domain/transcript.ts';
import { machineFigures } from '../run/figures.ts';
import type { TrainingResult } from '../run/train.ts';
import type { Scenario } from '../scenario/types.ts';
import { formatTable, line, type Output, quoted } from './output.ts';

/** The figures that every summary object carries. */
export function summaryMetrics(metrics: TeamMetrics) {
  const { f1, exactMatch, tokens, medianTokens, p95Tokens, agreement, turns, n, seats } =
    machineFigures(metrics);
  return { f1, exactMatch, tokens, medianTokens, p95Tokens, agreement, turns, n, ...(seats && { seats }) };
}

const percent = (share: number) => `${(100 * share).toFixed(1)} %`;

const failedRow = 'failed dialogues';
const none = '–';

/** Each figure with its name, as people read it; `seats` are those that any of the teams shown has. */
function figures(
  metrics: TeamMetrics,
  metricName: string,
  seats: readonly string[] = seatsOf([metrics]),
): readonly (readonly [string, string])[] {
  const [low, high] = metrics.taskScoreInterval;
  return [
    [metricName.toUpperCase(), metrics.taskScore.toFixed(3)],
    ['  95 % interval', `${low.toFixed(3)} – ${high.toFixed(3)}`],
    ...seats.map((seat) => [`  score of ${seat}`, metrics.seats?.[seat]?.toFixed(3) ?? '–'] as const),
    ['exact match', percent(metrics.exactMatch)],
    ['tokens per dialogue', metrics.tokens.toFixed(1)],
    ['  median, 95th percentile', `${metrics.medianTokens}, ${metrics.p95Tokens}`],
    ['agreement', percent(metrics.agreement)],
    ['turns', metrics.turns.toFixed(2)],
    ['dialogues', String(metrics.n)],
    ['tokens of the environment', metrics.environmentTokens?.toFixed(1) ?? none],
    ['tokens of private notes', metrics.noteTokens?.toFixed(1) ?? none],
    [failedRow, failedOf(metrics)],
  ];
}

const seatsOf = (teams: readonly TeamMetrics[]) => [
  ...new Set(teams.flatMap(({ seats = {} }) => Object.keys(seats))),
];

export function sayComparison(
  { base, trained, swapped }: Pick<TrainingResult, 'base' | 'trained' | 'swapped'>,
  { metric }: Pick<Scenario, 'metric'>,
  output: Output,
): void {
  const teams = { base, trained, ...(swapped && { swapped }) };
  const seats = seatsOf(Object.values(teams));
  const columns = Object.values(teams).map((metrics) => figures(metrics, metric.name, seats));
  const rows = columns[0]!.map(([name], row) => [name, ...columns.map((column) => column[row]![1])]);
  output.say(`\n${formatTable([['', ...Object.keys(teams)], ...rows.filter(isWorthARow)])}`);
  if (swapped === null) return;
  output.say(
    'swapped: each role speaks with the weights that were trained for the next one; where that is much worse than trained, the roles have specialised.',
  );
}

export function sayMetrics(metrics: TeamMetrics, { metric }: Scenario, output: Output): void {
  output.say(`\n${formatTable(figures(metrics, metric.name).filter(isWorthARow))}`);
}

/** Failures, and what not every scenario has, are shown where there are any. */
const isWorthARow = ([name, ...values]: readonly string[]) =>
  values.some((value) => value !== none && (name !== failedRow || value !== '0'));

/** The same tasks' dialogues before and after. */
export function saySamples(samples: TrainingResult['samples'], output: Output): void {
  for (const { before, after } of samples) {
    output.say(`\n── ${before.taskId}, base ${describe(before)}\n${transcript(before)}`);
    output.say(`── ${after.taskId}, trained ${describe(after)}\n${transcript(after)}`);
  }
}

export function sayTranscripts(trajectories: readonly Trajectory[], output: Output): void {
  for (const trajectory of trajectories) {
    output.say(`\n── ${trajectory.taskId} ${describe(trajectory)}\n${transcript(trajectory)}`);
  }
}

function describe({ turns, outcome, verdict }: Trajectory): string {
  const score = verdict === null ? '' : `, score ${verdict.taskScore.toFixed(2)}${inSeats(verdict)}`;
  return `(${messageTokens(turns)} tokens, ${outcome}${score})`;
}

/** The score of each seat, where there are seats. */
export function inSeats({ seats }: Verdict): string {
  if (seats === undefined) return '';
  const each = Object.entries(seats).map(([seat, score]) => `${seat} ${score.toFixed(2)}`);
  return ` (${each.join(', ')})`;
}

export function transcript({
  opening = [],
  turns,
  failure,
}: Pick<Trajectory, 'opening' | 'turns' | 'failure'>): string {
  const said = (speaker: string, text: string, to?: readonly string[]) =>
    `${speaker}${to === undefined ? '' : ` (to ${to.join(', ') || 'nobody'})`}: ${quoted(text)}`;
  const observed = (observations: readonly Observation[] = []) =>
    observations.map(({ text, to }) => said('environment', text, to));
  const lines = [
    ...observed(opening),
    ...turns.flatMap((turn) => [said(turn.speaker, writtenOf(turn), turn.to), ...observed(turn.observed)]),
  ];
  return [...lines, ...(failure === null ? [] : [`failed: ${line(failure)}`])].join('\n');
}
