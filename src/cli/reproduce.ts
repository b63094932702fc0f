// `optima reproduce <study>`: carries out a study's runs on a scenario, one by one, and writes what came of them.
import fs from 'node:fs';
import path from 'node:path';
import type { Command } from 'commander';
import { OptimaError } from '../domain/errors.ts';
import { presetRecipe } from '../recipe/presets.ts';
import { applySettings, type Recipe, type RecipeName, recipeKeys, recipeNames } from '../recipe/schema.ts';
import { pathOf } from '../scenario/load.ts';
import { makeFolder, writeFileAtomic } from '../store/files.ts';
import { readManifest } from '../store/manifest.ts';
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
  const wanted = Array.from({ length: seeds }, (_, index) => index + 1).flatMap((seed) =>
    conditions.map((condition) => ({ condition, seed })),
  );
  // A wrong preset, or a folder that holds something else, shows before hours of work.
  for (const run of wanted) checkFolder(folderOf(run, out), scenario, recipeOf(run, preset, set));
  const done = new Map<Condition, RunResult[]>(conditions.map((condition) => [condition, []]));
  for (const [index, run] of wanted.entries()) {
    const { condition, seed } = run;
    const folder = folderOf(run, out);
    output.say(`\n${index + 1} of ${wanted.length}: ${condition.title}, seed ${seed}`);
    output.emit({ event: 'condition', condition: condition.name, seed, run: folder });
    if (!isDone(folder)) {
      const { recipe, settings } = condition;
      const { model, backend, workers } = options;
      if (fs.existsSync(folder)) await resumeRun(folder, undefined, { backend, workers }, output, signal);
      else
        await startRun(
          scenario,
          {
            recipe,
            preset,
            seed,
            set: [...settingsOf(recipe, set), ...settings],
            out: folder,
            model,
            backend,
            workers,
          },
          output,
          signal,
        );
    }
    const result = readResult(folder);
    done.get(condition)!.push(result);
    const [first] = done.get(conditions[0]!)!;
    if (result.manifest.base.hash !== first!.manifest.base.hash) {
      throw new OptimaError('usage', `${folder} began with another base than ${first!.manifest.run}.`, {
        hint: 'A comparison has one base: give another --out, or remove the folder.',
      });
    }
  }
  const changes = set.map((setting) => ` --set ${setting}`).join('');
  const command = `npx optima reproduce ${study.name} ${scenario} --preset ${preset}${changes} --seeds ${seeds}`;
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

const folderOf = ({ condition, seed }: Run, out: string) => path.join(out, `${condition.name}-s${seed}`);

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

/** Refuses a run of another scenario or recipe than is asked for. */
function checkFolder(folder: string, scenario: string, recipe: Recipe): void {
  if (!fs.existsSync(folder)) return;
  const manifest = readManifest(folder);
  const { name, file } = manifest.scenario;
  const of = name === scenario || pathOf(file, name) === path.resolve(scenario);
  if (of && JSON.stringify(manifest.recipe) === JSON.stringify(recipe)) return;
  throw new OptimaError(
    'usage',
    `${folder} is a run of another ${of ? 'recipe' : 'scenario'} than is asked for.`,
    {
      hint: 'Give another --out, or remove the folder.',
    },
  );
}

function isDone(folder: string): boolean {
  if (!fs.existsSync(folder)) return false;
  try {
    readResult(folder);
    return true;
  } catch (error) {
    if (error instanceof OptimaError && ['run.missing', 'io.read'].includes(error.code)) return false;
    throw error;
  }
}
