// Starts the tensor engine, loads the checkpoint a command asks for, and starts workers where it can use them.
import { nearest, OptimaError } from '../domain/errors.ts';
import type { TeamPolicy } from '../domain/ids.ts';
import type { OpenedModel, OpenOptions } from '../models/open.ts';
import { type Engines, openEngines as startEngines } from '../run/engines.ts';
import { type OpenedFrozen, openFrozen } from '../run/frozen.ts';
import { locateModel } from '../run/locate.ts';
import { withoutJudge } from '../scenario/score.ts';
import type { Scenario } from '../scenario/types.ts';
import type { Engine } from '../tensor/index.ts';
import type { Backend } from './options.ts';
import { counted, type Output } from './output.ts';

export interface ModelOptions {
  /** Worker threads; 0: compute on the main thread. Default: one for each core, if there are several. */
  readonly workers?: number;
  readonly backend?: Backend;
  readonly model?: string;
}

/** Starts the engine and says in one line which it is; TF.js is loaded here and not before. */
export async function openEngine(options: ModelOptions, output: Output): Promise<Engine> {
  return openEngines({ ...options, workers: 0 }, output).then(({ engine }) => engine);
}

/** As `openEngine`, with what starts workers (src/run/engines.ts). */
export async function openEngines(options: ModelOptions, output: Output): Promise<Engines> {
  const engines = await startEngines(options);
  const { engine, workers: count } = engines;
  const beside = count === 0 ? '' : `; ${counted(count, 'worker')}`;
  const description = `${engine.description}${beside}`;
  output.say(`engine: ${description}`);
  output.emit({
    event: 'engine',
    backend: engine.backend,
    machineCode: engine.machineCode,
    blas: engine.blas,
    workers: count,
    description,
  });
  return engines;
}

/** Opens what `--model` names, as `OpenOptions` say; TF.js is loaded here and not before. Rejects as `locateModel` throws. */
export async function openModel({ model }: ModelOptions, how?: OpenOptions): Promise<OpenedModel> {
  const folder = await locateModel(model, '--model');
  const open = await import('../models/open.ts');
  return open.openModel(folder, how);
}

/** Models beside the one that `--model` names: who plays roles and is not trained, and whom the metric asks. */
export interface FrozenOptions {
  readonly policy?: readonly string[];
  readonly judge?: string;
}

/** What `--policy` and `--judge` name. Rejects with `usage` where the scenario has no such role, or its judge is missing or too much. */
export async function frozenNames(scenario: Scenario, { policy = [], judge }: FrozenOptions) {
  const known = Object.keys(scenario.roles);
  const partners: Record<string, string> = {};
  for (const text of policy) {
    const [, role, model] = /^([^=]+)=(.+)$/.exec(text) ?? [];
    if (role === undefined || model === undefined) {
      throw new OptimaError('usage', `--policy ${text}: must be <role>=<model>.`);
    }
    if (!known.includes(role)) {
      const guess = nearest(role, known);
      throw new OptimaError(
        'usage',
        `--policy ${text}: "${scenario.name}" has the roles ${known.join(', ')}.`,
        {
          hint: guess && `Did you mean "${guess}"?`,
        },
      );
    }
    if (Object.hasOwn(partners, role))
      throw new OptimaError('usage', `--policy ${text}: ${role} has one already.`);
    partners[role] = model;
  }
  if (scenario.judge === undefined && judge !== undefined) {
    throw new OptimaError('usage', `--judge ${judge}: "${scenario.name}" asks no judge model.`);
  }
  if (scenario.judge !== undefined && judge === undefined) throw withoutJudge(scenario);
  const located: Record<string, string> = {};
  for (const [role, model] of Object.entries(partners))
    located[role] = await locateModel(model, `--policy ${role}`);
  return {
    partners: located as Readonly<Record<string, string>>,
    judge: judge === undefined ? undefined : await locateModel(judge, '--judge'),
  };
}

/** Where they are. */
export const foldersIn = ({
  partners,
  judge,
}: Awaited<ReturnType<typeof frozenNames>>): readonly string[] => [
  ...Object.values(partners),
  ...(judge === undefined ? [] : [judge]),
];

/** All partners of roles that are not trained. */
export async function openPartners(
  names: Readonly<Record<string, string>>,
): Promise<Readonly<Record<string, OpenedFrozen>>> {
  const opened: Record<string, OpenedFrozen> = {};
  for (const [role, name] of Object.entries(names)) opened[role] = await openFrozen(name);
  return opened;
}

export const hashesOf = (models: Readonly<Record<string, OpenedFrozen>>): TeamPolicy =>
  Object.fromEntries(Object.entries(models).map(([role, { model }]) => [role, model.hash]));

/** What a summary says of them: their hashes, where there are any. */
export function frozenHashes(partners: Readonly<Record<string, OpenedFrozen>>, judge: OpenedFrozen | null) {
  return {
    ...(Object.keys(partners).length > 0 && { partners: hashesOf(partners) }),
    ...(judge !== null && { judge: judge.model.hash }),
  };
}

/** As `openModel`, for what needs a checkpoint; rejects with `usage` for a module that replies, which has nothing of what is needed. */
export async function openPolicy(
  options: ModelOptions,
  needed = 'weights that could be trained',
  how?: OpenOptions,
): Promise<NonNullable<OpenedModel['trains']>> {
  const { trains } = await openModel(options, how);
  if (trains !== null) return trains;
  throw new OptimaError('usage', `${options.model}: a module that replies has no ${needed}.`, {
    hint: 'Give a checkpoint folder.',
  });
}
