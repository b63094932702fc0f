// `npm test`: runs every test file under ./test and adds up what uvu counted. The files of some folders share processes; others
// have one of their own. Arguments select the files whose path contains one of them. The last line is `N passed, N failed`, and
// `, N skipped` where tests were; a file that skips some prints `skipped: ` and the reason.
import { type ChildProcess, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const parallel = 2;
const fileLimitMs = Number(process.env.TEST_FILE_LIMIT_MS ?? 240_000);
/** All that a test starts is to read TypeScript in the same way. */
const env = {
  ...process.env,
  NODE_OPTIONS: `${process.env.NODE_OPTIONS ?? ''} --import ${new URL('support/types-stripped.mjs', import.meta.url)}`,
};

/** Folders whose files change nothing of a process that another could miss: one engine will do, as they start it. */
const sharing = [
  'actors',
  'check',
  'cli',
  'domain',
  'export',
  'machines',
  'models',
  'reading',
  'recipe',
  'rollouts',
  'run',
  'scenario',
  'scenarios',
  'search',
  'store',
  'training',
  'viewer',
  'warmup',
];

interface Totals {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
}

/** What takes longest begins first, so that no core is left alone with it at the end. */
const slowestFirst = [
  'test/package/',
  'test/run/resume.',
  'test/viewer/browser.',
  'test/cli/new.',
  'test/run/per-role.',
  'test/run/damage.',
  'test/run/lora.',
  'test/cli/reproduce.',
  'test/run/fork.',
  'test/cli/scenario-code.',
  'test/scenarios/verdicts.',
  'test/cli/',
  'test/run/',
  'test/warmup/',
  'test/viewer/',
  'test/workers/',
  'test/reading/',
  'test/export/',
  'test/runner.',
  'test/models/',
  'test/tensor/',
];

const totals = { passed: 0, failed: 0, skipped: 0 };
const selected = process.argv.slice(2);
const files = readdirSync('test', { recursive: true, encoding: 'utf8' })
  .filter((path) => path.endsWith('.test.ts'))
  .map((path) => `test/${path.replaceAll('\\', '/')}`)
  .filter((path) => selected.length === 0 || selected.some((part) => path.includes(part)))
  .sort()
  .sort((one, other) => rankOf(one) - rankOf(other));

const queue = [...files];
await Promise.all(Array.from({ length: parallel }, runQueue));
if (files.length === 0) {
  console.log(`no test file matches ${selected.join(', ')}`);
  totals.failed++;
}
const skipped = totals.skipped > 0 ? `, ${totals.skipped} skipped` : '';
console.log(`${totals.passed} passed, ${totals.failed} failed${skipped}`);
process.exitCode = totals.failed > 0 ? 1 : 0;

function folderOf(file: string): string {
  return file.split('/')[1] ?? '';
}

function rankOf(file: string): number {
  const rank = slowestFirst.findIndex((start) => file.startsWith(start));
  return rank < 0 ? slowestFirst.length : rank;
}

/** The next file for a process, of its own folder as long as there is one: another process must load and compile all anew. */
function takeNext(host: Host | null): string | undefined {
  const own = queue.findIndex((file) => folderOf(file) === host?.folder);
  return queue.splice(Math.max(own, 0), 1)[0];
}

/** Takes files from the queue, and goes on in the same process as long as they are of one folder that shares it. */
async function runQueue(): Promise<void> {
  let host: Host | null = null;
  for (let file = takeNext(null); file !== undefined; file = takeNext(host)) {
    const folder = folderOf(file);
    if (host !== null && host.folder !== folder) host = await end(host);
    host ??= start(folder);
    const hasEnded = !(await runFile(file, host));
    if (hasEnded) host = null;
    else if (!sharing.includes(folder)) host = await end(host);
  }
  if (host !== null) await end(host);
}

/** Runs a file; false where its process has ended, or should not go on. */
async function runFile(file: string, host: Host): Promise<boolean> {
  const startedAt = performance.now();
  const { output, code, timedOut, isOver } = await runIn(host, file);
  const seconds = `${((performance.now() - startedAt) / 1000).toFixed(1)} s`;
  const counts = readTotals(output);
  const problem = timedOut ? `no end within ${fileLimitMs / 1000} s` : problemOf(counts, code, output);
  const goesOn = isOver && counts !== null;
  if (!goesOn) host.child.kill('SIGKILL');

  for (const reason of reasonsIn(output)) console.log(`  ${reason}`);
  totals.passed += counts?.passed ?? 0;
  totals.skipped += counts?.skipped ?? 0;
  if (problem === null) {
    console.log(`ok    ${file}  ${counts!.passed} passed  ${seconds}`);
    return goesOn;
  }
  // A file that broke off counts as one failure even where no single test failed.
  totals.failed += Math.max(1, counts?.failed ?? 0);
  console.log(`FAIL  ${file}  ${problem}  ${seconds}\n${output.trimEnd().replaceAll(/^/gm, '      ')}`);
  return goesOn;
}

/** Why a file skips tests, in its own words. */
function reasonsIn(output: string): string[] {
  return output.split('\n').filter((line) => line.startsWith('skipped:'));
}

function problemOf(counts: Totals | null, code: number | null, output: string): string | null {
  if (counts === null) {
    return code === 0
      ? 'no totals: the file ended before its tests did, or never called test.run()'
      : `ended with code ${code} before its totals`;
  }
  if (counts.failed > 0) return `${counts.failed} failed`;
  if (code !== 0) return `ended with code ${code} although no test failed`;
  if (counts.skipped > 0 && reasonsIn(output).length === 0)
    return 'tests are skipped and it does not say why';
  return counts.passed + counts.skipped === 0 ? 'no tests' : null;
}

/** What uvu printed at its end, or null where it printed nothing. */
function readTotals(output: string): Totals | null {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: colour codes are control characters.
  const plain = output.replaceAll(/\u001b\[\d+m/g, '');
  const [total, passed, skipped] = ['Total', 'Passed', 'Skipped'].map((name) => {
    const figure = [...plain.matchAll(new RegExp(`^ {2}${name}: +(\\d+)$`, 'gm'))].at(-1)?.[1];
    return figure === undefined ? null : Number(figure);
  });
  if (total == null || passed == null || skipped == null) return null;
  return { passed, failed: total - passed, skipped };
}

/** A process that runs test files: `support/files.ts`. */
interface Host {
  readonly folder: string;
  readonly child: ChildProcess;
  /** What a stream says when a file is over, before its code. */
  readonly over: string;
  /** Hears what it writes. */
  listen: (text: string) => void;
}

function start(folder: string): Host {
  const over = `over ${randomUUID()} `;
  const program = fileURLToPath(new URL('support/files.ts', import.meta.url));
  const child = spawn(process.execPath, [program, over], { stdio: ['pipe', 'pipe', 'pipe', 'ipc'], env });
  child.stdin!.end();
  const host: Host = { folder, child, over, listen() {} };
  for (const stream of [child.stdout!, child.stderr!]) {
    stream.setEncoding('utf8').on('data', (text: string) => host.listen(text));
  }
  return host;
}

/** Lets a process end that has no file to run. */
async function end({ folder, child }: Host): Promise<null> {
  const ended = new Promise((resolve) => child.once('exit', resolve));
  child.disconnect();
  const timer = setTimeout(() => child.kill('SIGKILL'), fileLimitMs);
  const code = await ended;
  clearTimeout(timer);
  if (code === 0) return null;
  totals.failed++;
  console.log(`FAIL  test/${folder}  its process ended with ${code === null ? 'a signal' : `code ${code}`}`);
  return null;
}

interface Ran {
  readonly output: string;
  readonly code: number | null;
  readonly timedOut: boolean;
  /** It has come to its end, and its process has not. */
  readonly isOver: boolean;
}

function runIn(host: Host, file: string) {
  const { child, over } = host;
  return new Promise<Ran>((resolve) => {
    let output = '';
    let timedOut = false;
    const ends = new RegExp(`${over}(\\d+)\\n`, 'g');
    host.listen = (text) => {
      output += text;
      const [stdout, stderr] = output.matchAll(ends);
      if (stdout !== undefined && stderr !== undefined) settle(Number(stdout[1]), true);
    };
    const close = (code: number | null) => settle(code, false);
    const timer = setTimeout(() => {
      timedOut = true;
      child.kill('SIGKILL');
      // A process that the test left behind may hold the pipes open.
      child.stdout!.destroy();
      child.stderr!.destroy();
    }, fileLimitMs);
    const settle = (code: number | null, isOver: boolean) => {
      clearTimeout(timer);
      child.off('close', close);
      resolve({ output: output.replaceAll(ends, ''), code, timedOut, isOver });
    };
    child.on('close', close);
    child.send(file);
  });
}
