// `npm test`: runs every test file under ./test in a process of its own and adds up what uvu counted.
// Arguments select the files whose path contains one of them. The last line is `N passed, N failed`, and `, N skipped` where
// tests were; a file that skips some prints `skipped: ` and the reason.
import { spawn } from 'node:child_process';
import { readdirSync } from 'node:fs';

const parallel = 2;
const fileLimitMs = Number(process.env.TEST_FILE_LIMIT_MS ?? 240_000);
/** All that a test starts is to read TypeScript in the same way. */
const env = {
  ...process.env,
  NODE_OPTIONS: `${process.env.NODE_OPTIONS ?? ''} --import ${new URL('support/types-stripped.mjs', import.meta.url)}`,
};

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
  'test/run/lora.',
  'test/scenarios/verdicts.',
  'test/run/per-role.',
  'test/run/damage.',
  'test/cli/scenario-code.',
  'test/cli/reproduce.',
  'test/run/fork.',
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
await Promise.all(
  Array.from({ length: parallel }, async () => {
    for (let file = queue.shift(); file !== undefined; file = queue.shift()) await runFile(file);
  }),
);
if (files.length === 0) {
  console.log(`no test file matches ${selected.join(', ')}`);
  totals.failed++;
}
const skipped = totals.skipped > 0 ? `, ${totals.skipped} skipped` : '';
console.log(`${totals.passed} passed, ${totals.failed} failed${skipped}`);
process.exitCode = totals.failed > 0 ? 1 : 0;

function rankOf(file: string): number {
  const rank = slowestFirst.findIndex((start) => file.startsWith(start));
  return rank < 0 ? slowestFirst.length : rank;
}

async function runFile(file: string): Promise<void> {
  const startedAt = performance.now();
  const { output, code, timedOut } = await runProcess(file);
  const seconds = `${((performance.now() - startedAt) / 1000).toFixed(1)} s`;
  const counts = readTotals(output);
  const problem = timedOut ? `no end within ${fileLimitMs / 1000} s` : problemOf(counts, code, output);

  for (const reason of reasonsIn(output)) console.log(`  ${reason}`);
  totals.passed += counts?.passed ?? 0;
  totals.skipped += counts?.skipped ?? 0;
  if (problem === null) {
    console.log(`ok    ${file}  ${counts!.passed} passed  ${seconds}`);
    return;
  }
  // A file that broke off counts as one failure even where no single test failed.
  totals.failed += Math.max(1, counts?.failed ?? 0);
  console.log(`FAIL  ${file}  ${problem}  ${seconds}\n${output.trimEnd().replaceAll(/^/gm, '      ')}`);
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

function runProcess(file: string) {
  return new Promise<{ output: string; code: number | null; timedOut: boolean }>((resolve) => {
    const child = spawn(process.execPath, [file], { stdio: 'pipe', env });
    let output = '';
    let timedOut = false;
    const timer = setTimeout(() => {
      timedOut = true;
      child.kill('SIGKILL');
      // A process that the test left behind may hold the pipes open.
      child.stdout.destroy();
      child.stderr.destroy();
    }, fileLimitMs);
    child.stdin.end();
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text: string) => {
        output += text;
      });
    }
    child.on('close', (code) => {
      clearTimeout(timer);
      resolve({ output, code, timedOut });
    });
  });
}
