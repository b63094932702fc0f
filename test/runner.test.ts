// The test command itself: what it counts as a failure, and its last line.
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';

const runner = fileURLToPath(new URL('run.ts', import.meta.url));
const preload = new URL('support/types-stripped.mjs', import.meta.url).href;
// Inside the repository, so that the files find uvu.
const folder = mkdtempSync(fileURLToPath(new URL('../node_modules/.runner-', import.meta.url)));
for (const name of ['store', 'tensor']) mkdirSync(join(folder, 'test', name), { recursive: true });
test.after(() => rmSync(folder, { recursive: true }));

const write = (name: string, body: string) =>
  writeFileSync(
    join(folder, 'test', `${name}.test.ts`),
    `import { test } from 'uvu';\nimport * as assert from 'uvu/assert';\n${body}\n`,
  );
write('passes', "test('a', () => {}); test.skip('b', () => {}); console.log('skipped: no GPU'); test.run();");
write('is-silent', "test('a', () => {}); test.skip('b', () => {}); test.run();");
const fails = "test('a', () => {}); const one: number = 1; test('b', () => assert.is(one, 2)); test.run();";
write('fails', fails);
write('forgets', "test('a', () => {});");
write('is-empty', 'test.run();');
write('leaves', "test('a', () => process.exit(0)); test.run();");
write('hangs', "test('a', () => new Promise(() => setInterval(() => {}, 1000))); test.run();");
// What a file leaves behind of a process: its folder, its environment and its exit code are as the next one expects them.
const leaves = `import fs from 'node:fs';
fs.appendFileSync('processes', process.pid + ' ' + process.env.LEFT + '\\n');
test('a', () => { process.env.LEFT = 'here'; process.chdir('/'); });
test.run();`;
for (const name of ['one', 'two', 'three', 'four']) {
  write(`store/${name}`, leaves);
  write(`tensor/${name}`, leaves);
}
write('store/exits', "test('a', () => process.exit(3)); test.run();");
write('store/waits', "test('a', () => setInterval(() => {}, 1000)); test.run();");
write('store/throws', "test('a', () => {}); setTimeout(() => { throw new Error('late'); }, 50); test.run();");

function run(names: string[], limitMs = 60_000) {
  const { stdout, status } = spawnSync(process.execPath, ['--import', preload, runner, ...names], {
    cwd: folder,
    encoding: 'utf8',
    env: { ...process.env, TEST_FILE_LIMIT_MS: String(limitMs) },
  });
  return { status, stdout, last: stdout.trimEnd().split('\n').at(-1) };
}

test('passed and skipped tests are counted and reasons shown', () => {
  const { status, stdout, last } = run(['passes']);
  assert.is(last, '1 passed, 0 failed, 1 skipped');
  assert.is(status, 0);
  assert.match(stdout, '  skipped: no GPU');
});

test('a failing test fails the suite and shows why, and where in its TypeScript', () => {
  const { status, stdout, last } = run(['passes', 'fails']);
  assert.is(last, '2 passed, 1 failed, 1 skipped');
  assert.is(status, 1);
  assert.match(stdout, /FAIL .*test\/fails\.test\.ts/);
  assert.match(stdout, 'Expected values to be strictly equal');
  assert.match(stdout, `test/fails.test.ts:3:${fails.indexOf('is(one') + 1})`);
});

test('a file that forgets test.run() fails the suite', () => {
  const { status, stdout, last } = run(['forgets']);
  assert.is(last, '0 passed, 1 failed');
  assert.is(status, 1);
  assert.match(stdout, 'never called test.run()');
});

test('a file without tests, or that leaves early, fails the suite', () => {
  assert.match(run(['is-empty']).stdout, 'no tests');
  assert.is(run(['leaves']).last, '0 passed, 1 failed');
});

test('a file that skips tests and does not say why fails the suite', () => {
  const { stdout, last } = run(['is-silent']);
  assert.is(last, '1 passed, 1 failed, 1 skipped');
  assert.match(stdout, 'does not say why');
});

test('a file that hangs is ended at its limit', () => {
  const { stdout, last } = run(['hangs'], 500);
  assert.is(last, '0 passed, 1 failed');
  assert.match(stdout, 'no end within 0.5 s');
});

test('files of some folders share processes, of which each has what the first one had; others have their own', () => {
  const processesOf = (name: string) => {
    assert.is(
      run(['one', 'two', 'three', 'four'].map((file) => `${name}/${file}`)).last,
      '4 passed, 0 failed',
    );
    const file = join(folder, 'processes');
    const lines = readFileSync(file, 'utf8').trim().split('\n');
    rmSync(file);
    assert.is(lines.length, 4);
    assert.ok(lines.every((line) => line.endsWith(' undefined')));
    return new Set(lines).size;
  };
  assert.ok(processesOf('store') <= 2);
  assert.is(processesOf('tensor'), 4);
});

test('what ends or holds up a shared process fails the file that did it, and no other', () => {
  const { stdout, last } = run(['store/'], 5000);
  assert.is(last, '6 passed, 3 failed');
  assert.match(stdout, /FAIL {2}test\/store\/exits\.test\.ts {2}ended with code 3 before its totals/);
  assert.match(stdout, /FAIL {2}test\/store\/waits\.test\.ts {2}no end within 5 s/);
  assert.match(stdout, /FAIL {2}test\/store\/throws\.test\.ts {2}ended with code 1 although no test failed/);
});

test('a selection that matches nothing fails', () => {
  const { status, last } = run(['no-such-file']);
  assert.is(last, '0 passed, 1 failed');
  assert.is(status, 1);
});

test.run();
