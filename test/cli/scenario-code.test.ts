// Scenario code that hangs, never settles, rejects, draws by chance, or is no module: one line that names it, and an end.
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { optima, optimaHere, temporaryFolder } from '../support/run.ts';

const folder = temporaryFolder('scenario-code');
test.after(() => fs.rmSync(folder, { recursive: true }));

type Parts = Partial<Record<'before' | 'tasks' | 'sees' | 'metric', string>>;

/** A scenario file without types, so that nothing is checked first. */
function write(name: string, { before = '', tasks, sees, metric }: Parts): string {
  const file = path.join(folder, name);
  const text = `import { agreement, defineScenario, dialogue, exactMatch, generated, tagged } from 'optima-actors';
${before}
export default defineScenario({
  name: 'sums', kind: 'information-exchange', description: 'Two numbers, one sum.',
  tasks: ${tasks ?? 'generated((rng) => ({ left: rng.int(50), right: rng.int(50) }))'},
  roles: { alice: { sees: (task) => ${sees ?? "'<A>…</A> ' + task.left"} }, bob: { sees: (task) => '<A>…</A> ' + task.right } },
  protocol: dialogue({ order: ['alice', 'bob'], maxTurns: 4, until: agreement() }),
  answer: tagged('A'), answers: (task) => [String(task.left + task.right)],
  metric: ${metric ?? 'exactMatch'}, reward: { lambdaToken: 0.6, lambdaLoss: 0.1 }, formats: [],
});`;
  fs.writeFileSync(file, text);
  return file;
}

const hanging = write('hangs.mjs', {
  sees: '{ for (;;) if (task.left < 0) return ""; }',
  tasks: '{ load: () => { for (;;) {} } }',
  metric: "{ name: 'slow', score: async () => { await null; for (;;) {} } }",
});
const hangingAtOnce = write('at-once.mjs', { before: 'for (;;) {}' });
const preload = new URL('../support/types-stripped.mjs', import.meta.url).href;
const watch = fileURLToPath(new URL('../../src/cli/watch.ts', import.meta.url));

/** Calls a function of a hanging scenario in a process that watches it, and has a listener for signals. */
function hang(call: string, seconds: number, args: readonly string[] = [], file = hanging) {
  const code = `import { openScenario } from ${JSON.stringify(watch)};
    process.on('SIGINT', () => {});
    const { scenario } = await openScenario(${JSON.stringify(file)}, undefined, ${seconds});
    console.error('calls');
    scenario.${call};`;
  const child = spawn(process.execPath, [
    '--import',
    preload,
    '--input-type=module',
    '-e',
    code,
    '--',
    ...args,
  ]);
  let said = '';
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (text) => {
      said += text;
    });
  const ended = new Promise<{ code: number | null; signal: string | null; said: string }>((resolve) => {
    // Where others have the processor, the import alone takes a second, and that is remarked upon.
    const slow = /^note: for \d+ s: .*: its top level awaits what has not settled\.\n/m;
    child.on('close', (code, signal) =>
      resolve({ code, signal, said: said.replace('calls\n', '').replace(slow, '') }),
    );
  });
  return { child, ended, hasCalled: () => said.includes('calls') };
}

test('a function that never comes back ends the process with one line that names it', async () => {
  for (const [call, name] of [
    ['roles.alice.sees({ left: 1 })', 'Scenario "sums": roles.alice.sees'],
    ['metric.score()', 'Scenario "sums": metric.score'],
    [null, `${hangingAtOnce}, as it is imported,`],
  ] as const) {
    const { code, said } = await hang(call ?? 'name', 1, [], call === null ? hangingAtOnce : hanging).ended;
    assert.is(code, 1);
    assert.match(said, `error: ${name} has not come back for 1 s.\nhint: `);
    assert.is(said.trim().split('\n').length, 2, said);
  }
  const { said } = await hang("tasks.load('train', 1)", 1, ['--json']).ended;
  const { event, code, message } = JSON.parse(said);
  assert.equal([event, code], ['error', 'timeout']);
  assert.is(message, 'Scenario "sums": tasks.load has not come back for 1 s.');
});

test('Ctrl-C ends a process that is blocked, also where a listener would be called', async () => {
  const { child, ended, hasCalled } = hang('metric.score()', 60);
  while (!hasCalled()) await new Promise((resolve) => setTimeout(resolve, 50));
  const again = setInterval(() => child.kill('SIGINT'), 500);
  const { signal } = await ended;
  clearInterval(again);
  assert.is(signal, 'SIGINT');
});

test('what a load or a metric says is told in its words, as the scenario’s', async () => {
  const never = write('never.mjs', { before: 'await new Promise(() => {});' });
  const silent = write('silent.mjs', { tasks: '{ load: () => new Promise(() => {}) }' });
  const away = write('away.mjs', {
    tasks: "{ load: async () => { throw new Error('the source is away'); } }",
  });
  const none = write('none.mjs', { tasks: '{ load: async () => null }' });
  // What never settles shows where a process has nothing left to do.
  for (const [file, message, run] of [
    [never, `${never}: its top level awaits what never settles.`, optima],
    [silent, 'Scenario "sums": tasks.load gave a promise that never settles.', optima],
    [away, `Scenario "sums": tasks.load('test', 2) threw: the source is away.`, optimaHere],
    [none, `Scenario "sums": tasks.load('test', 2) gave no list of tasks.`, optimaHere],
  ] as const) {
    const { code, stderr } = await run(['eval', file, '--tasks', '2', '--workers', '0']);
    assert.is(code, 1);
    assert.match(stderr, `error: ${message}\n`);
  }
});

test('a TypeScript file of a CommonJS package is refused with what to do', async () => {
  fs.writeFileSync(path.join(folder, 'package.json'), '{ "name": "mine" }');
  // As tsx reads it, and not the tests.
  const env = { NODE_OPTIONS: '' };
  const bare = path.join(folder, 'bare.ts');
  fs.writeFileSync(bare, 'const n: number = 1;\nexport default { n } as never;\n');
  for (const file of [write('sums.ts', { before: '// @ts-nocheck' }), bare]) {
    const { code, stderr } = await optima(['check', file], { env });
    assert.is(code, 1);
    assert.match(stderr, 'cannot be loaded: no package.json says that it is a module.');
    assert.match(stderr, 'hint: Name the file .mts');
  }
});

test('what is not the same when it is dealt again is found by check, and by train before there is a run', async () => {
  const drawn = write('drawn.mjs', { sees: "'<A>…</A> ' + task.left + Math.random()" });
  const salted = write('salted.mjs', {
    before: 'const salt = Math.floor(Math.random() * 1e9);',
    tasks: 'generated((rng) => ({ left: rng.int(50) + salt, right: rng.int(50) }))',
  });
  for (const file of [drawn, salted]) {
    const run = path.join(folder, 'run');
    const { code, stderr } = await optimaHere(['train', file, '--out', run]);
    assert.is(code, 1);
    assert.match(
      stderr,
      'error: Scenario "sums": dealt twice from one seed, its tasks, views or answers are not the same.',
    );
    assert.not.ok(fs.existsSync(run));
  }
  const { code, stdout } = await optimaHere(['check', salted]);
  assert.is(code, 1);
  assert.match(stdout, 'error: tasks: train-00000: loaded again, the scenario deals another task');
});

test.run();
