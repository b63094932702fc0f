// Writes what the peers of preference training need of a finished iDPO run, as JSON on stdout: where its policy after
// initialization and its base lie, the tasks of its first search, the recipe, and the pairs of that search in batches of
// the recipe's size, grouped by tree as a training deals them (the last, smaller batch is left out).
// node --import tsx bench/peers/export-run.ts <run folder>
import { chunk } from '../../src/domain/chunk.ts';
import { systemClock } from '../../src/domain/clock.ts';
import { createRng } from '../../src/domain/rng.ts';
import { loadPolicy } from '../../src/models/llama/index.ts';
import { preferenceOf } from '../../src/reading/pairing.ts';
import type { Recipe } from '../../src/recipe/schema.ts';
import { planRun } from '../../src/run/plan.ts';
import { loadScenario } from '../../src/scenario/load.ts';
import { loadTasks } from '../../src/scenario/tasks.ts';
import { messageCap } from '../../src/scenario/types.ts';
import { RunFolder } from '../../src/store/run-folder.ts';
import { startEngine } from '../../src/tensor/index.ts';
import { groupedBatches } from '../../src/training/batches.ts';
import { preferenceExample } from '../../src/training/dpo/examples.ts';

const [folder] = process.argv.slice(2);
if (folder === undefined) throw new RangeError('Say which run: export-run.ts <run folder>');
await startEngine();
const run = RunFolder.open(folder, systemClock);
const { manifest } = run;
const recipe = preferenceOf(manifest.recipe as Recipe);
const { scenario } = await loadScenario(manifest.scenario.file);
const { policy: team } = run.outputOf({ name: 'init-0/train', kind: 'train' })!;
const hash = Object.values(team)[0]!;
const policyFolder = run.checkpointFolder(hash);
const policy = await loadPolicy(policyFolder, { hash });

const pairs = new Map(
  [...run.eventsOf('idpo-1/pair')].flatMap((event) =>
    event.type === 'pairs.made' ? [[event.tree, event.pairs]] : [],
  ),
);
const examples = [...run.treesOf('idpo-1/search')].flatMap(({ conversation, dealOf }) =>
  pairs.get(conversation.root)!.map((pair) => preferenceExample(conversation, dealOf(), pair, policy, hash)),
);
const rng = createRng(recipe.seed);
const [dealt] = groupedBatches(examples, ({ group }) => group, examples.length, rng.split('peers'));
const { batchSize } = recipe.dpo;

const phase = planRun(recipe, scenario).find(({ name }) => name === 'idpo-1/search')!;
if (phase.kind !== 'search') throw new Error(`${phase.name} is a phase of kind ${phase.kind}.`);
const tasks = (await loadTasks(scenario, 'train', phase.tasks, rng)).map(({ id, task }) => ({
  id,
  views: Object.fromEntries(Object.entries(scenario.roles).map(([role, { sees }]) => [role, sees(task)])),
  answers: scenario.answers(task),
}));
const { order, maxTurns } = scenario.protocol;
const batches = [...chunk(dealt!, batchSize)].filter(({ length }) => length === batchSize);
const base = manifest.base.folder;
console.log(
  JSON.stringify({
    policy: policyFolder,
    hash,
    base,
    recipe: { ...recipe, maxMessageTokens: messageCap(scenario, recipe.maxMessageTokens) },
    order,
    maxTurns,
    reward: scenario.reward,
    tasks,
    batches,
  }),
);
run.close();
