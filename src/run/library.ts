// What people do with the framework in code, each in one call: hold a dialogue, open a model, evaluate a team, train one.
// The types here name no tensor and no actor: whoever imports them need not have the types of TF.js and XState.
import fs from 'node:fs';
import path from 'node:path';
import { lastValueFrom, tap } from 'rxjs';
import { systemClock } from '../domain/clock.ts';
import { cleaningUp, OptimaError } from '../domain/errors.ts';
import type { TeamMetrics } from '../domain/metrics.ts';
import type { GenerativeModel, TrainablePolicy } from '../domain/model.ts';
import { type Progress, silent } from '../domain/progress.ts';
import { createRng } from '../domain/rng.ts';
import type { Trajectory } from '../domain/transcript.ts';
import { loraOf, requireTrainable } from '../recipe/lora.ts';
import { defaultPreset, defaultRecipe, presetRecipe, recipeNamed } from '../recipe/presets.ts';
import { applySettings, type Recipe, type RecipeName } from '../recipe/schema.ts';
import { type Evaluation, evaluateTeam } from '../rollouts/evaluate.ts';
import { castsOf, episodesOf, foldDialogues, rollOut } from '../rollouts/executor.ts';
import { defineScenario } from '../scenario/define.ts';
import { loadScenario } from '../scenario/load.ts';
import { loadTasks } from '../scenario/tasks.ts';
import { messageCap, type Scenario, type Split } from '../scenario/types.ts';
import { EventLog } from '../store/event-log.ts';
import { makeFolder } from '../store/files.ts';
import { createRun } from './create-run.ts';
import { openEngines } from './engines.ts';
import { type OpenedFrozen, openFrozen, speakersFrom } from './frozen.ts';
import { foldersFor, locateModel, locateTeam, shippedFolder } from './locate.ts';
import { hashTasks, requireRepeats } from './tasks.ts';

/** A scenario, or as on the command line its name (`name:variant`) or its file. */
export type ScenarioChoice = Scenario | string;

/** One model for every role, or one for each by its name. */
export type Team = GenerativeModel | Readonly<Record<string, GenerativeModel>>;

/** Where the tensor engine computes. A process chooses once: what starts it later gets the engine that runs. */
export interface ComputeOptions {
  /** Default: the environment's OPTIMA_BACKEND, else the best that starts. */
  readonly backend?: 'auto' | 'tensorflow' | 'wasm' | 'cpu' | undefined;
  /** Worker threads; 0: compute on this thread. Default: one for each core, at most four, if there are several. */
  readonly workers?: number | undefined;
}

/**
 * Opens a checkpoint in the Hugging Face layout, or the policy that a run ended with, by default the model that ships; who opens it disposes it.
 * Rejects with `checkpoint.missing`, `checkpoint.invalid`, `tokenizer.mismatch` and as the engine's start does.
 */
export async function openModel(
  folder?: string,
  { backend }: Pick<ComputeOptions, 'backend'> = {},
): Promise<TrainablePolicy> {
  const checkpoint = await locateModel(folder, 'folder');
  await openEngines({ backend, workers: 0 });
  const { loadPolicy } = await import('../models/llama/index.ts');
  return loadPolicy(checkpoint, { frozen: true });
}

export interface DialogueOptions {
  readonly scenario: ScenarioChoice;
  readonly models: Team;
  /** Default `test`. */
  readonly split?: Split | undefined;
  /** Which task of the split, from 0, which is the default. */
  readonly task?: number | undefined;
  /** Default 1. */
  readonly seed?: number | undefined;
  /** Default 0: always the most likely token. */
  readonly temperature?: number | undefined;
  /** Cap on one message; default: the scenario's. */
  readonly maxMessageTokens?: number | undefined;
  /** Whom the scenario's metric asks, if it has a judge. */
  readonly judge?: GenerativeModel | undefined;
  /** Gets the dialogue's log, `events.jsonl`, for `readEvents`; there must be none in it yet. */
  readonly folder?: string | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Holds one dialogue. One that fails, because scenario code threw or a model refused the request, is an outcome and no error
 * (`Trajectory.failure`). Rejects with `model.failed` where a model fails otherwise, `interrupted` on abort, `run.exists` and
 * `io.write`, and as `loadScenario` and the task source do.
 */
export async function holdDialogue({
  models,
  split = 'test',
  task: index = 0,
  seed = 1,
  temperature = 0,
  judge,
  folder,
  signal,
  ...options
}: DialogueOptions): Promise<Trajectory> {
  const { scenario } = await choose(options.scenario, signal);
  const rng = createRng(seed);
  const phase = 'dialogue';
  const tasks = await loadTasks(scenario, split, { from: index, count: 1 }, rng);
  const events = rollOut({
    phase,
    scenario,
    casts: castsOf(scenario, [models]),
    judges: judgeModels(scenario, judge),
    cohorts: [[...episodesOf({ phase, tasks, samplesPerTask: 1, formats: [], rng })]],
    temperature,
    maxMessageTokens: messageCap(scenario, options.maxMessageTokens ?? null),
    rng,
    signal,
  });
  const log = folder === undefined ? null : createLog(folder);
  return cleaningUp(
    () =>
      lastValueFrom(
        events.pipe(
          tap((event) => log?.append(event)),
          foldDialogues(),
        ),
      ),
    () => log?.close(),
  );
}

function createLog(folder: string): EventLog {
  const file = path.join(folder, 'events.jsonl');
  if (fs.existsSync(file)) {
    throw new OptimaError('run.exists', `${folder} already holds a run.`, { hint: 'Name another folder.' });
  }
  makeFolder(folder);
  return new EventLog(file, systemClock);
}

export interface EvaluateOptions extends ComputeOptions {
  readonly scenario: ScenarioChoice;
  /**
   * A team; or a folder, whose policies workers compute: a checkpoint, which speaks for every role, or a run for the policy it ended
   * with, or for each role's. Default: the shipped model.
   */
  readonly models?: Team | string | undefined;
  /** Whom the scenario's metric asks, if it has a judge. */
  readonly judge?: GenerativeModel | undefined;
  /** Default `test`. */
  readonly split?: Split | undefined;
  /** How many, the first ones of the split. Default 100. */
  readonly tasks?: number | undefined;
  /** Default 1. */
  readonly seed?: number | undefined;
  /** Cap on one message; default: the scenario's. */
  readonly maxMessageTokens?: number | undefined;
  readonly progress?: Progress | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * How well a team does at temperature 0, one dialogue for each task, and what it costs. Rejects with `evaluation.empty` where
 * no dialogue has a score, `interrupted` on abort, and as `loadScenario`, `openModel` and the task source do.
 */
export async function evaluate({
  models = shippedFolder,
  split = 'test',
  tasks: count = 100,
  seed = 1,
  progress = silent,
  signal,
  ...options
}: EvaluateOptions): Promise<Evaluation> {
  const { scenario } = await choose(options.scenario, signal);
  const judges = judgeModels(scenario, options.judge);
  const play = (speakers: readonly Team[]) =>
    evaluateTeam({
      phase: 'eval',
      scenario,
      models: speakers,
      judges,
      split,
      count,
      maxMessageTokens: messageCap(scenario, options.maxMessageTokens ?? null),
      concurrency: presetRecipe(defaultPreset).concurrency,
      rng: createRng(seed),
      progress,
      signal,
    });
  if (typeof models !== 'string') return play([models]);
  const [folder, folders] = foldersFor(scenario, await locateTeam(models, 'models'));
  const { startHost } = await openEngines(options);
  const { model } = await openFrozen(folder);
  const byRole: Record<string, OpenedFrozen> = {};
  for (const [role, own] of Object.entries(folders)) byRole[role] = await openFrozen(own);
  const host = await startHost(null);
  return cleaningUp(
    async () => play(await speakersFrom(scenario, model, byRole, host)),
    () => host.stop(),
  );
}

export interface TrainOptions extends ComputeOptions {
  /** By name or file, a run can be resumed with `optima train --resume`; a scenario object has no file to load it from. */
  readonly scenario: ScenarioChoice;
  /** Default `isft-dpo`. */
  readonly recipe?: RecipeName | undefined;
  /** `quick`, the default, `full`, or `paper:<data set>`. */
  readonly preset?: string | undefined;
  /** Default: the preset's, 1. */
  readonly seed?: number | undefined;
  /** Other values for keys of the recipe, by their paths, as with `--set`: `{ iterations: 1, 'evaluation.tasks': 50 }`. */
  readonly settings?: Readonly<Record<string, string | number | boolean | null>> | undefined;
  /** Folder of the checkpoint to start from, or of a run for its final policy; default: the shipped one. */
  readonly base?: string | undefined;
  /** Whom the scenario's metric asks, if it has a judge; it has no file, so such a run cannot be resumed. */
  readonly judge?: GenerativeModel | undefined;
  /** The run's folder, new or empty; default `runs/<id>`. */
  readonly folder?: string | undefined;
  readonly progress?: Progress | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface Training {
  /** The run's folder: its log, figures and checkpoints. */
  readonly folder: string;
  /** On the same test tasks, before and after. */
  readonly base: TeamMetrics;
  readonly trained: TeamMetrics;
  /** The folder of each role's checkpoint. */
  readonly policies: Readonly<Record<string, string>>;
}

/**
 * Trains a team, from a base to the policy that the run keeps. Rejects with `usage` for what is no recipe, preset or setting,
 * `run.exists`, `interrupted` on abort (what was completed stays), `selection.empty` where the first iteration finds nothing
 * to train on, `training.diverged`, and as `loadScenario`, `openModel` and the task source do.
 */
export async function train(options: TrainOptions): Promise<Training> {
  const { preset = defaultPreset, seed, settings = {} } = options;
  const baseFolder = await locateModel(options.base, 'base');
  const loaded = await choose(options.scenario, options.signal);
  const { scenario } = loaded;
  const [judge] = judgeModels(scenario, options.judge);
  const recipe = applySettings<Recipe>(presetRecipe(preset, recipeNamed(options.recipe ?? defaultRecipe)), [
    ...(seed === undefined ? [] : [`seed=${seed}`]),
    ...Object.entries(settings).map(([key, value]) => `${key}=${value}`),
  ]);
  const tasks = await hashTasks(scenario, recipe);
  await requireRepeats(scenario, recipe, tasks);
  const { engine, startHost } = await openEngines(options);
  const [{ loadPolicy }, { trainTeam }] = await Promise.all([
    import('../models/llama/index.ts'),
    import('./train.ts'),
  ]);
  const base = await loadPolicy(baseFolder, { frozen: true });
  const run = beginWith(base, () => {
    requireTrainable(base, loraOf(recipe));
    return createRun({
      folder: options.folder,
      command: [],
      loaded,
      tasks,
      preset,
      recipe,
      engine: engine.name,
      base: { folder: path.resolve(baseFolder), hash: base.hash },
    });
  });
  const withHost = async () => {
    const workers = await startHost(base);
    const { progress = silent, signal } = options;
    return cleaningUp(
      () => trainTeam({ scenario, recipe, base, judge, run, workers, progress, signal }),
      () => workers.stop(),
    );
  };
  const result = await cleaningUp(withHost, () => run.close());
  const policies = Object.entries(result.policy).map(([role, hash]) => [role, run.policyFolder(hash)]);
  return {
    folder: run.path,
    base: result.base,
    trained: result.trained,
    policies: Object.fromEntries(policies),
  };
}

/** The judge as often as it is asked for; throws `usage` where the scenario asks one that is not given. */
function judgeModels({ name, judge }: Scenario, given: GenerativeModel | undefined): GenerativeModel[] {
  if (judge === undefined) return [];
  if (given !== undefined) return [given];
  throw new OptimaError('usage', `Scenario "${name}" asks a judge model, and none is given.`, {
    hint: 'Give one as `judge`.',
  });
}

/** What a run begins with is freed where it does not begin; `trainTeam` frees it otherwise. */
function beginWith<Result>(policy: TrainablePolicy, begin: () => Result): Result {
  try {
    return begin();
  } catch (error) {
    policy.dispose();
    throw error;
  }
}

/** The scenario, and the file it came from. */
async function choose(
  scenario: ScenarioChoice,
  signal: AbortSignal | undefined,
): Promise<{ readonly scenario: Scenario; readonly file: string | null }> {
  return typeof scenario === 'string'
    ? loadScenario(scenario, signal)
    : { scenario: defineScenario(scenario), file: null };
}
