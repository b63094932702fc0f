import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { cleaningUp, messageOf, nearest, OptimaError, refused } from '../../src/domain/errors.ts';

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

test('what is refused is named; a promise may still reject, and what only has a then is not set going', async () => {
  const unhandled: unknown[] = [];
  const listener = (reason: unknown) => unhandled.push(reason);
  process.on('unhandledRejection', listener);
  try {
    let started = 0;
    class Lazy extends Promise<never> {
      // biome-ignore lint/suspicious/noThenProperty: as query builders have it.
      override then(): never {
        started++;
        throw new Error('started');
      }
    }
    const lazy = new Lazy((_, reject) => reject(new Error('lazy')));
    // biome-ignore lint/suspicious/noThenProperty: as query builders have it.
    const query = { then: () => started++ };
    assert.equal([undefined, null, [1], query, lazy, Promise.reject(new Error('late')), {}, 7].map(refused), [
      'undefined',
      'null',
      'a list',
      'a promise',
      'a promise',
      'a promise',
      'an object',
      'a number',
    ]);
    await new Promise((resolve) => setTimeout(resolve, 5));
    assert.is(started, 0);
    assert.equal(unhandled, []);
  } finally {
    process.off('unhandledRejection', listener);
  }
});

test('clean-ups run in order and whatever fails, and the first error is the one that is thrown', async () => {
  const done: string[] = [];
  const step =
    (name: string, fails = false) =>
    async () => {
      done.push(name);
      if (fails) throw new Error(name);
      return name;
    };
  assert.is(await cleaningUp(step('work'), step('stop'), step('close')), 'work');
  assert.equal(done.splice(0), ['work', 'stop', 'close']);
  const errorOf = (promise: Promise<unknown>) =>
    promise.then(
      () => assert.unreachable(),
      (error) => error,
    );
  const first = await errorOf(cleaningUp(step('work', true), step('stop', true), step('close', true)));
  assert.equal(done.splice(0), ['work', 'stop', 'close']);
  assert.is(first.message, 'work');
  assert.equal(
    first.suppressed.map((error: Error) => error.message),
    ['stop', 'close'],
  );
  const late = await errorOf(cleaningUp(step('work'), step('stop', true), step('close')));
  assert.is(late.message, 'stop');
  assert.equal(done, ['work', 'stop', 'close']);
  const thrower = () => {
    throw new Error('at once');
  };
  assert.is((await errorOf(cleaningUp(thrower, step('stop', true)))).message, 'at once');
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
