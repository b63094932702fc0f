// Search: grows the conversation trees of an iteration's tasks with the latest policy, and values every roll-out.
import type { ValueDialogues } from '../../actors/index.ts';
import { chunk } from '../../domain/chunk.ts';
import { OptimaError } from '../../domain/errors.ts';
import type { PhaseOutputOf, RunEvent } from '../../domain/events.ts';
import { type DialogueId, rootId } from '../../domain/ids.ts';
import { type CountTokens, mean, percentile, TeamFigures } from '../../domain/metrics.ts';
import type { ScoringModel } from '../../domain/model.ts';
import { messageTokens, type Trajectory, type Turn } from '../../domain/transcript.ts';
import type { PlannedPhases } from '../../machines/index.ts';
import { preferenceOf, searchConfigOf } from '../../reading/pairing.ts';
import { rankOptionsOf, rankTrajectories } from '../../reading/ranking.ts';
import type { Recipe } from '../../recipe/schema.ts';
import { castsOf } from '../../rollouts/executor.ts';
import { exploreTrees, type SearchCost } from '../../rollouts/explore.ts';
import { loadTasks } from '../../scenario/tasks.ts';
import { messageCap, trainedRoles } from '../../scenario/types.ts';
import { scoreNewTurns } from '../readability.ts';
import { judgesOf, recallFrom, recordCohorts } from './cohorts.ts';
import { answersOf, countTokensOf, type PhaseContext, policyIn } from './context.ts';

export async function search(
  context: PhaseContext,
  phase: PlannedPhases['search'],
): Promise<PhaseOutputOf<'search'>> {
  const { run, scenario, base, shelf, rng, progress, signal } = context;
  const recipe = preferenceOf(context.recipe);
  const { name } = phase;
  const tasks = await loadTasks(scenario, 'train', phase.tasks, rng);
  const normaliser = measurePilot(context, phase);
  const roles = trainedRoles(scenario);
  const figures = new SearchFigures(roles, countTokensOf(context));
  const costs: SearchCost[] = [];
  const policy = policyIn(context, phase);
  const forest = run.forest(context.from);
  const { cohort, together, cacheMegabytes, temperature, expansions, rolloutsPerExpansion } = recipe.search;
  const trees = tasks.map(({ id: taskId, task }) => ({ tree: rootId(name, taskId), taskId, task }));
  const rank = rankOptionsOf(recipe, scenario);
  const answers = answersOf(scenario, tasks);

  const valueWith = (model: ScoringModel): ValueDialogues => {
    const known = new WeakMap<Turn, readonly number[]>();
    return async (dialogues) => {
      // Without the run's signal: an interruption closes the session, and with it this call.
      await scoreNewTurns(model, dialogues, known, roles);
      const logprobs = new Map(
        dialogues.map(({ id, turns }) => [id, turns.map((turn) => known.get(turn) ?? [])]),
      );
      // They are of one tree.
      const answer = answers.get(dialogues[0]!.taskId)!;
      return rankTrajectories(dialogues, logprobs, { ...rank, answer, normaliser }).map((ranked) => ({
        type: 'trajectory.ranked' as const,
        ...ranked,
      }));
    };
  };
  const sampledTokens = await recordCohorts(context, {
    phase: name,
    cohorts: chunk(trees, cohort),
    total: trees.length * expansions * rolloutsPerExpansion,
    hold: async (cohorts, first, onClosed) => {
      const casts = castsOf(scenario, await shelf.speakersOf(policy));
      const bases = await shelf.modelsOf(base.hash);
      const judges = await judgesOf(context);
      return exploreTrees({
        ...{ phase: name, scenario, cohorts, first, together, temperature, valueWith, rng, signal },
        lanes: casts.map((cast, lane) => ({
          cast,
          base: bases[lane % bases.length]!,
          judge: judges[lane % judges.length],
        })),
        recallReply: recallFrom(run),
        memoryBytes: cacheMegabytes * 2 ** 20,
        search: searchConfigOf(recipe),
        maxMessageTokens: messageCap(scenario, recipe.maxMessageTokens),
        onClosed,
        onMeasured: (cost) => costs.push(cost),
      });
    },
    take: (event) => {
      figures.hear(event);
      for (const dialogue of forest.take(event)) figures.add(dialogue);
    },
  });
  progress.end(`${figures.team.summary()}, ${figures.merged} turns merged${describeCosts(costs)}`);
  return {
    kind: 'search',
    trees: trees.length,
    normaliser,
    sampledTokens,
    ...figures.output(),
    metrics: figures.team.metrics(rng.split('bootstrap').split(name)),
  };
}

/** Tokens that R_token is taken against: a percentile of the pilot's dialogues, plus one, as in the authors' code. */
function measurePilot(
  { run, recipe }: Pick<PhaseContext, 'run' | 'recipe'>,
  { name, pilot }: PlannedPhases['search'],
): number {
  const lengths: number[] = [];
  for (const { verdict, turns } of run.dialoguesOf(pilot)) {
    if (verdict !== null) lengths.push(messageTokens(turns));
  }
  return pilotNormaliser(lengths, recipe, { name, pilot });
}

/** The same, from the tokens of the pilot's judged dialogues. */
export function pilotNormaliser(
  lengths: readonly number[],
  recipe: Recipe,
  { name, pilot }: Pick<PlannedPhases['search'], 'name' | 'pilot'>,
): number {
  if (lengths.length > 0) return percentile(lengths, preferenceOf(recipe).search.pilotPercentile) + 1;
  throw new OptimaError('evaluation.empty', `${name}: all dialogues of ${pilot} failed.`);
}

/** What the roll-outs of a search amount to, event by event. */
class SearchFigures {
  readonly team: TeamFigures;
  merged = 0;
  readonly #cases = { emptyMessage: 0, repetition: 0, cappedMessage: 0, turnCap: 0 };
  readonly #losses = new Map<DialogueId, readonly number[]>();
  #ranked = 0;
  #rewards = 0;
  #rewardLosses = 0;
  #divergence = 0;
  #tokens = 0;
  readonly #roles: readonly string[];

  /** `roles` are those whose turns are compared with the base's. */
  constructor(roles: readonly string[], countTokens: CountTokens) {
    this.#roles = roles;
    this.team = new TeamFigures(countTokens);
  }

  hear(event: RunEvent): void {
    if (event.type === 'turn.merged') this.merged++;
    if (event.type !== 'trajectory.ranked') return;
    for (const edgeCase of event.edgeCases) this.#cases[edgeCase]++;
    if (event.reward === null || event.terms === null) return;
    this.#ranked++;
    this.#rewards += event.reward;
    this.#rewardLosses += event.terms.loss;
    this.#losses.set(event.dialogueId, event.turnLosses);
  }

  /** A dialogue that is finished and ranked. */
  add(dialogue: Trajectory): void {
    this.team.add(dialogue);
    for (const [index, loss] of (this.#losses.get(dialogue.id) ?? []).entries()) {
      const { logprobs, speaker } = dialogue.turns[index]!;
      if (!this.#roles.includes(speaker)) continue;
      this.#divergence += logprobs.reduce((sum, logprob) => sum + logprob + loss, 0);
      this.#tokens += logprobs.length;
    }
    this.#losses.delete(dialogue.id);
  }

  output() {
    const { dialogues } = this.team;
    return {
      dialogues,
      failed: dialogues - this.#ranked,
      merged: this.merged,
      meanReward: this.#ranked === 0 ? 0 : this.#rewards / this.#ranked,
      meanLoss: this.#ranked === 0 ? 0 : this.#rewardLosses / this.#ranked,
      edgeCases: this.#cases,
      klToBase: this.#tokens === 0 ? 0 : this.#divergence / this.#tokens,
    };
  }
}

/** What the cohorts that this process searched read, and how full their batches were; nothing where it is not known. */
function describeCosts(costs: readonly SearchCost[]): string {
  const computed = costs.reduce((sum, cost) => sum + (cost.computed ?? 0), 0);
  const naive = costs.reduce((sum, cost) => sum + cost.naive, 0);
  if (computed === 0) return '';
  const fills = costs.flatMap(({ fill }) => fill).filter(({ steps }) => steps > 0);
  const steps = fills.reduce((sum, fill) => sum + fill.steps, 0);
  const rows = fills.reduce((sum, { rows }) => sum + rows, 0);
  const overTime = [0, 1, 2, 3, 4].map((fifth) =>
    mean(
      fills.flatMap(({ parts }) => parts.slice((fifth / 5) * parts.length, ((fifth + 1) / 5) * parts.length)),
    ),
  );
  const times = overTime.map((rows) => rows.toFixed(0)).join(' ');
  return `; ${thousands(computed)} tokens read where ${thousands(naive)} would be without shared prefixes; ${(rows / steps).toFixed(0)} turns a batch (over time: ${times})`;
}

const thousands = (tokens: number) => `${(tokens / 1000).toFixed(0)} k`;
