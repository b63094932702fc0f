// `optima train <scenario>`: generate → rank → select → train, from the base to a team that talks less.
import fs from 'node:fs';
import { type Command, Option } from 'commander';
import { systemClock } from '../domain/clock.ts';
import { cleaningUp, messageOf, OptimaError } from '../domain/errors.ts';
import type { TeamPolicy } from '../domain/ids.ts';
import type { LlamaPolicy } from '../models/llama/index.ts';
import { loraOf, requireTrainable } from '../recipe/lora.ts';
import { defaultPreset, defaultRecipe, presetRecipe, recipeNamed } from '../recipe/presets.ts';
import { applySettings, policyKinds, type Recipe, recipeKeys, recipeNames } from '../recipe/schema.ts';
import { createRun, hashFile, packageVersion } from '../run/create-run.ts';
import type { Engines } from '../run/engines.ts';
import { machineIteration, machinePolicy } from '../run/figures.ts';
import { modelsFrom, type OpenedFrozen, openFrozen, speakersFrom } from '../run/frozen.ts';
import { locateModel } from '../run/locate.ts';
import { requirePairsTaken, trainsOn } from '../run/phases/forks.ts';
import { planIterations, planRun } from '../run/plan.ts';
import { hashTasks, requireRepeats, requireSameTasks } from '../run/tasks.ts';
import { type LoadedScenario, pathOf } from '../scenario/load.ts';
import { type Scenario, withoutTraining } from '../scenario/types.ts';
import { appendForks, ForkLog } from '../store/fork-log.ts';
import { type Manifest, readManifest } from '../store/manifest.ts';
import { RunFolder } from '../store/run-folder.ts';
import { sourceOfPolicy } from '../workers/host.ts';
import type { PolicyHost } from '../workers/index.ts';
import { interruptible } from './interrupt.ts';
import { foldersIn, frozenHashes, frozenNames, openEngines, openPartners, openPolicy } from './model.ts';
import {
  type Backend,
  backendOption,
  collect,
  jsonOption,
  judgeOption,
  modelOption,
  oneOf,
  policyOption,
  seedOption,
  workersOption,
} from './options.ts';
import { type Output, withOutput } from './output.ts';
import { reopenBase, reopenFrozen, reopenRun } from './reopen.ts';
import { sayComparison, saySamples, summaryMetrics } from './report.ts';
import { sayFrozen, sayPlan, withEstimate } from './say-plan.ts';
import { openScenario, reopenScenario } from './watch.ts';

export interface TrainOptions {
  readonly recipe?: string;
  readonly preset?: string;
  readonly policies?: (typeof policyKinds)[number];
  readonly seed?: number;
  readonly set?: readonly string[];
  readonly out?: string;
  readonly resume?: string;
  readonly initFrom?: string;
  readonly withForks?: boolean;
  readonly model?: string;
  readonly policy?: readonly string[];
  readonly judge?: string;
  /** Trains whatever the look before it says. */
  readonly anyway?: boolean;
  readonly backend?: Backend;
  readonly workers?: number;
  readonly json?: boolean;
}

export const policiesOption = () =>
  new Option(
    '--policies <kind>',
    `${policyKinds.join(' or ')}: one policy for every role, or one for each (default: ${policyKinds[0]})`,
  ).argParser(oneOf('--policies', policyKinds));

export function addTrain(program: Command): void {
  program
    .command('train')
    .argument('[scenario]', 'name or file of a scenario')
    .description('train a team on a scenario and compare it with the base')
    .option('--recipe <name>', `how to train: ${recipeNames.join(', ')} (default: ${defaultRecipe})`)
    .option('--preset <name>', `its numbers: quick, full, paper:<data set> (default: ${defaultPreset})`)
    .addOption(policiesOption())
    .addOption(seedOption())
    .option('--set <key=value>', 'change one number of the recipe; may be repeated', collect)
    .option('--out <folder>', 'folder of the run (default: runs/<id>)')
    .option('--resume <folder>', 'continue a run where it stopped')
    .option('--init-from <run>', 'start from the policy that a run ended with, by default on its scenario')
    .option('--with-forks', 'with --resume or --init-from: train on the pairs of forks that were kept, too')
    .addOption(modelOption())
    .addOption(policyOption())
    .addOption(judgeOption())
    .option('--anyway', 'train even if no dialogue of a first look scores')
    .addOption(backendOption())
    .addOption(workersOption())
    .addOption(jsonOption())
    .addHelpText('after', keyList)
    .action((scenario: string | undefined, options: TrainOptions) =>
      withOutput(options, (output) =>
        interruptible(output, (signal) =>
          options.resume === undefined
            ? startRun(scenario, options, output, signal)
            : resumeRun(options.resume, scenario, options, output, signal),
        ),
      ),
    );
}

/** Begins a run and carries it out; `--out` must not hold one. `command` is what its manifest says began it. */
export async function startRun(
  asked: string | undefined,
  options: TrainOptions,
  output: Output,
  signal: AbortSignal,
  command: readonly string[] = process.argv.slice(2),
): Promise<void> {
  const began = performance.now();
  const origin = originOf(options);
  const name = asked ?? (origin && pathOf(origin.scenario.file, origin.scenario.name));
  if (!name) throw new OptimaError('usage', 'Which scenario?', { hint: '`optima list` shows them.' });
  const { preset, recipe } = askedRecipe(options);
  const model = await locateModel(
    options.initFrom ?? options.model,
    options.initFrom ? '--init-from' : '--model',
  );
  const loaded = await openScenario(name, signal);
  const names = await frozenNames(loaded.scenario, options);
  const trained = withoutTraining(loaded.scenario, Object.keys(names.partners));
  if (options.withForks) requireSameScenario(loaded, origin!, options.initFrom!);
  const kept = options.withForks ? keptPairsOf(options.initFrom!, trained, output) : [];
  if (options.withForks) requirePairsTaken(planRun(recipe, trained));
  const tasks = await hashTasks(loaded.scenario, recipe);
  await requireRepeats((await reopenScenario(loaded)).scenario, recipe, tasks);
  if (options.out !== undefined) RunFolder.refuseOccupied(options.out);
  const engines = await openEngines(options, output);
  const { engine, startHost } = engines;
  await requireResources(model, trained, recipe, foldersIn(names), engines, output);
  const { policy: base, folder } = await openPolicy({ model });
  requireTrainable(base, loraOf(recipe));
  const partners = await openPartners(names.partners);
  const judge = names.judge === undefined ? null : await openFrozen(names.judge);
  const entryOf = ({ folder, model: { hash } }: OpenedFrozen) => ({ folder, hash });
  const begun = {
    folder: options.out,
    command,
    loaded,
    tasks,
    preset,
    recipe,
    engine: engine.name,
    base: { folder, hash: base.hash },
    ...(options.policy && {
      partners: Object.fromEntries(Object.entries(partners).map(([role, one]) => [role, entryOf(one)])),
    }),
    ...(judge && { judge: entryOf(judge) }),
  };
  const openRun = async (workers: PolicyHost) => {
    const { lookBeforeTraining } = await import('./look.ts');
    const models = await speakersFrom(loaded.scenario, sourceOfPolicy(base, folder), partners, workers);
    const judges = judge === null ? undefined : await modelsFrom(judge.model, workers);
    await lookBeforeTraining(
      { ...loaded, name, recipe, models, judges, base, model, partners },
      options,
      output,
      signal,
    );
    const run = createRun(begun);
    if (kept.length > 0)
      await appendForks(run.path, () => kept.map((pair) => ({ ...pair, from: pair.from ?? origin!.run })));
    return run;
  };
  const { withForks } = options;
  await carryOut(
    { loaded, recipe, base, partners, judge, withForks, openRun, startHost, began },
    output,
    signal,
  );
}

/** The recipe that options name: a preset's, changed by --set and the shorthands for it. */
export function askedRecipe(options: Pick<TrainOptions, 'preset' | 'recipe' | 'seed' | 'policies' | 'set'>): {
  readonly preset: string;
  readonly recipe: Recipe;
} {
  const preset = options.preset ?? defaultPreset;
  const preferred = recipeNamed(options.recipe ?? defaultRecipe);
  const shorthands = (['seed', 'policies'] as const).flatMap((key) =>
    options[key] === undefined ? [] : [`${key}=${options[key]}`],
  );
  const settings = [...shorthands, ...(options.set ?? [])];
  return { preset, recipe: applySettings<Recipe>(presetRecipe(preset, preferred), settings) };
}

/** Throws `model.oversized` where a run cannot fit the engine or this machine, and says where it may not; reads no weights. */
async function requireResources(
  folder: string,
  scenario: Scenario,
  recipe: Recipe,
  beside: readonly string[],
  { engine, workers }: Engines,
  output: Output,
): Promise<void> {
  // What is no checkpoint is told when it is opened.
  if (engine.backend !== 'wasm' || !fs.existsSync(folder) || !fs.statSync(folder).isDirectory()) return;
  const { undertakingOf } = await import('../run/undertaking.ts');
  const { requireRoomForRun } = await import('../run/resources.ts');
  const { risk } = requireRoomForRun({ ...(await undertakingOf(folder, scenario, recipe, beside)), workers });
  if (risk !== null) output.remark(`note: ${risk}`);
}

/** The pairs of a run's forks that a team is trained on; throws `usage` where none is kept. Says how many others there are. */
function keptPairsOf(folder: string, scenario: Scenario, output: Output) {
  const { kept } = ForkLog.read(folder);
  const trained = kept.filter((pair) => trainsOn(scenario, pair));
  const others = kept.length - trained.length;
  const why = 'of a task that measures the team, or said by a role that is not trained';
  if (trained.length > 0) {
    if (others > 0) output.remark(`note: ${others} of ${kept.length} kept pairs are left out: ${why}.`);
    return trained;
  }
  throw new OptimaError(
    'usage',
    `--with-forks: no pair of a fork is kept in ${folder}${others > 0 ? ` but ${others} ${why}` : ''}.`,
    { hint: `Keep one with: optima fork ${folder} … --keep` },
  );
}

/** Throws `run.missing` for a run that was begun with the pairs of another's forks, and ended before all of them were in its folder. */
function requireForks({ path, manifest: { command }, log }: RunFolder): void {
  if (log.end.events > 0 || !command.includes('--with-forks')) return;
  throw new OptimaError(
    'run.missing',
    `${path}: it ended before it had the pairs of forks that it was begun with.`,
    {
      hint: 'Nothing was done in it yet: delete it, and begin it again.',
    },
  );
}

/** Throws `usage` for pairs of another scenario: what was worth more there says nothing here. */
function requireSameScenario({ scenario, file }: LoadedScenario, origin: Manifest, folder: string): void {
  const { name, hash } = origin.scenario;
  if (name !== scenario.name) {
    throw new OptimaError(
      'usage',
      `--with-forks: the pairs of ${folder} are of scenario "${name}", not of "${scenario.name}".`,
    );
  }
  // A run that was begun in code has no file to compare.
  if (hash === '' || hash === hashFile(file)) return;
  throw new OptimaError(
    'usage',
    `--with-forks: ${file} was changed since ${folder} began, and its pairs are of the scenario as it was.`,
  );
}

/** The run that `--init-from` names; null without it. Throws `usage` where it is no run, or beside options that it goes without. */
function originOf({ initFrom, withForks, model }: TrainOptions): Manifest | null {
  if (initFrom === undefined) {
    if (withForks !== true) return null;
    throw new OptimaError('usage', '--with-forks: whose? Give --resume <run> or --init-from <run>.');
  }
  if (model !== undefined)
    throw new OptimaError('usage', '--init-from names the model: it takes no --model.');
  return readManifest(initFrom);
}

/** Goes on with the run of a folder. */
export async function resumeRun(
  folder: string,
  name: string | undefined,
  options: TrainOptions,
  output: Output,
  signal: AbortSignal,
): Promise<void> {
  const began = performance.now();
  const ofTheRun = [
    'recipe',
    'preset',
    'policies',
    'seed',
    'set',
    'out',
    'model',
    'policy',
    'judge',
    'anyway',
    'initFrom',
  ] as const;
  for (const option of ofTheRun) {
    if (options[option] !== undefined) {
      throw new OptimaError('usage', `--resume goes on as the run began: it takes no --${option}.`);
    }
  }
  const manifest = readManifest(folder);
  if (name !== undefined && name !== manifest.scenario.name) {
    throw new OptimaError('usage', `${folder} is a run of "${manifest.scenario.name}", not of "${name}".`);
  }
  const { loaded, recipe } = await reopenRun(folder, manifest, signal);
  await requireSameTasks(loaded.scenario, recipe, manifest.scenario.tasks);
  const engines = await openEngines(options, output);
  const { engine, startHost } = engines;
  const { partners: named = {}, judge: asked } = manifest;
  const trained = withoutTraining(loaded.scenario, Object.keys(named));
  const beside = [...Object.values(named), ...(asked === undefined ? [] : [asked])].map((one) => one.folder);
  await requireResources(manifest.base.folder, trained, recipe, beside, engines, output);
  const setting = { engine: engine.name, version: packageVersion(), node: process.version };
  for (const part of ['engine', 'version', 'node'] as const) {
    if (setting[part] === manifest[part]) continue;
    output.say(
      `note: the run began with another ${part} (${manifest[part]}): a phase that was cut off may not continue, and results may differ.`,
    );
    output.emit({ event: 'note', note: `another ${part}`, began: manifest[part] });
  }
  const base = await reopenBase(manifest);
  const { partners, judge } = await reopenFrozen(manifest);
  const { withForks } = options;
  const openRun = async () => {
    const run = RunFolder.open(folder, systemClock);
    try {
      requireForks(run);
      if (withForks) {
        keptPairsOf(folder, trained, output);
        requirePairsTaken(planRun(recipe, trained), run);
      }
      return run;
    } catch (error) {
      run.close();
      throw error;
    }
  };
  await carryOut(
    { loaded, recipe, base, partners, judge, withForks, openRun, startHost, began },
    output,
    signal,
  );
}

interface Work {
  readonly loaded: LoadedScenario;
  readonly recipe: Recipe;
  readonly base: LlamaPolicy;
  readonly partners: Readonly<Record<string, OpenedFrozen>>;
  readonly judge: OpenedFrozen | null;
  readonly withForks?: boolean | undefined;
  /** Called when all else is ready. */
  openRun(workers: PolicyHost): Promise<RunFolder>;
  readonly startHost: Engines['startHost'];
  /** When the work on it began in this process, milliseconds as `performance.now` counts them. */
  readonly began: number;
}

async function carryOut(
  { loaded, recipe, base, partners, judge, withForks, openRun, startHost, began }: Work,
  output: Output,
  signal: AbortSignal,
) {
  const scenario = withoutTraining(loaded.scenario, Object.keys(partners));
  const workers = await startHost(base);
  let run: RunFolder | undefined;
  const train = async () => {
    run = await openRun(workers);
    const earlierSeconds = run.manifest.seconds;
    output.say(`run: ${run.path}`);
    output.emit({ event: 'run', run: run.path, scenario: scenario.name, seed: recipe.seed });
    const { trainTeam } = await import('../run/train.ts');
    const plan = planRun(recipe, scenario);
    sayPlan(plan, planIterations(recipe, scenario), recipe, output);
    sayFrozen(scenario, { partners, judge }, output);
    const result = await trainTeam({
      scenario,
      recipe,
      base,
      ...(Object.keys(partners).length > 0 && {
        partners: Object.fromEntries(Object.entries(partners).map(([role, { model }]) => [role, model])),
      }),
      judge: judge?.model,
      withForks,
      run,
      workers,
      progress: withEstimate(output.progress, plan, recipe, output),
      signal,
    });
    sayComparison(result, scenario, output);
    saySamples(result.samples, output);
    sayPolicy(result.policy, run, output);
    if (result.trained.taskScore === 0) {
      output.remark('note: no dialogue of the trained team scored above 0: it has learnt nothing of use.');
    }
    output.emit({
      event: 'summary',
      scenario: scenario.name,
      recipe: recipe.recipe,
      seed: recipe.seed,
      base: summaryMetrics(result.base),
      trained: summaryMetrics(result.trained),
      ...(result.swapped && { swapped: summaryMetrics(result.swapped) }),
      iterations: result.iterations.map(machineIteration),
      seconds: Math.round(earlierSeconds + (performance.now() - began) / 1000),
      run: run.path,
      policy: machinePolicy(result.policy),
      ...frozenHashes(partners, judge),
    });
  };
  const noted = (error: unknown): Promise<never> => {
    const begun = run;
    if (begun === undefined || !(error instanceof OptimaError)) throw error;
    if (error.code === 'interrupted') {
      throw new OptimaError('interrupted', messageOf(error), {
        hint: `Continue with: optima train --resume ${begun.path}`,
      });
    }
    return cleaningUp<never>(
      () => Promise.reject(error),
      // Where nothing can be written, neither can this.
      () => error.code === 'io.write' || begun.noteFailure(error),
    );
  };
  await cleaningUp(
    () => train().catch(noted),
    () => workers.stop(),
    () => run?.close(),
  );
}

/** Where the weights are that a run ends with. */
function sayPolicy(policy: TeamPolicy, run: RunFolder, output: Output): void {
  const folders = new Map(Object.entries(policy).map(([role, hash]) => [role, run.policyFolder(hash)]));
  const [first, ...others] = new Set(folders.values());
  const lines = [...folders].map(([role, folder]) => `policy of ${role}: ${folder}`);
  output.say(`\n${others.length === 0 ? `policy: ${first}` : lines.join('\n')}`);
}

function keyList(): string {
  const all = new Map(recipeNames.flatMap((name) => recipeKeys(name).map((key) => [key.key, key] as const)));
  const keys = [...all.values()].map((key) => {
    const names = recipeNames.filter((name) => recipeKeys(name).some((own) => own.key === key.key));
    return { ...key, of: names.length === recipeNames.length ? '' : `; ${names.join(', ')}` };
  });
  const width = Math.max(...keys.map(({ key }) => key.length));
  const lines = keys.map(
    ({ key, type, description, of }) => `  ${key.padEnd(width)}  ${description} (${type}${of})`,
  );
  return `\nKeys of --set, and of which recipes where it is not of all:\n${lines.join('\n')}`;
}
