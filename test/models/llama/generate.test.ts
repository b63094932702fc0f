import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { OptimaError } from '../../../src/domain/errors.ts';
import { type Generation, RequestsRefused } from '../../../src/domain/model.ts';
import { createRng } from '../../../src/domain/rng.ts';
import { createBlockDecoder } from '../../../src/models/llama/block-decoder.ts';
import { computeHidden, type Decoder, project } from '../../../src/models/llama/forward.ts';
import { DecodeLoop, type PromptJob } from '../../../src/models/llama/generate.ts';
import type { LlamaPolicy } from '../../../src/models/llama/index.ts';
import { Memory } from '../../../src/models/llama/memory.ts';
import { RotaryTable } from '../../../src/models/llama/rotary.ts';
import { arrangeWeights } from '../../../src/models/llama/weights.ts';
import { type BlockDecoder, plainLogits, startEngine, tf } from '../../../src/tensor/index.ts';
import { lettersTokenizer } from '../../support/letters.ts';
import { createTinyPolicy, greedy, request } from '../../support/llama.ts';

test.before(async () => {
  await startEngine();
});

const decoderOf = ({ config, parameters }: LlamaPolicy): Decoder => ({
  config,
  weights: arrangeWeights(config, parameters),
  rotary: new RotaryTable(config),
});

const rng = createRng(5);
const randomIds = (n: number) => Array.from({ length: n }, () => 5 + rng.int(35));
const words = (n: number, label: string) => {
  const draw = createRng(label);
  return Array.from({ length: n }, () => draw.pick([...' abcdefghijklmnop'])).join('');
};

async function rejectsWith(promise: Promise<unknown>, code: string, pattern: RegExp): Promise<void> {
  let error: OptimaError | undefined;
  try {
    await promise;
  } catch (caught) {
    error = caught as OptimaError;
  }
  assert.is(error?.code, code);
  assert.match(error!.message, pattern);
}

for (const [name, overrides] of [
  ['as many key/value heads as heads', { num_key_value_heads: 4 }],
  ['grouped-query attention', { num_key_value_heads: 2 }],
  ['one key/value head and tied embeddings', { num_key_value_heads: 1, tie_word_embeddings: true }],
  ['heads of a size that only tensors take', { hidden_size: 16 }],
] as const) {
  test(`cached decoding gives the logits of the full pass: ${name}`, () => {
    const policy = createTinyPolicy(overrides);
    const decoder = decoderOf(policy);
    const sequences = [9, 4, 13].map((length) => randomIds(length + 20));
    const fullLogits = (ids: number[]) =>
      tf.tidy(() =>
        project(decoder, computeHidden(decoder, tf.tensor2d([ids], [1, ids.length], 'int32'))).arraySync(),
      );
    const full = sequences.map(fullLogits);
    const memory = new Memory(createBlockDecoder(decoder));
    const lengths = [0, 0, 0];
    const opened = sequences.map(
      (_, row) =>
        memory.plan(
          [row],
          () => [],
          () => 0,
        ).now[0]!.sequence,
    );
    /** Reads the next tokens of some rows and compares what comes after them. */
    const read = (rows: number[], count: number) => {
      memory.read(
        rows.map((row) => ({
          sequence: opened[row]!,
          ids: sequences[row]!.slice(lengths[row], lengths[row]! + count),
        })),
      );
      const logits = memory.decoder.logits(rows.map((_, i) => (i + 1) * count - 1));
      rows.forEach((row, i) => {
        lengths[row]! += count;
        const expected = full[row]![lengths[row]! - 1]!;
        logits[i]!.values.forEach((value, id) => {
          assert.ok(Math.abs(value - expected[id]!) < 1e-4, `row ${row}, position ${lengths[row]}`);
        });
      });
    };
    // Rows 0 and 1 start and go on by single tokens, row 2 joins with its prompt, row 1 leaves.
    read([0, 1], 4);
    for (let i = 0; i < 3; i++) read([0, 1], 1);
    read([2], 13);
    for (let i = 0; i < 4; i++) read([0, 1, 2], 1);
    memory.close(opened[1]!);
    for (let i = 0; i < 12; i++) read([2, 0], 1);
    memory.forget();
    memory.decoder.dispose();
    policy.dispose();
  });
}

const mixed = [
  request(words(3, 'a'), { maxTokens: 40 }),
  request(words(50, 'b'), { temperature: 0.7, maxTokens: 9 }, 2),
  request(words(20, 'c'), { temperature: 1, topP: 0.8, maxTokens: 60 }, 3),
  request(words(21, 'd'), { temperature: 1, topK: 5, maxTokens: 1 }, 4),
  request(words(0, 'e'), { maxTokens: 5 }),
  request(words(33, 'f'), { temperature: 1.5, maxTokens: 45 }, 6),
  request(words(8, 'g'), { temperature: 1, maxTokens: 70 }, 7),
];

test('each row of a mixed batch gets what it gets alone, whatever the number of rows', async () => {
  const policy = createTinyPolicy();
  const alone: Generation[] = [];
  for (const single of mixed) alone.push((await policy.generate([single]))[0]!);
  assert.ok(new Set(alone.map(({ tokenIds }) => tokenIds.length)).size > 3, 'the lengths should differ');
  for (const maxRows of [64, 3, 2]) {
    const batched = createTinyPolicy({}, { maxRows, tokenBudget: 60 });
    const together = await batched.generate(mixed);
    together.forEach((generation, i) => {
      assert.equal(generation.tokenIds, alone[i]!.tokenIds, `request ${i} of ${maxRows} rows`);
      assert.is(generation.finish, alone[i]!.finish);
      assert.is(generation.text, alone[i]!.text);
      generation.logprobs.forEach((logprob, k) => {
        assert.ok(Math.abs(logprob - alone[i]!.logprobs[k]!) < 1e-4);
      });
    });
    batched.dispose();
  }
  policy.dispose();
});

test('the same requests give bit-identical results', async () => {
  const policy = createTinyPolicy({}, { maxRows: 3 });
  assert.equal(await policy.generate(mixed), await policy.generate(mixed));
  policy.dispose();
});

test('a message stops at the end-of-turn token, which is its last id, or at its cap', async () => {
  const policy = createTinyPolicy();
  const requests = Array.from({ length: 40 }, (_, i) =>
    request(words(6, `s${i}`), { temperature: 1, maxTokens: 30 }, i),
  );
  const generations = await policy.generate(requests);
  const { endOfTurnId } = lettersTokenizer;
  for (const { tokenIds, logprobs, finish, text, promptTokens } of generations) {
    assert.is(tokenIds.length, logprobs.length);
    assert.is(tokenIds.indexOf(endOfTurnId), finish === 'stop' ? tokenIds.length - 1 : -1);
    if (finish === 'length') assert.is(tokenIds.length, 30);
    assert.is(text, lettersTokenizer.decode(tokenIds));
    assert.is(promptTokens, 6 + 3);
  }
  assert.is(new Set(generations.map(({ finish }) => finish)).size, 2, 'both ways of ending should occur');
  policy.dispose();
});

test('generated log-probabilities are what scoring the message gives', async () => {
  const policy = createTinyPolicy();
  const generations = await policy.generate(mixed);
  const scores = await policy.score(
    mixed.map(({ id, messages }, i) => {
      const { text, tokenIds } = generations[i]!;
      return { id, messages: [...messages, { role: 'assistant', content: text, tokenIds }] };
    }),
  );
  scores.forEach(([message, ...others], i) => {
    assert.is(others.length, 0);
    const expected = generations[i]!.logprobs;
    assert.is(message!.length, expected.length);
    message!.forEach((logprob, k) => {
      assert.ok(Math.abs(logprob - expected[k]!) < 1e-4);
    });
  });
  policy.dispose();
});

test('the end of the context ends the message, and a prompt that fills it is refused', async () => {
  const policy = createTinyPolicy({ max_position_embeddings: 32, eos_token_id: 1 });
  const jobs: PromptJob[] = [28, 31].map((length) => ({
    id: `p${length}`,
    promptIds: randomIds(length),
    sampling: { ...greedy, maxTokens: 50 },
    seed: 1,
  }));
  const limits = {
    stopIds: new Set<number>(),
    neverIds: [],
    maxRows: 4,
    tokenBudget: 512,
    context: 32,
    memory: new Memory(createBlockDecoder(decoderOf(policy))),
  };
  const [first, second] = await new DecodeLoop(limits).complete(jobs);
  assert.is(first!.tokenIds.length, 4);
  assert.is(first!.finish, 'length');
  assert.is(second!.tokenIds.length, 1);
  await rejectsWith(
    policy.generate([request(words(29, 'x'), {}), { ...request(words(40, 'y')), id: 'long' }]),
    'model.failed',
    /Request ".*": its prompt of 32 tokens leaves no room in the context of 32/,
  );
  const fits = request('fits');
  const refusal = await policy
    .generate([fits, { ...request(words(40, 'y')), id: 'long' }])
    .catch((error) => error);
  assert.instance(refusal, RequestsRefused);
  assert.equal([...refusal.reasons.keys()], ['long']);
  policy.dispose();
});

test('sampling settings that mean nothing are refused by name', async () => {
  const policy = createTinyPolicy();
  for (const [sampling, pattern] of [
    [{ temperature: -1 }, /temperature -1/],
    [{ temperature: Number.NaN }, /temperature NaN/],
    [{ topP: 0 }, /topP 0/],
    [{ topK: 1.5 }, /topK 1.5/],
    [{ maxTokens: 0 }, /maxTokens 0/],
  ] as const) {
    await rejectsWith(policy.generate([request('abc', sampling)]), 'model.failed', pattern);
  }
  policy.dispose();
});

test('weights that have diverged are reported, not sampled from', async () => {
  const policy = createTinyPolicy();
  const norm = policy.parameters.get('model.norm.weight')!;
  tf.tidy(() => norm.assign(tf.fill(norm.shape, Number.NaN)));
  await rejectsWith(policy.generate([request('abc')]), 'model.failed', /Request "abc": .* not finite/);
  policy.dispose();
});

test('rows join while the blocks they may come to need fit, in order, and a larger one runs alone', async () => {
  let blocks = 0;
  let most = 0;
  const together: number[] = [];
  const decoder: BlockDecoder = {
    blockBytes: 1,
    allocate() {
      most = Math.max(most, ++blocks);
      return blocks;
    },
    copy: () => {},
    free: () => void blocks--,
    read: (spans) => void together.push(spans.length),
    logits: (rows) => rows.map(() => plainLogits(Float32Array.of(0, 0, 1))),
    logprobs: () => new Float32Array(0),
    dispose: () => {},
  };
  /** Token totals, prompts of 20 different ones included, of rows that all run to their caps. */
  const run = async (memoryBlocks: number, maxRows: number, ...totals: number[]) => {
    [blocks, most, together.length] = [0, 0, 0];
    const memory = new Memory(decoder, memoryBlocks);
    const jobs = totals.map((total, job) => ({
      id: `${job}`,
      promptIds: Array.from({ length: 20 }, (_, i) => 100 * job + i),
      sampling: { ...greedy, maxTokens: total - 20 },
      seed: 1,
    }));
    const limits = {
      stopIds: new Set<number>(),
      neverIds: [],
      maxRows,
      tokenBudget: 1e6,
      context: 1e6,
      memory,
    };
    const completions = await new DecodeLoop(limits).complete(jobs);
    assert.equal(
      completions.map(({ tokenIds }) => tokenIds.length),
      totals.map((total) => total - 20),
    );
    memory.forget();
    assert.is(blocks, 0);
    return { most, together: Math.max(...together) };
  };
  const six = [32, 32, 32, 32, 32, 32];
  // Two blocks each, so that five of them fit into ten or eleven.
  assert.equal(await run(10, 100, ...six), { most: 10, together: 5 });
  assert.is((await run(11, 100, ...six)).together, 5);
  assert.is((await run(9, 100, ...six)).together, 4);
  assert.is((await run(10, 3, ...six)).together, 3);
  assert.is((await run(0, 100, ...six)).together, 6, 'nothing is bounded');
  // The second one needs more than there is: it waits until it is alone, and those behind it wait too.
  assert.is((await run(4, 100, 32, 100, 32, 32)).together, 2);
});

test('no request gives no generation', async () => {
  const policy = createTinyPolicy();
  assert.equal(await policy.generate([]), []);
  assert.equal(await policy.score([]), []);
  policy.dispose();
});

test('an aborted signal interrupts before the next step', async () => {
  const policy = createTinyPolicy();
  const { numTensors } = tf.memory();
  const { read } = Memory.prototype;
  let steps = 0;
  /** Generates what is asked, and aborts in the middle of step `last`, counted from 1. */
  const generateUntil = async (last: number) => {
    const abort = new AbortController();
    steps = 0;
    Memory.prototype.read = function (pieces) {
      if (++steps === last) abort.abort();
      read.call(this, pieces);
    };
    try {
      return await policy.generate(mixed, { signal: abort.signal });
    } finally {
      Memory.prototype.read = read;
    }
  };
  await generateUntil(Number.POSITIVE_INFINITY);
  const all = steps;
  assert.ok(all > 20, `${all} steps`);
  // The first one reads prompts.
  for (const last of [1, 2, all - 1]) {
    await rejectsWith(generateUntil(last), 'interrupted', /interrupted/);
    assert.is(steps, last);
    assert.is(tf.memory().numTensors, numTensors);
  }
  await rejectsWith(
    policy.score([{ id: 's', messages: mixed[0]!.messages.concat({ role: 'assistant', content: 'a' }) }], {
      signal: AbortSignal.abort(),
    }),
    'interrupted',
    /interrupted/,
  );
  policy.dispose();
});

test('generation and scoring leave no tensor behind', async () => {
  const { numTensors: before } = tf.memory();
  const policy = createTinyPolicy({}, { maxRows: 3 });
  const { numTensors } = tf.memory();
  await policy.generate(mixed);
  await policy.score([{ id: 's', messages: [{ role: 'assistant', content: 'abc' }] }]);
  assert.is(tf.memory().numTensors, numTensors);
  policy.dispose();
  assert.is(tf.memory().numTensors, before);
});

test('a call that comes while another is under way decodes together with it, and says what it says alone', async () => {
  const policy = createTinyPolicy();
  const requests = Array.from({ length: 6 }, (_, i) => request(words(12, `${i}`), { temperature: 1 }, i));
  const alone = await policy.generate(requests);
  const session = policy.openSession();
  const late = async (part: readonly (typeof requests)[number][], ticks: number) => {
    for (let tick = 0; tick < ticks; tick++) await new Promise((resolve) => setImmediate(resolve));
    return session.generate(part);
  };
  const parts = await Promise.all([
    late(requests.slice(0, 2), 0),
    late(requests.slice(2, 5), 3),
    late(requests.slice(5), 5),
  ]);
  assert.equal(parts.flat(), alone);
  const { fill } = await session.measure();
  const decoded = alone.reduce((sum, { tokenIds }) => sum + tokenIds.length - 1, 0);
  assert.is(Math.round(fill.parts.reduce((sum, rows) => sum + rows, 0)), decoded, 'a part is a step here');
  assert.is(fill.steps, fill.parts.length);
  assert.ok(Math.max(...fill.parts) > 3, `${fill.parts}`);
  session.close();
  policy.dispose();
});

test('a call that is given up leaves its places to the others', async () => {
  const policy = createTinyPolicy();
  const long = { maxTokens: 30, temperature: 1 };
  const requests = Array.from({ length: 4 }, (_, i) => request(words(12, `${i}`), long, i));
  const alone = await policy.generate(requests.slice(2));
  const session = policy.openSession();
  const giveUp = new AbortController();
  const given = session.generate(requests.slice(0, 2), { signal: giveUp.signal });
  const kept = session.generate(requests.slice(2));
  // The loop lets one of these run before each of its steps: the messages are under way and not done.
  for (let step = 0; step < 2; step++) await new Promise((resolve) => setImmediate(resolve));
  giveUp.abort();
  await rejectsWith(given, 'interrupted', /interrupted/);
  assert.equal(await kept, alone);
  assert.equal(await session.generate(requests.slice(2)), alone, 'and the loop goes on for later ones');
  session.close();
  policy.dispose();
});

test('an empty call is answered at once', async () => {
  const policy = createTinyPolicy();
  assert.equal(await policy.generate([]), []);
  policy.dispose();
});

test('a row without finite logits fails its own call, and the others go on', async () => {
  const decoder: BlockDecoder = {
    blockBytes: 1,
    allocate: () => 1,
    copy: () => {},
    free: () => {},
    read: (spans) => {
      lengths = spans.map(({ start, ids }) => start + ids.length);
    },
    // The row that has come to 25 tokens has diverged.
    logits: (rows) =>
      rows.map((_, i) => plainLogits(Float32Array.of(0, 0, lengths[i] === 25 ? Number.NaN : 1))),
    logprobs: () => new Float32Array(0),
    dispose: () => {},
  };
  let lengths: number[] = [];
  const limits = { stopIds: new Set<number>(), neverIds: [], maxRows: 9, tokenBudget: 1e6, context: 1e6 };
  const loop = new DecodeLoop({ ...limits, memory: new Memory(decoder, 0) });
  const job = (id: string, prompt: number): PromptJob => ({
    ...{ id, promptIds: Array.from({ length: prompt }, (_, token) => token), seed: 1 },
    sampling: { ...greedy, maxTokens: 4 },
  });
  const [fine, broken] = [
    loop.complete([job('fine', 3)]),
    loop.complete([job('beside', 5), job('broken', 23)]),
  ];
  await rejectsWith(broken, 'model.failed', /Request "broken": .* not finite/);
  assert.equal((await fine)[0]!.tokenIds, [2, 2, 2, 2]);
});

test('a closed session interrupts its calls and takes no more; an aborted call is none', async () => {
  const policy = createTinyPolicy();
  const session = policy.openSession();
  const running = session.generate([request('abc', { maxTokens: 30 })]);
  await new Promise((resolve) => setImmediate(resolve));
  session.close();
  await rejectsWith(running, 'interrupted', /interrupted/);
  await rejectsWith(session.generate([request('abc')]), 'interrupted', /interrupted/);
  assert.is(session.statistics.computed > 0, true);
  const other = policy.openSession();
  await rejectsWith(
    other.generate([request('abc')], { signal: AbortSignal.abort() }),
    'interrupted',
    /interrupted/,
  );
  assert.is(other.statistics.computed, 0, 'nothing was read for it');
  policy.dispose();
});

test.run();
