// What sharing prefixes saves, in a search and in the training on its pairs, on the model that ships and a scenario, by default pages-qa.
// - search: trees of so many tasks, eight expansions of three roll-outs each, with a session's memory and with one that
//   holds nothing; turns and rewards are the same.
// - training: the gradients of those trees' pairs in batches, packed to trees of tokens and pair by pair.
// - whole: 24 roll-outs for each of 256 tasks, with a worker on each core.
// A search is led by a policy that was initialized: --model takes the checkpoint of a run, else it is the base that ships.
// node --import tsx bench/search.ts [tasks] [--scenario name] [--model folder] [--whole]
import { availableParallelism } from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { lastValueFrom, toArray } from 'rxjs';
import { chunk } from '../src/domain/chunk.ts';
import { Forest, treesIn } from '../src/domain/conversation-tree.ts';
import { rootId } from '../src/domain/ids.ts';
import { createRng } from '../src/domain/rng.ts';
import type { Turn } from '../src/domain/transcript.ts';
import { loadPolicy } from '../src/models/llama/index.ts';
import { searchConfigOf, searchedTrees } from '../src/reading/pairing.ts';
import { rankOptionsOf, rankTrajectories } from '../src/reading/ranking.ts';
import { presetRecipe } from '../src/recipe/presets.ts';
import { castsOf } from '../src/rollouts/executor.ts';
import {
  type ExplorePlan,
  exploreTrees,
  type SearchCost,
  type SearchEvent,
} from '../src/rollouts/explore.ts';
import { scoreNewTurns } from '../src/run/readability.ts';
import { loadScenario } from '../src/scenario/load.ts';
import { loadTasks } from '../src/scenario/tasks.ts';
import { messageCap } from '../src/scenario/types.ts';
import { pairsOf } from '../src/search/index.ts';
import { startEngine } from '../src/tensor/index.ts';
import { preferenceExample } from '../src/training/dpo/examples.ts';
import { dpoObjective } from '../src/training/dpo/index.ts';
import { onThisThread } from '../src/training/step.ts';
import { Workers } from '../src/workers/index.ts';
import { packageFolder, rounded } from './shared.ts';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    whole: { type: 'boolean', default: false },
    model: { type: 'string' },
    scenario: { type: 'string', default: 'pages-qa' },
  },
});
const tasks = Number(positionals[0] ?? 24);
const recipe = presetRecipe('quick', 'idpo');
const { scenario } = await loadScenario(path.join(packageFolder, `scenarios/${values.scenario}.ts`));
const rng = createRng(1);
// One thread, as in a worker.
const engine = await startEngine({ threads: 1 });
const { model: folder = path.join(packageFolder, 'models/tiny') } = values;
const policy = await loadPolicy(folder);

/** The preset's search, with rewards against a length that no dialogue reaches. */
async function planOf(count: number, overrides: Partial<ExplorePlan> = {}): Promise<ExplorePlan> {
  const phase = 'search';
  const trees = (await loadTasks(scenario, 'train', { from: 0, count }, rng)).map(({ id: taskId, task }) => ({
    ...{ tree: rootId(phase, taskId), taskId, task },
  }));
  const rank = { ...rankOptionsOf(recipe, scenario), answer: scenario.answer, normaliser: 200 };
  return {
    ...{ phase, scenario, rng, first: 0, search: searchConfigOf(recipe), memoryBytes: 2 ** 28 },
    ...{ temperature: recipe.search.temperature, maxMessageTokens: messageCap(scenario, null) },
    together: recipe.search.together,
    cohorts: chunk(trees, recipe.search.cohort),
    lanes: castsOf(scenario, [policy]).map((cast) => ({ cast, base: policy })),
    valueWith: (model) => {
      const known = new WeakMap<Turn, readonly number[]>();
      return async (dialogues) => {
        await scoreNewTurns(model, dialogues, known);
        const logprobs = new Map(
          dialogues.map(({ id, turns }) => [id, turns.map((turn) => known.get(turn) ?? [])]),
        );
        return rankTrajectories(dialogues, logprobs, rank).map((each) => ({
          type: 'trajectory.ranked',
          ...each,
        }));
      };
    },
    ...overrides,
  };
}

async function search(count: number, overrides: Partial<ExplorePlan> = {}) {
  const costs: SearchCost[] = [];
  const plan = await planOf(count, { ...overrides, onMeasured: (cost) => costs.push(cost) });
  const startedAt = performance.now();
  const events = await lastValueFrom(exploreTrees(plan).pipe(toArray()));
  const seconds = (performance.now() - startedAt) / 1000;
  return { events, seconds, costs, computed: costs.reduce((sum, { computed }) => sum + computed!, 0) };
}

function report(figures: object): void {
  const peakMiB = Math.round(process.resourceUsage().maxRSS / 1024);
  console.log(JSON.stringify({ bench: 'search', engine: engine.name, ...figures, peakMiB }));
}

const namesOf = (events: readonly SearchEvent[]) =>
  events
    .flatMap((event) => (event.type === 'turn.taken' ? [`${event.turn.id} ${event.turn.text}`] : []))
    .join('\n');

await search(2);
const shared = await search(tasks);
const naive = await search(tasks, { memoryBytes: 0 });
if (namesOf(shared.events) !== namesOf(naive.events))
  throw new Error('Sharing prefixes changed what was said.');
report({
  part: 'search',
  tasks,
  rollouts: tasks * recipe.search.expansions * recipe.search.rolloutsPerExpansion,
  tokensShared: shared.computed,
  tokensNaive: shared.costs[0]!.naive,
  tokensRatio: rounded(shared.costs.reduce((sum, cost) => sum + cost.naive, 0) / shared.computed, 2),
  secondsShared: rounded(shared.seconds, 2),
  secondsNaive: rounded(naive.seconds, 2),
  timeRatio: rounded(naive.seconds / shared.seconds, 2),
  fill: shared.costs[0]!.fill[0]!.parts.map((rows) => Math.round(rows)),
});

const trees = [
  ...searchedTrees(
    treesIn(shared.events, () => new Forest()),
    searchConfigOf(recipe),
    rng,
  ),
];
const deals = new Map(
  shared.events.flatMap((event) => (event.type === 'task.dealt' ? [[event.taskId, event]] : [])),
);
const examples = trees.flatMap(({ conversation, search: { tree } }) => {
  const found = pairsOf(tree, { pairs: 'all', thetaFilter: -1, thetaDiff: 0.1 });
  return found.pairs.map((pair) =>
    preferenceExample(conversation, deals.get(conversation.taskId)!, pair, policy, policy.hash),
  );
});
const batches = [...chunk(examples, recipe.dpo.batchSize)];
const timeOf = async (packed: boolean) => {
  const objective = dpoObjective({ ...recipe.dpo, packed });
  const compute = onThisThread(policy, objective);
  const startedAt = performance.now();
  let tokens = 0;
  for (const batch of batches) {
    const { figures } = await compute(objective.planPasses(batch, recipe.dpo.tokensPerPass), batch.length);
    tokens += figures['tokens/computed']!;
  }
  return { seconds: (performance.now() - startedAt) / 1000, tokens };
};
await timeOf(true);
const rounds: (readonly Awaited<ReturnType<typeof timeOf>>[])[] = [];
for (let round = 0; round < 3; round++) rounds.push([await timeOf(true), await timeOf(false)] as const);
const best = (side: 0 | 1) => Math.min(...rounds.map((each) => each[side]!.seconds));
report({
  part: 'training',
  pairs: examples.length,
  tokensPacked: rounds[0]![0]!.tokens,
  tokensPairwise: rounds[0]![1]!.tokens,
  secondsPacked: rounded(best(0), 2),
  secondsPairwise: rounded(best(1), 2),
  timeRatio: rounded(best(1) / best(0), 2),
});

if (values.whole) {
  const workers = await Workers.start(availableParallelism());
  const models = await workers.modelsOf({ folder, hash: policy.hash });
  const lanes = castsOf(scenario, models).map((cast, lane) => ({ cast, base: models[lane]! }));
  const { seconds, events } = await search(256, { lanes });
  const rollouts = events.filter(({ type }) => type === 'dialogue.closed').length;
  report({ part: 'whole', tasks: 256, rollouts, workers: lanes.length, seconds: rounded(seconds, 1) });
  await workers.stop();
}
