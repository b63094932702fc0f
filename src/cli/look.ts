// The look before training: whether the model speaks a scenario at all, and what to do where it does not.
import { describeProbe, type Probe, type ProbePlan, probeTeam, whyUnready } from '../check/probe.ts';
import { OptimaError } from '../domain/errors.ts';
import type { LlamaPolicy } from '../models/llama/index.ts';
import type { Recipe } from '../recipe/schema.ts';
import type { OpenedFrozen } from '../run/frozen.ts';
import { shippedFolder, shippedModel } from '../run/locate.ts';
import type { Scenario } from '../scenario/types.ts';
import { estimateSeconds } from '../warmup/estimate.ts';
import type { Output } from './output.ts';

/** A scenario as it was named on the command line, and the model that is to speak it. */
export interface Team {
  readonly scenario: Scenario;
  readonly name: string;
  /** Its checkpoint, and the weights. */
  readonly model: string;
  readonly base: LlamaPolicy;
  /** Who plays roles that are not trained, if anybody does. */
  readonly partners?: Readonly<Record<string, OpenedFrozen>>;
}

export async function sayProbe(plan: ProbePlan, output: Output): Promise<Probe> {
  const probe = await probeTeam({ ...plan, progress: output.progress });
  output.say(`a first look: ${describeProbe(probe)}`);
  output.emit({ event: 'probe', ...probe, unready: whyUnready(probe) });
  return probe;
}

/** Lets the team play a handful of its tasks; throws `model.unready` where there is nothing to learn from, unless told otherwise: by `anyway` or the recipe. */
export async function lookBeforeTraining(
  team: Team & { readonly recipe: Recipe } & Pick<ProbePlan, 'models' | 'judges'>,
  { anyway = false }: { readonly anyway?: boolean },
  output: Output,
  signal: AbortSignal,
): Promise<void> {
  const { scenario, recipe, models, judges } = team;
  const { seed, maxMessageTokens } = recipe;
  const brief = anyway || takesAnything(recipe);
  const probe = await sayProbe({ scenario, models, judges, seed, maxMessageTokens, brief, signal }, output);
  const why = whyUnready(probe);
  if (why === null) return;
  const message = unreadyMessage(team, why, probe);
  const advice = await adviceFor(team, probe);
  if (brief) output.remark(`note: ${message} ${advice}`);
  else throw new OptimaError('model.unready', message, { hint: `${advice} --anyway trains all the same.` });
}

/** Whether a recipe trains on dialogues that score nothing and on messages that were cut off: then it was told to. */
const takesAnything = ({ initialization, eligible }: Recipe): boolean =>
  initialization.thetaInit < 0 && eligible.cappedMessage;

/** Roles with a partner who says nothing whole where the model itself does: then those are to blame. */
function silentPartners(team: Team, { cappedRoles }: Probe): readonly string[] {
  if (rolesOf(team).every((role) => cappedRoles.includes(role))) return [];
  return Object.keys(team.partners ?? {}).filter((role) => cappedRoles.includes(role));
}

/** Those that the model plays itself. */
const rolesOf = ({ scenario, partners = {} }: Team) =>
  Object.keys(scenario.roles).filter((role) => !Object.hasOwn(partners, role));

export function unreadyMessage(team: Team, why: string, probe: Probe): string {
  const { scenario, model, partners = {} } = team;
  const playing = (roles: readonly string[]) =>
    roles.map((role) => `${shown(partners[role]!.folder)} as ${role}`).join(', ');
  const cut = `every message ran into its cap of ${probe.maxMessageTokens} tokens`;
  const silent = silentPartners(team, probe);
  if (silent.length > 0) return `${playing(silent)} does not speak "${scenario.name}": ${cut}.`;
  const others = Object.keys(partners);
  if (others.length === 0) return `${shown(model)} does not speak "${scenario.name}": ${why}.`;
  const isSilent = rolesOf(team).every((role) => probe.cappedRoles.includes(role));
  return isSilent
    ? `${shown(model)} does not speak "${scenario.name}": ${cut}.`
    : `${shown(model)} with ${playing(others)} does not solve "${scenario.name}": ${why}.`;
}

/** What makes a team able to be trained, and about how long that takes. */
export async function adviceFor(team: Team, probe: Probe): Promise<string> {
  const { scenario, name, model, base } = team;
  const [silent] = silentPartners(team, probe);
  if (silent !== undefined) return `Give ${silent} a policy that speaks it (--policy ${silent}=…).`;
  const out = `models/${scenario.name.replace(':', '-')}`;
  const warm = `npx optima warmup ${name} --from ${shown(model)} --out ${out}`;
  if (scenario.demonstrate === undefined) {
    return `Give the scenario a demonstrator (docs/scenario-authoring.md), then warm the model up: ${warm}`;
  }
  const minutes = Math.max(1, Math.round((await estimateSeconds([scenario], base)) / 60));
  return `Warm it up first, about ${minutes} min on two cores: ${warm}; then train with --model ${out}.`;
}

const shown = (model: string) => (model === shippedFolder ? shippedModel : model);
