// Sharing of prefixes: what a session remembers changes the work, never the result.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { OptimaError } from '../../../src/domain/errors.ts';
import type {
  ChatMessage,
  GenerationRequest,
  LanguageModel,
  ScoreResult,
} from '../../../src/domain/model.ts';
import { createRng } from '../../../src/domain/rng.ts';
import { startEngine, tf } from '../../../src/tensor/index.ts';
import { createTinyPolicy, request } from '../../support/llama.ts';

test.before(async () => {
  await startEngine();
});

const words = (n: number, label: string) => {
  const draw = createRng(label);
  return Array.from({ length: n }, () => draw.pick([...' abcdefghijklmnop'])).join('');
};

/** Four views with one beginning, two of them the same, and one of its own. */
const shared = words(50, 'shared');
const openings = ['', ' and more', ' and more', ` and ${words(40, 'tail')}`].map((tail) => shared + tail);
const opening = [...openings, words(30, 'other')].map((content, i) =>
  request(content, { temperature: 0.9, maxTokens: 24 }, i),
);

/** Three turns of every request, each answered by a stranger; the views with all turns. */
async function converse(model: LanguageModel): Promise<{ views: ChatMessage[][]; logprobs: number[][] }> {
  let requests: GenerationRequest[] = opening;
  const logprobs: number[][] = requests.map(() => []);
  for (let turn = 0; turn < 3; turn++) {
    const answers = await model.generate(requests);
    requests = requests.map((previous, i) => {
      const { text, tokenIds } = answers[i]!;
      logprobs[i]!.push(...answers[i]!.logprobs);
      return {
        ...previous,
        seed: previous.seed + 100,
        messages: [
          ...previous.messages,
          { role: 'assistant', content: text, tokenIds },
          { role: 'user', content: words(9, `${i} ${turn}`) },
        ],
      };
    });
  }
  return { views: requests.map(({ messages }) => [...messages]), logprobs };
}

/** A model that remembers nothing and reads one request at a time. */
const forgetful = (model: LanguageModel): LanguageModel => ({
  hash: model.hash,
  generate: async (requests) => {
    const answers = [];
    for (const single of requests) answers.push(...(await model.generate([single])));
    return answers;
  },
  score: (requests) => model.score(requests),
});

function assertNear(actual: readonly number[], expected: readonly number[]): void {
  assert.is(actual.length, expected.length);
  actual.forEach((value, i) => {
    assert.ok(Math.abs(value - expected[i]!) < 1e-4, `${value} is not ${expected[i]}`);
  });
}

test('a session says what a model without memory says, and reads far less', async () => {
  const policy = createTinyPolicy({ num_key_value_heads: 2, max_position_embeddings: 512 });
  const session = policy.openSession();
  const remembered = await converse(session);
  const { computed, reused } = session.statistics;
  const alone = await converse(forgetful(policy));
  assert.equal(remembered.views, alone.views);
  for (const [i, logprobs] of remembered.logprobs.entries()) assertNear(logprobs, alone.logprobs[i]!);

  // Later turns find all but what was said since.
  assert.ok(reused > computed, `${reused} of ${reused + computed} tokens were reused`);
  const again = await converse(session);
  assert.equal(again.views, alone.views);
  policy.dispose();
});

test('requests of one call share what they have in common', async () => {
  const policy = createTinyPolicy();
  const session = policy.openSession();
  const siblings = Array.from({ length: 8 }, (_, i) => request(shared, { maxTokens: 1 }, i));
  await session.generate(siblings);
  const prompt = 50 + 3;
  assert.is(
    session.statistics.reused,
    7 * (prompt - 1),
    'all but the last token, which says what comes next',
  );
  assert.is(session.statistics.computed, prompt + 7);
  policy.dispose();
});

test('a memory that is too small, or none, costs time and nothing else', async () => {
  const options = { num_key_value_heads: 1, max_position_embeddings: 512 };
  const policy = createTinyPolicy(options);
  const { views } = await converse(policy);
  const blockBytes = 4 * 2 * 2 * 16 * 8; // layers, keys and values, tokens, dh
  for (const memoryBytes of [0, 3 * blockBytes]) {
    const forgetting = createTinyPolicy(options, { memoryBytes });
    const session = forgetting.openSession();
    assert.equal((await converse(session)).views, views);
    if (memoryBytes === 0) assert.is(session.statistics.reused, 0);
    forgetting.dispose();
  }
  policy.dispose();
});

test('scores with a known prefix are those without', async () => {
  const policy = createTinyPolicy({ num_key_value_heads: 1, max_position_embeddings: 512 });
  const { views } = await converse(policy.openSession());
  const requests = views.map((messages, i) => ({ id: `${i}`, messages }));
  const alone: ScoreResult[] = [];
  for (const single of requests) alone.push(...(await policy.score([single])));
  const session = policy.openSession();
  for (let round = 0; round < 2; round++) {
    const scores = await session.score(requests);
    for (const [i, messages] of scores.entries()) {
      for (const [k, logprobs] of messages.entries()) assertNear(logprobs, alone[i]![k]!);
    }
  }
  assert.ok(session.statistics.reused > 0);
  policy.dispose();
});

test('a session that is closed interrupts its call and leaves other sessions alone', async () => {
  const policy = createTinyPolicy({ max_position_embeddings: 512 });
  const expected = await policy.generate(opening);
  const closed = policy.openSession();
  let code = '';
  const call = closed.generate(opening).catch((error: OptimaError) => {
    code = error.code;
  });
  await new Promise((resolve) => setImmediate(resolve));
  closed.close();
  const other = policy.openSession();
  assert.equal(await other.generate(opening), expected);
  await call;
  assert.is(code, 'interrupted');
  policy.dispose();
  other.close();
});

test('a session leaves no tensors behind, and ends when the weights change', async () => {
  const policy = createTinyPolicy({ max_position_embeddings: 512 });
  const before = tf.memory().numTensors;
  const session = policy.openSession();
  await converse(session);
  assert.is(tf.memory().numTensors, before);
  const [weight] = policy.parameters.values();
  tf.tidy(() => weight!.assign(tf.mul(weight!, 2)));
  policy.refreshHash();
  let message = '';
  await session.generate(opening).catch((error: Error) => {
    message = error.message;
  });
  assert.match(message, 'outlived its weights');
  policy.dispose();
});

test.run();
