// The generation pool: when a round begins, what is in it, and what happens when a call fails or is given up.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { createGenerationPool, type GenerationPool } from '../../src/actors/index.ts';
import { OptimaError } from '../../src/domain/errors.ts';
import type { DialogueId, PolicyHash } from '../../src/domain/ids.ts';
import {
  type Generation,
  type GenerationRequest,
  type LanguageModel,
  RequestsRefused,
} from '../../src/domain/model.ts';

const [one, two, three] = ['one', 'two', 'three'] as unknown as [DialogueId, DialogueId, DialogueId];
const timeoutMs = 10_000;

const request = (id: string): GenerationRequest => ({
  id,
  messages: [],
  sampling: { temperature: 0, topP: 1, topK: 0, maxTokens: 8 },
  seed: 0,
});
const generation = (text: string): Generation => ({
  text,
  tokenIds: [],
  logprobs: [],
  finish: 'stop',
  promptTokens: 0,
});

/** A model that notes its batches; each call is ended by hand. */
function manualModel() {
  const calls: { ids: string[]; signal: AbortSignal; end(): void; fail(error: unknown): void }[] = [];
  const model: LanguageModel = {
    hash: 'manual' as PolicyHash,
    generate: (requests, options) =>
      new Promise((resolve, reject) => {
        calls.push({
          ids: requests.map(({ id }) => id),
          signal: options!.signal!,
          end: () => resolve(requests.map(({ id }) => generation(`said ${id}`))),
          fail: reject,
        });
      }),
    score: async () => [],
  };
  return { model, calls };
}

/** A pool none of whose calls fails. */
const poolOf = (ms = timeoutMs) =>
  createGenerationPool(ms, (error) => assert.unreachable(`failed: ${error}`));

/** A pool, and what it fails with. */
function failingPool(ms = timeoutMs) {
  let fail: (error: unknown) => void;
  const failure = new Promise<OptimaError>((resolve) => {
    fail = (error) => resolve(error as OptimaError);
  });
  return { pool: createGenerationPool(ms, (error) => fail(error)), failure };
}

/** The answer to a request, when it comes; rejects where the request is refused. */
const ask = (pool: GenerationPool, ...[dialogue, model, request]: Asked): Promise<Generation> =>
  new Promise((resolve, reject) => {
    pool.ask(dialogue, model, request, (result) =>
      result instanceof OptimaError ? reject(result) : resolve(result),
    );
  });
type Asked = readonly [dialogue: DialogueId, model: LanguageModel, request: GenerationRequest];

/** Requests whose answers, if there are any, are noted by the request's id. */
function noting(pool: GenerationPool) {
  const answers: string[] = [];
  const note = (...[dialogue, model, request]: Asked) =>
    pool.ask(dialogue, model, request, (result) =>
      answers.push(`${request.id}: ${result instanceof OptimaError ? result.message : result.text}`),
    );
  return { answers, note };
}

/** Enough turns of the microtask queue for anything that is due. */
const settled = () => new Promise((resolve) => setImmediate(resolve));

test('a round begins when all wait, in the order of registration', async () => {
  const { model, calls } = manualModel();
  const pool = poolOf();
  for (const dialogue of [one, two, three]) pool.register(dialogue);
  const results = [ask(pool, three, model, request('c')), ask(pool, one, model, request('a'))];
  await settled();
  assert.is(calls.length, 0);
  results.push(ask(pool, two, model, request('b')));
  assert.equal(calls[0]!.ids, ['a', 'b', 'c']);
  calls[0]!.end();
  assert.equal(
    (await Promise.all(results)).map(({ text }) => text),
    ['said c', 'said a', 'said b'],
  );
});

test('results are handed out in the order of the dialogues', async () => {
  const { model, calls } = manualModel();
  const pool = poolOf();
  for (const dialogue of [one, two]) pool.register(dialogue);
  const order: string[] = [];
  const waits = [
    ask(pool, two, model, request('b')).then(() => order.push('two')),
    ask(pool, one, model, request('a')).then(() => order.push('one')),
  ];
  calls[0]!.end();
  await Promise.all(waits);
  assert.equal(order, ['one', 'two']);
});

test('a dialogue that ends no longer holds the others up', async () => {
  const { model, calls } = manualModel();
  const pool = poolOf();
  for (const dialogue of [one, two]) pool.register(dialogue);
  const answered = ask(pool, one, model, request('a'));
  assert.is(calls.length, 0);
  pool.unregister(two);
  assert.equal(calls[0]!.ids, ['a']);
  calls[0]!.end();
  await answered;
});

test('two models are called once each, and the faster one’s results wait', async () => {
  const fast = manualModel();
  const slow = manualModel();
  const pool = poolOf();
  for (const dialogue of [one, two, three]) pool.register(dialogue);
  let early = false;
  const waits = [
    ask(pool, one, fast.model, request('a')).then(() => (early = true)),
    ask(pool, two, slow.model, request('b')),
    ask(pool, three, fast.model, request('c')),
  ];
  assert.equal(fast.calls[0]!.ids, ['a', 'c']);
  assert.equal(slow.calls[0]!.ids, ['b']);
  fast.calls[0]!.end();
  await settled();
  assert.not.ok(early);
  slow.calls[0]!.end();
  await Promise.all(waits);
});

async function rejection(promise: Promise<unknown>): Promise<OptimaError> {
  try {
    await promise;
  } catch (error) {
    assert.instance(error, OptimaError);
    return error as OptimaError;
  }
  return assert.unreachable('resolved') as never;
}

test('a call that fails concerns no one request: the pool fails, and nobody is answered', async () => {
  const good = manualModel();
  const bad = manualModel();
  const { pool, failure } = failingPool();
  const { answers, note } = noting(pool);
  for (const dialogue of [one, two, three]) pool.register(dialogue);
  note(one, bad.model, request('a'));
  note(two, bad.model, request('b'));
  note(three, good.model, request('c'));
  const cause = new Error('out of memory');
  bad.calls[0]!.fail(cause);
  const { code, message, cause: told } = await failure;
  assert.is(code, 'model.failed');
  assert.is(message, 'Model manual failed: out of memory');
  assert.is(told, cause);
  good.calls[0]!.end();
  await settled();
  assert.equal(answers, []);
});

test('an error that says what it is stays what it is', async () => {
  const { model, calls } = manualModel();
  const { pool, failure } = failingPool();
  pool.register(one);
  noting(pool).note(one, model, request('a'));
  const missing = new OptimaError('checkpoint.missing', 'There is no checkpoint.');
  calls[0]!.fail(missing);
  assert.is(await failure, missing);
});

test('a request that the model refuses fails alone; the others of its round are asked for again', async () => {
  const { model, calls } = manualModel();
  const pool = poolOf();
  for (const dialogue of [one, two, three]) pool.register(dialogue);
  const long = rejection(ask(pool, two, model, request('b')));
  const others = [ask(pool, one, model, request('a')), ask(pool, three, model, request('c'))];
  calls[0]!.fail(new RequestsRefused(new Map([['b', new OptimaError('model.failed', 'b is too long.')]])));
  await settled();
  calls[1]!.end();
  assert.equal(calls[1]!.ids, ['a', 'c']);
  assert.is((await long).message, 'b is too long.');
  assert.equal(
    (await Promise.all(others)).map(({ text }) => text),
    ['said a', 'said c'],
  );
});

test('each refused request fails with its own reason', async () => {
  const { model, calls } = manualModel();
  const pool = poolOf();
  for (const dialogue of [one, two, three]) pool.register(dialogue);
  const lost = [
    rejection(ask(pool, one, model, request('a'))),
    rejection(ask(pool, two, model, request('b'))),
  ];
  const fine = ask(pool, three, model, request('c'));
  const reasons = ['a', 'b'].map(
    (id) => [id, new OptimaError('model.failed', `${id} is too long.`)] as const,
  );
  calls[0]!.fail(new RequestsRefused(new Map(reasons)));
  await settled();
  calls[1]!.end();
  await fine;
  assert.equal(
    (await Promise.all(lost)).map(({ message }) => message),
    ['a is too long.', 'b is too long.'],
  );
});

test('a model that refuses requests nobody made is not asked again, and has failed', async () => {
  const { model, calls } = manualModel();
  const { pool, failure } = failingPool();
  pool.register(one);
  noting(pool).note(one, model, request('a'));
  calls[0]!.fail(new RequestsRefused(new Map([['x', new OptimaError('model.failed', 'x is too long.')]])));
  assert.is((await failure).message, 'x is too long.');
  assert.is(calls.length, 1);
});

test('a model that throws at once, or answers too few, too many or no messages, has failed', async () => {
  const models: [Pick<LanguageModel, 'generate'>, string][] = [
    [
      {
        generate: () => {
          throw new Error('sync');
        },
      },
      'failed: sync',
    ],
    [{ generate: async () => [] }, 'gave 0 messages for 1 requests.'],
    [{ generate: async () => [generation('x'), generation('y')] }, 'gave 2 messages for 1 requests.'],
    [{ generate: async () => [null as never] }, 'gave null for request a.'],
    [{ generate: async () => undefined as never }, 'failed: Cannot read properties of undefined'],
  ];
  for (const [part, message] of models) {
    const { pool, failure } = failingPool();
    pool.register(one);
    noting(pool).note(one, { ...manualModel().model, ...part }, request('a'));
    const error = await failure;
    assert.is(error.code, 'model.failed');
    assert.ok(error.message.startsWith(`Model manual ${message}`), error.message);
  }
});

test('the call is aborted when nobody waits for it any more, and nobody is answered', async () => {
  for (const ending of ['end', 'fail'] as const) {
    const { model, calls } = manualModel();
    const pool = poolOf();
    const { answers, note } = noting(pool);
    for (const dialogue of [one, two]) pool.register(dialogue);
    note(one, model, request('a'));
    note(two, model, request('b'));
    pool.unregister(one);
    assert.not.ok(calls[0]!.signal.aborted);
    pool.unregister(two);
    assert.ok(calls[0]!.signal.aborted);
    calls[0]![ending](new Error('too late'));
    await settled();
    assert.equal(answers, []);
    assert.is(calls.length, 1);
  }
});

test('a dialogue that ends during a call is not answered; the others of the call are', async () => {
  const { model, calls } = manualModel();
  const pool = poolOf();
  const { answers, note } = noting(pool);
  for (const dialogue of [one, two]) pool.register(dialogue);
  note(one, model, request('a'));
  note(two, model, request('b'));
  pool.unregister(one);
  calls[0]!.end();
  await settled();
  assert.equal(answers, ['b: said b']);
  assert.not.ok(calls[0]!.signal.aborted);
});

test('a dialogue that another one ends as it is answered is not answered itself', async () => {
  for (const end of ['unregister', 'close'] as const) {
    const { model, calls } = manualModel();
    const pool = poolOf();
    const { answers, note } = noting(pool);
    for (const dialogue of [one, two, three]) pool.register(dialogue);
    pool.ask(one, model, request('a'), () => {
      answers.push('a');
      pool[end](two);
    });
    note(two, model, request('b'));
    note(three, model, request('c'));
    calls[0]!.end();
    await settled();
    assert.equal(answers, end === 'unregister' ? ['a', 'c: said c'] : ['a']);
    assert.not.ok(calls[0]!.signal.aborted);
  }
});

test('who is answered may ask again at once; the next round waits for all all the same', async () => {
  const { model, calls } = manualModel();
  const pool = poolOf();
  const { answers, note } = noting(pool);
  for (const dialogue of [one, two]) pool.register(dialogue);
  for (const [dialogue, id] of [
    [two, 'b'],
    [one, 'a'],
  ] as const) {
    pool.ask(dialogue, model, request(id), () => {
      answers.push(id);
      note(dialogue, model, request(`${id}2`));
      assert.is(calls.length, id === 'a' ? 1 : 2);
    });
  }
  calls[0]!.end();
  await settled();
  assert.equal(answers, ['a', 'b']);
  assert.equal(calls[1]!.ids, ['a2', 'b2']);
  calls[1]!.end();
  await settled();
  assert.equal(answers, ['a', 'b', 'a2: said a2', 'b2: said b2']);
});

test('nobody is answered while asking, however fast the model is', async () => {
  const pool = poolOf();
  const { answers, note } = noting(pool);
  pool.register(one);
  const { model } = manualModel();
  const instant: LanguageModel = { ...model, generate: async () => [generation('at once')] };
  note(one, instant, request('a'));
  assert.equal(answers, []);
  await settled();
  assert.equal(answers, ['a: at once']);
  const refusing: LanguageModel = {
    ...model,
    generate: ([asked]) => {
      throw new RequestsRefused(new Map([[asked!.id, new OptimaError('model.failed', 'No.')]]));
    },
  };
  note(one, refusing, request('b'));
  assert.is(answers.length, 1);
  await settled();
  assert.equal(answers.slice(1), ['b: No.']);
});

test('a request that was withdrawn during a call is not asked for again', async () => {
  const { model, calls } = manualModel();
  const pool = poolOf();
  const { answers, note } = noting(pool);
  for (const dialogue of [one, two, three]) pool.register(dialogue);
  note(one, model, request('a'));
  note(two, model, request('b'));
  note(three, model, request('c'));
  pool.unregister(one);
  calls[0]!.fail(new RequestsRefused(new Map([['b', new OptimaError('model.failed', 'b is too long.')]])));
  await settled();
  assert.equal(calls[1]!.ids, ['c']);
  assert.equal(answers, [], 'the answers of a round are handed out together');
  pool.unregister(three);
  assert.ok(calls[1]!.signal.aborted);
  await settled();
  assert.equal(answers, ['b: b is too long.']);
  assert.is(calls.length, 2);
});

test('a model that takes too long has failed, and its call is aborted, whether it hears that or not', async () => {
  for (const rejects of [false, true]) {
    const { pool, failure } = failingPool(20);
    const { model, calls } = manualModel();
    const generate: LanguageModel['generate'] = (requests, options) => {
      const call = model.generate(requests, options);
      const interrupt = () => calls[0]!.fail(new OptimaError('interrupted', 'aborted'));
      if (rejects) options!.signal!.addEventListener('abort', interrupt);
      return call;
    };
    pool.register(one);
    noting(pool).note(one, { ...model, generate }, request('a'));
    const { code, message } = await failure;
    assert.is(code, 'model.failed');
    assert.is(message, 'Model manual gave no message within 20 ms.');
    assert.ok(calls[0]!.signal.aborted);
  }
});

test('a dialogue that ends before its round is not in it', async () => {
  const { model, calls } = manualModel();
  const pool = poolOf();
  for (const dialogue of [one, two]) pool.register(dialogue);
  const { answers, note } = noting(pool);
  note(one, model, request('a'));
  pool.unregister(one);
  await settled();
  assert.equal(answers, []);
  assert.is(calls.length, 0);
  const answered = ask(pool, two, model, request('b'));
  assert.equal(calls[0]!.ids, ['b']);
  calls[0]!.end();
  await answered;
  assert.equal(answers, []);
});

test('a dialogue that was answered may end without aborting the call of its round', async () => {
  const { model, calls } = manualModel();
  const pool = poolOf();
  pool.register(one);
  const answered = ask(pool, one, model, request('a'));
  calls[0]!.end();
  await answered;
  pool.unregister(one);
  assert.not.ok(calls[0]!.signal.aborted);
});

test('a pool that is closed plays no round and aborts what is under way', async () => {
  const { model, calls } = manualModel();
  const other = manualModel();
  const pool = poolOf();
  for (const dialogue of [one, two, three]) pool.register(dialogue);
  const { answers, note } = noting(pool);
  note(one, model, request('a'));
  note(two, other.model, request('b'));
  note(three, model, request('c'));
  pool.close();
  assert.ok(calls[0]!.signal.aborted);
  assert.ok(other.calls[0]!.signal.aborted);
  calls[0]!.end();
  other.calls[0]!.fail(new Error('too late'));
  await settled();
  assert.equal(answers, []);
  assert.equal([calls.length, other.calls.length], [1, 1]);
});

test('a pool that was closed waits for all of its next dialogues again', async () => {
  const { model, calls } = manualModel();
  const pool = poolOf();
  for (const dialogue of [one, two]) pool.register(dialogue);
  const { answers, note } = noting(pool);
  note(one, model, request('a'));
  pool.close();
  for (const dialogue of [two, three]) pool.register(dialogue);
  const waits = [ask(pool, three, model, request('c'))];
  assert.is(calls.length, 0);
  waits.push(ask(pool, two, model, request('b')));
  assert.equal(calls[0]!.ids, ['b', 'c']);
  calls[0]!.end();
  await Promise.all(waits);
  assert.equal(answers, []);
});

test('requests of strangers are refused', async () => {
  const { model, calls } = manualModel();
  const pool = poolOf();
  pool.register(one);
  pool.register(three);
  pool.unregister(three);
  for (const stranger of [two, three]) {
    assert.throws(
      () => pool.ask(stranger, model, request('b'), () => assert.unreachable()),
      (error: Error) => error.message === `Dialogue ${stranger} is not registered with the pool.`,
    );
  }
  assert.is(calls.length, 0);
});

test.run();
