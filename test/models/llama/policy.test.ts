// The policy around the decoder: what fits it, what ends a turn, what is scored, and how long a session is good for.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { OptimaError } from '../../../src/domain/errors.ts';
import type { ChatMessage } from '../../../src/domain/model.ts';
import { createRng } from '../../../src/domain/rng.ts';
import { createPolicy, LlamaPolicy } from '../../../src/models/llama/index.ts';
import type { ChatTokenizer } from '../../../src/models/tokenizer/index.ts';
import { startEngine, tf } from '../../../src/tensor/index.ts';
import { lettersTokenizer } from '../../support/letters.ts';
import { createTinyPolicy, request, tinyConfig } from '../../support/llama.ts';

test.before(async () => {
  await startEngine();
});

const user = (content: string): ChatMessage => ({ role: 'user', content });
const assistant = (content: string, tokenIds?: readonly number[]): ChatMessage =>
  tokenIds === undefined ? { role: 'assistant', content } : { role: 'assistant', content, tokenIds };

const failureOf = async (promise: Promise<unknown>): Promise<OptimaError> => {
  const result = await promise.then(
    () => new Error('nothing was thrown'),
    (error) => error,
  );
  return result;
};

test('at least one row must decode', () => {
  for (const maxRows of [0, -1, Number.NaN]) {
    assert.throws(() => createTinyPolicy({}, { maxRows }), `maxRows ${maxRows} is not 1 or more`);
  }
  createTinyPolicy({}, { maxRows: 1 }).dispose();
});

test('every id that a tokenizer may give needs a row of the embedding table', () => {
  const { vocab_size: rows } = tinyConfig;
  const create = (changes: Partial<ChatTokenizer>) =>
    createPolicy(tinyConfig, { ...lettersTokenizer, ...changes }, createRng(1));
  create({ vocabSize: rows, endOfTurnId: rows - 1, padId: rows - 1 }).dispose();
  for (const changes of [{ vocabSize: rows + 1 }, { endOfTurnId: rows }, { padId: rows }]) {
    assert.throws(
      () => create(changes),
      (error: OptimaError) => error.code === 'tokenizer.mismatch',
    );
  }
});

test('a config that names no end or padding gets those of the tokenizer, and keeps what it names', () => {
  const create = (changes: object) => {
    const policy = createPolicy({ ...tinyConfig, ...changes }, lettersTokenizer, createRng(1));
    policy.dispose();
    return [policy.config.eos_token_id, policy.config.pad_token_id];
  };
  assert.equal(create({}), [1, 0]);
  assert.equal(create({ eos_token_id: 7, pad_token_id: 8 }), [7, 8]);
  assert.equal(create({ eos_token_id: [7, 9] }), [[7, 9], 0]);
});

test('a turn ends at any end that the config names, and at the one of the tokenizer', async () => {
  const free = createTinyPolicy({ eos_token_id: 1 });
  const ask = request('abc', { temperature: 1, maxTokens: 40 }, 5);
  const [whole] = await free.generate([ask]);
  // The id that comes up last for the first time.
  const { tokenIds } = whole!;
  const stop = tokenIds.findLast((id, at) => tokenIds.indexOf(id) === at && id !== 1 && at > 1)!;
  const cut = tokenIds.slice(0, tokenIds.indexOf(stop) + 1);
  // A letter: what frames messages is drawn only where it ends them.
  const unsaid = Array.from({ length: 40 }, (_, id) => id).find((id) => id > 4 && !tokenIds.includes(id))!;
  for (const eos_token_id of [stop, [unsaid, stop], [stop, unsaid]]) {
    const policy = createTinyPolicy({ eos_token_id });
    const [generation] = await policy.generate([ask]);
    assert.equal(generation!.tokenIds, cut);
    assert.is(generation!.finish, 'stop');
    policy.dispose();
  }
  const elsewhere = createTinyPolicy({ eos_token_id: 0 });
  const answers = await elsewhere.generate(
    Array.from({ length: 16 }, (_, seed) => request('abc', { temperature: 1, maxTokens: 30 }, seed)),
  );
  for (const { tokenIds: ids } of answers) assert.ok([-1, ids.length - 1].includes(ids.indexOf(1)));
  assert.ok(answers.some(({ finish, tokenIds: ids }) => finish === 'stop' && ids.at(-1) === 1));
  free.dispose();
  elsewhere.dispose();
});

test('what frames messages is never drawn, however likely it is, and log-probabilities are those of scoring all the same', async () => {
  const frames = [0, 2, 3, 4];
  for (const factor of [30, -30]) {
    const policy = createTinyPolicy({ eos_token_id: 1 });
    tf.tidy(() => {
      const head = policy.parameters.get('lm_head.weight')!;
      const factors = Array.from({ length: 40 }, (_, id) => [frames.includes(id) ? factor : 1]);
      head.assign(tf.mul(head, tf.tensor2d(factors)));
    });
    policy.refreshHash();
    const settings = [
      { temperature: 0 },
      { temperature: 1 },
      { temperature: 2, topP: 0.9 },
      { temperature: 1, topK: 3 },
    ];
    let unlikely = 0;
    for (const sampling of settings) {
      const asks = Array.from({ length: 4 }, (_, seed) =>
        request(`ab${seed}`, { ...sampling, maxTokens: 12 }, seed),
      );
      const answers = await policy.generate(asks);
      for (const [at, { tokenIds, logprobs, text }] of answers.entries()) {
        assert.not.ok(tokenIds.some((id) => frames.includes(id)));
        const messages = [...asks[at]!.messages, assistant(text, tokenIds)];
        const [scores] = await policy.score([{ id: 's', messages }]);
        scores![0]!.forEach((logprob, k) => {
          assert.ok(Math.abs(logprob - logprobs[k]!) < 1e-3 * Math.abs(logprob) + 1e-4);
        });
        unlikely += logprobs.filter((logprob) => logprob < -20).length;
      }
    }
    // Otherwise nothing of this is seen.
    assert.ok(unlikely > 20, `${unlikely} tokens drawn in the place of likelier ones`);
    policy.dispose();
  }
});

test('a view is encoded for training as the tokenizer has it, without a generation prompt', () => {
  const policy = createTinyPolicy();
  const view = [user('ab'), assistant('cd', [8, 9]), user('ef'), assistant('gh')];
  assert.equal(policy.encode(view), lettersTokenizer.encodeChat(view, false));
  policy.dispose();
});

test('ids are within the vocabulary or the call is refused, whichever call it is', async () => {
  const policy = createTinyPolicy();
  const view = (id: number) => [assistant('x', [id]), user('a')];
  for (const id of [0, 39]) {
    assert.ok(policy.encode(view(id)).tokenIds.includes(id));
    await policy.score([{ id: 's', messages: view(id) }]);
  }
  for (const id of [-1, 40]) {
    const failures = [
      await failureOf(Promise.resolve().then(() => policy.encode(view(id)))),
      await failureOf(policy.score([{ id: 's', messages: view(id) }])),
      await failureOf(policy.generate([{ ...request('a'), messages: view(id) }])),
    ];
    for (const error of failures) {
      assert.is(error.code, 'tokenizer.mismatch');
      assert.is(error.message, `Token id ${id} is outside the model's vocabulary of 40.`);
    }
  }
  policy.dispose();
});

test('scores stay with their messages where some have no tokens, first, last or in between', async () => {
  const policy = createTinyPolicy();
  const scoreOf = async (...messages: ChatMessage[]) => (await policy.score([{ id: 's', messages }]))[0]!;
  for (const view of [
    [assistant('', []), user('a'), assistant('bc'), user('d'), assistant('e')],
    [user('a'), assistant('bc'), user('d'), assistant('', []), user('e'), assistant('', [])],
  ]) {
    const whole = await scoreOf(...view);
    const spoken = view.filter(({ role }) => role === 'assistant');
    assert.equal(
      whole.map((message) => message.length),
      spoken.map(({ content }) => (content === '' ? 0 : content.length + 1)),
    );
    assert.is(new Set(whole.flat()).size, whole.flat().length, 'no token is told twice');
    // Each of them gets what it gets as the last message of a shorter view.
    for (const [at, message] of view.entries()) {
      if (message.role !== 'assistant' || message.content === '') continue;
      const expected = (await scoreOf(...view.slice(0, at + 1))).at(-1)!;
      whole[spoken.indexOf(message)]!.forEach((logprob, k) => {
        assert.ok(Math.abs(logprob - expected[k]!) < 1e-4, `${message.content}, token ${k}`);
      });
    }
  }
  policy.dispose();
});

test('a view that fills the context to its last token is scored, and one token more is refused', async () => {
  // One user message of three tokens and one's own of n + 2, its role included.
  const policy = createTinyPolicy({ max_position_embeddings: 16 });
  const score = (own: string) => policy.score([{ id: 'v', messages: [user('a'), assistant(own)] }]);
  const [fits] = await score('b'.repeat(11));
  assert.is(fits![0]!.length, 12);
  const error = await failureOf(score('b'.repeat(12)));
  assert.is(error.code, 'model.failed');
  assert.is(error.message, 'Request "v": its 17 tokens do not fit the context of 16.');
  policy.dispose();
});

test('a template that runs two own messages together, or loses one, is refused when scoring', async () => {
  const withMask = (lossMask: (0 | 1)[]): ChatTokenizer => ({
    ...lettersTokenizer,
    encodeChat: () => ({ tokenIds: lossMask.map(() => 7), lossMask }),
  });
  const view = [user('a'), assistant('b'), assistant('c')];
  for (const [mask, isRefused] of [
    [[0, 1, 1, 0], true],
    [[0, 0, 0, 0], true],
    [[0, 1, 0, 1, 0, 1], true],
    [[0, 1, 0, 1], false],
  ] as const) {
    const policy = createPolicy(tinyConfig, withMask([...mask]), createRng(1));
    const result = policy.score([{ id: 'v', messages: view }]);
    if (isRefused) {
      const error = await failureOf(result);
      assert.is(error.code, 'model.failed');
      assert.is(
        error.message,
        'Request "v": the chat template does not keep its 2 assistant messages apart.',
      );
    } else {
      assert.equal(
        (await result)[0]!.map((message) => message.length),
        [1, 1],
      );
    }
    policy.dispose();
  }
});

test('a session speaks for the weights it was opened under, and for no others', async () => {
  const policy = createTinyPolicy();
  const other = createTinyPolicy({}, { seed: 8 });
  const session = policy.openSession();
  const { hash } = policy;
  policy.refreshHash();
  assert.is(session.hash, hash);
  await session.generate([request('abc', { maxTokens: 2 })]);
  for (const [name, variable] of policy.parameters) variable.assign(other.parameters.get(name)!);
  policy.refreshHash();
  assert.is(policy.hash, other.hash);
  assert.is(session.hash, hash, 'its name does not change');
  for (const call of [
    () => session.generate([request('abc')]),
    () => session.score([{ id: 's', messages: [assistant('a')] }]),
  ]) {
    assert.is((await failureOf(call())).message, `The session of policy ${hash} outlived its weights.`);
  }
  const fresh = policy.openSession();
  const ask = request('abc', { maxTokens: 8 });
  assert.equal(await fresh.generate([ask]), await other.generate([ask]));
  for (const each of [session, fresh]) each.close();
  for (const each of [policy, other]) each.dispose();
});

test('sessions of one policy share nothing, and a call without one remembers nothing', async () => {
  const policy = createTinyPolicy();
  const [first, second] = [policy.openSession(), policy.openSession()];
  const ask = request('a'.repeat(40), { maxTokens: 1 });
  for (const session of [first, first, second]) await session.generate([ask]);
  await policy.generate([ask]);
  // 43 tokens of prompt, all but the last of which the second call knows.
  assert.equal(first.statistics, { computed: 43 + 1, reused: 42 });
  assert.equal(second.statistics, { computed: 43, reused: 0 });
  first.close();
  await second.generate([ask]);
  assert.is(second.statistics.reused, 42, 'the other one lives on');
  second.close();
  policy.dispose();
});

test('scoring reads what generating has written, and what was asked for decides how much of it', async () => {
  const policy = createTinyPolicy({ max_position_embeddings: 256 });
  const session = policy.openSession();
  const ask = request('b'.repeat(60), { temperature: 1, maxTokens: 5 }, 3);
  const [answer] = await session.generate([ask]);
  const { computed, reused } = session.statistics;
  assert.is(reused, 0);
  const messages = [...ask.messages, assistant(answer!.text, answer!.tokenIds)];
  const [scores] = await session.score([{ id: 's', messages }]);
  // 63 tokens of prompt: the last of them predicts the first that is scored, so that 62 may be known.
  assert.is(session.statistics.reused, 62);
  assert.is(session.statistics.computed - computed, 63 + answer!.tokenIds.length - 62);
  scores![0]!.forEach((logprob, k) => {
    assert.ok(Math.abs(logprob - answer!.logprobs[k]!) < 1e-4);
  });
  session.close();
  policy.dispose();
});

test('as many rows decode together as are allowed: a row that waits finds what the one before it wrote', async () => {
  const ask = request('ab', { temperature: 1, maxTokens: 40 }, 3);
  const reusedWith = async (maxRows: number) => {
    const policy = createTinyPolicy({}, { maxRows });
    const [answer] = await policy.generate([ask]);
    assert.ok(answer!.tokenIds.length > 30, 'the answer should fill blocks');
    const session = policy.openSession();
    const next = [...ask.messages, assistant(answer!.text, answer!.tokenIds), user('c')];
    await session.generate([ask, { ...ask, id: 'next', messages: next }]);
    session.close();
    policy.dispose();
    return session.statistics.reused;
  };
  assert.equal([await reusedWith(2), await reusedWith(1)], [0, 43]);
});

test('a session holds no more keys and values than its bytes allow', async () => {
  const blockBytes = 4 * 2 * 2 * 2 * 16 * 8; // layers, keys and values, heads, tokens, dh
  const reusedWith = async (memoryBytes: number) => {
    const policy = createTinyPolicy({}, { memoryBytes });
    const session = policy.openSession();
    // Three prompts of 35 tokens, three blocks each, that have one token in common, and then the first once more.
    for (const letter of 'abca') await session.generate([request(letter.repeat(32), { maxTokens: 1 })]);
    session.close();
    policy.dispose();
    return session.statistics.reused;
  };
  // While one prompt is read it takes three blocks: what is left is for the ones before.
  assert.equal(
    [await reusedWith(0), await reusedWith(5 * blockBytes), await reusedWith(8 * blockBytes)],
    [0, 18, 34],
  );
});

test('a policy owns its variables alone: the arrays it was made of may be used again', () => {
  const policy = createTinyPolicy();
  const weights = new Map(
    [...policy.parameters].map(([name, variable]) => [
      name,
      { shape: variable.shape, values: variable.dataSync<'float32'>().slice() },
    ]),
  );
  assert.throws(
    () => new LlamaPolicy(policy.config, weights, { ...lettersTokenizer, padId: 40 }),
    (error: OptimaError) => error.code === 'tokenizer.mismatch',
  );
  const copy = new LlamaPolicy(policy.config, weights, lettersTokenizer);
  assert.is(copy.hash, policy.hash);
  const before = tf.memory().numTensors;
  policy.dispose();
  assert.is(copy.refreshHash(), copy.hash);
  copy.dispose();
  assert.is(tf.memory().numTensors, before - 2 * weights.size);
});

test('only the last messages are scored where a request says so', async () => {
  const policy = createTinyPolicy();
  const said = (content: string) => ({ role: 'assistant' as const, content });
  const heard = (content: string) => ({ role: 'user' as const, content });
  const messages = [
    { role: 'system' as const, content: 'abc' },
    said('a'),
    heard('b'),
    said('cd'),
    heard('e'),
    said('f'),
  ];
  const [all] = await policy.score([{ id: 'all', messages }]);
  assert.is(all!.length, 3);
  const session = policy.openSession();
  for (const last of [0, 1, 2, 3, 4]) {
    const [some] = await session.score([{ id: 'some', messages, last }]);
    const expected = last === 0 ? [] : all!.slice(-last);
    assert.is(some!.length, expected.length, `${last}`);
    some!.forEach((logprobs, i) => {
      assert.is(logprobs.length, expected[i]!.length);
      logprobs.forEach((value, k) => {
        assert.ok(Math.abs(value - expected[i]![k]!) < 1e-5);
      });
    });
  }
  policy.dispose();
});

test.run();
