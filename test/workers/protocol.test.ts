// Errors as plain data and back.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { OptimaError } from '../../src/domain/errors.ts';
import { RequestsRefused } from '../../src/domain/model.ts';
import { fromPlain, toPlain } from '../../src/workers/protocol.ts';

/** What arrives at the other side: `postMessage` clones. */
const cross = (error: unknown): Error => fromPlain(structuredClone(toPlain(error)));

test('an error of ours keeps its code, message and hint', () => {
  const error = cross(new OptimaError('checkpoint.invalid', 'No such tensor.', { hint: 'Look again.' }));
  assert.instance(error, OptimaError);
  assert.not.instance(error, RequestsRefused);
  const { code, message, hint } = error as OptimaError;
  assert.equal(
    { code, message, hint },
    {
      code: 'checkpoint.invalid',
      message: 'No such tensor.',
      hint: 'Look again.',
    },
  );
  assert.is((cross(new OptimaError('interrupted', 'Stopped.')) as OptimaError).hint, undefined);
});

test('whatever else is thrown becomes an error of its message', () => {
  const error = cross(new TypeError('x is not\n a function'));
  assert.not.instance(error, OptimaError);
  assert.is(error.message, 'x is not a function');
  assert.is(cross('out of memory').message, 'out of memory');
  assert.equal(toPlain(new Error('x')), { code: null, message: 'x', hint: undefined });
});

test('a refusal keeps the reason of each request', () => {
  const reasons = new Map([
    ['a', new OptimaError('model.failed', 'a is too long.', { hint: 'Shorten a.' })],
    ['b', new OptimaError('tokenizer.mismatch', 'b is of another model.')],
  ]);
  const error = cross(new RequestsRefused(reasons)) as RequestsRefused;
  assert.instance(error, RequestsRefused);
  assert.is(error.message, 'a is too long.');
  assert.equal(
    [...error.reasons].map(([id, { code, message, hint }]) => [id, code, message, hint]),
    [
      ['a', 'model.failed', 'a is too long.', 'Shorten a.'],
      ['b', 'tokenizer.mismatch', 'b is of another model.', undefined],
    ],
  );
  for (const reason of error.reasons.values()) assert.instance(reason, OptimaError);
  assert.is(toPlain(new RequestsRefused(reasons)).hint, 'Shorten a.');
});

test.run();
