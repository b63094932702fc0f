import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { editDistance, messageOf, nearest, OptimaError } from '../../src/domain/errors.ts';

test('an error carries its code, its message, its hint and its cause', () => {
  const cause = new Error('below');
  const error = new OptimaError('io.read', 'Cannot read x.', { hint: 'Look.', cause });
  assert.instance(error, Error);
  assert.equal(
    [error.name, error.code, error.message, error.hint],
    ['OptimaError', 'io.read', 'Cannot read x.', 'Look.'],
  );
  assert.is(error.cause, cause);
  const bare = new OptimaError('usage', 'No.');
  assert.is(bare.hint, undefined);
  assert.not('cause' in bare);
});

test('the message of anything thrown is one line', () => {
  assert.is(messageOf(new Error('first  \n   second\n\nthird\n')), 'first second third');
  assert.is(messageOf('  plain text '), 'plain text');
  assert.is(messageOf(undefined), 'undefined');
  assert.is(messageOf({ message: 'not an error' }), '[object Object]');
});

test('edit distances are the hand-counted ones, in both directions', () => {
  for (const [a, b, distance] of [
    ['kitten', 'sitting', 3],
    ['flaw', 'lawn', 2],
    ['alice', 'alcie', 2],
    ['same', 'same', 0],
    ['', 'abc', 3],
    ['', '', 0],
    ['abc', 'xabc', 1],
    ['abc', 'abxc', 1],
    ['abc', 'abcx', 1],
    ['abc', 'axc', 1],
    ['abcd', 'xyz', 4],
  ] as const) {
    assert.is(editDistance(a, b), distance, `${a} → ${b}`);
    assert.is(editDistance(b, a), distance, `${b} → ${a}`);
  }
});

test('the nearest candidate is found wherever it stands, the first one on a tie', () => {
  for (const candidates of [
    ['temperature', 'topP', 'topK'],
    ['topP', 'temperature', 'topK'],
    ['topP', 'topK', 'temperature'],
  ]) {
    assert.is(nearest('temprature', candidates), 'temperature');
  }
  assert.is(nearest('samples', ['sample', 'samples', 'sampled']), 'samples');
  assert.is(nearest('topX', ['topP', 'topK']), 'topP');
  assert.is(nearest('anything', []), undefined);
});

test('a candidate is near while at most 40 % of the longer word differ', () => {
  assert.is(nearest('abc', ['abcde']), 'abcde');
  assert.is(nearest('abcde', ['abc']), 'abc');
  assert.is(nearest('abxyz', ['abcde']), undefined);
  assert.is(nearest('ab', ['abcd']), undefined);
  assert.is(nearest('x', ['y']), undefined);
});

test.run();
