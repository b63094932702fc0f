// The look before training: whether the model speaks a scenario at all, and what to do where it does not.
import { describeProbe, type Probe, type ProbePlan, probeTeam, whyUnready } from '../check/probe.ts';
import { OptimaError } from '../domain/errors.ts';
import type { LlamaPolicy } from '../models/llama/index.ts';
import type { Recipe } from '../recipe/schema.ts';
import type { Scenario } from '../scenario/types.ts';
import { estimateSeconds } from '../warmup/estimate.ts';
import { shippedModel } from './model.ts';
import { defaultModel } from './options.ts';
import type { Output } from './output.ts';

/** A scenario as it was named on the command line, and the model that is to speak it. */
export interface Team {
  readonly scenario: Scenario;
  readonly name: string;
  /** Its checkpoint, and the weights. */
  readonly model: string;
  readonly base: LlamaPolicy;
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
  const probe = await sayProbe({ scenario, models, judges, seed, maxMessageTokens, signal }, output);
  const why = whyUnready(probe);
  if (why === null) return;
  const message = unreadyMessage(team, why);
  const advice = await warmupAdvice(team);
  if (anyway || takesAnything(recipe)) output.remark(`note: ${message} ${advice}`);
  else throw new OptimaError('model.unready', message, { hint: `${advice} --anyway trains all the same.` });
}

/** Whether a recipe trains on dialogues that score nothing and on messages that were cut off: then it was told to. */
const takesAnything = ({ initialization, eligible }: Recipe): boolean =>
  initialization.thetaInit < 0 && eligible.cappedMessage;

export const unreadyMessage = ({ scenario, model }: Team, why: string): string =>
  `${shown(model)} does not speak "${scenario.name}": ${why}.`;

/** What makes a model speak a scenario, and about how long that takes. */
export async function warmupAdvice({ scenario, name, model, base }: Team): Promise<string> {
  const out = `models/${scenario.name.replace(':', '-')}`;
  const warm = `npx optima warmup ${name} --from ${shown(model)} --out ${out}`;
  if (scenario.demonstrate === undefined) {
    return `Give the scenario a demonstrator (docs/scenario-authoring.md), then warm the model up: ${warm}`;
  }
  const minutes = Math.max(1, Math.round((await estimateSeconds([scenario], base)) / 60));
  return `Warm it up first, about ${minutes} min on two cores: ${warm}; then train with --model ${out}.`;
}

const shown = (model: string) => (model === defaultModel ? shippedModel : model);
