import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { OptimaError } from '../../../src/domain/errors.ts';
import type { ChatMessage, ScoreRequest } from '../../../src/domain/model.ts';
import type { LlamaPolicy } from '../../../src/models/llama/index.ts';
import { startEngine, tf } from '../../../src/tensor/index.ts';
import { createTinyPolicy } from '../../support/llama.ts';

test.before(async () => {
  await startEngine();
});

const user = (content: string): ChatMessage => ({ role: 'user', content });
const assistant = (content: string, tokenIds?: number[]): ChatMessage =>
  tokenIds === undefined ? { role: 'assistant', content } : { role: 'assistant', content, tokenIds };

/** log p of every masked token, one sequence at a time, from plain logits. */
function expectedLogprobs(policy: LlamaPolicy, messages: readonly ChatMessage[]): number[] {
  const { tokenIds, lossMask } = policy.encode(messages);
  const logprobs = tf.tidy(() =>
    tf
      .logSoftmax(policy.computeLogits(tf.tensor2d([[...tokenIds]], [1, tokenIds.length], 'int32')))
      .arraySync(),
  ) as number[][];
  return tokenIds.flatMap((id, position) => (lossMask[position] === 1 ? [logprobs[position - 1]![id]!] : []));
}

const views: ChatMessage[][] = [
  [{ role: 'system', content: 'you see facts' }, user('who'), assistant('ann')],
  [user('a'), assistant('first answer'), user('b'), assistant('second'), user('c')],
  [assistant('x')],
  [
    user('a long question with many words in it'),
    assistant('no', [20, 21, 22]),
    user('b'),
    assistant('yes', [23, 1]),
  ],
];
const requests: ScoreRequest[] = views.map((messages, i) => ({ id: `v${i}`, messages }));

test('each assistant message gets the log-probabilities of its own tokens', async () => {
  const policy = createTinyPolicy();
  const scores = await policy.score(requests);
  assert.equal(
    scores.map((messages) => messages.map((message) => message.length)),
    [[4], [13, 7], [2], [3, 2]],
  );
  scores.forEach((messages, i) => {
    const expected = expectedLogprobs(policy, views[i]!);
    messages.flat().forEach((logprob, k) => {
      assert.ok(Math.abs(logprob - expected[k]!) < 1e-4, `view ${i}, token ${k}`);
    });
  });
  policy.dispose();
});

test('batching changes nothing, and the same requests give bit-identical scores', async () => {
  const policy = createTinyPolicy();
  const narrow = createTinyPolicy({}, { tokenBudget: 1 });
  const together = await policy.score(requests);
  assert.equal(await policy.score(requests), together);
  const alone = await narrow.score(requests);
  together.flat(2).forEach((logprob, k) => {
    assert.ok(Math.abs(logprob - alone.flat(2)[k]!) < 1e-4);
  });
  policy.dispose();
  narrow.dispose();
});

test('a message without tokens has no log-probabilities, and its neighbours keep theirs', async () => {
  const policy = createTinyPolicy();
  const [scores] = await policy.score([
    { id: 'e', messages: [user('a'), assistant('', []), user('b'), assistant('ab')] },
  ]);
  assert.equal(
    scores!.map((message) => message.length),
    [0, 3],
  );
  assert.equal(await policy.score([{ id: 'n', messages: [user('a')] }]), [[]]);
  policy.dispose();
});

test('what follows the last scored message changes nothing, even beyond the context', async () => {
  const policy = createTinyPolicy({ max_position_embeddings: 16 });
  const messages = [user('abc'), assistant('ab')];
  const [scores] = await policy.score([{ id: 's', messages }]);
  const [longer] = await policy.score([{ id: 'l', messages: [...messages, user('abcdefghijklmnop')] }]);
  assert.is(longer!.length, 1);
  longer![0]!.forEach((logprob, k) => {
    assert.ok(Math.abs(logprob - scores![0]![k]!) < 1e-5);
  });
  policy.dispose();
});

test('a view longer than the context is refused', async () => {
  const policy = createTinyPolicy({ max_position_embeddings: 8 });
  try {
    await policy.score([{ id: 'long', messages: [user('abcdefgh'), assistant('a')] }]);
    assert.unreachable();
  } catch (error) {
    assert.is((error as OptimaError).code, 'model.failed');
    assert.match((error as OptimaError).message, /Request "long": its 13 tokens do not fit the context of 8/);
  }
  policy.dispose();
});

test('ids from outside the vocabulary are refused', async () => {
  const policy = createTinyPolicy();
  assert.throws(
    () => policy.encode([assistant('', [40])]),
    (error: unknown) => (error as OptimaError).code === 'tokenizer.mismatch',
  );
  policy.dispose();
});

test.run();
