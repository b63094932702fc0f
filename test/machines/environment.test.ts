// The environment's statechart: what it deals, whom it asks, and how a dialogue closes.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { childId } from '../../src/domain/ids.ts';
import { type EnvironmentInput, environmentMachine } from '../../src/machines/index.ts';
import type { Scenario } from '../../src/scenario/index.ts';
import { closed, dialogue, nodeAt, play, requested, taken, tree, turnOf } from '../support/machines.ts';
import { type WordPair, wordPairEpisodes, wordPairs } from '../support/scenarios.ts';

const [{ taskId, task }] = wordPairEpisodes(1) as [ReturnType<typeof wordPairEpisodes>[0]];
const open = { type: 'dialogue.open' };

function start(
  overrides: Partial<Scenario<WordPair>> = {},
  input: Partial<EnvironmentInput> = {},
): EnvironmentInput {
  const scenario = wordPairs(overrides);
  const common = { dialogueId: dialogue, tree, taskId, scenario, task, format: null };
  const recall = () => assert.unreachable('nothing was merged') as never;
  return { ...common, history: [], branches: [], recall, ...input };
}

const views = { alice: 'word: oak', bob: 'word: elm' };
const dealt = { type: 'task.dealt' as const, taskId, views };
const opened = (parent: EnvironmentInput['tree'] | null = null, format: string | null = null) => ({
  type: 'dialogue.opened' as const,
  dialogueId: dialogue,
  taskId,
  tree,
  parent,
  format,
});

test('a team that repeats the words of its instruction has not agreed', () => {
  const sees = () => 'End with <A>both words</A>.';
  const input = start({ roles: { alice: { sees }, bob: { sees } } });
  const say = (text: string) => [taken(0, 'alice', text), taken(1, 'bob', text)];
  const repeated = play(environmentMachine, input, [open, ...say('I end with <A>both words</A>.')]);
  assert.is(repeated.state.value, 'awaitingTurn');
  const agreed = play(environmentMachine, input, [open, ...say('It is <A>oak elm</A>.')]);
  assert.equal(agreed.emitted.at(-1), closed('agreed'));
});

test('it waits for the command to open', () => {
  const { state, emitted } = play(environmentMachine, start(), []);
  assert.is(state.value, 'opening');
  assert.equal(emitted, []);
});

test('it deals each role its view and gives the floor to the first', () => {
  const { state, emitted } = play(environmentMachine, start(), [open]);
  assert.is(state.value, 'awaitingTurn');
  assert.equal(emitted, [dealt, opened(), requested(0, 'alice')]);
});

test('a format prompt is dealt beside the views, with the roles that are to have it', () => {
  const roles = { ...wordPairs().roles, bob: { sees: () => 'word: elm', formatted: false } };
  const format = { name: 'terse', prompt: 'Be terse.' };
  for (const [overrides, formatted] of [
    [{}, ['alice', 'bob']],
    [{ roles }, ['alice']],
  ] as const) {
    const { emitted } = play(environmentMachine, start(overrides, { format }), [open]);
    assert.equal(emitted, [
      dealt,
      { type: 'format.dealt', format: 'terse', prompt: 'Be terse.', roles: formatted },
      opened(null, 'terse'),
      requested(0, 'alice'),
    ]);
  }
});

test('agreement closes the dialogue', () => {
  const { state, emitted } = play(environmentMachine, start(), [
    open,
    taken(0, 'alice', '<A>x</A>'),
    taken(1, 'bob', '<A>x</A>'),
  ]);
  assert.is(state.value, 'closed');
  assert.is(state.status, 'done');
  assert.equal(emitted, [dealt, opened(), requested(0, 'alice'), requested(1, 'bob'), closed('agreed')]);
});

test('the turn cap closes the dialogue, unless its last turn agrees', () => {
  const protocol = { ...wordPairs().protocol, maxTurns: 2 };
  const turns = [open, taken(0, 'alice', '<A>x</A>')];
  const capped = play(environmentMachine, start({ protocol }), [...turns, taken(1, 'bob', 'no')]);
  assert.equal(capped.emitted.at(-1), closed('turn-cap'));
  const agreed = play(environmentMachine, start({ protocol }), [...turns, taken(1, 'bob', '<A>x</A>')]);
  assert.equal(agreed.emitted.at(-1), closed('agreed'));
});

test('the transcript is kept, frozen, in order', () => {
  const { state } = play(environmentMachine, start(), [open, taken(0, 'alice', 'a'), taken(1, 'bob', 'b')]);
  assert.equal(
    state.context.turns.map((turn) => turn.text),
    ['a', 'b'],
  );
  assert.throws(() => (state.context.turns as unknown[]).push('c'), TypeError);
  for (const turn of state.context.turns) {
    assert.throws(() => Object.assign(turn, { text: 'c' }), TypeError);
    assert.throws(() => (turn.tokenIds as number[]).push(1), TypeError);
  }
});

test('a failed turn closes the dialogue as failed, with the reason', () => {
  const failure = (index: number, speaker: string) => ({
    type: 'turn.failed',
    dialogueId: dialogue,
    nodeId: nodeAt(index),
    speaker,
    reason: 'no GPU',
  });
  const first = play(environmentMachine, start(), [open, failure(0, 'alice')]);
  assert.equal(first.emitted.at(-1), closed('failed', 'Turn 0 of alice failed: no GPU'));
  const second = play(environmentMachine, start(), [open, taken(0, 'alice', 'hi'), failure(1, 'bob')]);
  assert.equal(second.emitted.at(-1), closed('failed', 'Turn 1 of bob failed: no GPU'));
});

test('a turn out of place closes the dialogue as failed', () => {
  const { emitted } = play(environmentMachine, start(), [open, taken(0, 'bob', 'me first')]);
  const [first, second] = [nodeAt(0), nodeAt(1)];
  assert.equal(emitted.at(-1), closed('failed', `Turn ${first} came from bob, but ${first} was alice's.`));
  const late = play(environmentMachine, start(), [open, taken(1, 'alice', 'too soon')]);
  assert.equal(
    late.emitted.at(-1),
    closed('failed', `Turn ${second} came from alice, but ${first} was alice's.`),
  );
  const twice = play(environmentMachine, start(), [
    open,
    taken(0, 'alice', 'hi'),
    taken(0, 'alice', 'hi again'),
  ]);
  assert.equal(
    twice.emitted.at(-1),
    closed('failed', `Turn ${first} came from alice, but ${second} was bob's.`),
  );
});

const said = (...texts: string[]) =>
  texts.map((text, index) => turnOf(index, index % 2 === 0 ? 'alice' : 'bob', text));

test('opened at a turn it goes on from there: its own turns come below, on the branches that it was given', () => {
  const history = said('hi', 'ho');
  const own = childId(nodeAt(1), 2);
  const input = start({}, { dialogueId: own, history, branches: [4] });
  const answer = (id: typeof own, parent: typeof own, speaker: string) => ({
    type: 'turn.taken',
    dialogueId: own,
    turn: { ...turnOf(0, speaker, 'hm'), id, parent },
  });
  const [second, third] = [childId(own, 4), childId(childId(own, 4), 0)];
  const { state, emitted } = play(environmentMachine, input, [
    open,
    answer(own, nodeAt(1), 'alice'),
    answer(second, own, 'bob'),
  ]);
  assert.equal(emitted, [
    dealt,
    { ...opened(nodeAt(1)), dialogueId: own },
    { type: 'turn.requested', nodeId: own, speaker: 'alice' },
    { type: 'turn.requested', nodeId: second, speaker: 'bob' },
    // No branch was given for the third of its turns.
    { type: 'turn.requested', nodeId: third, speaker: 'alice' },
  ]);
  assert.equal(
    state.context.turns.map(({ id }) => id),
    [nodeAt(0), nodeAt(1), own, second],
  );
});

test('the numbers of failures count what was said before', () => {
  const history = said('hi', 'ho');
  const failure = {
    type: 'turn.failed',
    dialogueId: dialogue,
    nodeId: dialogue,
    speaker: 'alice',
    reason: 'x',
  };
  const failing = play(environmentMachine, start({}, { history }), [open, failure]);
  assert.equal(failing.emitted.at(-1), closed('failed', 'Turn 2 of alice failed: x'));
  const protocol = { ...wordPairs().protocol, next: () => 'carol' };
  const stray = play(environmentMachine, start({ protocol }, { history }), [open]);
  assert.equal(
    stray.emitted.at(-1),
    closed('failed', 'Protocol gave turn 2 to "carol", which is not a role.'),
  );
});

test('opened where the team agrees already, or at the cap, it closes without a turn', () => {
  const agreed = play(environmentMachine, start({}, { history: said('<A>x</A>', '<A>x</A>') }), [open]);
  assert.equal(agreed.emitted, [dealt, opened(nodeAt(1)), closed('agreed')]);
  assert.is(agreed.state.status, 'done');
  const protocol = { ...wordPairs().protocol, maxTurns: 2 };
  const capped = play(environmentMachine, start({ protocol }, { history: said('a', 'b') }), [open]);
  assert.equal(capped.emitted, [dealt, opened(nodeAt(1)), closed('turn-cap')]);
  const both = start({ protocol }, { history: said('<A>x</A>', '<A>x</A>') });
  assert.equal(play(environmentMachine, both, [open]).emitted.at(-1), closed('agreed'));
});

test('before the first turn nobody is asked whether the team agrees', () => {
  const protocol = { ...wordPairs().protocol, agreed: () => true };
  const { emitted } = play(environmentMachine, start({ protocol }), [open]);
  assert.equal(emitted, [dealt, opened(), requested(0, 'alice')]);
});

test('a protocol without turns closes at once', () => {
  const protocol = { ...wordPairs().protocol, maxTurns: 0 };
  const { emitted } = play(environmentMachine, start({ protocol }), [open]);
  assert.equal(emitted, [dealt, opened(), closed('turn-cap')]);
});

test('code of the scenario that throws closes the dialogue as failed', () => {
  const boom = () => {
    throw new Error('boom');
  };
  const { protocol, roles } = wordPairs();
  const cases: [Partial<Scenario<WordPair>>, string][] = [
    [{ roles: { ...roles, bob: { sees: boom } } }, 'Dealing the views failed: boom'],
    [
      { roles: { ...roles, bob: { sees: (() => undefined) as never } } },
      'Dealing the views failed: role "bob" sees undefined, not a text',
    ],
    [
      { roles: { ...roles, bob: { sees: (() => 7) as never } } },
      'Dealing the views failed: role "bob" sees number, not a text',
    ],
    [
      { protocol: { ...protocol, next: () => 'toString' } },
      'Protocol gave turn 0 to "toString", which is not a role.',
    ],
    [{ protocol: { ...protocol, next: boom } }, 'Protocol failed at turn 0: boom'],
    [
      { protocol: { ...protocol, next: () => 'carol' } },
      'Protocol gave turn 0 to "carol", which is not a role.',
    ],
  ];
  for (const [overrides, failure] of cases) {
    const format = { name: 'terse', prompt: 'Be terse.' };
    const { state, emitted } = play(environmentMachine, start(overrides, { format }), [open]);
    assert.is(state.status, 'done');
    // What could not be dealt is not said to be.
    const deals = failure.startsWith('Dealing') ? [] : ['task.dealt', 'format.dealt'];
    assert.equal(
      emitted.map((message) => message.type),
      [...deals, 'dialogue.opened', 'dialogue.closed'],
    );
    assert.equal(emitted.at(-1), closed('failed', failure));
  }
  const agreed = play(environmentMachine, start({ protocol: { ...protocol, agreed: boom } }), [
    open,
    taken(0, 'alice', 'a'),
  ]);
  assert.equal(agreed.emitted.at(-1), closed('failed', 'Protocol failed at turn 1: boom'));
  const atOnce = start({ protocol: { ...protocol, agreed: boom } }, { history: said('a') });
  assert.equal(play(environmentMachine, atOnce, [open]).emitted.at(-1), agreed.emitted.at(-1));
});

const merged = (index: number, speaker: string, into: typeof tree) => ({
  ...{ type: 'turn.merged', dialogueId: dialogue, nodeId: nodeAt(index), speaker, into },
  ...{ text: 'nearly hi', tokenIds: [6, 2], promptTokens: 3 },
});

test('after a turn that became one with another it goes on from that one', () => {
  const stored = { ...turnOf(0, 'alice', 'hi'), id: childId(tree, 7) };
  const asked: string[] = [];
  const recall = (node: typeof tree) => {
    asked.push(node);
    return stored;
  };
  const { state, emitted } = play(environmentMachine, start({}, { recall, branches: [4] }), [
    open,
    merged(0, 'alice', stored.id),
  ]);
  assert.equal(asked, [stored.id]);
  assert.equal(state.context.turns, [stored]);
  assert.ok(Object.isFrozen(state.context.turns[0]));
  const next = { type: 'turn.requested', nodeId: childId(stored.id, 4), speaker: 'bob' };
  assert.equal(emitted, [dealt, opened(), requested(0, 'alice'), next]);
});

test('a merged turn out of place closes the dialogue as failed', () => {
  const [first, second] = [nodeAt(0), nodeAt(1)];
  const wrong = play(environmentMachine, start(), [open, merged(0, 'bob', second)]);
  assert.equal(
    wrong.emitted.at(-1),
    closed('failed', `Turn ${first} came from bob, but ${first} was alice's.`),
  );
  const late = play(environmentMachine, start(), [open, merged(1, 'alice', second)]);
  assert.equal(
    late.emitted.at(-1),
    closed('failed', `Turn ${second} came from alice, but ${first} was alice's.`),
  );
});

test.run();
