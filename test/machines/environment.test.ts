// The environment's statechart: what it deals, whom it asks, and how a dialogue closes.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { environmentMachine } from '../../src/machines/index.ts';
import type { Scenario } from '../../src/scenario/index.ts';
import { closed, dialogue, play, requested, taken } from '../support/machines.ts';
import { type WordPair, wordPairEpisodes, wordPairs } from '../support/scenarios.ts';

const [{ taskId, task }] = wordPairEpisodes(1) as [ReturnType<typeof wordPairEpisodes>[0]];
const open = { type: 'dialogue.open' };

function start(overrides: Partial<Scenario<WordPair>> = {}, format: Scenario['formats'][0] | null = null) {
  return { dialogueId: dialogue, taskId, scenario: wordPairs(overrides), task, format };
}

test('it waits for the command to open', () => {
  const { state, emitted } = play(environmentMachine, start(), []);
  assert.is(state.value, 'opening');
  assert.equal(emitted, []);
});

test('it deals each role its view and gives the floor to the first', () => {
  const { state, emitted } = play(environmentMachine, start(), [open]);
  const views = { alice: 'word: oak', bob: 'word: elm' };
  assert.is(state.value, 'awaitingTurn');
  assert.equal(emitted, [
    { type: 'dialogue.opened', dialogueId: dialogue, taskId, views, plainViews: views, format: null },
    requested(0, 'alice'),
  ]);
});

test('a format prompt is in the views, and not in the plain views', () => {
  const roles = { ...wordPairs().roles, bob: { sees: () => 'word: elm', formatted: false } };
  const { emitted } = play(environmentMachine, start({ roles }, { name: 'terse', prompt: 'Be terse.' }), [
    open,
  ]);
  assert.equal(emitted[0], {
    type: 'dialogue.opened',
    dialogueId: dialogue,
    taskId,
    views: { alice: 'word: oak\nBe terse.', bob: 'word: elm' },
    plainViews: { alice: 'word: oak', bob: 'word: elm' },
    format: 'terse',
  });
});

test('agreement closes the dialogue', () => {
  const { state, emitted } = play(environmentMachine, start(), [
    open,
    taken(0, 'alice', '<A>x</A>'),
    taken(1, 'bob', '<A>x</A>'),
  ]);
  assert.is(state.value, 'closed');
  assert.is(state.status, 'done');
  assert.equal(emitted.slice(1), [requested(0, 'alice'), requested(1, 'bob'), closed('agreed')]);
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
  const failure = { type: 'turn.failed', dialogueId: dialogue, index: 0, speaker: 'alice', reason: 'no GPU' };
  const { emitted } = play(environmentMachine, start(), [open, failure]);
  assert.equal(emitted.at(-1), closed('failed', 'Turn 0 of alice failed: no GPU'));
});

test('a turn out of place closes the dialogue as failed', () => {
  const { emitted } = play(environmentMachine, start(), [open, taken(0, 'bob', 'me first')]);
  assert.equal(emitted.at(-1), closed('failed', "Turn 0 came from bob, but turn 0 was alice's."));
  const late = play(environmentMachine, start(), [open, taken(1, 'alice', 'too soon')]);
  assert.equal(late.emitted.at(-1), closed('failed', "Turn 1 came from alice, but turn 0 was alice's."));
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
    const { state, emitted } = play(environmentMachine, start(overrides), [open]);
    assert.is(state.status, 'done');
    assert.equal(
      emitted.map((message) => message.type),
      ['dialogue.opened', 'dialogue.closed'],
    );
    assert.equal(emitted.at(-1), closed('failed', failure));
  }
  const agreed = play(environmentMachine, start({ protocol: { ...protocol, agreed: boom } }), [
    open,
    taken(0, 'alice', 'a'),
  ]);
  assert.equal(agreed.emitted.at(-1), closed('failed', 'Protocol failed at turn 1: boom'));
});

test.run();
