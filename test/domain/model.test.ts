import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { OptimaError } from '../../src/domain/errors.ts';
import type { PolicyHash } from '../../src/domain/ids.ts';
import { inOwnSession, type ModelSession, RequestsRefused } from '../../src/domain/model.ts';

test('refused requests speak with the first reason and keep them all', () => {
  const reasons = new Map([
    ['a', new OptimaError('model.failed', 'Too long.', { hint: 'Shorten it.' })],
    ['b', new OptimaError('tokenizer.mismatch', 'Stray id.')],
  ]);
  const error = new RequestsRefused(reasons);
  assert.instance(error, OptimaError);
  assert.equal([error.code, error.message, error.hint], ['model.failed', 'Too long.', 'Shorten it.']);
  assert.equal([...error.reasons.keys()], ['a', 'b']);
});

/** A model whose sessions write down what happens to them. */
function recordingModel() {
  const events: string[] = [];
  const session: ModelSession = {
    hash: 'recording' as PolicyHash,
    generate: async () => [],
    score: async () => [],
    close: () => events.push('close'),
  };
  const openSession = () => {
    events.push('open');
    return session;
  };
  return { events, session, openSession };
}

test('a session of its own is closed when the call has settled, and not before', async () => {
  const { events, session, openSession } = recordingModel();
  const result = await inOwnSession({ openSession }, async (own) => {
    assert.is(own, session);
    await Promise.resolve();
    await Promise.resolve();
    events.push('used');
    return 42;
  });
  assert.is(result, 42);
  assert.equal(events, ['open', 'used', 'close']);
});

test('a session of its own is closed when the call fails, and the failure comes through', async () => {
  const { events, openSession } = recordingModel();
  const failure = new Error('no');
  const caught = await inOwnSession({ openSession }, () => Promise.reject(failure)).catch((error) => error);
  assert.is(caught, failure);
  assert.equal(events, ['open', 'close']);
});

test.run();
