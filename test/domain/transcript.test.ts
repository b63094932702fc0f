import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { messageTokens, type Turn, underFormat, viewOf } from '../../src/domain/transcript.ts';

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

test('the tokens of a dialogue are those of its messages alone', () => {
  assert.is(messageTokens(turns), 6);
  assert.is(messageTokens([]), 0);
});

test('a format prompt is a line of its own below the view', () => {
  assert.is(underFormat('facts of alice', 'Be terse.'), 'facts of alice\nBe terse.');
});

test.run();
