// Seconds of the phases of an iDPO iteration with two workers, wall's and processor's (all threads), as `optima train` carries
// them out: a copy of a finished run goes on from behind its initialization, with the first so many of its searched tasks.
// node --import tsx bench/idpo-iteration.ts <run folder> [tasks] [workers]
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { systemClock } from '../src/domain/clock.ts';
import { silent } from '../src/domain/progress.ts';
import { loadPolicy } from '../src/models/llama/index.ts';
import { preferenceOf } from '../src/reading/pairing.ts';
import type { Recipe } from '../src/recipe/schema.ts';
import { trainTeam } from '../src/run/train.ts';
import { loadScenario } from '../src/scenario/load.ts';
import { emptyLog } from '../src/store/event-log.ts';
import { readManifest, writeManifest } from '../src/store/manifest.ts';
import { RunFolder } from '../src/store/run-folder.ts';
import { startEngine } from '../src/tensor/index.ts';
import { Workers } from '../src/workers/index.ts';
import { countArgument, rounded } from './shared.ts';

const lastKept = 'init-0/train';
const given = process.argv[2];
if (given === undefined)
  throw new RangeError('Say which run: idpo-iteration.ts <run folder> [tasks] [workers]');
const scratch = fs.mkdtempSync(path.join(os.tmpdir(), 'optima-bench-'));
process.on('exit', () => fs.rmSync(scratch, { recursive: true }));
const folder = path.join(scratch, 'run');
fs.cpSync(given, folder, { recursive: true, filter: (file) => path.basename(file) !== 'lock' });
const log = path.join(folder, 'events.jsonl');
const lines = fs.readFileSync(log, 'utf8').split('\n');
const end = lines.findIndex((line) => {
  const { type, phase } = JSON.parse(line);
  return type === 'phase.completed' && phase === lastKept;
});
fs.writeFileSync(
  log,
  lines
    .slice(0, end + 1)
    .map((line) => `${line}\n`)
    .join(''),
);
const manifest = readManifest(folder);
writeManifest(folder, { ...manifest, log: emptyLog });

const recipe = preferenceOf(manifest.recipe as Recipe);
const tasks = countArgument(1, recipe.search.tasks);
const { scenario } = await loadScenario(manifest.scenario.file);
const engine = await startEngine({ threads: 1 });
const base = await loadPolicy(manifest.base.folder);
const workers = await Workers.start(countArgument(2, 2), { backend: engine.backend });
const run = RunFolder.open(folder, systemClock);
const phases: Record<string, { seconds: number; cpuSeconds: number }> = {};
const carryOut = run.carryOut.bind(run);
run.carryOut = async (phase, work) => {
  const startedAt = performance.now();
  const cpuBefore = process.cpuUsage();
  const output = await carryOut(phase, work);
  const { user, system } = process.cpuUsage(cpuBefore);
  if (phase.name.startsWith('idpo-1/')) {
    phases[phase.name.slice('idpo-1/'.length)] = {
      seconds: rounded((performance.now() - startedAt) / 1000, 3),
      cpuSeconds: rounded((user + system) / 1e6, 3),
    };
  }
  return output;
};
await trainTeam({
  ...{ scenario, base, run, workers, progress: silent },
  recipe: { ...recipe, search: { ...recipe.search, tasks } },
});
const { dialogues, meanReward, metrics } = run.outputOf({ name: 'idpo-1/search', kind: 'search' })!;
const { kept: pairs } = run.outputOf({ name: 'idpo-1/pair', kind: 'pair' })!;
const { tokens, turns, taskScore } = metrics;
console.log(
  JSON.stringify({
    engine: engine.name,
    phases,
    figures: { dialogues, taskScore, tokens, turns, meanReward, pairs },
  }),
);
run.close();
await workers.stop();
