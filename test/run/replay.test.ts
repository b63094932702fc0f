// A run is replayed from its log: an environment that answers and sometimes throws, a metric that asks a judge and sometimes
// fails, turns that merge. Neither a model nor the scenario's own environment and metric are called, and what was changed is found.
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { RunEvent } from '../../src/domain/events.ts';
import { RunReader } from '../../src/reading/index.ts';
import {
  eventsIn,
  optimaHere,
  replaceLog,
  smallHybridRun,
  temporaryFolder,
  writeRandomCheckpoint,
} from '../support/run.ts';

const folder = temporaryFolder('replay');
test.after(() => fs.rmSync(folder, { recursive: true }));
const inFolder = (name: string) => path.join(folder, name);
const out = inFolder('run');
const calls = inFolder('calls');
const source = new URL('../../src/index.ts', import.meta.url).href;
const scenario = `
import fs from 'node:fs';
import { agreement, defineScenario, dialogue, generated, tagged } from ${JSON.stringify(source)};
const note = (what) => fs.appendFileSync(${JSON.stringify(calls)}, what);
const last = ({ turns }) => turns.at(-1).text.length;
export default defineScenario({
  name: 'noted', kind: 'information-exchange', description: '',
  tasks: generated((rng) => ({ n: rng.int(99) })),
  roles: { ann: { sees: ({ n }) => 'Ann has ' + n }, ben: { sees: ({ n }) => 'Ben has ' + n } },
  environment: {
    open: ({ task }) => (note('o'), 'Begin with ' + task.n + '.'),
    respond: (dialogue) => {
      note('r');
      if (last(dialogue) % 9 === 8) throw new Error('no ' + last(dialogue));
      return last(dialogue) % 3 ? 'Heard ' + last(dialogue) : null;
    },
  },
  protocol: dialogue({ order: ['ann', 'ben'], maxTurns: 3, until: agreement() }),
  answer: tagged('A'), answers: ({ n }) => [String(n)],
  metric: {
    name: 'asked',
    async score(_prediction, _answers, dialogue) {
      note('m');
      if (last(dialogue) % 7 === 6) throw new Error('cannot say');
      const replies = [dialogue.judge.ask('one ' + last(dialogue)), dialogue.judge.ask('two')];
      const third = await dialogue.judge.ask('three ' + (await replies[0]));
      return (third.length + (await replies[1]).length) % 2;
    },
  },
  judge: {},
  reward: { lambdaToken: 0.6, lambdaLoss: 0.1 }, formats: [{ name: 'terse', prompt: 'Be terse.' }, { name: 'long', prompt: 'Be long.' }],
});
`;
const called = () => (fs.existsSync(calls) ? fs.readFileSync(calls, 'utf8') : '');
const replay = (run: string, ...options: string[]) => optimaHere(['replay', run, ...options]);
const lines = (stdout: string) =>
  stdout
    .trim()
    .split('\n')
    // biome-ignore lint/suspicious/noExplicitAny: lines of --json.
    .map((line): any => JSON.parse(line));

test.before(async () => {
  await writeRandomCheckpoint(inFolder('model'), 'Ann Ben has Begin with Heard 0 1 2 3 4 5 6 7 8 9');
  fs.writeFileSync(inFolder('noted.mjs'), scenario);
  fs.writeFileSync(
    inFolder('judge.mjs'),
    `import fs from 'node:fs';
export default ({ messages }) => (fs.appendFileSync(${JSON.stringify(calls)}, 'j'), 'r'.repeat(messages[0].content.length % 5));`,
  );
  const settings = ['search.mergeBelow=0.8', 'maxMessageTokens=4', 'search.expansions=4'];
  const { code, stdout } = await optimaHere([
    ...['train', inFolder('noted.mjs'), '--model', inFolder('model'), '--judge', inFolder('judge.mjs')],
    ...[...smallHybridRun, ...settings.flatMap((setting) => ['--set', setting])],
    ...['--workers', '0', '--json', '--out', out],
  ]);
  assert.is(code, 0, stdout);
});

test('a run’s dialogues come out as they were, and nothing is called that may touch the world', async () => {
  const events = eventsIn(out);
  const have = (test: (event: RunEvent) => boolean) => assert.ok(events.some(test), `${test}`);
  have(({ type }) => type === 'turn.merged');
  have(({ type }) => type === 'observation.given');
  have(({ type }) => type === 'verdict.failed');
  have((event) => event.type === 'dialogue.closed' && event.failure?.includes(' threw: no ') === true);
  have((event) => event.type === 'judge.asked' && event.question === 2);
  const before = called();
  for (const letter of 'ormj') assert.ok(before.includes(letter));
  const { code, stdout } = await replay(out, '--json');
  assert.is(code, 0, stdout);
  assert.is(called(), before);
  const said = lines(stdout);
  const closed = events.filter(({ type }) => type === 'dialogue.closed').length;
  assert.is(said.at(-1).dialogues, closed);
  assert.is(said.at(-1).divergences, 0);
  const messages = said.filter(({ event }) => event === 'message').map(({ message }) => message);
  const ofDialogues = events.filter((event) => 'dialogueId' in event && event.type !== 'trajectory.ranked');
  assert.equal(
    messages.filter((event) => 'dialogueId' in event && event.type !== 'trajectory.ranked'),
    ofDialogues,
  );
});

test('a task, a node and an iteration are replayed alone, and played with who spoke and the reward', async () => {
  const events = eventsIn(out);
  const turn = events.flatMap((event) => (event.type === 'turn.taken' ? [event] : [])).at(-1)!;
  const one = await replay(out, '--node', turn.turn.id);
  assert.is(one.code, 0, one.stdout + one.stderr);
  assert.match(one.stdout, `── ${turn.dialogueId}`);
  assert.match(one.stdout, /^(ann|ben) \(\d+ tokens?\): /m);
  assert.match(one.stdout, /1 dialogue, \d+ messages/);
  const task = await replay(out, '--task', 'train-00000', '--iteration', '0');
  assert.is(task.code, 0, task.stdout + task.stderr);
  assert.is(task.stdout.match(/^── init-0\/generate\/train-00000\./gm)?.length, 2);
  assert.match(task.stdout, /^(reward -?\d|no reward: )/m);
  const iteration = lines((await replay(out, '--iteration', '2', '--json')).stdout);
  const phases = iteration.filter(({ event }) => event === 'phase').map(({ phase }) => phase);
  assert.equal(phases, ['idpo-2/pilot', 'idpo-2/search', 'idpo-2/evaluate']);
  const none = await replay(out, '--task', 'train-99999');
  assert.is(none.code, 1);
  assert.match(none.stderr, 'holds no dialogue of --task train-99999');
  assert.match(none.stderr, 'One that it has: ');
  const far = await replay(out, '--node', 'base/test-00000.7.3');
  assert.match(far.stderr, 'Did you mean base/test-00000.0?');
});

test('the policies sample the same again, and the scenario says the same again', async () => {
  const before = called();
  const { code, stdout } = await replay(
    ...([
      out,
      '--iteration',
      '2',
      '--verify-model',
      '--verify-scenario',
      '--workers',
      '0',
      '--json',
    ] as const),
  );
  assert.is(code, 0, stdout);
  for (const letter of 'orm') assert.ok(called().slice(before.length).includes(letter));
  assert.not(called().slice(before.length).includes('j'));
});

/** The run with other events, as if they had been recorded. */
function changed(name: string, change: (event: RunEvent) => RunEvent): string {
  fs.cpSync(out, inFolder(name), { recursive: true });
  replaceLog(inFolder(name), eventsIn(out).map(change));
  return inFolder(name);
}

test('the first message that is another is shown beside the recorded one', async () => {
  let turns = 0;
  const run = changed('other', (event) => {
    if (event.type !== 'turn.taken' || ++turns !== 3) return event;
    return { ...event, turn: { ...event.turn, seed: 7 } };
  });
  const number = eventsIn(run).findIndex((event) => event.type === 'turn.taken' && event.turn.seed === 7);
  const { code, stdout, stderr } = await replay(run);
  assert.is(code, 1);
  assert.match(stderr, `events.jsonl:${number + 1}: what is replayed is not what was recorded`);
  assert.match(stdout, /^recorded: .*"seed":7,/m);
  assert.match(stdout, /^replayed: \{"type":"turn\.taken".*"seed":\d{2,},/m);
  const divergence = lines((await replay(run, '--json')).stdout).find(({ event }) => event === 'divergence');
  assert.is(divergence.seq, number);
});

test('what was said otherwise, or is not there, is found by asking policy and scenario', async () => {
  let turns = 0;
  const text = changed('text', (event) => {
    if (event.type !== 'turn.taken' || ++turns !== 2) return event;
    return { ...event, turn: { ...event.turn, tokenIds: [1, ...event.turn.tokenIds.slice(1)] } };
  });
  // Whoever changes the log consistently is believed until the model is asked.
  assert.is((await replay(text, '--task', 'test-00000')).code, 0);
  const sampled = await replay(text, '--verify-model', '--workers', '0');
  assert.is(sampled.code, 1);
  assert.match(sampled.stdout, /^recorded: .*"tokenIds":\[1,/m);
});

test('a fork asks the judge what the metric has to ask, and the environment what it has not said', async () => {
  const turns = eventsIn(out).flatMap((event) => (event.type === 'turn.taken' ? [event.turn] : []));
  const second = turns.find(
    ({ id, parent }) => id.startsWith('idpo-2/search/') && parent.split('.').length === 2,
  )!;
  const before = called().length;
  const { code, stdout } = await optimaHere([
    'fork',
    out,
    '--instead-of',
    second.id,
    '--say',
    'Ben 1',
    '--json',
  ]);
  assert.is(code, 0, stdout);
  assert.is(called().slice(before).replaceAll('j', ''), 'rrm');
  const asked = fs.readFileSync(path.join(out, 'forks.jsonl'), 'utf8').match(/"type":"judge.asked"/g);
  assert.is(asked?.length, called().slice(before).replaceAll(/[^j]/g, '').length);
  assert.is(lines(stdout).at(-1).value, lines(stdout).at(-1).reward);
});

test('any byte that was changed is found and located, where it is read or the whole run is replayed', async () => {
  // What is replayed, and what is not, further from it than the index has one read.
  for (const place of ['"text":"', '"step.trained"']) {
    const run = inFolder(`flipped${place.length}`);
    fs.cpSync(out, run, { recursive: true });
    const longer = eventsIn(out).flatMap((event) =>
      event.type === 'step.trained' ? Array(600).fill(event) : [event],
    );
    replaceLog(run, longer);
    fs.rmSync(path.join(run, 'events.index'), { force: true });
    RunReader.open(run).close();
    const file = path.join(run, 'events.jsonl');
    const bytes = fs.readFileSync(file);
    const phase = bytes.indexOf('"phase.started","phase":"init-0/generate"');
    const at = bytes.indexOf(place, phase) + place.length + 1;
    bytes[at]! ^= 1;
    fs.writeFileSync(file, bytes);
    const { code, stderr } = await replay(run);
    assert.is(code, 1);
    const line = bytes.subarray(0, at).toString('latin1').split('\n').length;
    assert.match(stderr, `events.jsonl:${line}: `);
    const [, first] = /"turn":\{"id":"([^"]+)"/.exec(bytes.toString('latin1'))!;
    assert.is((await replay(run, '--node', first!)).code, 0);
  }
});

test.run();
