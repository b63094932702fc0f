// Studies: ways of training that are compared on one scenario over several seeds. Which runs one takes, and the document and
// plots that they come to.
import { dialoguesIn, mean, standardDeviation } from '../domain/metrics.ts';
import type { RecipeName } from '../recipe/schema.ts';
import type { MachineFigures } from '../run/figures.ts';
import { plotSvg, type Series } from './plot.ts';
import { markdownTable, percent, type RunResult, withInterval } from './results-document.ts';

/** A way of training that is compared with the others. */
export interface Condition {
  /** Of its runs' folders. */
  readonly name: string;
  readonly title: string;
  readonly recipe: RecipeName;
  /** What it changes of the preset, as `--set` takes it. */
  readonly settings: readonly string[];
  /** Whether the paper claims something of it. */
  readonly claimed: boolean;
}

/** Runs that are compared with each other, and in which document. */
export interface Study {
  readonly name: string;
  readonly description: string;
  readonly conditions: readonly Condition[];
  /** What its table shows, in a sentence. */
  readonly note: string;
}

const hybrid = (name: string, title: string, ...settings: readonly string[]): Condition => ({
  name,
  title,
  recipe: 'isft-dpo',
  settings,
  claimed: settings.length === 0,
});

export const studies: readonly Study[] = [
  {
    name: 'headline',
    description: 'base, iSFT, iDPO, iSFT-DPO, and iSFT-DPO without one of its parts',
    note: 'The ablations are of iSFT-DPO. Without search, so many dialogues are held from the root as sample about as many tokens.',
    conditions: [
      { name: 'isft', title: 'iSFT', recipe: 'isft', settings: [], claimed: true },
      { name: 'idpo', title: 'iDPO', recipe: 'idpo', settings: [], claimed: true },
      hybrid('isft-dpo', 'iSFT-DPO'),
      hybrid('no-token-term', 'without the token term', 'reward.lambdaToken=0'),
      hybrid('no-loss-term', 'without the loss term', 'reward.lambdaLoss=0'),
      hybrid('no-diversity', 'without the diversity filter', 'search.minDistance=0'),
      hybrid('no-search', 'without search', 'search.expansions=1', 'search.rolloutsPerExpansion=21'),
    ],
  },
  {
    name: 'extensions',
    description: 'iSFT-DPO, and what goes beyond the paper, each with as many roll-outs',
    note: 'All of them hold as many roll-outs.',
    // Each says what it is in full, so that a change of the presets does not make two of them one.
    conditions: [
      hybrid('default', 'iSFT-DPO', 'search.policy=softmax', 'pairs.values=raw'),
      hybrid('entropy', 'expansion by entropy (AT²PO)', 'search.policy=entropy', 'pairs.values=raw'),
      hybrid('puct', 'expansion by PUCT', 'search.policy=puct', 'pairs.values=raw'),
      hybrid(
        'values-per-role',
        'values on one scale for all roles (Dr. MAS)',
        'search.policy=softmax',
        'pairs.values=per-role',
      ),
    ],
  },
];

/** The runs of a condition, one for each seed. */
export interface ConditionResult {
  readonly condition: Condition;
  readonly runs: readonly RunResult[];
}

const tokensAxis = 'tokens a dialogue';

/** What is claimed: at least so many times the base's score, at no more than this share of its tokens. */
const claim = { ratio: 2.8, share: 0.1 } as const;

export interface StudyDocument {
  readonly text: string;
  /** SVG by file name. */
  readonly plots: ReadonlyMap<string, string>;
}

/** With a dialogue that failed as one of score 0: a team must not look better for what it broke off. */
function withFailed(figures: MachineFigures): MachineFigures {
  const { f1, f1Interval, n } = figures;
  const share = n === 0 ? 0 : n / dialoguesIn(figures);
  return { ...figures, f1: share * f1, f1Interval: [share * f1Interval[0], share * f1Interval[1]] };
}

/** The document of a scenario's runs, of one preset, and its plots, which it names as files in `plotFolder`. */
export function studyDocument(
  study: Study,
  given: readonly ConditionResult[],
  command: string,
  plotFolder: string,
): StudyDocument {
  const results = given.map(({ condition, runs }) => ({
    condition,
    runs: runs.map((run) => ({ ...run, base: withFailed(run.base), trained: withFailed(run.trained) })),
  }));
  const { manifest, base } = results[0]!.runs[0]!;
  const everyRun = results.flatMap(({ runs }) => runs);
  const baseScore = meanOf(everyRun, ({ base }) => base.f1);
  const baseTokens = meanOf(everyRun, ({ base }) => base.tokens);
  const shortest = Math.min(
    ...everyRun.map(({ trained }) => trained.shortestRight ?? Number.POSITIVE_INFINITY),
  );
  const seeds = results[0]!.runs.map(({ seed }) => seed);
  const name = manifest.scenario.name.replace(':', '-');
  const plots = new Map([
    [`${name}-score.svg`, progressPlot(results, `${name}: F1 by iteration`, 'F1', ({ f1 }) => f1)],
    [
      `${name}-tokens.svg`,
      progressPlot(results, `${name}: tokens by iteration`, tokensAxis, ({ tokens }) => tokens),
    ],
    [
      `${name}-frontier.svg`,
      frontierPlot(results, `${name}: F1 against tokens`, { baseScore, baseTokens, shortest }),
    ],
  ]);
  const text = [
    `# ${study.name === 'headline' ? 'Results' : `Results: ${study.name}`}`,
    `Written by \`${command}\` from its runs; not edited by hand. Scenario \`${manifest.scenario.name}\`, preset \`${manifest.preset}\`, ${dialoguesIn(base)} test tasks of each seed at temperature 0, the same before and after, where a dialogue that failed counts as 0 (${countFailed(everyRun)} did); ${seeds.length === 1 ? 'seed' : 'seeds'} ${seeds.join(', ')}; one base (\`${manifest.base.hash}\`) for all. Nothing was tuned on test tasks.`,
    verdictOf(results, baseScore, baseTokens),
    '## All seeds together',
    `Means over the seeds. The interval (95 %) is over test tasks, those of different seeds taken as different ones, from each seed's bootstrap. The shortest dialogue with a right answer that any trained team held has ${Number.isFinite(shortest) ? shortest : 'no number of'} tokens; *way* is how far a team has come from the base's tokens to these. *Sampled* are the tokens of training's dialogues. R_loss is that of the dialogues before the last training, nats per token under the base: the lower, the more it reads like what the base would say. ${study.note}`,
    recipeTable(results, { baseScore, baseTokens, shortest }),
    '## Seed by seed',
    seedTable(results),
    '## Iteration by iteration',
    'Of the policy after each iteration, on validation tasks; where a recipe has none, of the dialogues on training tasks before it. Means over the seeds.',
    ...[...plots.keys()].map((file) => `![${file.replace('.svg', '')}](${plotFolder}/${file})`),
    iterationTable(results),
    `optima-actors ${manifest.version}, engine: ${manifest.engine}. Minutes of work, all runs together: ${Math.round(everyRun.reduce((sum, run) => sum + run.manifest.seconds, 0) / 60)}. A single run is made with, for example:`,
    ['```sh', `npx optima ${everyRun.at(-1)!.manifest.command.join(' ')}`, '```'].join('\n'),
    '',
  ].join('\n\n');
  return { text, plots };
}

interface Yardsticks {
  readonly baseScore: number;
  readonly baseTokens: number;
  readonly shortest: number;
}

const countFailed = (runs: readonly RunResult[]): number =>
  runs.reduce((sum, { base, trained }) => sum + base.failed + trained.failed, 0);

/** A quotient in words, and a dash where there is none. */
const quotient = (part: number, whole: number, words: (value: number) => string): string =>
  Number.isFinite(part / whole) ? words(part / whole) : '–';
const times = (value: number) => `${value.toFixed(2)} ×`;

const meanOf = (runs: readonly RunResult[], read: (run: RunResult) => number): number => mean(runs.map(read));

/** Whether the claim holds, for each of the recipes, in a sentence. */
function verdictOf(results: readonly ConditionResult[], baseScore: number, baseTokens: number): string {
  const sentences = results
    .filter(({ condition }) => condition.claimed)
    .map(({ condition, runs }) => {
      const score = meanOf(runs, ({ trained }) => trained.f1);
      const share = meanOf(runs, ({ trained }) => trained.tokens) / baseTokens;
      const holds = score >= claim.ratio * baseScore && share <= claim.share;
      return `${condition.title} reaches ${quotient(score, baseScore, (value) => value.toFixed(2))} times the base's F1 at ${percent(share)} of its tokens: ${holds ? 'holds' : 'falls short'}.`;
    });
  if (sentences.length === 0) return 'Every team is compared with the same base.';
  return `The paper's claim is ${claim.ratio} times the base's score at ${percent(claim.share)} of its tokens. ${sentences.join(' ')}`;
}

function recipeTable(
  results: readonly ConditionResult[],
  { baseScore, baseTokens, shortest }: Yardsticks,
): string {
  const header = [
    'team',
    'F1',
    '95 %',
    'of base',
    'tokens',
    'median',
    'p95',
    'of base',
    'way',
    'agreement',
    'R_loss',
    'sampled',
  ];
  const row = (title: string, figures: readonly MachineFigures[], more: readonly string[]): string[] => {
    const average = (read: (figures: MachineFigures) => number) => mean(figures.map(read));
    const score = average(({ f1 }) => f1);
    const tokens = average((each) => each.tokens);
    const half =
      Math.hypot(...figures.map(({ f1Interval: [low, high] }) => (high - low) / 2)) / figures.length;
    return [
      title,
      score.toFixed(3),
      `${(score - half).toFixed(3)}–${(score + half).toFixed(3)}`,
      quotient(score, baseScore, times),
      tokens.toFixed(1),
      average(({ medianTokens }) => medianTokens).toFixed(0),
      average(({ p95Tokens }) => p95Tokens).toFixed(0),
      percent(tokens / baseTokens),
      quotient(baseTokens - tokens, baseTokens - shortest, percent),
      percent(average(({ agreement }) => agreement)),
      ...more,
    ];
  };
  const sampledBy = ({ iterations }: RunResult) =>
    iterations.reduce((sum, { sampledTokens }) => sum + sampledTokens, 0);
  return markdownTable([
    header,
    row(
      'base',
      results[0]!.runs.map(({ base }) => base),
      ['–', '–'],
    ),
    ...results.map(({ condition, runs }) =>
      row(
        condition.title,
        runs.map(({ trained }) => trained),
        [
          meanOf(runs, ({ iterations }) => iterations.at(-1)!.meanLoss).toFixed(3),
          `${Math.round(meanOf(runs, sampledBy) / 1000)} k`,
        ],
      ),
    ),
  ]);
}

function seedTable(results: readonly ConditionResult[]): string {
  const header = [
    'team',
    'seed',
    'base F1',
    'F1',
    'of base',
    'base tokens',
    'tokens',
    'of base',
    'median',
    'p95',
  ];
  const rows = results.flatMap(({ condition, runs }) => [
    ...runs.map(({ seed, base, trained }) => [
      condition.title,
      String(seed),
      base.f1.toFixed(3),
      withInterval(trained),
      quotient(trained.f1, base.f1, times),
      base.tokens.toFixed(1),
      trained.tokens.toFixed(1),
      percent(trained.tokens / base.tokens),
      String(trained.medianTokens),
      String(trained.p95Tokens),
    ]),
    ...(runs.length > 1 ? [spreadOf(condition, runs)] : []),
  ]);
  return markdownTable([header, ...rows]);
}

function spreadOf({ title }: Condition, runs: readonly RunResult[]): string[] {
  const spread = (read: (run: RunResult) => number) => standardDeviation(runs.map(read));
  const score = spread(({ trained }) => trained.f1).toFixed(3);
  const tokens = spread((run) => run.trained.tokens).toFixed(1);
  return [title, 'sd', '', score, '', '', tokens, '', '', ''];
}

/** Of each iteration, the mean over the seeds that have it. */
function byIteration(runs: readonly RunResult[], read: (figures: MachineFigures) => number): number[] {
  const longest = Math.max(...runs.map(({ iterations }) => iterations.length));
  return Array.from({ length: longest }, (_, index) =>
    mean(
      runs.flatMap(({ iterations }) => {
        const iteration = iterations[index];
        return iteration === undefined ? [] : [read(iteration.validation ?? iteration.generated)];
      }),
    ),
  );
}

function iterationTable(results: readonly ConditionResult[]): string {
  const longest = Math.max(...results.flatMap(({ runs }) => runs.map(({ iterations }) => iterations.length)));
  const header = ['team: F1 / tokens', ...Array.from({ length: longest }, (_, index) => String(index))];
  const rows = results.map(({ condition, runs }) => {
    const scores = byIteration(runs, ({ f1 }) => f1);
    const tokens = byIteration(runs, (figures) => figures.tokens);
    return [
      condition.title,
      ...Array.from({ length: longest }, (_, index) =>
        index < scores.length ? `${scores[index]!.toFixed(3)} / ${tokens[index]!.toFixed(1)}` : '–',
      ),
    ];
  });
  return markdownTable([header, ...rows]);
}

function progressPlot(
  results: readonly ConditionResult[],
  title: string,
  y: string,
  read: (figures: MachineFigures) => number,
): string {
  const series = results.map(({ condition, runs }): Series => {
    const values = [meanOf(runs, ({ base }) => read(base)), ...byIteration(runs, read)];
    return { name: condition.title, points: values.map((value, index) => [index, value]) };
  });
  const longest = Math.max(...series.map(({ points }) => points.length));
  const names = Array.from({ length: longest }, (_, index) => (index === 0 ? 'base' : String(index - 1)));
  const logarithmic = y === tokensAxis ? (['y'] as const) : [];
  return plotSvg({ title, x: 'iteration (0: initialization)', y, series, names, logarithmic });
}

/** Each seed's teams as points, and what the claim asks for as lines. */
function frontierPlot(
  results: readonly ConditionResult[],
  title: string,
  { baseScore, baseTokens, shortest }: Yardsticks,
): string {
  const point = ({ tokens, f1 }: MachineFigures) => [tokens, f1] as const;
  return plotSvg({
    title,
    x: tokensAxis,
    logarithmic: ['x'],
    y: 'F1',
    series: [
      ...results.map(({ condition, runs }) => ({
        name: condition.title,
        dots: true,
        points: runs.map(({ trained }) => point(trained)),
      })),
      { name: 'base', dots: true, points: results[0]!.runs.map(({ base }) => point(base)) },
    ],
    marks: [
      { axis: 'x', at: claim.share * baseTokens, name: `${percent(claim.share)} of the base's tokens` },
      { axis: 'y', at: claim.ratio * baseScore, name: `${claim.ratio} × the base's F1` },
      ...(Number.isFinite(shortest) ? [{ axis: 'x' as const, at: shortest, name: 'shortest' }] : []),
    ],
  });
}
