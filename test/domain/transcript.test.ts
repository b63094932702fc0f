import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { isMidRound, messageTokens, type Turn, underFormat, viewOf } from '../../src/domain/transcript.ts';

const turn = (speaker: string, text: string, tokenIds: readonly number[]) =>
  ({ speaker, text, tokenIds, promptTokens: 900, logprobs: [-1, -1, -1, -1, -1] }) as unknown as Turn;

const told = (view: string) => ({ views: { alice: view, bob: view } });

const turns = [
  turn('alice', 'one', [11, 1]),
  turn('bob', 'two', [12, 13, 1]),
  turn('carol', 'three', [14]),
  turn('alice', 'four', []),
  turn('bob', 'five', []),
];

test('a role sees its system text, its own turns as sampled, and the words alone of everybody else', () => {
  assert.equal(viewOf('alice', told('facts of alice'), turns), [
    { role: 'system', content: 'facts of alice' },
    { role: 'assistant', content: 'one', tokenIds: [11, 1] },
    { role: 'user', content: 'two' },
    { role: 'user', content: 'three' },
    { role: 'assistant', content: 'four' },
    { role: 'user', content: 'five' },
  ]);
  assert.equal(
    viewOf('bob', told(''), turns).map(({ role }) => role),
    ['system', 'user', 'assistant', 'user', 'user', 'assistant'],
  );
  assert.equal(viewOf('bob', told('alone'), []), [{ role: 'system', content: 'alone' }]);
});

test('a turn of its own that has no token ids carries no list of them', () => {
  // An empty list would stand for a message of nothing at all.
  assert.not('tokenIds' in viewOf('alice', told(''), turns)[4]!);
});

/** What a role hears, a message each; own ones in brackets. */
const heard = (role: string, said: readonly Turn[], opening?: { text: string; to?: string[] }[]) =>
  viewOf(role, { ...told(''), views: { alice: '', bob: '', carol: '' }, ...(opening && { opening }) }, said)
    .slice(1)
    .map(({ role, content }) => (role === 'assistant' ? `[${content}]` : content));
const say = (speaker: string, more: Partial<Turn> = {}): Turn => ({
  ...turn(speaker, `${speaker} speaks`, []),
  ...more,
});

test('what named speakers say between two turns of its own is one message, each under a name', () => {
  const said = ['alice', 'bob', 'carol', 'alice'].map((who) => say(who, { name: who.toUpperCase() }));
  assert.equal(heard('alice', said), [
    '[alice speaks]',
    'BOB: bob speaks\nCAROL: carol speaks',
    '[alice speaks]',
  ]);
  assert.equal(heard('bob', said), [
    'ALICE: alice speaks',
    '[bob speaks]',
    'CAROL: carol speaks\nALICE: alice speaks',
  ]);
});

test('what the environment says comes after the turn that it follows, in one message with what is heard beside it', () => {
  const observed = [{ text: 'for all' }, { text: 'for bob', to: ['bob'] }];
  const said = [say('alice', { observed }), say('bob'), say('alice', { observed: [{ text: 'end' }] })];
  assert.equal(heard('alice', said), ['[alice speaks]', 'for all\nbob speaks', '[alice speaks]', 'end']);
  assert.equal(heard('bob', said), ['alice speaks\nfor all\nfor bob', '[bob speaks]', 'alice speaks\nend']);
  const opening = [{ text: 'begin' }, { text: 'softly', to: ['alice'] }];
  assert.equal(heard('alice', said.slice(0, 1), opening), ['begin\nsoftly', '[alice speaks]', 'for all']);
  assert.equal(heard('bob', said.slice(0, 1), opening), ['begin\nalice speaks\nfor all\nfor bob']);
});

test('who is not spoken to hears nothing, and who is to nobody is heard by nobody', () => {
  const said = [say('alice', { to: ['bob'] }), say('bob', { to: [] }), say('carol')];
  assert.equal(heard('alice', said), ['[alice speaks]', 'carol speaks']);
  assert.equal(heard('bob', said), ['alice speaks', '[bob speaks]', 'carol speaks']);
  assert.equal(heard('carol', said), ['[carol speaks]']);
});

test('of a round a role hears nothing before it has spoken, and then the others after itself, in their order', () => {
  const round = ['alice', 'bob', 'carol'];
  const first = round.map((who) => say(who, { round }));
  assert.equal(first.map(isMidRound), [true, true, false]);
  const named = first.map((one) => ({ ...one, name: one.speaker.toUpperCase() }));
  assert.equal(heard('bob', named.slice(0, 1)), [], 'alice has spoken, bob has not');
  assert.equal(heard('carol', named.slice(0, 2)), []);
  assert.equal(heard('bob', named), ['[bob speaks]', 'ALICE: alice speaks\nCAROL: carol speaks']);
  const next = [...named, say('alice', { round, name: 'ALICE', text: 'again' })];
  assert.equal(heard('bob', next), heard('bob', named), 'nor of the next round');
  assert.equal(heard('carol', [...first, say('alice')]), [
    '[carol speaks]',
    ...['alice speaks', 'bob speaks', 'alice speaks'],
  ]);
  const two = [say('alice', { round: ['alice', 'bob'] })];
  assert.equal(heard('carol', two), ['alice speaks'], 'who is not of the round hears it at once');
});

test('private notes stand in the own view alone', () => {
  const said = [say('alice', { text: 'hello', written: '<think>hm</think> hello', tokenIds: [1, 2] })];
  assert.equal(heard('alice', said), ['[<think>hm</think> hello]']);
  assert.equal(heard('bob', said), ['hello']);
});

test('the tokens of a dialogue are those of its messages alone', () => {
  assert.is(messageTokens(turns), 6);
  assert.is(messageTokens([]), 0);
});

test('a format prompt is a line of its own below the view', () => {
  assert.is(underFormat('facts of alice', 'Be terse.'), 'facts of alice\nBe terse.');
});

test.run();
