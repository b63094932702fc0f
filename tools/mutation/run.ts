// `npm run mutation`: puts small faults into copies of the repository, one at a time, and sees whether the tests that run
// the faulty line notice. Faults are drawn from all that the operators find, as many from each folder, and those of
// faults.txt come on top. A fault that the type checker refuses is none. Prints survivors and a table by folder.
//
//   npm run mutation -- [path…] [--tests path]… [--per-folder 40] [--seed 1] [--parallel 2] [--out survivors.json]
//
// A path (a part of one is enough) selects source files, `--tests` the tests that may notice.
import { execFileSync, spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { createRng } from '../../src/domain/rng.ts';
import { type CoveredLines, readCoverage } from './coverage.ts';
import { placeOf, writtenFaults } from './faults.ts';
import { type Mutant, mutantsOf } from './operators.ts';

/** All of src/ is covered but these, so that the choice follows the folders when they move. */
const leftOut: readonly (readonly [pattern: RegExp, reason: string])[] = [
  [/^src\/cli\//, 'ran as child processes: seconds for every fault'],
  [
    /^src\/tensor\//,
    'kernels, held against other backends on random shapes; a fault there may end the process',
  ],
  [/^src\/models\/llama\/(?!sampler)/, 'the decoder, held by golden logits of a reference implementation'],
  [/\/index\.ts$(?<!sft\/index\.ts)(?<!scripted\/index\.ts)(?<!tokenizer\/index\.ts)/, 'lists of exports'],
];

/** Of tests in other folders so many seconds are spent on a fault; a test far away seldom notices what the near ones do not. */
const secondsAbroad = 20;

const { values: options, positionals: paths } = parseArgs({
  allowPositionals: true,
  options: {
    'per-folder': { type: 'string', default: '40' },
    seed: { type: 'string', default: '1' },
    parallel: { type: 'string', default: '2' },
    tests: { type: 'string', multiple: true, default: [''] },
    out: { type: 'string' },
  },
});
const perFolder = Number(options['per-folder']);
const lanes = Number(options.parallel);

interface Test {
  readonly file: string;
  readonly seconds: number;
  readonly covered: CoveredLines;
}

type Verdict = 'killed' | 'survived' | 'not run by any test';

const root = process.cwd();
const sources = execFileSync('git', ['ls-files', '-co', '--exclude-standard', 'src'], { encoding: 'utf8' })
  .split('\n')
  .filter((file) => file.endsWith('.ts') && !leftOut.some(([pattern]) => pattern.test(file)))
  .filter((file) => paths.length === 0 || paths.some((part) => file.includes(part)));
/** As they were at the start: the tree may be worked on meanwhile. */
const texts = new Map(
  fs
    .readdirSync('src', { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.ts'))
    .map((file) => [`src/${file.replaceAll('\\', '/')}`, fs.readFileSync(path.join('src', file), 'utf8')]),
);
const copies = Array.from({ length: lanes }, (_, lane) => copyRepository(lane));
/** Process groups of what runs. */
const groups = new Set<number>();
process.on('exit', () => {
  for (const group of groups) endGroup(group);
  for (const copy of copies) {
    for (const folder of [copy, `${copy}-tmp`]) fs.rmSync(folder, { recursive: true, force: true });
  }
});
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => process.exit(130));

const mutants = await withoutTypeErrors(drawMutants(), copies[0]!);
console.log(`${mutants.length} faults in ${sources.length} files`);
const tests: Test[] = [];
await inLanes(testFiles(), async (file, copy) => {
  tests.push(await runCovered(file, copy));
});

const verdicts = new Map<Mutant, Verdict>();
await inLanes(mutants, async (mutant, copy) => {
  verdicts.set(mutant, await judge(mutant, copy));
  if (verdicts.size % 25 === 0) console.log(`${verdicts.size} of ${mutants.length}`);
});
if (mutants.length > 0) report();

/** As many faults of each folder as asked for, files mixed, and the written ones. */
function drawMutants(): Mutant[] {
  const rng = createRng(options.seed);
  const byFolder = groupBy(sources, folderOf);
  const drawn = [...byFolder].flatMap(([folder, files]) => {
    const all = files.flatMap((file) => mutantsOf(file, texts.get(file)!));
    return rng.split(folder).shuffle(all).slice(0, perFolder);
  });
  return [...drawn, ...writtenFaults().flatMap(writtenMutant)];
}

function writtenMutant([original, replacement]: [original: string, replacement: string]): Mutant[] {
  const { file, text, start } = placeOf(original, texts);
  if (!sources.includes(file)) return [];
  const line = text.slice(0, start).split('\n').length;
  return [{ file, start, end: start + original.length, line, original, replacement }];
}

/** Leaves out the faults that the type checker refuses; one of each file is checked at a time. */
async function withoutTypeErrors(drawn: readonly Mutant[], copy: string): Promise<Mutant[]> {
  // What uses the sources from outside would only take longer.
  const config = { extends: './tsconfig.json', include: ['src'] };
  fs.writeFileSync(path.join(copy, 'tsconfig.src.json'), JSON.stringify(config));
  const check = ['node_modules/typescript/bin/tsc', '-p', 'tsconfig.src.json', '--pretty', 'false'];
  const waiting = groupBy(drawn, ({ file }) => file);
  const sound = new Set<Mutant>();
  while (waiting.size > 0) {
    const round = [...waiting.values()].map((queue) => queue.shift()!);
    for (const [file, queue] of waiting) if (queue.length === 0) waiting.delete(file);
    for (const mutant of round) put(mutant, copy);
    const { output, timedOut } = await run(check, copy, 300);
    if (timedOut) throw new Error('The type checker came to no end within 300 s.');
    if (/error TS1\d{3}:/.test(output)) throw new Error(`A fault is no TypeScript:\n${output}`);
    for (const mutant of round) if (!output.includes(`${mutant.file}(`)) sound.add(mutant);
    for (const { file } of round) restore(file, copy);
  }
  return drawn.filter((mutant) => sound.has(mutant));
}

async function runCovered(file: string, copy: string): Promise<Test> {
  const folder = path.join(copy, 'coverage');
  const startedAt = performance.now();
  const { failed, output } = await runTest(file, copy, 600, { NODE_V8_COVERAGE: folder });
  if (failed) throw new Error(`${file} fails without any fault:\n${output}`);
  const seconds = (performance.now() - startedAt) / 1000;
  const covered = readCoverage(folder, copy);
  fs.rmSync(folder, { recursive: true });
  return { file, seconds, covered };
}

/** Runs the tests that run the faulty line: that of the same name, those of the same folder, the quickest of the others. */
async function judge(mutant: Mutant, copy: string): Promise<Verdict> {
  const name = mutant.file.replace(/^src\//, 'test/').replace(/\.ts$/, '.test.ts');
  const near = `${folderOf(mutant.file).replace(/^src/, 'test')}/`;
  const isNear = ({ file }: Test) => file.startsWith(near);
  const rank = (test: Test) => Number(test.file !== name) + Number(!isNear(test));
  const candidates = tests
    .filter(({ covered }) => covered.get(mutant.file)?.has(mutant.line))
    .sort((a, b) => rank(a) - rank(b) || a.seconds - b.seconds);
  if (candidates.length === 0) return 'not run by any test';
  put(mutant, copy);
  let abroad = 0;
  try {
    for (const test of candidates) {
      const { file, seconds } = test;
      if (!isNear(test)) abroad += seconds;
      if (abroad > secondsAbroad) break;
      const { failed, timedOut } = await runTest(file, copy, 4 * seconds + 10);
      if (!failed) continue;
      if (!timedOut) return 'killed';
      // A fault may make a loop endless; or the machine has become slow.
      restore(mutant.file, copy);
      const sound = await runTest(file, copy, 4 * seconds + 10);
      if (!sound.failed) return 'killed';
      throw new Error(`${file} fails without any fault; is the machine busy?\n${sound.output}`);
    }
    return 'survived';
  } finally {
    restore(mutant.file, copy);
  }
}

function report(): void {
  const survivors = mutants.filter((mutant) => verdicts.get(mutant) !== 'killed');
  const short = (text: string) => text.replaceAll(/\s+/g, ' ').slice(0, 90);
  for (const mutant of survivors) {
    const { file, line, original, replacement } = mutant;
    console.log(`${verdicts.get(mutant)}: ${file}:${line}: ${short(original)}  →  ${short(replacement)}`);
  }
  const row = (name: string, of: readonly Mutant[]) => {
    const killed = of.filter((mutant) => verdicts.get(mutant) === 'killed').length;
    console.log(
      `${name.padEnd(24)} ${killed} of ${of.length} killed, ${((100 * killed) / of.length).toFixed(1)} %`,
    );
  };
  for (const [folder, of] of groupBy(mutants, ({ file }) => folderOf(file))) row(folder, of);
  row('all', mutants);
  if (options.out !== undefined) fs.writeFileSync(options.out, `${JSON.stringify(survivors, null, 1)}\n`);
}

function groupBy<Item>(items: readonly Item[], keyOf: (item: Item) => string): Map<string, Item[]> {
  const groups = new Map<string, Item[]>();
  for (const item of items) {
    const key = keyOf(item);
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key)!.push(item);
  }
  return groups;
}

/** `src/run`, `src/models/tokenizer` …: the folder a figure is given for. */
function folderOf(file: string): string {
  return file
    .split('/')
    .slice(0, file.startsWith('src/models/') ? 3 : 2)
    .join('/');
}

function testFiles(): string[] {
  return fs
    .readdirSync('test', { recursive: true, encoding: 'utf8' })
    .map((file) => `test/${file.replaceAll('\\', '/')}`)
    .filter((file) => file.endsWith('.test.ts') && file !== 'test/runner.test.ts')
    .filter((file) => options.tests.some((part) => file.includes(part)));
}

/** All that git knows or would take, with this repository's packages. */
function copyRepository(lane: number): string {
  const copy = fs.realpathSync(fs.mkdtempSync(path.join(os.tmpdir(), `optima-mutation-${lane}-`)));
  const files = execFileSync('git', ['ls-files', '-co', '--exclude-standard', '-z'], { encoding: 'utf8' });
  for (const file of files.split('\0').filter((name) => name !== '' && fs.existsSync(name))) {
    fs.cpSync(file, path.join(copy, file));
  }
  fs.symlinkSync(path.join(root, 'node_modules'), path.join(copy, 'node_modules'));
  return copy;
}

function put({ file, start, end, replacement }: Mutant, copy: string): void {
  const source = texts.get(file)!;
  fs.writeFileSync(path.join(copy, file), source.slice(0, start) + replacement + source.slice(end));
}

function restore(file: string, copy: string): void {
  fs.writeFileSync(path.join(copy, file), texts.get(file)!);
}

/** Runs a test file in a copy. One that ends before its tests did prints no totals, and has failed too. */
async function runTest(file: string, copy: string, limit: number, env: NodeJS.ProcessEnv = {}) {
  // What a test that is killed leaves behind goes, too. Beside the copy: within it lies a package of its own.
  const temporary = `${copy}-tmp`;
  fs.mkdirSync(temporary);
  const NODE_OPTIONS = `--import ${pathToFileURL(path.join(copy, 'test/support/types-stripped.mjs'))}`;
  const ended = await run([file], copy, limit, { TMPDIR: temporary, NODE_OPTIONS, ...env });
  fs.rmSync(temporary, { recursive: true, force: true });
  return { ...ended, failed: ended.code !== 0 || !ended.output.includes('Passed:') };
}

/** Runs Node in a copy, and ends it with all that it started after `limit` seconds. */
function run(args: readonly string[], copy: string, limit: number, env: NodeJS.ProcessEnv = {}) {
  return new Promise<{ code: number | null; timedOut: boolean; output: string }>((resolve) => {
    const child = spawn(process.execPath, args, {
      cwd: copy,
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: true,
    });
    let output = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text: string) => {
        output += text;
      });
    }
    const group = child.pid!;
    groups.add(group);
    let timedOut = false;
    const timer = setTimeout(() => {
      timedOut = true;
      endGroup(group);
    }, limit * 1000);
    // A process that the test left behind may hold the pipes open.
    child.on('exit', () => endGroup(group));
    child.on('close', (code) => {
      clearTimeout(timer);
      groups.delete(group);
      resolve({ code, timedOut, output });
    });
  });
}

function endGroup(group: number): void {
  try {
    process.kill(-group, 'SIGKILL');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

/** Items in order, each by the next copy that is free. */
async function inLanes<Item>(items: readonly Item[], work: (item: Item, copy: string) => Promise<void>) {
  const queue = [...items];
  const takeAll = async (copy: string) => {
    for (let item = queue.shift(); item !== undefined; item = queue.shift()) await work(item, copy);
  };
  await Promise.all(copies.map(takeAll));
}
