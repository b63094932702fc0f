import { spawn } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { launcher, optima, optimaHere, temporaryFolder, writeRandomCheckpoint } from '../support/run.ts';

const folder = temporaryFolder('commands');
test.after(() => fs.rmSync(folder, { recursive: true }));
const objects = (stdout: string) =>
  stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));

test.before(async () => {
  await writeRandomCheckpoint(path.join(folder, 'model'));
});

test('help lists the commands and loads nothing that computes', async () => {
  const listLoaded = `import { createRequire } from 'node:module';
    const { cache } = createRequire(process.cwd() + '/');
    process.on('exit', () => process.stderr.write(Object.keys(cache).join(' ')));`;
  const preload = `data:text/javascript,${encodeURIComponent(listLoaded)}`;
  const { code, stdout, stderr: loaded } = await optima(['--help'], { preload });
  assert.is(code, 0);
  assert.match(loaded, 'commander');
  assert.not.match(loaded, /tensorflow|koffi|node_modules.(@typescript|typescript)/);
  const known = [
    'train',
    'eval',
    'warmup',
    'chat',
    'list',
    'new',
    'check',
    'fork',
    'pairs',
    'results',
    'replay',
    'rerank',
    'view',
    'show',
    'tree',
    'runs',
    'doctor',
    'export',
  ];
  for (const command of known) {
    assert.match(stdout, new RegExp(`^  ${command} `, 'm'));
  }
  assert.is((await optimaHere([])).stdout, stdout);
});

test('new writes a scenario that is listed and checked, and never overwrites one', async () => {
  const { code, stdout } = await optimaHere(['new', 'city-walk', '--json'], { folder });
  assert.is(code, 0);
  const { file } = objects(stdout)[0];
  assert.is(file, path.join('scenarios', 'city-walk.mts'));
  const text = fs.readFileSync(path.join(folder, file), 'utf8');
  const check = await optimaHere(['check', 'city-walk', '--json'], { folder });
  assert.equal(objects(check.stdout).at(-1), {
    event: 'summary',
    scenario: 'city-walk',
    file: fs.realpathSync(path.join(folder, file)),
    errors: 0,
    warnings: 0,
  });
  const list = await optimaHere(['list', '--json'], { folder });
  const names = objects(list.stdout).map(({ name }) => name);
  assert.ok(names.includes('city-walk') && names.includes('two-hop-qa'), list.stdout);
  assert.equal(objects(list.stdout).at(-1), { event: 'summary', scenarios: names.length - 1 });
  const broken = path.join(folder, 'scenarios', 'broken.mts');
  fs.writeFileSync(broken, `throw new Error('bad luck');\nexport {};\n`);
  const { stdout: shown } = await optimaHere(['list'], { folder });
  assert.match(shown, /^broken +scenarios.broken\.mts: cannot be loaded: bad luck\ncity-walk /m);
  fs.rmSync(broken);
  const again = await optimaHere(['new', 'city-walk', '--json'], { folder });
  assert.is(again.code, 1);
  assert.match(objects(again.stdout)[0].message, 'exists already');
  assert.is(fs.readFileSync(path.join(folder, file), 'utf8'), text);
});

test('eval ends with the metrics of the contract, the same in a clone with a worker and here with none', async () => {
  const summaries = [];
  // As whoever has a clone runs it: main thread, worker and scenario are read by tsx, not in the tests' own way.
  const inClone = (args: string[]) => optima(args, { folder, env: { NODE_OPTIONS: '' } });
  for (const workers of ['1', '0']) {
    const args = ['eval', 'two-hop-qa', '--model', 'model', '--tasks', '3', '--workers', workers, '--json'];
    // What a random model says ends nowhere else.
    args.push('--max-tokens', '20');
    const { code, stdout, stderr } = await (workers === '1' ? inClone(args) : optimaHere(args, { folder }));
    assert.is(code, 0, stderr);
    const summary = objects(stdout).at(-1);
    assert.is(summary.event, 'summary');
    assert.is(summary.n, 3);
    for (const name of ['f1', 'exactMatch', 'tokens', 'agreement', 'turns']) {
      assert.type(summary[name], 'number');
    }
    assert.not.ok('taskScore' in summary);
    summaries.push({ ...summary, seconds: 0 });
  }
  assert.equal(summaries[0], summaries[1]);
});

test('chat shows a person the view, takes the turns from the input and gives the verdict', async () => {
  const chat = ['chat', 'two-hop-qa', '--role', 'bob', '--model', 'model'];
  const { code, stdout, stderr } = await optimaHere(chat, { folder, input: 'one\ntwo\nthree\nfour\nfive\n' });
  assert.is(code, 0, stderr);
  assert.match(stdout, /You are bob\. This is all you see:\n\nYou are Bob, working with Alice\./);
  assert.match(stdout, /\nalice: /);
  assert.match(stdout, /turn-cap after 10 turns\.\nanswer: none; right: /);
  const cut = await optimaHere([...chat, '--json'], { folder, input: 'one\n' });
  assert.is(cut.code, 1);
  const messages = objects(cut.stdout).flatMap(({ event, message }) =>
    event === 'message' ? [message] : [],
  );
  assert.equal(
    messages.slice(0, 3).map(({ type, taskId, dialogueId, nodeId }) => [type, taskId, dialogueId ?? nodeId]),
    [
      ['task.dealt', 'test-00000', undefined],
      ['dialogue.opened', 'test-00000', 'chat/test-00000.0'],
      ['turn.requested', undefined, 'chat/test-00000.0'],
    ],
  );
  const turns = messages.flatMap(({ type, turn }) => (type === 'turn.taken' ? [turn] : []));
  assert.equal(
    turns.map(({ provenance }) => provenance),
    ['sampled', 'human', 'sampled'],
  );
  assert.match(objects(cut.stdout).at(-1).message, 'the input ended');
});

test('chat shows a person what the role hears: not what others say at once with it before it has spoken', async () => {
  const scenario = path.join(folder, 'at-once.mjs');
  const original = new URL('../scenarios/kinds/votes.ts', import.meta.url).href;
  fs.writeFileSync(
    scenario,
    `import votes from ${JSON.stringify(original)};
    const environment = {
      open: () => [{ text: 'Welcome, ben.', to: ['ben'] }, { text: 'Psst.', to: ['ann'] }],
      respond: ({ turns }) => turns.length + ' votes.',
    };
    export default { ...votes, environment, protocol: { ...votes.protocol, maxTurns: 6 } };`,
  );
  const { code, stdout, stderr } = await optimaHere(['chat', scenario, '--role', 'ben', '--model', 'model'], {
    folder,
    input: 'first\nsecond\n',
  });
  assert.is(code, 0, stderr);
  const heard = stdout
    .split('\n')
    .filter((line) => /^(environment|ann|ben|cyd)\b/.test(line))
    .map((line) => line.replace(/^(ann|cyd): .*/, '$1'));
  const round = ['ben (you):', 'ann', 'cyd'];
  assert.equal(heard, [
    'environment: Welcome, ben.',
    ...round,
    'environment: 3 votes.',
    ...round,
    'environment: 6 votes.',
  ]);
});

test('a reader that goes away ends the command quietly', async () => {
  const child = spawn(process.execPath, [launcher, 'train', '--help']);
  let stderr = '';
  child.stderr.on('data', (text) => {
    stderr += text;
  });
  child.stdout.destroy();
  const code = await new Promise((resolve) => child.on('close', resolve));
  assert.is(stderr, '');
  assert.ok(code === 141 || code === 0, `code ${code}`);
});

test.run();
