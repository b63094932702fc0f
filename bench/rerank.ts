// What `optima rerank` takes, from the start of its process to its end, on a run of many dialogues whose model is a script:
// initialization, iSFT and iDPO. By hand; the run before it takes a minute.
// node --import tsx bench/rerank.ts [trajectories]
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { silent } from '../src/domain/progress.ts';
import { loadPolicy } from '../src/models/llama/index.ts';
import { presetRecipe } from '../src/recipe/presets.ts';
import { applySettings } from '../src/recipe/schema.ts';
import { createRun } from '../src/run/create-run.ts';
import { hashTasks } from '../src/run/tasks.ts';
import { trainTeam } from '../src/run/train.ts';
import { loadScenario } from '../src/scenario/load.ts';
import { startEngine } from '../src/tensor/index.ts';
import { countArgument, packageFolder, rounded, scriptedHost } from './shared.ts';

const wanted = countArgument(0, 10_000);
/** Of a searched task: 8 expansions of 3. */
const perTree = 24;
const trees = Math.round((0.4 * wanted) / perTree);
const tasks = Math.ceil((wanted - trees * perTree) / 16);

const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'optima-rerank-'));
const file = path.join(folder, 'word-pairs.mts');
fs.writeFileSync(
  file,
  `import { agreement, defineScenario, dialogue, exactMatch, generated, tagged } from 'optima-actors';
const words = ['oak', 'elm', 'fir', 'ash', 'yew', 'bay'];
export default defineScenario({
  name: 'word-pairs',
  kind: 'information-exchange',
  description: 'Two agents put two words together.',
  tasks: generated((rng) => ({ left: rng.pick(words), right: rng.pick(words) })),
  roles: {
    alice: { sees: (task) => \`word: \${task.left}\` },
    bob: { sees: (task) => \`word: \${task.right}\` },
  },
  protocol: dialogue({ order: ['alice', 'bob'], maxTurns: 8, until: agreement() }),
  answer: tagged('A'),
  answers: (task) => [\`\${task.left} \${task.right}\`],
  metric: exactMatch,
  reward: { lambdaToken: 0.6, lambdaLoss: 0.1 },
  formats: [],
});
`,
);
const engine = await startEngine({ threads: 1 });
const recipe = applySettings(presetRecipe('quick', 'isft-dpo'), [
  `initialization.tasks=${tasks}`,
  'initialization.formats=false',
  `isft.tasks=${tasks}`,
  `search.tasks=${trees}`,
  'eligible.repetition=true',
  'initialization.thetaInit=-10',
  'isft.thetaSft=-10',
  'pairs.thetaFilter=-10',
  'sft.epochs=1',
  'sft.batchSize=512',
  'dpo.epochs=1',
  'dpo.batchSize=512',
  'evaluation.tasks=50',
]);
const loaded = await loadScenario(file);
const { scenario } = loaded;
const base = await loadPolicy(path.join(packageFolder, 'models/tiny'));
/** Solves the task in three turns, each after some words of its own. */
const host = scriptedHost(base.tokenizer, ({ seed, messages }) => {
  const fillers = ['well', 'so', 'then', 'look here', 'as I see it'];
  const before = Array.from({ length: seed % 9 }, (_, i) => fillers[(seed >>> (3 * i)) % fillers.length]);
  const word = messages[0]!.content.slice('word: '.length);
  const heard = messages.findLast(({ role }) => role === 'user')?.content ?? '';
  const [answer] = /<A>.*<\/A>/.exec(heard) ?? [];
  const [, other] = /mine is (\w+)/.exec(heard) ?? [];
  const said = answer ?? (other === undefined ? `mine is ${word}` : `<A>${other} ${word}</A>`);
  return [...before, said].join(' ');
});
const run = createRun({
  ...{ folder: path.join(folder, 'run'), command: [], loaded, recipe, preset: 'quick', engine: engine.name },
  tasks: await hashTasks(scenario, recipe),
  base: { folder: path.join(packageFolder, 'models/tiny'), hash: base.hash },
});
try {
  await trainTeam({ scenario, recipe, base, run, workers: host, progress: silent });
} finally {
  run.close();
}
const log = path.join(folder, 'run', 'events.jsonl');
const bin = path.join(packageFolder, 'bin/optima.js');
const times = [];
let ranked = 0;
// The first makes the index beside the log.
for (const settings of ['', '', 'reward.lambdaToken=0.3,pairs.thetaDiff=0.2', 'pairs.values=per-role']) {
  const args = [bin, 'rerank', path.join(folder, 'run'), '--json', ...(settings ? ['--set', settings] : [])];
  const from = performance.now();
  // The shell says what its child took of the processor, which a busy machine does not stretch.
  const shell = ['-c', '"$@"; code=$?; times >&2; exit $code', 'sh', process.execPath, ...args];
  const { stdout, stderr, status } = spawnSync('sh', shell, { encoding: 'utf8', maxBuffer: 2 ** 28 });
  if (status !== 0) throw new Error(stderr + stdout.slice(0, 500));
  const seconds = rounded((performance.now() - from) / 1000, 2);
  const cpuSeconds = stderr
    .trim()
    .split('\n')
    .at(-1)!
    .split(/\s+/)
    .map((time) => Number(time.replace(/^\d+m|s$/g, '')) + 60 * Number.parseInt(time, 10))
    .reduce((sum, part) => sum + part, 0);
  const summary: { ranked: number; flips: number } = JSON.parse(stdout.trimEnd().split('\n').at(-1)!);
  ranked = summary.ranked;
  times.push({ settings, seconds, cpuSeconds: rounded(cpuSeconds, 2), flips: summary.flips });
}
const { size } = fs.statSync(log);
console.log(JSON.stringify({ bench: 'rerank', ranked, logMiB: Math.round(size / 2 ** 20), times }));
fs.rmSync(folder, { recursive: true });
