// `optima results`: the results document, written from run folders and from nothing else.
import path from 'node:path';
import { OptimaError } from '../domain/errors.ts';
import { failedOf, mean, standardDeviation } from '../domain/metrics.ts';
import type { MetricsRow } from '../domain/progress.ts';
import { presetRecipe, recipeNamed } from '../recipe/presets.ts';
import { type Recipe, recipeKeys } from '../recipe/schema.ts';
import {
  foldIterations,
  type MachineFigures,
  type MachineIteration,
  machineFigures,
  machineIteration,
  metricsRows,
} from '../run/figures.ts';
import { planIterations } from '../run/plan.ts';
import { readText } from '../store/files.ts';
import { incomplete, type Manifest } from '../store/manifest.ts';
import { RunFolder } from '../store/run-folder.ts';

export interface RunResult {
  readonly manifest: Manifest;
  readonly seed: number;
  readonly base: MachineFigures;
  readonly trained: MachineFigures;
  readonly iterations: readonly MachineIteration[];
}

/**
 * What a completed run came to, as its log has it. Rejects as `readManifest` does, with `run.missing` for one not completed, and
 * with `run.corrupt` where `metrics.jsonl` says something else.
 */
export function readResult(folder: string): RunResult {
  const run = RunFolder.read(folder);
  try {
    const { manifest } = run;
    if (run.policy === null) {
      throw incomplete(folder, manifest, 'no end');
    }
    const recipe = manifest.recipe as Recipe;
    // What a training started from, which the kind of a scenario decides, is no part of the figures.
    const iterations = planIterations(recipe, { kind: 'information-exchange' });
    requireSameMetrics(path.join(folder, 'metrics.jsonl'), metricsRows(run, iterations));
    const evaluation = (name: string) => machineFigures(run.outputOf({ name, kind: 'evaluate' })!.metrics);
    return {
      manifest,
      seed: recipe.seed,
      base: evaluation('base'),
      trained: evaluation('trained'),
      iterations: foldIterations(run, iterations).map(machineIteration),
    };
  } finally {
    run.close();
  }
}

/** Throws where the file, which others read, does not have these rows. */
export function requireSameMetrics(file: string, rows: readonly MetricsRow[]): void {
  const lines = readText(file).split('\n');
  const wrong = [...rows.map((row) => JSON.stringify(row)), ''].findIndex((line, at) => line !== lines[at]);
  if (wrong < 0 && lines.length === rows.length + 1) return;
  const line = wrong < 0 ? rows.length + 1 : wrong + 1;
  throw new OptimaError('run.corrupt', `${file}:${line}: not what the run's log says.`, {
    hint: 'The file was changed: `optima train --resume` on the run writes it anew from the log.',
  });
}

/** The document, in Markdown: a section for each scenario and preset, a row for each run. */
export function resultsDocument(results: readonly RunResult[], command: string): string {
  const groups = new Map<string, RunResult[]>();
  for (const result of [...results].sort((a, b) => a.seed - b.seed)) {
    const { scenario, preset, recipe } = result.manifest;
    const title = `${scenario.name}, ${(recipe as Recipe).recipe}, preset \`${preset}\`${changesOf(result.manifest)}`;
    groups.set(title, [...(groups.get(title) ?? []), result]);
  }
  const sections = [...groups].map(([title, group]) => section(title, group));
  return [
    '# Results',
    `Written by \`${command}\` from the run folders; not edited by hand. Test tasks, temperature 0, the same tasks before and after. The score is that of the scenario's metric, with its 95 % bootstrap interval over tasks; tokens, agreement and turns are means per dialogue.`,
    ...sections,
    '',
  ].join('\n\n');
}

function section(title: string, group: readonly RunResult[]): string {
  const rows = group.map(({ seed, base, trained }) => [
    String(seed),
    withInterval(base),
    withInterval(trained),
    ratio(trained.f1, base.f1),
    base.tokens.toFixed(1),
    trained.tokens.toFixed(1),
    share(trained.tokens, base.tokens),
    `${percent(base.agreement)} → ${percent(trained.agreement)}`,
    `${base.turns.toFixed(2)} → ${trained.turns.toFixed(2)}`,
    String(trained.n),
  ]);
  const spread = (read: (result: RunResult) => number, digits: number) => {
    const values = group.map(read);
    return `${mean(values).toFixed(digits)} ± ${standardDeviation(values).toFixed(digits)}`;
  };
  const average = [
    'mean ± sd',
    spread(({ base }) => base.f1, 3),
    spread(({ trained }) => trained.f1, 3),
    ratio(mean(group.map(({ trained }) => trained.f1)), mean(group.map(({ base }) => base.f1))),
    spread(({ base }) => base.tokens, 1),
    spread(({ trained }) => trained.tokens, 1),
    `${spread(({ base, trained }) => (100 * trained.tokens) / base.tokens, 1)} %`,
    '',
    '',
    '',
  ];
  const header = [
    'seed',
    'base score',
    'trained score',
    'ratio',
    'base tokens',
    'trained tokens',
    'token share',
    'agreement',
    'turns',
    'tasks',
  ];
  const { manifest } = group[0]!;
  const broken = group.filter(({ base, trained }) => base.failed + trained.failed > 0);
  const failures = broken.map(
    ({ seed, base, trained }) => `seed ${seed}: ${failedOf(base)} → ${failedOf(trained)}`,
  );
  return [
    `## ${title}`,
    markdownTable([header, ...rows, ...(group.length > 1 ? [average] : [])]),
    ...(failures.length > 0 ? [`Dialogues that failed, base → trained: ${failures.join(', ')}.`] : []),
    'Iterations, means over the seeds. Figures of the dialogues are from training tasks, sampled before the iteration trained.',
    iterationTable(group),
    `Base \`${manifest.base.hash}\`, optima-actors ${manifest.version}, engine: ${manifest.engine}. Made with:`,
    ['```sh', ...group.map(({ manifest: { command } }) => `npx optima ${command.join(' ')}`), '```'].join(
      '\n',
    ),
    `Seconds of work: ${group.map(({ seed, manifest: { seconds } }) => `seed ${seed}: ${Math.round(seconds)}`).join(', ')}.`,
  ].join('\n\n');
}

function iterationTable(group: readonly RunResult[]): string {
  const header = [
    'iteration',
    'score',
    'tokens',
    'agreement',
    'reward',
    'kept',
    'loss',
    'validation score',
    'tokens',
  ];
  const rows = group[0]!.iterations.map(({ iteration, kind }, index) => {
    const all = group.flatMap(({ iterations }) => iterations[index] ?? []);
    const average = (read: (figures: MachineIteration) => number | undefined, digits: number) => {
      const values = all.flatMap((figures) => read(figures) ?? []);
      return values.length === 0 ? '–' : mean(values).toFixed(digits);
    };
    return [
      `${iteration} (${kind})`,
      average(({ generated }) => generated.f1, 3),
      average(({ generated }) => generated.tokens, 1),
      percent(mean(all.map(({ generated }) => generated.agreement))),
      average(({ meanReward }) => meanReward, 3),
      average(({ kept }) => kept, 0),
      average(({ loss }) => loss, 3),
      average(({ validation }) => validation?.f1, 3),
      average(({ validation }) => validation?.tokens, 1),
    ];
  });
  return markdownTable([header, ...rows]);
}

/** What a run's recipe has different from its preset, the seed aside. */
function changesOf({ preset, recipe }: Manifest): string {
  // A group of keys may be left out of a recipe: without an adapter, `lora` is.
  const read = (from: unknown, key: string) =>
    key.split('.').reduce((at, part) => (at as Record<string, unknown> | undefined)?.[part], from);
  const standard: Recipe = presetRecipe(preset, recipeNamed((recipe as Recipe).recipe));
  const changes = recipeKeys(standard.recipe)
    .map(({ key }) => key)
    .filter((key) => key !== 'seed' && read(recipe, key) !== read(standard, key))
    .map((key) => `\`${key}=${read(recipe, key)}\``);
  return changes.length === 0 ? '' : ` with ${changes.join(', ')}`;
}

// Adding 0 turns −0 into 0.
export const percent = (part: number) => `${(Math.round(1000 * part) / 10 + 0).toFixed(1)} %`;
const ratio = (after: number, before: number) => (before > 0 ? `${(after / before).toFixed(2)} ×` : '–');
const share = (after: number, before: number) => percent(after / before);
export const withInterval = ({ f1, f1Interval: [low, high] }: MachineFigures) =>
  `${f1.toFixed(3)} (${low.toFixed(3)}–${high.toFixed(3)})`;

export function markdownTable([header, ...rows]: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`;
  return [line(header!), line(header!.map(() => '---')), ...rows.map(line)].join('\n');
}
