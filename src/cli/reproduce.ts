// `optima reproduce <study>`: carries out a study's runs on a scenario, one by one, and writes what came of them.
import fs from 'node:fs';
import path from 'node:path';
import type { Command } from 'commander';
import { OptimaError } from '../domain/errors.ts';
import { presetRecipe } from '../recipe/presets.ts';
import { applySettings, type Recipe, type RecipeName, recipeKeys, recipeNames } from '../recipe/schema.ts';
import { locateModel } from '../run/locate.ts';
import { pathOf } from '../scenario/load.ts';
import { makeFolder, writeFileAtomic } from '../store/files.ts';
import { type Manifest, readManifest } from '../store/manifest.ts';
import { RunFolder } from '../store/run-folder.ts';
import { interruptible } from './interrupt.ts';
import {
  type Backend,
  backendOption,
  collect,
  jsonOption,
  modelOption,
  wholeNumber,
  workersOption,
} from './options.ts';
import { type JsonFlag, type Output, withOutput } from './output.ts';
import { type RunResult, readResult } from './results-document.ts';
import { type Condition, type Study, studies, studyDocument } from './study.ts';
import { resumeRun, startRun } from './train.ts';

interface ReproduceOptions extends JsonFlag {
  readonly preset: string;
  readonly seeds: number;
  readonly set?: readonly string[];
  readonly out: string;
  readonly results: string;
  readonly model?: string;
  readonly backend?: Backend;
  readonly workers?: number;
}

export function addReproduce(program: Command): void {
  const reproduce = program
    .command('reproduce')
    .helpCommand(false)
    .description("measure the paper's claims, and what goes beyond them");
  for (const study of studies) {
    const { name, description } = study;
    const document = name === 'headline' ? 'docs/results.md' : `docs/results-${name}.md`;
    reproduce
      .command(name)
      .argument('[scenario]', 'name or file of a scenario', 'pages-qa')
      .description(`compare ${description}, over several seeds; what is done is not done again`)
      .option('--preset <name>', 'numbers of the recipes', 'full')
      .option('--seeds <n>', 'seeds 1 to n', wholeNumber('--seeds', 1), 3)
      .option('--set <key=value>', 'change one number of all recipes that have it; may be repeated', collect)
      .option('--out <folder>', 'folder of the runs', `runs/${name}`)
      .option('--results <file>', 'where to write the document', document)
      .addOption(modelOption())
      .addOption(backendOption())
      .addOption(workersOption())
      .addOption(jsonOption())
      .action((scenario: string, options: ReproduceOptions) =>
        withOutput(options, (output) =>
          interruptible(output, (signal) => carryOutStudy(study, scenario, options, output, signal)),
        ),
      );
  }
}

async function carryOutStudy(
  study: Study,
  scenario: string,
  options: ReproduceOptions,
  output: Output,
  signal: AbortSignal,
): Promise<void> {
  const { preset, out, results: file, seeds, set = [] } = options;
  const { conditions } = study;
  const model = await locateModel(options.model, '--model');
  const wanted = Array.from({ length: seeds }, (_, index) => index + 1).flatMap((seed) =>
    conditions.map((condition) => ({ condition, seed })),
  );
  // A wrong preset, or a folder that holds something else, shows before hours of work.
  for (const run of wanted) {
    checkFolder(folderOf(run, scenario, out), scenario, recipeOf(run, preset, set), model);
  }
  const done = new Map<Condition, RunResult[]>(conditions.map((condition) => [condition, []]));
  for (const [index, run] of wanted.entries()) {
    const { condition, seed } = run;
    const folder = folderOf(run, scenario, out);
    output.say(`\n${index + 1} of ${wanted.length}: ${condition.title}, seed ${seed}`);
    output.emit({ event: 'condition', condition: condition.name, seed, run: folder });
    if (!isDone(folder)) {
      const { backend, workers } = options;
      if (fs.existsSync(folder)) await resumeRun(folder, undefined, { backend, workers }, output, signal);
      else {
        const { recipe } = condition;
        const settings = [...settingsOf(recipe, set), ...condition.settings];
        // A study compares what it is given, a base that never scores too.
        const asked = {
          recipe,
          preset,
          seed,
          set: settings,
          out: folder,
          model,
          anyway: true,
          backend,
          workers,
        };
        const command = ['train', scenario, '--recipe', recipe, '--preset', preset, '--seed', String(seed)];
        for (const setting of settings) command.push('--set', setting);
        if (options.model !== undefined) command.push('--model', options.model);
        await startRun(scenario, asked, output, signal, command);
      }
    }
    const result = readResult(folder);
    done.get(condition)!.push(result);
    requireAlike(done.get(conditions[0]!)![0]!, result, folder);
  }
  const given = [
    ...(['--preset', preset, '--seeds', String(seeds)] as const),
    ...set.flatMap((setting) => ['--set', setting]),
    ...(options.model === undefined ? [] : ['--model', options.model]),
  ];
  const command = ['npx optima reproduce', study.name, scenario, ...given].join(' ');
  const plotFolder = path.basename(file, path.extname(file));
  const { text, plots } = studyDocument(
    study,
    [...done].map(([condition, runs]) => ({ condition, runs })),
    command,
    plotFolder,
  );
  const folder = path.join(path.dirname(file), plotFolder);
  makeFolder(folder);
  for (const [name, svg] of plots) writeFileAtomic(path.join(folder, name), svg);
  writeFileAtomic(file, text);
  output.say(`\nWrote ${file} and ${plots.size} plots from ${wanted.length} runs.`);
  output.emit({ event: 'summary', out: file, plots: [...plots.keys()], runs: wanted.length });
}

interface Run {
  readonly condition: Condition;
  readonly seed: number;
}

const folderOf = ({ condition, seed }: Run, scenario: string, out: string) => {
  const name = path
    .basename(scenario)
    .replace(/\.\w+(?=:|$)/, '')
    .replace(':', '-');
  return path.join(out, `${name}-${condition.name}-s${seed}`);
};

/** Those of the settings that the recipe has a key for; what no recipe has stays, to be refused. */
function settingsOf(recipe: RecipeName, settings: readonly string[]): readonly string[] {
  const has = (name: RecipeName, setting: string) =>
    recipeKeys(name).some(({ key }) => key === setting.split('=')[0]!.trim());
  return settings.filter(
    (setting) => has(recipe, setting) || !recipeNames.some((other) => has(other, setting)),
  );
}

const recipeOf = ({ condition, seed }: Run, preset: string, set: readonly string[]): Recipe => {
  const { recipe, settings } = condition;
  const all = [`seed=${seed}`, ...settingsOf(recipe, set), ...settings];
  return applySettings<Recipe>(presetRecipe(preset, recipe), all);
};

/** Refuses a run of another scenario, recipe or base than is asked for. */
function checkFolder(folder: string, scenario: string, recipe: Recipe, model: string): void {
  if (!fs.existsSync(folder)) return;
  const { scenario: of, recipe: began, base } = readManifest(folder);
  const wrong =
    of.name !== scenario && pathOf(of.file, of.name) !== path.resolve(scenario)
      ? 'scenario'
      : JSON.stringify(began) !== JSON.stringify(recipe)
        ? 'recipe'
        : path.resolve(base.folder) !== path.resolve(model)
          ? 'base'
          : null;
  if (wrong === null) return;
  throw new OptimaError('usage', `${folder} is a run of another ${wrong} than is asked for.`, { hint });
}

const hint = 'Give another --out, or remove the folder.';

/** Refuses to compare runs between which more has changed than the study is about. */
function requireAlike(first: RunResult, { manifest }: RunResult, folder: string): void {
  const parts = {
    base: ({ base }: Manifest) => base.hash,
    'scenario file': ({ scenario }: Manifest) => scenario.hash,
    version: ({ version }: Manifest) => version,
    engine: ({ engine }: Manifest) => engine,
  };
  for (const [part, read] of Object.entries(parts)) {
    if (read(manifest) === read(first.manifest)) continue;
    throw new OptimaError('usage', `${folder} began with another ${part} than ${first.manifest.run}.`, {
      hint,
    });
  }
}

/** Whether the run has carried out all that it planned. */
function isDone(folder: string): boolean {
  if (!fs.existsSync(folder)) return false;
  const run = RunFolder.read(folder);
  try {
    return run.policy !== null;
  } finally {
    run.close();
  }
}
