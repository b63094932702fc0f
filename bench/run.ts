// `npm run bench`: runs every benchmark in a process of its own, one after another, prints one table and writes
// bench/results/<machine>.json. Figures drift from machine to machine; the ratios of one run are what to compare.
// Options: --all (the cpu backend too: minutes; tensorflow where it is installed), --steps n, --dialogues n, --date text.
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { formatTable } from '../src/cli/output.ts';
import type { Engine } from '../src/tensor/index.ts';
import { type Line, rounded } from './shared.ts';

const { values: options } = parseArgs({
  options: {
    all: { type: 'boolean', default: false },
    steps: { type: 'string', default: '15' },
    dialogues: { type: 'string', default: '960' },
    date: { type: 'string', default: new Date().toISOString() },
  },
});

/** Which engine a child starts, by its environment. */
type EngineChoice = Readonly<Record<'OPTIMA_BACKEND' | 'OPTIMA_MACHINE_CODE' | 'OPTIMA_BLAS', string>>;
const choice = (backend: string, machineCode: string, blas: string): EngineChoice => ({
  OPTIMA_BACKEND: backend,
  OPTIMA_MACHINE_CODE: machineCode,
  OPTIMA_BLAS: blas,
});
const library = process.env.OPTIMA_BLAS || 'on';
const onWasm = [
  choice('wasm', 'on', 'off'),
  choice('wasm', 'on', library === 'off' ? 'on' : library),
  choice('wasm', 'off', library === 'off' ? 'on' : library),
  choice('wasm', 'off', 'off'),
];
const inJavaScript = choice('cpu', 'off', 'off');
const inTensorFlow = choice('tensorflow', 'off', 'off');

const lines: Line[] = [];
// Where the machine has no machine code or no library, some of these are the same engine.
const engines = new Set<string>();
const choices = [
  ...onWasm.filter((wanted) => engines.size < engines.add(engineNameOf(wanted)).size),
  ...(options.all ? [inJavaScript] : []),
  ...(options.all && isInstalled('@tensorflow/tfjs-node-gpu') ? [inTensorFlow] : []),
];
for (const wanted of choices) {
  if (wanted === inJavaScript) {
    // One step takes more than a minute, and has compiled itself by its end.
    lines.push(...measure('tensor-step.ts', ['reference', '0', '1', '1'], wanted));
    continue;
  }
  for (const shape of ['reference', 'tiny']) {
    for (const workers of ['0', ...workerCounts(wanted)]) {
      lines.push(...measure('tensor-step.ts', [shape, workers, options.steps], wanted));
    }
    lines.push(...measure('decode.ts', [shape, '0', '16', '1', '16', '64', '256'], wanted));
    for (const workers of workerCounts(wanted).slice(-1)) {
      lines.push(...measure('decode.ts', [shape, workers, '16', '64', '256'], wanted));
      lines.push(...measure('decode.ts', [shape, workers, '200', '64'], wanted));
    }
  }
  lines.push(...measure('tree.ts', [], wanted));
}
lines.push(...measure('dialogues.ts', [options.dialogues]));

const cpu = os.cpus()[0]?.model.trim() ?? process.arch;
const cores = os.availableParallelism();
const ratios = Object.fromEntries(
  lines.flatMap((line) => {
    const ratio = ratioOf(line);
    return ratio === null ? [] : [[`${nameOf(line)}: ${engineOf(line)} against wasm`, ratio]];
  }),
);
const results = {
  date: options.date,
  machine: {
    cpu,
    cores,
    memoryGiB: rounded(os.totalmem() / 2 ** 30, 1),
    node: process.version,
    platform: `${process.platform} ${process.arch}, ${os.type()} ${os.release()}`,
    engines: [...new Set(lines.flatMap((line) => ('engine' in line ? [line.engine.description] : [])))],
  },
  figures: lines,
  ratios,
};
const slug = `${cpu} ${cores} cores`
  .toLowerCase()
  .replaceAll(/[^a-z0-9]+/g, '-')
  .replaceAll(/^-|-$/g, '');
const file = fileURLToPath(new URL(`results/${slug}.json`, import.meta.url));
fs.mkdirSync(path.dirname(file), { recursive: true });
fs.writeFileSync(file, `${JSON.stringify(results, null, 2)}\n`);

const header = ['benchmark', 'engine', 'figure', 'peak memory', 'against wasm'];
const rows = lines.map((line) => {
  const ratio = ratioOf(line);
  const against = ratio === null ? '' : `${ratio.toFixed(2)} ×`;
  return [nameOf(line), engineOf(line), figureOf(line), `${line.peakMiB} MiB`, against];
});
console.log(`${cpu}, ${cores} cores, Node ${process.version}\n\n${formatTable([header, ...rows])}\n`);
console.log(`wrote ${path.relative('', file)}`);

/** Numbers of workers to compare; TensorFlow has threads of its own. */
function workerCounts(choice: EngineChoice): string[] {
  return choice === inTensorFlow ? [] : [...new Set(['1', `${os.availableParallelism()}`])];
}

/** The name of the engine that a child starts. */
function engineNameOf(wanted: EngineChoice): string {
  const module = new URL('../src/tensor/engine.ts', import.meta.url);
  const script = `const { startEngine } = await import('${module}'); console.log((await startEngine()).name);`;
  const { stdout, status } = spawnSync(
    process.execPath,
    ['--import', 'tsx', '--input-type=module', '-e', script],
    { env: { ...process.env, ...wanted }, stdio: ['ignore', 'pipe', 'inherit'], encoding: 'utf8' },
  );
  if (status !== 0) process.exit(status ?? 1);
  return stdout.trim();
}

/** Runs a benchmark and reads its lines; ends this process with the child's code when it fails. */
function measure(script: string, args: readonly string[], choice?: EngineChoice): Line[] {
  const setting = Object.entries(choice ?? {}).map(([name, value]) => `${name}=${value}`);
  console.error([...setting, script, ...args].join(' '));
  const command = ['--import', 'tsx', fileURLToPath(new URL(script, import.meta.url)), ...args];
  const child = spawnSync(process.execPath, command, {
    env: { ...process.env, ...choice },
    stdio: ['ignore', 'pipe', 'inherit'],
    encoding: 'utf8',
  });
  if (child.status !== 0) {
    console.error(`${script} ended with ${child.status ?? child.signal ?? child.error}`);
    process.exit(child.status ?? 1);
  }
  return child.stdout
    .split('\n')
    .filter((line) => line !== '')
    .map((line): Line => JSON.parse(line));
}

function isInstalled(name: string): boolean {
  try {
    createRequire(import.meta.url).resolve(name);
    return true;
  } catch {
    return false;
  }
}

function nameOf(line: Line): string {
  if (line.bench === 'dialogues') return 'dialogues, instant model';
  if (line.bench === 'tree') return `tree of ${line.leaves} leaves`;
  const workers = line.workers === 0 ? '' : `, ${line.workers} ${line.workers === 1 ? 'worker' : 'workers'}`;
  if (line.bench === 'tensor-step') return `training step, ${line.shape}${workers}`;
  const rows = `${line.rows} ${line.rows === 1 ? 'row' : 'rows'}`;
  return `decoding, ${line.shape}, ${rows} after ${line.promptTokens}${workers}`;
}

function engineOf(line: Line): string {
  if (line.bench === 'dialogues') return '–';
  const { backend, machineCode, blas }: Engine = line.engine;
  return [backend, ...(machineCode === null ? [] : [machineCode]), ...(blas === null ? [] : ['BLAS'])].join(
    ' + ',
  );
}

function figureOf(line: Line): string {
  if (line.bench === 'tensor-step') {
    return `${line.secondsPerStep.toFixed(3)} s, ${line.tokensPerSecond} tokens/s`;
  }
  if (line.bench === 'decode') {
    return `${line.tokensPerSecond} tokens/s, prompts ${line.promptTokensPerSecond} tokens/s`;
  }
  if (line.bench === 'tree') {
    const [fewer, faster] = [line.tokensWithout / line.tokensWith, line.secondsWithout / line.secondsWith];
    return `${fewer.toFixed(1)} × fewer tokens, ${faster.toFixed(1)} × faster with memory`;
  }
  const { dialoguesPerSecond, bestDialoguesPerSecond, microsecondsPerTurn } = line;
  return `${dialoguesPerSecond} dialogues/s (best ${bestDialoguesPerSecond}), ${microsecondsPerTurn} µs/turn`;
}

/** How many times as fast as wasm alone; null where that was not measured, or is the line itself. */
function ratioOf(line: Line): number | null {
  if (line.bench === 'dialogues' || line.bench === 'tree' || engineOf(line) === 'wasm') return null;
  const plain = lines.find((other) => nameOf(other) === nameOf(line) && engineOf(other) === 'wasm');
  if (plain === undefined || plain.bench === 'dialogues' || plain.bench === 'tree') return null;
  return rounded(line.tokensPerSecond / plain.tokensPerSecond, 3);
}
