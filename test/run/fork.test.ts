// Forks of a run: at the first turn, at the last one, of a failed dialogue, of a fork; what a person wrote, what another policy
// says. The run's own log stays as it is, and what is kept is trained on where that was asked for.
import fs from 'node:fs';
import path from 'node:path';
import { setImmediate as nextTick } from 'node:timers/promises';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { openForkSetting } from '../../src/cli/fork.ts';
import { systemClock } from '../../src/domain/clock.ts';
import type { RunEvent, RunEventOf } from '../../src/domain/events.ts';
import type { DialogueId, NodeId, TaskId } from '../../src/domain/ids.ts';
import { silent } from '../../src/domain/progress.ts';
import type { Turn } from '../../src/domain/transcript.ts';
import { RunReader } from '../../src/reading/index.ts';
import { type Fork, type ForkSetting, forkTurn, keepFork } from '../../src/run/fork.ts';
import { compressLog } from '../../src/store/compress.ts';
import { EventLog, emptyLog } from '../../src/store/event-log.ts';
import { appendForks, ForkLog, forkOf, forksPath, type LoggedFork } from '../../src/store/fork-log.ts';
import { lock } from '../../src/store/lock.ts';
import { RunFolder } from '../../src/store/run-folder.ts';
import { killAnywhere, labelOf, stateOf } from '../support/crash.ts';
import {
  changeManifest,
  eventsIn,
  optimaHere,
  replaceLog,
  smallHybridRun,
  temporaryFolder,
  writeRandomCheckpoint,
} from '../support/run.ts';

const folder = temporaryFolder('fork');
test.after(() => fs.rmSync(folder, { recursive: true }));
const inFolder = (name: string) => path.join(folder, name);
const out = inFolder('run');
const calls = inFolder('calls');
const source = new URL('../../src/index.ts', import.meta.url).href;
const scenario = `
import fs from 'node:fs';
import { agreement, defineScenario, dialogue, generated, tagged } from ${JSON.stringify(source)};
const last = ({ turns }) => turns.at(-1).text.length;
export default defineScenario({
  name: 'noted', kind: 'information-exchange', description: '',
  tasks: generated((rng) => ({ n: rng.int(99) })),
  roles: { ann: { sees: ({ n }) => 'Ann has ' + n }, ben: { sees: ({ n }) => 'Ben has ' + n } },
  environment: {
    open: ({ task }) => 'Begin with ' + task.n + '.',
    respond: ({ turns }) => {
      fs.appendFileSync(${JSON.stringify(calls)}, turns.length + ' ');
      if (turns.at(-1).text.length % 7 === 6) throw new Error('no more');
      return 'Heard ' + turns.map(({ text }) => text.length).join(' and ');
    },
  },
  protocol: dialogue({ order: ['ann', 'ben'], maxTurns: 3, until: agreement() }),
  answer: tagged('A'), answers: ({ n }) => [String(n)],
  metric: { name: 'length', score: (_prediction, _answers, { turns }) => (turns.reduce((sum, { text }) => sum + text.length, 0) % 50) / 50 },
  reward: { lambdaToken: 0.6, lambdaLoss: 0.1 }, formats: [{ name: 'terse', prompt: 'Be terse.' }],
});
`;
const called = () => fs.readFileSync(calls, 'utf8');
const turnsOf = (run: string): Turn[] =>
  eventsIn(run).flatMap((event) => (event.type === 'turn.taken' ? [event.turn] : []));
// biome-ignore lint/suspicious/noExplicitAny: lines of --json.
const linesOf = (stdout: string): any[] =>
  stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
const quiet = ['--json', '--workers', '0'];
/** A copy of the run whose log ends before a line: as if it had been killed there. */
function cut(name: string, lines: number): void {
  // What was resumed before holds more events of that phase.
  const from = fs.existsSync(inFolder('whole')) && name === 'with' ? inFolder('whole') : out;
  fs.cpSync(from, inFolder(name), { recursive: true });
  const file = path.join(inFolder(name), 'events.jsonl');
  const kept = fs.readFileSync(file, 'utf8').split('\n').slice(0, lines);
  fs.writeFileSync(file, `${kept.join('\n')}\n`);
  changeManifest(inFolder(name), () => ({ log: emptyLog }));
}
/** Forks the run and gives the summaries of the forks. */
async function fork(...options: string[]) {
  const { code, stdout } = await optimaHere(['fork', out, ...options, '--json']);
  assert.is(code, 0, stdout);
  return linesOf(stdout).filter(({ event }) => event === 'fork');
}
/** The events of the run's forks. */
function eventsOfForks(run: string): RunEvent[] {
  const events: RunEvent[] = [];
  const options = { fold: (event: RunEvent) => void events.push(event), readOnly: true };
  new EventLog(forksPath(run), systemClock, options).close();
  return events;
}
const loggedFork = (number: number) => ForkLog.read(out).forks.get(number)!;

let log: Buffer;
test.before(async () => {
  await writeRandomCheckpoint(inFolder('model'), 'Ann Ben has Begin with Heard and 0 1 2 3 4 5 6 7 8 9');
  fs.writeFileSync(inFolder('noted.mjs'), scenario);
  const settings = ['search.mergeBelow=0.8', 'maxMessageTokens=4', 'iterations=2'];
  const { code, stdout } = await optimaHere([
    ...['train', inFolder('noted.mjs'), '--model', inFolder('model')],
    ...[...smallHybridRun, ...settings.flatMap((setting) => ['--set', setting])],
    ...['--workers', '0', '--json', '--out', out],
  ]);
  assert.is(code, 0, stdout);
  log = fs.readFileSync(path.join(out, 'events.jsonl'));
});

test('a run whose log is compressed is forked and replayed like any other', async () => {
  const packed = inFolder('packed');
  fs.cpSync(out, packed, { recursive: true, verbatimSymlinks: true });
  await compressLog(packed);
  const [plain, replayed] = [
    await optimaHere(['replay', out, '--json']),
    await optimaHere(['replay', packed, '--json']),
  ];
  const { seconds, ...told } = linesOf(replayed.stdout).at(-1);
  assert.equal({ ...linesOf(plain.stdout).at(-1), seconds }, { ...told, seconds });
  assert.ok(told.dialogues > 0);
  const { id } = turnsOf(out)[0]!;
  const forked = await optimaHere(['fork', packed, '--instead-of', id, '--say', 'five words', '--json']);
  assert.is(forked.code, 0, forked.stdout);
  assert.is(ForkLog.read(packed).forks.get(0)!.turns[0]!.text, 'five words');
  const again = await optimaHere(['replay', packed, '--json']);
  assert.is(linesOf(again.stdout).at(-1).dialogues, told.dialogues + 1);
});

test('instead of a turn is its sibling, after a turn is its child, at the first turn too', async () => {
  const first = turnsOf(out).find(({ id }) => id.startsWith('init-0/generate/'))!;
  const [beside] = await fork('--instead-of', first.id, '--say', 'five words');
  assert.is(beside.turn.parent, first.parent);
  assert.is(beside.turn.speaker, first.speaker);
  assert.is(beside.beside.turn, first.id);
  const [below] = await fork('--after', first.id, '--say', 'other words');
  assert.is(below.turn.parent, first.id);
  assert.not(below.turn.speaker === first.speaker);
  assert.is(below.turn.id, `${first.id}.f${below.fork}`);
  const [another] = await fork('--after', first.parent, '--reroll', '1');
  assert.is(another.turn.parent, first.parent);
  assert.is(loggedFork(another.fork).format, 'terse');
});

test('what a person wrote is encoded anew, is theirs, and has no log-probabilities', async () => {
  const first = turnsOf(out).find(({ id }) => id.startsWith('idpo-2/search/'))!;
  const [{ turn, reward, beside, own }] = await fork('--instead-of', first.id, '--say', 'Ann has 7');
  assert.is(turn.provenance, 'human');
  assert.is(turn.policyHash, 'person');
  assert.equal(turn.logprobs, []);
  assert.is(turn.text, 'Ann has 7');
  assert.not.equal(turn.tokenIds, first.tokenIds);
  assert.ok(turn.tokenIds.length > 2 && Number.isFinite(reward) && own);
  assert.ok(beside.value !== null);
});

test('a turn that is said again has the reward that the run gave it', async () => {
  const events = eventsIn(out);
  const test = turnsOf(out).find(({ id }) => id.startsWith('base/'))!;
  // Without temperature the policy says it again.
  const [fork0] = await fork('--instead-of', test.id, '--reroll', '1');
  assert.equal(fork0.turn.tokenIds, test.tokenIds);
  assert.is(fork0.reward, fork0.beside.reward);
  const generated = turnsOf(out).find(({ id }) => id.startsWith('isft-1/generate/'))!;
  const [again] = await fork('--instead-of', generated.id, '--reroll', '1');
  const ranked = events.find(
    (event): event is RunEventOf<'trajectory.ranked'> =>
      event.type === 'trajectory.ranked' && event.dialogueId === again.beside.dialogue,
  );
  assert.is(again.beside.reward, ranked!.reward);
});

test('the last turn and a failed dialogue can be forked; after its end nothing is said', async () => {
  const events = eventsIn(out);
  const ends = (failed: boolean) =>
    events.flatMap((event) => {
      if (event.type !== 'dialogue.closed' || (event.outcome === 'failed') !== failed) return [];
      const turns = events.flatMap((one) =>
        one.type === 'turn.taken' && one.dialogueId === event.dialogueId ? [one.turn] : [],
      );
      return turns.length === 0 ? [] : [turns];
    });
  const last = ends(false)[0]!.at(-1)!;
  const [instead] = await fork('--instead-of', last.id, '--say', 'word');
  assert.is(instead.turn.parent, last.parent);
  const over = await optimaHere(['fork', out, '--after', last.id, '--say', 'word']);
  assert.is(over.code, 2);
  assert.match(over.stderr, 'the dialogue is over (turn-cap)');
  const failed = ends(true)[0]!;
  const [other] = await fork('--instead-of', failed.at(-1)!.id, '--say', 'abc');
  assert.not(other.outcome === 'failed');
  // Nothing that was said there before is asked of the environment again.
  const before = called().length;
  await fork('--instead-of', failed.at(-1)!.id, '--say', 'abcd');
  assert.not(
    called()
      .slice(before)
      .split(' ')
      .includes(String(failed.length - 1)),
  );
});

test('what the environment said at the fork is as it was there, and not as at the end', async () => {
  const { turns } = [...ForkLog.read(out).forks.values()].find(({ begun }) => begun.at === 'after')!;
  const parent = turnsOf(out).find(({ id }) => id === turns[0]!.parent)!;
  assert.is(turns[0]!.observed![0]!.text, `Heard ${parent.text.length} and ${turns[0]!.text.length}`);
});

test('a fork of a fork goes on from its parent', async () => {
  const { begun, turns } = [...ForkLog.read(out).forks.values()].find((one) => one.turns.length > 1)!;
  const [again] = await fork('--instead-of', turns[1]!.id, '--say', 'ab');
  assert.is(again.turn.parent, turns[0]!.id);
  assert.is(again.beside.turn, turns[1]!.id);
  assert.is(again.beside.dialogue, begun.dialogueId);
  const [below] = await fork('--after', turns[0]!.id, '--reroll', '2');
  assert.ok(below.turn.id.startsWith(`${turns[0]!.id}.f`));
});

test('under another policy a fork has that one’s hash; several differ in their seeds', async () => {
  const [first] = turnsOf(out).filter(({ id }) => id.startsWith('idpo-2/search/'));
  const { policy } = eventsIn(out).find(
    (event): event is RunEventOf<'run.completed'> => event.type === 'run.completed',
  )!;
  assert.not(first!.policyHash === policy.ann);
  const forks = await fork('--instead-of', first!.id, '--reroll', '2', '--policy', policy.ann!);
  for (const { turn, own } of forks) {
    assert.is(turn.policyHash, policy.ann);
    assert.not(own);
  }
  assert.not(forks[0].turn.seed === forks[1].turn.seed);
});

/** Keeps a fork in a copy of the run, where it is worth as much as its sibling, then not, and is kept by two at once. */
async function keepsOnce(setting: ForkSetting, { fork: number, turn, ranked, beside }: Fork): Promise<void> {
  fs.cpSync(out, inFolder('kept'), { recursive: true });
  const run = RunReader.open(inFolder('kept'));
  const keep = () => keepFork({ ...setting, run }, number);
  const worth = (more: number) =>
    appendForks(run.folder, () => [{ type: 'trajectory.ranked', ...ranked, reward: beside!.value! + more }]);
  const problem = (error: Error) => error.message;
  await worth(1e-9);
  assert.match(await keep().then(() => '', problem), /worth the same, but for rounding .*by more than 0/);
  await worth(0.01);
  // What another run's fork of that number and of those ids made.
  const copied = (from?: string): RunEventOf<'pair.kept'> => ({
    ...{ type: 'pair.kept', fork: number, taskId: ranked.taskId, tree: turn!.parent, parent: turn!.parent },
    ...{ speaker: turn!.speaker, view: [], chosen: turn!, rejected: beside!.turn, value: 1, gap: 1 },
    ...(from !== undefined && { from }),
  });
  await appendForks(run.folder, () => [copied('other'), copied('other')]);
  const before = ForkLog.read(run.folder);
  assert.is(before.kept.length, 1, 'each pair once');
  const results = await Promise.all([keep(), keep()].map((kept) => kept.then(() => '', problem)));
  assert.equal(results.sort(), ['', `Fork ${number} makes no pair: it is kept already.`]);
  assert.equal(
    ForkLog.read(run.folder).kept.map(({ from }) => from),
    ['other', undefined],
  );
  assert.equal(ForkLog.read(run.folder, before.end.events).kept, before.kept);
  run.close();
}

test('forks are added behind whoever adds some, and not through a link', async () => {
  const place = inFolder('linked');
  fs.mkdirSync(place);
  const unlock = lock(place, 'forks.lock');
  const events: string[] = [];
  const added = appendForks(place, () => {
    events.push('added');
    return [];
  });
  await nextTick();
  events.push('given back');
  unlock();
  await added;
  assert.equal(events, ['given back', 'added']);

  const [file, other] = [path.join(place, 'forks.jsonl'), inFolder('other.txt')];
  fs.rmSync(file);
  fs.symlinkSync(other, file);
  const refused = async () => {
    const problem = await appendForks(place, () => []).then(
      () => '',
      (error) => error.message,
    );
    assert.is(problem, `${file} is a link.`);
    assert.throws(() => ForkLog.read(place), 'is a link');
  };
  await refused();
  assert.not(fs.existsSync(other));
  fs.writeFileSync(other, 'no end of a line');
  await refused();
  assert.is(fs.readFileSync(other, 'utf8'), 'no end of a line');
  // Where it was put there between a look and the opening.
  if (fs.constants.O_NOFOLLOW !== undefined)
    assert.throws(() => new EventLog(file, systemClock, { noLink: true }), 'it is a link');
  assert.is(fs.readFileSync(other, 'utf8'), 'no end of a line');
});

test('a turn is changed in an editor, and a person plays a role to its end', async () => {
  const first = turnsOf(out).find(({ id }) => id.startsWith('isft-1/generate/'))!;
  process.env.VISUAL = "sed -i 's/$/ has 7/'";
  // Whoever has the run meanwhile.
  const held = RunFolder.open(out, systemClock);
  const [edited] = await fork('--instead-of', first.id, '--edit');
  held.close();
  assert.is(edited.turn.text, `${first.text} has 7`);
  process.env.VISUAL = 'true';
  const same = await optimaHere(['fork', out, '--instead-of', first.id, '--edit']);
  assert.match(same.stderr, 'The text was not changed');
  delete process.env.VISUAL;

  const signal = new AbortController().signal;
  const output = { say() {}, remark() {}, emit() {}, pour: async () => {}, progress: silent };
  const { setting, close } = await openForkSetting(out, { backend: 'wasm' }, output, signal);
  const views: string[][] = [];
  const [played] = await forkTurn(setting, {
    at: 'instead-of',
    node: first.id,
    say: async (view, role) => {
      views.push(view.map(({ content }) => content));
      return `${role} ${views.length}`;
    },
  });
  await keepsOnce(setting, played!);
  await close();
  const { turns } = played!.dialogue;
  assert.equal(
    turns.map(({ speaker, provenance }) => [speaker, provenance]),
    [
      ['ann', 'human'],
      ['ben', 'sampled'],
      ['ann', 'human'],
    ],
  );
  assert.is(turns[2]!.text, 'ann 2');
  assert.ok(views[0]![0]!.startsWith('Ann has ') && views[1]!.includes('ann 1'));
  assert.ok(views[1]!.at(-1)!.includes('Heard 5 and '));
  // Its own token ids are what its next turn reads.
  assert.is(turns[2]!.promptTokens > turns[0]!.promptTokens + turns[0]!.tokenIds.length, true);
});

test('ids are the run’s or a fork’s, never both, and the run’s log is as it was', () => {
  const own = new Set(turnsOf(out).map(({ id }) => id));
  const forked = [...ForkLog.read(out).forks.values()].flatMap(({ turns }) => turns.map(({ id }) => id));
  assert.is(new Set(forked).size, forked.length);
  assert.ok(forked.every((id) => !own.has(id) && /\.f\d+/.test(id)));
  assert.equal(fs.readFileSync(path.join(out, 'events.jsonl')), log);
});

test('forks are replayed as they were held, without a model, tool or metric', async () => {
  const before = called();
  const known = [...ForkLog.read(out).forks.values()];
  const of = (test: (fork: LoggedFork) => boolean) => known.find(test)!.begun.fork;
  // A person's, one that failed, one of several, one of another policy, one of a fork, one of a search, one under a format.
  const kinds = [
    of(({ turns }) => turns[0]?.provenance === 'human'),
    of(({ closed }) => closed.outcome === 'failed'),
    of(({ begun }) => begun.said === 'played'),
    of(({ begun }) => !begun.own),
    of(
      ({ begun }) =>
        forkOf(begun.dialogueId.slice(0, begun.dialogueId.lastIndexOf('.')) as DialogueId) !== null,
    ),
    of(({ begun }) => begun.phase.endsWith('/search')),
    of(({ format }) => format !== null),
  ];
  const whole = await optimaHere(['replay', out, '--json']);
  assert.is(whole.code, 0, whole.stdout);
  const told = linesOf(whole.stdout);
  const ofForks = told.find(({ event }) => event === 'forks');
  assert.is(ofForks.dialogues, known.length);
  const ofRun = told
    .filter(({ event }) => event === 'phase')
    .reduce((sum, { dialogues }) => sum + dialogues, 0);
  assert.is(told.at(-1).dialogues, ofRun + known.length);
  const lines = eventsOfForks(out);
  for (const number of new Set(kinds)) {
    const { code, stdout } = await optimaHere(['replay', out, '--fork', `${number}`, '--json']);
    assert.is(code, 0, stdout);
    const { dialogueId } = ForkLog.read(out).forks.get(number)!.begun;
    const recorded = lines.filter(
      (event) => event.type !== 'fork.begun' && 'dialogueId' in event && event.dialogueId === dialogueId,
    );
    const messages = linesOf(stdout)
      .filter(({ event }) => event === 'message')
      .map(({ message }) => message);
    assert.equal(
      messages.filter((event) => 'dialogueId' in event),
      recorded,
    );
    assert.is(linesOf(stdout).at(-1).dialogues, 1);
  }
  assert.is(called(), before, 'nothing was asked that may touch the world');
  const { dialogueId } = ForkLog.read(out).forks.get(kinds[0]!)!.begun;
  const played = await optimaHere(['replay', out, '--node', dialogueId]);
  assert.match(
    played.stdout,
    new RegExp(`── ${dialogueId}[^]*(ann|ben) \\(\\d+ tokens?\\): [^]*\n1 dialogue\\b`),
  );
  const asked = await optimaHere(['replay', out, '--fork', `${kinds[0]}`, '--verify-scenario']);
  assert.is(asked.code, 0, asked.stderr);
  assert.ok(called().length > before.length, 'the environment is asked where that is wanted');
});

test('a fork whose log says something else is found, with its line', async () => {
  const changed = inFolder('changed');
  const number = [...ForkLog.read(out).forks.values()].find(({ turns }) => turns.length > 1)!.begun.fork;
  for (const [what, change] of [
    ['turn.requested', (event) => ({ ...event, speaker: 'nobody' })],
    [
      'dialogue.closed',
      (event) => ({ ...event, outcome: event.outcome === 'agreed' ? 'turn-cap' : 'agreed', failure: null }),
    ],
    // biome-ignore lint/suspicious/noExplicitAny: events of any type.
  ] as [string, (event: any) => RunEvent][]) {
    fs.rmSync(changed, { recursive: true, force: true });
    fs.cpSync(out, changed, { recursive: true, verbatimSymlinks: true });
    fs.rmSync(forksPath(changed));
    const log = new EventLog(forksPath(changed), { now: () => 0 });
    const events = eventsOfForks(out);
    const at = events.findLastIndex(
      (event) =>
        event.type === what &&
        forkOf('nodeId' in event ? event.nodeId : (event as { dialogueId: DialogueId }).dialogueId) ===
          number,
    );
    for (const [place, event] of events.entries()) log.append(place === at ? change(event) : event);
    log.close();
    const { code, stderr, stdout } = await optimaHere(['replay', changed, '--fork', `${number}`]);
    assert.is(code, 1, `${what}: ${stdout}`);
    assert.match(stderr, `forks.jsonl:${at + 1}: what is replayed is not what was recorded`);
  }
  for (const [args, code, message] of [
    [['--fork', '999'], 1, 'there is no fork 999 that has come to its end'],
    [['--fork', '0', '--task', 'train-00000'], 2, 'it takes no --task'],
    [['--fork', '0', '--verify-model'], 2, '--verify-model is for the dialogues of the run'],
  ] as const) {
    const ended = await optimaHere(['replay', out, ...args]);
    assert.is(ended.code, code, ended.stderr);
    assert.match(ended.stderr, message);
  }
});

test('what is asked for wrongly is said in one line', async () => {
  const wrong = async (words: string, ...options: string[]) => {
    const { code, stderr } = await optimaHere(['fork', out, ...options]);
    assert.ok(code === 1 || code === 2);
    assert.match(stderr, words);
  };
  await wrong('Where?', '--say', 'a');
  await wrong('Who speaks there?', '--after', 'x');
  await wrong('there is no turn base/test-00000.99', '--after', 'base/test-00000.99', '--say', 'a');
  await wrong('is a task and no turn', '--instead-of', 'base/test-00000', '--say', 'a');
  await wrong(
    '2 forks of base/test-00000 would be the same: in base the policy speaks at temperature 0.',
    ...['--after', 'base/test-00000', '--reroll', '2'],
  );
  // Before any model is opened.
  fs.cpSync(out, inFolder('bare'), { recursive: true });
  changeManifest(inFolder('bare'), ({ base }) => ({ base: { ...base, folder: inFolder('nothing') } }));
  const bare = await optimaHere(['fork', inFolder('bare'), '--after', 'base/test-00000.99', '--say', 'a']);
  assert.match(bare.stderr, 'there is no turn base/test-00000.99');
  assert.match(bare.stderr, 'Did you mean base/test-00000.0?');
});

test('a fork of a test task is no pair to train on', async () => {
  const { fork: number } = [...ForkLog.read(out).forks.values()].find(
    ({ begun }) => begun.phase === 'base',
  )!.begun;
  const { code, stderr } = await optimaHere(['pairs', out, '--keep', String(number)]);
  assert.is(code, 2);
  assert.match(
    stderr,
    `Fork ${number} makes no pair: base measures the team, and on its tasks nobody is trained.`,
  );
  assert.equal(ForkLog.read(out).kept, []);
  // Where it is asked for at once, nothing is forked.
  const { size } = ForkLog.read(out).forks;
  const asked = await optimaHere(['fork', out, '--instead-of', 'base/test-00000.0', '--say', 'a', '--keep']);
  assert.is(asked.code, 2);
  assert.match(asked.stderr, 'A fork of base/test-00000.0 makes no pair to keep: base measures the team');
  assert.is(ForkLog.read(out).forks.size, size);
});

test('a pair that is kept is listed and trained on where that is asked for, and the run says so', async () => {
  const made = eventsIn(out).find(
    (event): event is RunEventOf<'pairs.made'> => event.type === 'pairs.made' && event.pairs.length > 0,
  )!;
  const [{ fork: number, turn }] = await fork(
    ...['--instead-of', made.pairs[0]!.chosen, '--say', 'Ann has 7 and 7 and 7', '--keep'],
  );
  const [kept] = ForkLog.read(out).kept;
  assert.is(kept!.fork, number);
  assert.ok([kept!.chosen.id, kept!.rejected.id].includes(turn.id));
  const again = await optimaHere(['pairs', out, '--keep', String(number)]);
  assert.match(again.stderr, `Fork ${number} makes no pair: it is kept already.`);
  const listed = async (...options: string[]) =>
    linesOf((await optimaHere(['pairs', out, '--json', ...options])).stdout).filter(
      ({ fork }) => fork === number,
    );
  assert.equal(await listed(), []);
  assert.is((await listed('--include-human'))[0].taken, null);

  // What nobody is trained on, however it came there.
  const other = (label: string) => ({ ...kept!.chosen, id: `${turn.parent}.${label}` as NodeId });
  await appendForks(out, () => [
    { ...kept!, taskId: 'test-00000' as TaskId, chosen: other('x') },
    { ...kept!, speaker: 'cyd', chosen: other('y') },
  ]);
  const resume = async (name: string, lines: number, ...options: string[]) => {
    cut(name, lines);
    const { code, stdout } = await optimaHere(['train', '--resume', inFolder(name), ...options, ...quiet]);
    assert.is(code, 0, stdout);
    return eventsIn(inFolder(name));
  };
  const training = eventsIn(out).findIndex(
    (event) => event.type === 'phase.started' && event.phase === 'idpo-2/train',
  );
  const taken = (events: ReturnType<typeof eventsIn>) => events.filter(({ type }) => type === 'forks.taken');
  const withForks = await resume('with', training, '--with-forks');
  const pairs = [{ fork: number, chosen: kept!.chosen.id, rejected: kept!.rejected.id }];
  assert.equal(taken(withForks), [
    { type: 'forks.taken', phase: 'idpo-2/train', pairs, log: ForkLog.read(out).end },
  ]);
  const [own, theirs] = [eventsIn(out), withForks].map(
    (events) =>
      events
        .flatMap((event) =>
          event.type === 'phase.completed' && event.output.kind === 'train' ? [event.output] : [],
        )
        .at(-1)!,
  );
  assert.not.equal(theirs!.policy, own!.policy);
  const shown = await optimaHere(['pairs', inFolder('with'), '--include-human']);
  assert.match(shown.stdout, new RegExp(`^fork ${number} .* idpo-2/train$`, 'm'));
  // Cut off within the phase, it goes on as it began, asked or not.
  fs.renameSync(inFolder('with'), inFolder('whole'));
  assert.equal(await resume('with', training + 3), withForks, 'resumed');
  // Who does not ask never sees them.
  assert.equal(await resume('without', training), eventsIn(out));
  // A phase that began without forks stays so.
  assert.equal(await resume('later', training + 2, '--with-forks'), eventsIn(out));
});

test('a run that is over says how its forks are trained on, and another one starts from it with them', async () => {
  const over = await optimaHere(['train', '--resume', out, '--with-forks', ...quiet.slice(1)]);
  assert.is(over.code, 2);
  assert.match(
    over.stderr,
    `hint: Start a run from its policy: optima train --init-from ${out} --with-forks`,
  );
  const settings = [...smallHybridRun, '--set', 'maxMessageTokens=4'];
  const { code, stdout, stderr } = await optimaHere([
    ...['train', '--init-from', out, '--with-forks', ...settings, '--out', inFolder('next'), ...quiet],
  ]);
  assert.is(code, 0, stdout);
  assert.match(stderr, 'note: 2 of 3 kept pairs are left out');
  const events = eventsIn(inFolder('next'));
  const [started] = events;
  const ended = eventsIn(out).at(-1)!;
  assert.ok(
    started!.type === 'run.started' && ended.type === 'run.completed' && started.base === ended.policy.ann,
  );
  assert.ok(events.some((event) => event.type === 'forks.taken' && event.pairs.length === 1));
  assert.ok(ForkLog.read(inFolder('next')).kept[0]!.from !== undefined);
  // Where its own search finds no pair, those of forks are trained on alone.
  const none = ['--set', 'pairs.thetaDiff=100', '--out', inFolder('alone'), ...quiet];
  const alone = await optimaHere(['train', '--init-from', out, '--with-forks', ...settings, ...none]);
  assert.is(alone.code, 0, alone.stdout);
  const ofAlone = eventsIn(inFolder('alone'));
  const paired = ofAlone.flatMap((event) =>
    event.type === 'phase.completed' && event.output.kind === 'pair' ? [event.output] : [],
  );
  assert.equal(
    paired.map(({ kept, forks }) => [kept, forks]),
    // Taken once: the next iteration has none, and is the last.
    Array.from(paired, (_, index) => [0, index === 0 ? 1 : undefined]),
  );
  const taken = ofAlone.findIndex((event) => event.type === 'forks.taken' && event.pairs.length === 1);
  assert.is(ofAlone[taken + 1]!.type, 'step.trained');
  // Killed before that training, it goes on with them, asked or not: it is for them that it is carried out.
  const killed = inFolder('alone-killed');
  fs.cpSync(inFolder('alone'), killed, { recursive: true, verbatimSymlinks: true });
  replaceLog(killed, ofAlone.slice(0, taken - 1));
  const resumed = await optimaHere(['train', '--resume', killed, ...quiet]);
  assert.is(resumed.code, 0, resumed.stdout);
  assert.equal(eventsIn(killed), ofAlone);
  const from = ['--init-from', out, '--with-forks', ...quiet.slice(1)];
  fs.writeFileSync(inFolder('other.mjs'), scenario.replace("'noted'", "'other'"));
  const another = await optimaHere(['train', inFolder('other.mjs'), ...from]);
  assert.match(another.stderr, `the pairs of ${out} are of scenario "noted", not of "other".`);
  fs.writeFileSync(inFolder('changed.mjs'), `${scenario}// Changed.`);
  const changed = await optimaHere(['train', inFolder('changed.mjs'), ...from]);
  assert.match(changed.stderr, `changed.mjs was changed since ${out} began`);
  const isft = await optimaHere(['train', '--init-from', out, '--with-forks', '--recipe', 'isft']);
  assert.match(isft.stderr, '--with-forks: this recipe trains on whole dialogues');
  const whose = await optimaHere(['train', inFolder('noted.mjs'), '--with-forks']);
  assert.match(whose.stderr, '--with-forks: whose?');
});

test('a run that is to begin with pairs of forks, and is killed before it has them, is not resumed without', async () => {
  const states = inFolder('states');
  const run = inFolder('killed');
  let begun = false;
  const settings = [...smallHybridRun, '--set', 'maxMessageTokens=4'];
  const begin = ['train', '--init-from', out, '--with-forks', ...settings, '--out', run, ...quiet];
  const moments = await killAnywhere(
    run,
    () => optimaHere(begin),
    states,
    ({ file, text }) => {
      begun ||= file === 'events.jsonl' && text.includes('"type":"run.started"');
      return !begun;
    },
  );
  const before = moments.filter((moment) => fs.existsSync(stateOf(states, moment)));
  assert.ok(
    before.some(({ file, kind }) => file === 'forks.jsonl' && kind === 'write'),
    `${before.length}`,
  );
  let refused = 0;
  for (const moment of before) {
    const left = stateOf(states, moment);
    const { code, stdout } = await optimaHere(['train', '--resume', left, '--with-forks', ...quiet]);
    assert.is(code, 1, `${labelOf(moment)}: ${stdout}`);
    const { message } = linesOf(stdout).at(-1);
    assert.match(message, /is not a run folder|it ended before it had the pairs of forks/);
    if (message.includes('it ended before')) refused++;
  }
  assert.ok(refused > 2, `${refused}`);
});

test.run();
