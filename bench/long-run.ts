// A run with many dialogues whose model is a script: whether a dialogue costs the same at the end as at the beginning, what
// the process holds, and how long it takes to resume the run where only its last event is missing. By hand; minutes.
// node --import tsx bench/long-run.ts [dialogues]
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { systemClock } from '../src/domain/clock.ts';
import type { RunId } from '../src/domain/ids.ts';
import { loadPolicy } from '../src/models/llama/index.ts';
import { presetRecipe } from '../src/recipe/presets.ts';
import { applySettings } from '../src/recipe/schema.ts';
import { trainTeam } from '../src/run/train.ts';
import { emptyLog } from '../src/store/event-log.ts';
import { formatVersion, type Manifest } from '../src/store/manifest.ts';
import { RunFolder } from '../src/store/run-folder.ts';
import { startEngine } from '../src/tensor/index.ts';
import { solveWordPair, wordPairs } from '../test/support/scenarios.ts';
import { countArgument, packageFolder, rounded, scriptedHost } from './shared.ts';

const samplesPerTask = 8;
const tasks = Math.ceil(countArgument(0, 100_000) / samplesPerTask);
const parts = 10;

const engine = await startEngine({ threads: 1 });
const model = path.join(packageFolder, 'models/tiny');
const scenario = wordPairs();
const recipe = applySettings(presetRecipe('quick'), [
  'iterations=0',
  `initialization.tasks=${tasks}`,
  `initialization.samplesPerTask=${samplesPerTask}`,
  'initialization.formats=false',
  'eligible.repetition=true',
  'sft.epochs=1',
  'sft.batchSize=512',
  'evaluation.tasks=50',
]);

const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'optima-long-run-'));
const mebibytes = (bytes: number) => Math.round(bytes / 2 ** 20);
const peak = () => mebibytes(process.resourceUsage().maxRSS * 1024);

/** Carries the run out, or what is left of it; resolves with the time of each part of its dialogues, ms a dialogue. */
async function carryOut(resume: boolean): Promise<number[]> {
  const base = await loadPolicy(model);
  const host = scriptedHost(base.tokenizer, solveWordPair);
  const manifest: Manifest = {
    format: formatVersion,
    version: '0',
    node: process.version,
    run: 'long' as RunId,
    command: [],
    scenario: { name: scenario.name, file: '', hash: '', tasks: '' },
    preset: 'quick',
    recipe,
    engine: engine.name,
    base: { folder: model, hash: base.hash },
    seconds: 0,
    log: emptyLog,
  };
  const at = path.join(folder, 'run');
  const run = resume ? RunFolder.open(at, systemClock) : RunFolder.create(at, manifest, systemClock);
  const times: number[] = [];
  let [stage, mark, size] = ['', 0, 0];
  const progress = {
    begin(name: string, total: number) {
      [stage, mark, size] = [name, performance.now(), Math.floor(total / parts)];
      console.error(`${name} ${peak()} MiB`);
    },
    advance(done: number) {
      if (stage !== 'init-0/generate' || done === 0 || done % size !== 0) return;
      times.push((performance.now() - mark) / size);
      mark = performance.now();
    },
    end() {},
    measured() {},
  };
  try {
    await trainTeam({ scenario, recipe, base, run, workers: host, progress });
  } finally {
    run.close();
  }
  return times;
}

const startedAt = performance.now();
const times = await carryOut(false);
const seconds = (performance.now() - startedAt) / 1000;
const log = path.join(folder, 'run', 'events.jsonl');
const { size } = fs.statSync(log);
// Killed just before its end: the last line is not there.
const tail = Buffer.alloc(4096);
const descriptor = fs.openSync(log, 'r');
fs.readSync(descriptor, tail, 0, tail.length, size - tail.length);
fs.closeSync(descriptor);
const lastLine = tail.toString().trimEnd().split('\n').at(-1)!;
fs.truncateSync(log, size - Buffer.byteLength(lastLine) - 1);
const peakMiB = peak();
const resumedAt = performance.now();
await carryOut(true);
console.log(
  JSON.stringify({
    bench: 'long-run',
    dialogues: tasks * samplesPerTask,
    seconds: rounded(seconds, 0),
    millisecondsPerDialogue: times.map((time) => rounded(time, 3)),
    lastPartToFirst: rounded(times.at(-1)! / times[0]!, 2),
    logMiB: mebibytes(size),
    peakMiB,
    resumeSeconds: rounded((performance.now() - resumedAt) / 1000, 1),
    peakMiBAfterResume: peak(),
  }),
);
fs.rmSync(folder, { recursive: true });
