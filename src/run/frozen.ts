// Models that are asked and never trained, and who speaks for whom in each lane.
import path from 'node:path';
import type { GenerativeModel } from '../domain/model.ts';
import type { Scenario } from '../scenario/types.ts';
import { type PolicyHost, type PolicySource, sourceOfPolicy } from '../workers/host.ts';

/** A model that a run asks and never trains: a checkpoint, or one that computes here and has no weights. */
export type FrozenModel = PolicySource | GenerativeModel;

const hasNoWeights = (model: FrozenModel): model is GenerativeModel => 'generate' in model;

/** A frozen model, as often as calls can run side by side; of one without weights all are the same. */
export const modelsFrom = async (
  model: FrozenModel,
  host: Pick<PolicyHost, 'modelsOf'>,
): Promise<readonly GenerativeModel[]> => (hasNoWeights(model) ? [model] : host.modelsOf(model));

/** A model that is not trained, and where it was found. */
export interface OpenedFrozen {
  readonly folder: string;
  readonly model: FrozenModel;
}

/** Opens a model to be asked, of a checkpoint folder or a module; its weights are let go again but for those that a host shares, as it loads the others where it computes. */
export async function openFrozen(name: string): Promise<OpenedFrozen> {
  const { openModel } = await import('../models/open.ts');
  const { generates, trains, dispose } = await openModel(name);
  dispose();
  if (trains === null) return { folder: path.resolve(name), model: generates };
  return { folder: trains.folder, model: sourceOfPolicy(trains.policy, trains.folder) };
}

/** Who speaks for each role, as often as cohorts can be held side by side: its partner, if it has one, or `own`. */
export async function speakersFrom(
  { roles }: Scenario,
  own: FrozenModel,
  partners: Readonly<Record<string, { readonly model: FrozenModel }>>,
  host: Pick<PolicyHost, 'modelsOf'>,
): Promise<readonly Readonly<Record<string, GenerativeModel>>[]> {
  const playedBy: Record<string, readonly GenerativeModel[]> = {};
  for (const role of Object.keys(roles))
    playedBy[role] = await modelsFrom(partners[role]?.model ?? own, host);
  return lanesOf(playedBy);
}

/**
 * A model for each role, as often as cohorts can be held side by side: as many as the policy with fewest models has. Models
 * without weights can be asked by any number.
 */
export function lanesOf<Model>(
  models: Readonly<Record<string, readonly Model[]>>,
): Readonly<Record<string, Model>>[] {
  const counts = Object.values(models).map(({ length }) => length);
  const several = counts.filter((count) => count > 1);
  const sideBySide = several.length > 0 ? Math.min(...several) : 1;
  return Array.from({ length: sideBySide }, (_, lane) =>
    Object.fromEntries(Object.entries(models).map(([role, own]) => [role, own[lane % own.length]!])),
  );
}
