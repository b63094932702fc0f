// A very small random checkpoint, and the optima command, as a child process or in this one.
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { runCommandLine } from '../../src/cli/main.ts';
import type { RunEvent } from '../../src/domain/events.ts';
import { createRng } from '../../src/domain/rng.ts';
import { createPolicy } from '../../src/models/llama/index.ts';
import { tokenizerFrom, trainTokenizer } from '../../src/models/tokenizer/index.ts';
import { EventLog, emptyLog } from '../../src/store/event-log.ts';
import { type Manifest, readManifest, writeManifest } from '../../src/store/manifest.ts';
import { startEngine } from '../../src/tensor/index.ts';

export const launcher = fileURLToPath(new URL('../../bin/optima.js', import.meta.url));

export const temporaryFolder = (name: string): string =>
  fs.mkdtempSync(path.join(os.tmpdir(), `optima-${name}-`));

/** Runs compute in this way, here and in processes of their own: with a BLAS, the engine's name depends on the workers. */
const chooseEngine = () => Object.assign(process.env, { OPTIMA_BACKEND: 'wasm', OPTIMA_BLAS: 'off' });

/** Writes a random model of a few thousand weights; its tokenizer knows the words of `extraText` too. */
export async function writeRandomCheckpoint(folder: string, extraText = ''): Promise<void> {
  await startEngine({ backend: 'wasm', blas: false });
  const texts = [
    'You are Alice, working with Bob. The mayor of Baldale is Kenron. <A>Baldale</A>',
    extraText,
  ];
  const { tokenizerJson, tokenizerConfig } = trainTokenizer(texts, { vocabSize: 400 });
  const tokenizer = tokenizerFrom(tokenizerJson, tokenizerConfig);
  const config = {
    vocab_size: tokenizer.vocabSize,
    hidden_size: 16,
    intermediate_size: 32,
    num_hidden_layers: 1,
    num_attention_heads: 2,
    max_position_embeddings: 1024,
    tie_word_embeddings: true,
  };
  const policy = createPolicy(config, tokenizer, createRng(1));
  await policy.save(folder);
  policy.dispose();
}

/** The smallest run that has every phase: a random model earns nothing, so every dialogue is let through. */
export const smallRun = [
  'initialization.tasks=3',
  'initialization.samplesPerTask=2',
  'initialization.thetaInit=-100',
  'isft.tasks=3',
  'isft.samplesPerTask=2',
  'isft.thetaSft=-100',
  'eligible.cappedMessage=true',
  'eligible.emptyMessage=true',
  'eligible.repetition=true',
  'sft.batchSize=2',
  'sft.epochs=2',
  'maxMessageTokens=6',
  'evaluation.tasks=4',
  'evaluation.validationTasks=2',
  'concurrency=2',
  'iterations=1',
].flatMap((setting) => ['--set', setting]);

/** As `smallRun`, with a search and preference training after it; a random model’s turns are worth what they cost. */
export const smallHybridRun = [
  ...['--anyway', '--recipe', 'isft-dpo', ...smallRun],
  ...[
    'iterations=2',
    'search.tasks=3',
    'search.expansions=3',
    'search.rolloutsPerExpansion=2',
    'search.pilotDialogues=3',
    'search.cohort=2',
    'pairs.thetaFilter=-100',
    'pairs.thetaDiff=0',
    'pairs.keepShare=1',
    'dpo.batchSize=4',
  ].flatMap((setting) => ['--set', setting]),
];

/** What makes a small run one that trains adapters. */
export const smallAdapters = ['rank=2', 'targets=attention'].flatMap((key) => ['--set', `lora.${key}`]);

/** Those settings of a small run that the recipe has; `isft:lora` is that recipe with adapters. */
export function smallRunOf(name: string): string[] {
  const [recipe = '', kind] = name.split(':');
  const settings = (recipe === 'isft' ? smallRun : smallHybridRun).filter((part) => part.includes('='));
  const had = recipe === 'idpo' ? settings.filter((setting) => !setting.startsWith('isft.')) : settings;
  const adapters = kind === 'lora' ? smallAdapters : [];
  return ['--recipe', recipe, ...had.flatMap((setting) => ['--set', setting]), ...adapters];
}

/**
 * Writes two-hop-qa to a file of JavaScript, of which no process has to check the types. A dialogue of a random model goes on to
 * its cap: here of fewer turns.
 */
export function writeSmallScenario(folder: string, maxTurns = 4): string {
  const file = path.join(folder, 'two-hop-qa.mjs');
  const original = new URL('../../scenarios/two-hop-qa.ts', import.meta.url).href;
  fs.writeFileSync(
    file,
    `import scenario from ${JSON.stringify(original)};
export default { ...scenario, protocol: { ...scenario.protocol, maxTurns: ${maxTurns} } };
`,
  );
  return file;
}

/** Rewrites a run's manifest as if the run had begun otherwise. */
export function changeManifest(folder: string, change: (manifest: Manifest) => Partial<Manifest>): void {
  const manifest = readManifest(folder);
  writeManifest(folder, { ...manifest, ...change(manifest) });
}

/** Replaces a run's log by one of other events, and lets the manifest know nothing of any. */
export function replaceLog(folder: string, events: readonly RunEvent[]): void {
  const file = path.join(folder, 'events.jsonl');
  fs.rmSync(file);
  const log = new EventLog(file, { now: () => 0 });
  for (const event of events) log.append(event);
  log.close();
  changeManifest(folder, () => ({ log: emptyLog }));
}

/** Where a run is cut: so many lines of a phase are in its log. */
export interface Cut {
  readonly phase: string;
  /** With its first one. Where it is left out, all but the last, and the checkpoint that the phase ends with is there. */
  readonly lines?: number;
  /** And half of the next one. */
  readonly halfLine?: boolean;
}

/** Makes of a finished run what a process leaves that is killed at a place; `change` changes the phase's lines in the log. */
export function cutRun(
  run: string,
  copy: string,
  { phase, lines: count, halfLine = false }: Cut,
  change = (line: string) => line,
): void {
  fs.cpSync(run, copy, { recursive: true, verbatimSymlinks: true });
  for (const file of ['lock', 'metrics.jsonl']) fs.rmSync(path.join(copy, file), { force: true });
  const lines = eventsIn(copy).map((event) => JSON.stringify(event));
  const start = lines.findIndex((line) => line.includes(`"type":"phase.started","phase":"${phase}"`));
  const end = lines.findIndex((line) => line.includes(`"type":"phase.completed","phase":"${phase}"`));
  const cut = count === undefined ? end : start + count;
  const left = [...lines.slice(0, start), ...lines.slice(start, cut).map(change)];
  const file = path.join(copy, 'events.jsonl');
  const next = fs.readFileSync(file, 'utf8').split('\n')[left.length]!;
  replaceLog(
    copy,
    left.map((line) => JSON.parse(line)),
  );
  if (halfLine) fs.appendFileSync(file, next.slice(0, next.length >> 1));
  const known = (count === undefined ? lines.slice(0, end + 1) : left).join('');
  for (const hash of fs.readdirSync(path.join(copy, 'checkpoints'))) {
    const kept = hash !== 'final' && known.includes(hash);
    if (!kept) fs.rmSync(path.join(copy, 'checkpoints', hash), { recursive: true });
  }
}

/** The events of a run's log, with their fields in the order in which they were written. */
export function eventsIn(folder: string): RunEvent[] {
  const lines = fs.readFileSync(path.join(folder, 'events.jsonl'), 'utf8').trimEnd().split('\n');
  return lines.map((line) => {
    const { seq, at, sum, ...event } = JSON.parse(line);
    return event;
  });
}

export interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs `optima …` as a child process in `folder`. */
export function optima(
  args: readonly string[],
  { folder = os.tmpdir(), input = '', env = {}, limitKilobytes, preload }: OptimaOptions = {},
): Promise<Ended> {
  return new Promise((resolve) => {
    const settings = { cwd: folder, env: { ...chooseEngine(), ...env } };
    const before = preload === undefined ? [] : ['--import', preload];
    const command = [process.execPath, ...before, launcher, ...args];
    const child =
      limitKilobytes === undefined
        ? spawn(command[0]!, command.slice(1), settings)
        : spawn('bash', ['-c', `ulimit -f ${limitKilobytes}; exec "$@"`, 'bash', ...command], settings);
    let stdout = '';
    let stderr = '';
    child.stdout.setEncoding('utf8').on('data', (text) => {
      stdout += text;
    });
    child.stderr.setEncoding('utf8').on('data', (text) => {
      stderr += text;
    });
    child.on('close', (code, signal) => resolve({ code, signal, stdout, stderr }));
    child.stdin.end(input);
  });
}

export interface OptimaOptions {
  readonly folder?: string;
  readonly input?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** No file may grow beyond this: as on a disk that is full. */
  readonly limitKilobytes?: number;
  /** URL of a module that comes before the launcher. */
  readonly preload?: string;
}

/**
 * As `optima`, but in this process, in a tenth of the time: what one call has loaded, the engine too, stays for the next.
 * For what does not depend on the process; nothing else may print meanwhile.
 */
export async function optimaHere(
  args: readonly string[],
  { folder = os.tmpdir(), input = '' }: Pick<OptimaOptions, 'folder' | 'input'> = {},
): Promise<Ended> {
  chooseEngine();
  const { argv } = process;
  const stdin = Object.getOwnPropertyDescriptor(process, 'stdin')!;
  const cwd = process.cwd();
  const written = { stdout: '', stderr: '' };
  const typed = Readable.from([Buffer.from(input)]);
  const emitters: readonly NodeJS.EventEmitter[] = [process.stdout, process.stderr, process];
  const listenersOf = (emitter: NodeJS.EventEmitter) =>
    emitter
      .eventNames()
      .flatMap((name) => emitter.rawListeners(name).map((listener) => ({ name, listener })));
  const before = emitters.map(listenersOf);
  const writes = [process.stdout.write, process.stderr.write] as const;
  for (const name of ['stdout', 'stderr'] as const) {
    process[name].write = (text: unknown) => {
      written[name] += String(text);
      return true;
    };
  }
  process.argv = [process.execPath, launcher, ...args];
  Object.defineProperty(process, 'stdin', { ...stdin, get: () => typed });
  process.chdir(folder);
  try {
    await runCommandLine(args);
    return { code: Number(process.exitCode ?? 0), signal: null, ...written };
  } finally {
    [process.stdout.write, process.stderr.write] = writes;
    Object.defineProperty(process, 'stdin', stdin);
    Object.assign(process, { argv, exitCode: undefined });
    process.chdir(cwd);
    emitters.forEach((emitter, i) => {
      const known = new Set(before[i]!.map(({ listener }) => listener));
      for (const { name, listener } of listenersOf(emitter)) {
        if (!known.has(listener)) emitter.removeListener(name, listener as () => void);
      }
    });
  }
}
