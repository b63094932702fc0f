// The environment's statechart: what it deals, whom it asks, and how a dialogue closes.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { createActor } from 'xstate';
import { childId } from '../../src/domain/ids.ts';
import {
  type EnvironmentEvent,
  type EnvironmentInput,
  environmentMachine,
} from '../../src/machines/index.ts';
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

test('a failed turn closes the dialogue as failed, with the reason and whose model refused', () => {
  const failure = (index: number, speaker: string) => ({
    type: 'turn.failed',
    dialogueId: dialogue,
    nodeId: nodeAt(index),
    speaker,
    reason: 'no GPU',
  });
  const first = play(environmentMachine, start(), [open, failure(0, 'alice')]);
  assert.equal(first.emitted.at(-1), closed('failed', 'Turn 0 of alice failed: no GPU', 'alice'));
  const second = play(environmentMachine, start(), [open, taken(0, 'alice', 'hi'), failure(1, 'bob')]);
  assert.equal(second.emitted.at(-1), closed('failed', 'Turn 1 of bob failed: no GPU', 'bob'));
});

/** What the machine throws at the last of the events. */
function thrownAt(...events: readonly unknown[]): Error {
  const actor = createActor(environmentMachine, { input: start() });
  let thrown: unknown = null;
  actor.subscribe({ error: (error) => (thrown = error) });
  actor.start();
  for (const event of events) {
    assert.is(thrown, null);
    actor.send(event as EnvironmentEvent);
  }
  return thrown as Error;
}

test('a turn out of place is nothing that a dialogue can say: the machine breaks', () => {
  const [first, second] = [nodeAt(0), nodeAt(1)];
  for (const [events, message] of [
    [[taken(0, 'bob', 'me first')], `Turn ${first} came from bob, but ${first} was alice's.`],
    [[taken(1, 'alice', 'too soon')], `Turn ${second} came from alice, but ${first} was alice's.`],
    [
      [taken(0, 'alice', 'hi'), taken(0, 'alice', 'hi again')],
      `Turn ${first} came from alice, but ${second} was bob's.`,
    ],
    [[merged(0, 'bob', second)], `Turn ${first} came from bob, but ${first} was alice's.`],
    [[merged(1, 'alice', second)], `Turn ${second} came from alice, but ${first} was alice's.`],
  ] as const)
    assert.is(thrownAt(open, ...events).message, message);
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
  assert.equal(failing.emitted.at(-1), closed('failed', 'Turn 2 of alice failed: x', 'alice'));
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
      'Dealing the views failed: role "bob" sees a number, not a text',
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

const observed = (index: number, ...observations: { text: string; to?: string[] }[]) => ({
  type: 'observation.given' as const,
  dialogueId: dialogue,
  nodeId: nodeAt(index),
  observations,
});

test('the environment of the scenario opens with the deal, and answers each turn before the floor is given', () => {
  const environment: Scenario<WordPair>['environment'] = {
    open: ({ task, turns }) => [`${turns.length} words`, { text: task.left, to: ['alice'] }],
    respond: ({ turns }) => (turns.length === 2 ? null : { text: `${turns.at(-1)!.text}?`, to: 'all' }),
  };
  const said = [taken(0, 'alice', 'a'), taken(1, 'bob', 'b'), taken(2, 'alice', 'c')];
  const { state, emitted } = play(environmentMachine, start({ environment }), [open, ...said]);
  assert.equal(emitted, [
    { ...dealt, opening: [{ text: '0 words' }, { text: 'oak', to: ['alice'] }] },
    opened(),
    requested(0, 'alice'),
    observed(0, { text: 'a?' }),
    requested(1, 'bob'),
    requested(2, 'alice'),
    observed(2, { text: 'c?' }),
    requested(3, 'bob'),
  ]);
  assert.equal(state.context.turns[0]!.observed, [{ text: 'a?' }]);
});

test('the protocol sees the task, and what the environment said after the last turn: a referee may end the dialogue', () => {
  const environment = {
    respond: ({ turns }: { turns: readonly unknown[] }) => (turns.length === 2 ? 'done' : null),
  };
  const asked: unknown[] = [];
  const protocol: Scenario<WordPair>['protocol'] = {
    ...wordPairs().protocol,
    agreed: (turns, _answer, about) => {
      asked.push(about.task, about.turns === turns);
      return turns.at(-1)?.observed?.[0]?.text === 'done';
    },
  };
  const events = [open, taken(0, 'alice', 'a'), taken(1, 'bob', 'b')];
  const { emitted } = play(environmentMachine, start({ environment, protocol }), events);
  assert.equal(emitted.slice(-2), [observed(1, { text: 'done' }), closed('agreed')]);
  assert.equal(asked, [task, true, task, true]);
});

test('an environment that throws, gives no text or speaks to nobody it knows fails the dialogue', () => {
  const turn = [open, taken(0, 'alice', 'a')];
  for (const [respond, reason] of [
    [() => JSON.parse('{'), /^environment.respond after turn 0 threw: .*JSON/],
    [() => '', /^environment.respond after turn 0 gave "", which is no text\.$/],
    [() => 7, /^environment.respond after turn 0 gave 7, which is no text\.$/],
    [() => ['yes', { txt: 'no' }], /gave {"txt":"no"}, which is no text/],
    [() => Promise.reject(new Error('late')), /gave a promise, which is no text/],
    [() => ({ text: 'x', to: 'bob' }), /spoke to "bob", which is no list of roles\.$/],
    [
      () => ({ text: 'x', to: ['carol'] }),
      /^environment.respond after turn 0 spoke to "carol", which is not a role\.$/,
    ],
  ] as const) {
    const environment = { respond: respond as () => string };
    const { emitted } = play(environmentMachine, start({ environment }), turn);
    const last = emitted.at(-1) as ReturnType<typeof closed>;
    assert.is(last.outcome, 'failed');
    assert.match(last.failure!, reason);
    assert.not.ok(emitted.some(({ type }) => type === 'observation.given'));
  }
  const environment = { open: () => 7 as unknown as string };
  const { emitted } = play(environmentMachine, start({ environment }), [open]);
  assert.equal(emitted.slice(1), [
    closed('failed', 'Dealing the views failed: environment.open gave 7, which is no text.'),
  ]);
});

test('after a turn that stands in the tree already it must say what it said then, and says it no second time', () => {
  let calls = 0;
  const steady = { respond: () => 'yes' };
  const fickle = { respond: () => `yes ${calls++}` };
  const merged = {
    type: 'turn.merged',
    dialogueId: dialogue,
    nodeId: nodeAt(0),
    speaker: 'alice',
    into: 'other',
  };
  const stored = { ...turnOf(0, 'alice', 'a'), observed: [{ text: 'yes' }] };
  const recall = () => stored;
  const same = play(environmentMachine, start({ environment: steady }, { recall }), [open, merged]);
  assert.is(same.emitted.at(-1)!.type, 'turn.requested');
  assert.equal(same.state.context.turns, [stored]);
  assert.not.ok(same.emitted.some(({ type }) => type === 'observation.given'));
  const other = play(environmentMachine, start({ environment: fickle }, { recall }), [open, merged]);
  const reason = `Environment said [{"text":"yes 0"}] after turn ${stored.id}, and [{"text":"yes"}] before: it must follow from task and turns.`;
  assert.equal(other.emitted.at(-1), closed('failed', reason));
  const branch = { dialogueId: childId(nodeAt(0), 3), history: [stored] };
  const opened = play(environmentMachine, start({ environment: steady }, branch), [open]);
  assert.equal(
    opened.emitted.map(({ type }) => type),
    ['task.dealt', 'dialogue.opened', 'turn.requested'],
  );
  const silent = play(environmentMachine, start({}, branch), [open]);
  assert.match(
    (silent.emitted.at(-1) as ReturnType<typeof closed>).failure!,
    /^Environment said null after turn .* before/,
  );
});

const round = ['alice', 'bob'];
const together = (maxTurns = 8): Scenario<WordPair>['protocol'] => ({
  ...wordPairs().protocol,
  maxTurns,
  next: () => ['alice', { speaker: 'bob', to: [] }],
});
const ofRound = (index: number, speaker: string, text = 'x') => {
  const event = taken(index, speaker, text);
  return { ...event, turn: { ...event.turn, round, ...(speaker === 'bob' && { to: [] }) } };
};

test('those who speak at once have the floor one after the other, and the environment answers when all have spoken', () => {
  const environment = { respond: ({ turns }: { turns: readonly unknown[] }) => `${turns.length}` };
  const events = [open, ofRound(0, 'alice'), ofRound(1, 'bob')];
  const { emitted } = play(environmentMachine, start({ protocol: together(), environment }), events);
  assert.equal(emitted.slice(2), [
    { ...requested(0, 'alice'), round },
    { ...requested(1, 'bob'), to: [], round },
    observed(1, { text: '2' }),
    { ...requested(2, 'alice'), round },
  ]);
});

test('within a round the team does not agree, and a round that would go beyond the cap is not begun', () => {
  const agreed = { ...together(), agreed: () => true };
  const events = [open, ofRound(0, 'alice')];
  const { emitted } = play(environmentMachine, start({ protocol: agreed }), events);
  assert.is(emitted.at(-1)!.type, 'turn.requested');
  const both = play(environmentMachine, start({ protocol: together(3) }), [...events, ofRound(1, 'bob')]);
  assert.equal(both.emitted.at(-1), closed('turn-cap'));
  const never = play(environmentMachine, start({ protocol: { ...together(), maxTurns: 1 } }), [open]);
  const reason = 'Protocol lets 2 roles speak at once, and ends at 1 turns.';
  assert.equal(never.emitted.at(-1), closed('failed', reason));
});

test('a branch within a round goes on with those of it who have not spoken', () => {
  const history = [ofRound(0, 'alice').turn];
  const own = childId(nodeAt(0), 2);
  const input = start({ protocol: together() }, { dialogueId: own, history });
  const { emitted } = play(environmentMachine, input, [open]);
  const floor = { type: 'turn.requested', nodeId: own, speaker: 'bob', to: [], round };
  assert.equal(emitted.at(-1), floor);
});

test('a protocol that gives the floor to nobody, to one twice or to a stranger fails the dialogue', () => {
  for (const [next, reason] of [
    [[], 'Protocol gave turn 0 to nobody.'],
    [['bob', 'bob'], 'Protocol gave turn 0 to bob, bob at once, one of them twice.'],
    [['bob', 'carol'], 'Protocol gave turn 0 to "carol", which is not a role.'],
    [{ speaker: 'bob', to: ['carol'] }, 'Protocol gave turn 0 of bob to "carol", which is not a role.'],
    [undefined, 'Protocol gave turn 0 to "undefined", which is not a role.'],
  ] as const) {
    const protocol = { ...wordPairs().protocol, next: () => next as unknown as 'bob' };
    const { emitted } = play(environmentMachine, start({ protocol }), [open]);
    assert.equal(emitted.at(-1), closed('failed', reason));
  }
});

test.run();
