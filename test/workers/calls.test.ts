// The main thread's end of the workers, which the test plays itself: what each is told, and what becomes of its answers,
// its errors and its death.
import { EventEmitter, getEventListeners } from 'node:events';
import { syncBuiltinESMExports } from 'node:module';
import threads from 'node:worker_threads';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { OptimaError } from '../../src/domain/errors.ts';
import type { PolicyHash } from '../../src/domain/ids.ts';
import {
  type GenerationRequest,
  type ModelSession,
  RequestsRefused,
  type TrainingSequence,
} from '../../src/domain/model.ts';
import { startEngine, tf } from '../../src/tensor/index.ts';
import type { DifferentiablePolicy } from '../../src/training/policy.ts';
import { sftObjective } from '../../src/training/sft/index.ts';
import { type Command, type PassResult, type ToWorker, toPlain } from '../../src/workers/protocol.ts';

/** A worker that does nothing by itself. */
class Played extends EventEmitter {
  readonly launcher: URL;
  readonly options: threads.WorkerOptions;
  /** Its commands that are not answered yet, in order. */
  readonly open: { id: number; command: Command }[] = [];
  readonly aborted: number[] = [];
  /** Whose weights it was told of. */
  readonly shared: PolicyHash[] = [];
  /** Whether it keeps the process alive. */
  referenced = true;

  constructor(launcher: URL, options: threads.WorkerOptions) {
    super();
    this.launcher = launcher;
    this.options = options;
    made.push(this);
    if (autoReady) queueMicrotask(() => this.ready());
  }

  ready() {
    this.emit('message', { ready: true, engine: `engine ${made.indexOf(this)}` });
  }

  postMessage(message: ToWorker) {
    if ('abort' in message) this.aborted.push(message.id);
    else if ('shared' in message) this.shared.push(message.shared.hash);
    else this.open.push(message);
  }

  ref() {
    this.referenced = true;
  }

  unref() {
    this.referenced = false;
  }

  /** Ends a little later, as a thread does. */
  async terminate() {
    await settled();
    this.die();
    return 1;
  }

  die(reason?: string) {
    if (reason !== undefined) this.emit('error', new Error(reason));
    this.emit('exit', 1);
  }

  /** Takes the first open command, or that at `place`, to answer it. */
  take(place = 0) {
    const [{ id, command }] = this.open.splice(place, 1) as [{ id: number; command: Command }];
    return {
      id,
      command,
      answer: (result: unknown) => this.emit('message', { id, result }),
      fail: (error: unknown) => this.emit('message', { id, error: toPlain(error) }),
    };
  }

  get types() {
    return this.open.map(({ command }) => command.type);
  }
}

const made: Played[] = [];
let autoReady = true;
threads.Worker = Played as unknown as typeof threads.Worker;
syncBuiltinESMExports();
const { Workers } = await import('../../src/workers/index.ts');
type Started = Awaited<ReturnType<typeof Workers.start>>;

/** Enough turns for all that is due. */
async function settled() {
  for (let i = 0; i < 3; i++) await new Promise((resolve) => setImmediate(resolve));
}

const caught = (promise: Promise<unknown>): Promise<OptimaError> =>
  promise.then(
    () => assert.unreachable('resolved') as never,
    (error) => error,
  );

const source = { folder: '/policy', hash: 'abc' as PolicyHash };
const request = (id: string) => ({ id }) as GenerationRequest;
const generation = (text: string) => [{ text }];

let workers: Started;
test.before.each(async () => {
  made.length = 0;
  autoReady = true;
  workers = await Workers.start(2, { backend: 'wasm', blas: false, threads: 4 });
});

/** A session of the policy in the first worker, which is the newest of `made` after a death. */
const openSession = async (): Promise<ModelSession> => (await workers.modelsOf(source))[0]!.openSession!();

test('each worker starts with one thread of the engine, and an idle one keeps no process alive', async () => {
  assert.is(made.length, 2);
  assert.is(workers.count, 2);
  assert.is(workers.engine, 'engine 0');
  for (const { launcher, options, referenced } of made) {
    assert.match(launcher.href, /\/bin\/worker\.js$/);
    assert.equal(options, {
      workerData: { engine: { backend: 'wasm', blas: false, threads: 1 } },
      execArgv: [],
    });
    assert.is(referenced, false);
  }
});

test('a start waits for every worker, and fails with what one of them failed with', async () => {
  autoReady = false;
  made.length = 0;
  let started = false;
  const starting = Workers.start(2).then((ready) => {
    started = true;
    return ready;
  });
  made[1]!.ready();
  await settled();
  assert.not.ok(started);
  made[0]!.ready();
  assert.is((await starting).engine, 'engine 0');

  made.length = 0;
  const failing = caught(Workers.start(2));
  made[0]!.ready();
  const why = new OptimaError('backend.unavailable', 'No tensor backend starts.', { hint: 'Use another.' });
  made[1]!.emit('message', { failed: toPlain(why) });
  const { code, message, hint } = await failing;
  assert.equal([code, message, hint], [why.code, why.message, why.hint]);

  made.length = 0;
  const dying = caught(Workers.start(1));
  made[0]!.die('no memory');
  assert.is((await dying).message, 'A worker thread died: no memory.');
});

test('calls and their answers find each other, whichever is answered first', async () => {
  const [first, second] = await workers.modelsOf(source);
  assert.is(first!.hash, 'abc');
  const session = first!.openSession!();
  assert.is(session.hash, 'abc');
  const other = first!.openSession!();
  const elsewhere = second!.openSession!();
  const asked = [
    session.generate([request('a')]),
    other.generate([request('b')]),
    session.score([{ id: 'c', messages: [] }]),
    elsewhere.generate([request('d')]),
  ];
  await settled();
  const ids = new Set(
    [...made[0]!.open, ...made[1]!.open].map(({ command }) => (command as { session: number }).session),
  );
  assert.is(ids.size, 3, 'each session has a number of its own');
  const [{ session: number }] = made[0]!.open.map(({ command }) => command as { session: number }) as [
    { session: number },
  ];
  assert.equal(made[0]!.open[0]!.command, {
    type: 'generate',
    policy: source,
    session: number,
    requests: [request('a')],
  });
  assert.equal(made[0]!.open[2]!.command, {
    type: 'score',
    policy: source,
    session: number,
    requests: [{ id: 'c', messages: [] }],
  });
  made[1]!.take().answer('d');
  made[0]!.take(2).answer('c');
  made[0]!.take(1).fail(new OptimaError('model.failed', 'b fails.'));
  made[0]!.take().answer('a');
  const results = await Promise.allSettled(asked);
  assert.equal(
    results.map((result) => (result.status === 'fulfilled' ? result.value : result.reason.message)),
    ['a', 'b fails.', 'c', 'd'],
  );
  session.close();
  await settled();
  assert.equal(made[0]!.take().command, { type: 'close', session: number });
});

test('a call of the model itself has a session of its own, which is closed also when the call fails', async () => {
  const [model] = await workers.modelsOf(source);
  const numbers: number[] = [];
  for (const call of [() => model!.generate([request('a')]), () => model!.score([])]) {
    const asked = call();
    const failed = caught(call());
    await settled();
    const answered = made[0]!.take();
    answered.answer([]);
    made[0]!.take().fail(new Error('no'));
    assert.equal(await asked, []);
    assert.is((await failed).message, 'no');
    await settled();
    const closed = [made[0]!.take(), made[0]!.take()].map(({ command, answer }) => {
      answer(null);
      return command as { type: string; session: number };
    });
    assert.equal(
      closed.map(({ type }) => type),
      ['close', 'close'],
    );
    assert.is((answered.command as { session: number }).session, closed[0]!.session);
    numbers.push(...closed.map(({ session }) => session));
  }
  assert.is(new Set(numbers).size, 4);
});

test('a worker keeps the process alive exactly while it has something to answer', async () => {
  const session = await openSession();
  const asked = [session.generate([request('a')]), session.generate([request('b')])];
  await settled();
  assert.ok(made[0]!.referenced);
  made[0]!.take().answer([]);
  await settled();
  assert.ok(made[0]!.referenced);
  made[0]!.take().answer([]);
  await Promise.all(asked);
  await settled();
  assert.not.ok(made[0]!.referenced);
});

test('an abort is passed on to its own call, once, and listened for no longer than the call lasts', async () => {
  const session = await openSession();
  const controller = new AbortController();
  const { signal } = controller;
  const untouched = session.generate([request('a')]);
  const stopped = caught(session.generate([request('b')], { signal }));
  const scored = caught(session.score([], { signal }));
  await settled();
  controller.abort();
  assert.equal(
    made[0]!.aborted,
    made[0]!.open.slice(1).map(({ id }) => id),
  );
  made[0]!.take(2).fail(new OptimaError('interrupted', 'Stopped.'));
  made[0]!.take(1).fail(new OptimaError('interrupted', 'Stopped.'));
  made[0]!.take().answer([]);
  await untouched;
  assert.is((await stopped).code, 'interrupted');
  assert.is((await scored).code, 'interrupted');

  const late = caught(session.generate([request('c')], { signal }));
  await settled();
  const { id } = made[0]!.open[0]!;
  assert.equal(made[0]!.aborted.slice(2), [id], 'a signal that has aborted before stops the call, too');
  made[0]!.take().fail(new OptimaError('interrupted', 'Stopped.'));
  await late;

  const unused = new AbortController();
  const ended = session.generate([request('d')], { signal: unused.signal });
  await settled();
  made[0]!.take().answer([]);
  await ended;
  assert.equal(getEventListeners(unused.signal, 'abort'), []);
});

test('an abort reaches a call of the model itself', async () => {
  const [model] = await workers.modelsOf(source);
  const signal = AbortSignal.abort();
  for (const call of [() => model!.generate([], { signal }), () => model!.score([], { signal })]) {
    const stopped = caught(call());
    await settled();
    const { id, fail } = made[0]!.take();
    assert.is(made[0]!.aborted.at(-1), id);
    fail(new OptimaError('interrupted', 'Stopped.'));
    assert.is((await stopped).code, 'interrupted');
    await settled();
    made[0]!.take().answer(null);
  }
});

test('what a refusal says of each request arrives', async () => {
  const refused = caught((await openSession()).generate([request('a')]));
  await settled();
  const reasons = new Map([['a', new OptimaError('model.failed', 'a is too long.')]]);
  made[0]!.take().fail(new RequestsRefused(reasons));
  const error = await refused;
  assert.instance(error, RequestsRefused);
  assert.equal([...(error as RequestsRefused).reasons.keys()], ['a']);
  assert.is(made.length, 2, 'an answer is no death');
});

test('a new worker is told the past of a session, in order and without what failed, before its call', async () => {
  const session = await openSession();
  const known = session.generate([request('a')]);
  await settled();
  const first = made[0]!.take();
  first.answer(generation('one'));
  await known;
  const lost = caught(session.generate([request('refused')]));
  await settled();
  made[0]!.take().fail(new OptimaError('model.failed', 'No.'));
  await lost;
  const scored = session.score([]);
  await settled();
  const second = made[0]!.take();
  second.answer([]);
  await scored;

  const stranger = (await openSession()).generate([request('stranger')]);
  const asked = session.generate([request('b')]);
  await settled();
  assert.is(made[0]!.open.length, 2);
  made[0]!.die('crash');
  await settled();
  assert.is(made.length, 3);
  const replaced = made[2]!;
  assert.equal(replaced.open.length, 2);
  const strange = replaced.open.findIndex(
    ({ command }) => command.type === 'generate' && command.requests[0]!.id === 'stranger',
  );
  replaced.take(strange).answer(generation('stranger'));
  assert.equal(await stranger, generation('stranger'));
  for (const { command } of [first, second]) {
    const repeated = replaced.take();
    assert.equal(repeated.command, command);
    repeated.answer(generation('again'));
    await settled();
  }
  const { command, answer } = replaced.take();
  assert.equal((command as { requests: unknown }).requests, [request('b')]);
  answer(generation('two'));
  assert.equal(await asked, generation('two'));

  // The next call finds a worker that knows the past.
  const next = session.generate([request('c')]);
  await settled();
  assert.equal(replaced.types, ['generate']);
  replaced.take().answer(generation('three'));
  assert.equal(await next, generation('three'));
});

test('a session whose worker died between two calls goes on in a worker that is told its past', async () => {
  const session = await openSession();
  const known = session.generate([request('a')]);
  await settled();
  const { command, answer } = made[0]!.take();
  answer(generation('one'));
  await known;
  made[0]!.die();
  assert.is(made.length, 2, 'nobody has asked yet');
  const asked = session.generate([request('b')]);
  await settled();
  assert.equal(made[2]!.open[0]!.command, command);
  made[2]!.take().answer(generation('one'));
  await settled();
  made[2]!.take().answer(generation('two'));
  assert.equal(await asked, generation('two'));
});

test('calls that are under way together tell a new worker the past once, and wait for that', async () => {
  const session = await openSession();
  const known = session.generate([request('a')]);
  await settled();
  made[0]!.take().answer(generation('one'));
  await known;
  const both = [session.generate([request('b')]), session.generate([request('c')])];
  await settled();
  made[0]!.die('crash');
  await settled();
  const replaced = made[2]!;
  assert.is(replaced.open.length, 1, 'the past alone, and once');
  replaced.take().answer(generation('one'));
  await settled();
  assert.equal(
    replaced.open.map(({ command }) => command.type === 'generate' && command.requests[0]!.id),
    ['b', 'c'],
  );
  replaced.take().answer(generation('two'));
  replaced.take().answer(generation('three'));
  assert.equal(await Promise.all(both), [generation('two'), generation('three')]);
});

test('what a session came to is asked once, and is not known where the worker died', async () => {
  const session = await openSession();
  const measured = session.measure!();
  await settled();
  assert.equal(made[0]!.types, ['measure']);
  made[0]!.die('crash');
  assert.is(await measured, null);
});

test('a call is given up with the third worker that dies in it, and the next call is tried again', async () => {
  const session = await openSession();
  const lost = caught(session.generate([request('a')]));
  await settled();
  for (const reason of ['first', 'second', 'third']) {
    made.at(-1 - (made.length === 2 ? 1 : 0))!.die(reason);
    await settled();
  }
  const { code, message } = await lost;
  assert.is(code, 'model.failed');
  assert.is(message, 'A worker thread died: third. It was tried 3 times.');
  assert.is(made.length, 4);
  const asked = session.generate([request('b')]);
  await settled();
  made[4]!.die();
  await settled();
  made[5]!.take().answer(generation('yes'));
  assert.equal(await asked, generation('yes'));
  assert.is(made.length, 6);
});

test('a worker that dies before it was ready is replaced, too', async () => {
  const session = await openSession();
  made[0]!.die();
  autoReady = false;
  const asked = session.generate([request('a')]);
  await settled();
  made[2]!.die();
  await settled();
  assert.is(made.length, 4);
  assert.is(made[3]!.open.length, 0, 'nothing is said before it is ready');
  made[3]!.ready();
  await settled();
  made[3]!.take().answer(generation('yes'));
  assert.equal(await asked, generation('yes'));
});

test('nothing is started only to close a session', async () => {
  const session = await openSession();
  made[0]!.die();
  session.close();
  await settled();
  assert.is(made.length, 2);
});

test('what is stopped has ended, says so to those who wait and to those who ask later, and starts no more', async () => {
  const [one, other] = await workers.modelsOf(source);
  const waiting = caught(one!.openSession!().generate([request('a')]));
  await settled();
  let ended = 0;
  for (const worker of made) worker.on('exit', () => ended++);
  const stopping = workers.stop();
  assert.ok(
    made.every(({ referenced }) => referenced),
    'the process stays until they have ended',
  );
  await stopping;
  assert.is(ended, 2);
  assert.is((await waiting).message, 'A worker thread died. It was tried 1 times.');
  const late = await caught(other!.openSession!().generate([request('b')]));
  assert.is(late.code, 'model.failed');
  assert.match(late.message, 'The worker thread was stopped.');
  other!.openSession!().close();
  await settled();
  assert.is(made.length, 2);
});

test('every worker is told which policies are needed, and one that replaces it, too', async () => {
  const session = await openSession();
  const hashes = [source.hash];
  workers.keep(['old' as PolicyHash]);
  workers.keep(hashes);
  await settled();
  for (const worker of made) {
    assert.equal(worker.types, ['keep', 'keep']);
    assert.equal(worker.open[1]!.command, { type: 'keep', hashes });
    for (const place of [0, 0]) worker.take(place).answer(null);
  }
  await settled();
  assert.not.ok(made[0]!.referenced);
  made[0]!.die();
  await settled();
  assert.is(made.length, 2, 'nothing is started to be told that');
  const asked = session.generate([request('a')]);
  await settled();
  const ofNew = [made[2]!.take(), made[2]!.take()];
  const place = ofNew.findIndex(({ command }) => command.type === 'keep');
  assert.equal(ofNew[place]!.command, { type: 'keep', hashes });
  ofNew[1 - place]!.answer(generation('yes'));
  assert.equal(await asked, generation('yes'));
});

test('a worker is told of shared weights once, before what asks for them, and so is one that replaces it', async () => {
  const shared = { hash: source.hash, frameHash: 'frame', weights: new Map() };
  const base = { ...source, shared };
  const adapter = { folder: '/adapter', hash: 'def' as PolicyHash, base };
  const [ofAdapter, ofBase] = await Promise.all(
    [adapter, base].map(async (one) => (await workers.modelsOf(one))[0]!.openSession!()),
  );
  const ask = async (session: ModelSession, worker: Played, plain: object) => {
    const asked = session.generate([request('a')]);
    await settled();
    assert.equal(worker.shared, [source.hash]);
    const { command, answer } = worker.take();
    assert.ok('policy' in command);
    assert.equal(command.policy, plain);
    answer(generation('yes'));
    await asked;
  };
  await ask(ofAdapter!, made[0]!, { folder: '/adapter', hash: 'def', base: source });
  await ask(ofBase!, made[0]!, source);
  assert.equal(made[1]!.shared, []);
  made[0]!.die();
  await settled();
  const again = ofBase!.generate([request('b')]);
  await settled();
  assert.equal(made[2]!.shared, [source.hash]);
  made[2]!.take().answer(generation('past'));
  await settled();
  made[2]!.take().answer(generation('yes'));
  await again;
  // A worker keeps none that are not needed, and is told again when they are asked for.
  for (const [hashes, told] of [
    [[source.hash], 1],
    [[], 2],
  ] as const) {
    workers.keep(hashes);
    await settled();
    made[2]!.take().answer(null);
    const asked = ofBase!.generate([request('c')]);
    await settled();
    assert.is(made[2]!.shared.length, told);
    made[2]!.take().answer(generation('yes'));
    await asked;
  }
});

// Gradients.

/** Two parameters of 2 and 3 numbers. */
function tinyPolicy(): DifferentiablePolicy {
  return {
    parameters: new Map([
      ['a', tf.tidy(() => tf.variable(tf.tensor1d([1, 2])))],
      ['b', tf.tidy(() => tf.variable(tf.tensor1d([3, 4, 5])))],
    ]),
    tokenizer: { padId: 0 },
    computeLogits: () => assert.unreachable('computed here') as never,
    refreshHash: () => source.hash,
  };
}

const pass = (name: number): TrainingSequence[] => [{ tokenIds: [name], lossMask: [1] }];

type GradientsCommand = Extract<Command, { type: 'gradients' }>;

/** Takes a pass from a worker; `finish` answers with these gradients. */
function takePass(worker: Played) {
  const { command, answer, fail } = worker.take();
  const { gradients, weights, ...told } = command as GradientsCommand;
  const finish = (loss: number, values: readonly number[], names = ['a', 'b']) => {
    gradients.set(values);
    answer({ loss, figures: { half: loss / 2 }, names } satisfies PassResult);
  };
  return { told, gradients, weights: { ...weights, values: [...weights.values] }, finish, fail };
}

const plain = (gradients: ReadonlyMap<string, Float32Array>) =>
  Object.fromEntries([...gradients].map(([name, values]) => [name, [...values]]));

test.before(async () => {
  await startEngine();
});

test('each pass goes to the next worker that is free, with the weights as they are, and is summed in order', async () => {
  const policy = tinyPolicy();
  const compute = workers.gradientsOf(sftObjective, source, policy);
  const summed = compute([pass(0), pass(1), pass(2)], 9, 'chance');
  await settled();
  assert.equal([made[0]!.open.length, made[1]!.open.length], [1, 1]);
  const [zero, one] = [takePass(made[0]!), takePass(made[1]!)];
  assert.equal(zero.told, {
    type: 'gradients',
    policy: source,
    lora: null,
    objective: { name: 'sft' },
    pass: pass(0),
    terms: 9,
    seed: 'chance/0',
  });
  assert.equal(one.told, {
    type: 'gradients',
    policy: source,
    lora: null,
    objective: { name: 'sft' },
    pass: pass(1),
    terms: 9,
    seed: 'chance/1',
  });
  assert.equal(zero.weights.values, [1, 2, 3, 4, 5]);
  assert.equal(one.weights, zero.weights);
  assert.is(zero.gradients.length, 5);
  assert.is.not(zero.gradients.buffer, one.gradients.buffer);
  // 2^24 + 1 + 1 is 2^24 in float32, and 2^24 + 2 where the small ones are added first.
  one.finish(20, [1, 2, 30, 40, 50]);
  await settled();
  assert.is(made[0]!.open.length, 0);
  const two = takePass(made[1]!);
  assert.equal(two.told.pass, pass(2));
  two.finish(30, [1, 3], ['a']);
  await settled();
  zero.finish(10, [2 ** 24, 1, 3, 4, 5]);
  const { loss, figures, gradients } = await summed;
  assert.is(loss, 60);
  assert.equal(figures, { half: 30 });
  assert.equal(plain(gradients), { a: [2 ** 24, 6], b: [33, 44, 55] });
  tf.dispose([...policy.parameters.values()]);
});

test('a parameter without a gradient in any pass has none in the sum', async () => {
  const policy = tinyPolicy();
  const summed = workers.gradientsOf(sftObjective, source, policy)([pass(0)], 1);
  await settled();
  takePass(made[0]!).finish(1, [0, 0, 7, 8, 9], ['b']);
  assert.equal(plain((await summed).gradients), { b: [7, 8, 9] });
  tf.dispose([...policy.parameters.values()]);
});

test('every step has a version of its own and the weights of its time, in each training', async () => {
  const policy = tinyPolicy();
  const versions: string[] = [];
  for (const compute of [
    workers.gradientsOf(sftObjective, source, policy),
    workers.gradientsOf(sftObjective, source, policy),
  ]) {
    for (const weight of [7, 8]) {
      tf.tidy(() => policy.parameters.get('b')!.assign(tf.tensor1d([weight, 0, 0])));
      const summed = compute([pass(0)], 1);
      await settled();
      const { weights, finish } = takePass(made[0]!);
      assert.equal(weights.values, [1, 2, weight, 0, 0]);
      versions.push(weights.version);
      finish(1, [0, 0, 0, 0, 0]);
      await summed;
    }
  }
  assert.is(new Set(versions).size, 4, versions.join(' '));
  tf.dispose([...policy.parameters.values()]);
});

test('arrays are used again, and never while they hold what is still needed', async () => {
  const policy = tinyPolicy();
  const compute = workers.gradientsOf(sftObjective, source, policy);
  const arrays = new Set<ArrayBufferLike>();
  for (let step = 0; step < 3; step++) {
    const passes = Array.from({ length: 6 }, (_, name) => pass(name));
    const summed = compute(passes, 1);
    for (let name = 0; name < 6; name++) {
      await settled();
      const isNext = ({ command }: { command: Command }) =>
        (command as GradientsCommand).pass === passes[name];
      const worker = made.find(({ open }) => open.some(isNext))!;
      const { gradients, finish } = takePass(worker);
      arrays.add(gradients.buffer);
      finish(1, [1, 1, 1, 1, name]);
    }
    const { loss, gradients } = await summed;
    assert.is(loss, 6);
    assert.equal(plain(gradients), { a: [6, 6], b: [6, 6, 15] });
  }
  assert.is(arrays.size, 3);
  tf.dispose([...policy.parameters.values()]);
});

test('a pass that fails fails its step when the others under way have ended, and the next step is whole', async () => {
  const policy = tinyPolicy();
  const compute = workers.gradientsOf(sftObjective, source, policy);
  let over = false;
  const failed = caught(compute([pass(0), pass(1), pass(2), pass(3)], 1)).finally(() => {
    over = true;
  });
  await settled();
  const [zero, one] = [takePass(made[0]!), takePass(made[1]!)];
  zero.fail(new OptimaError('model.failed', 'Out of memory.'));
  await settled();
  assert.not.ok(over, 'the other pass still writes to its array');
  one.finish(5, [5, 5, 5, 5, 5]);
  assert.is((await failed).message, 'Out of memory.');
  await settled();
  assert.equal([made[0]!.open.length, made[1]!.open.length], [0, 0]);

  const summed = compute([pass(0), pass(1)], 1);
  await settled();
  const again = takePass(made[0]!);
  assert.is.not(again.weights.version, zero.weights.version);
  again.finish(1, [1, 1, 1, 1, 1]);
  takePass(made[1]!).finish(2, [2, 2, 2, 2, 2]);
  const { loss, gradients } = await summed;
  assert.is(loss, 3);
  assert.equal(plain(gradients), { a: [3, 3], b: [3, 3, 3] });
  tf.dispose([...policy.parameters.values()]);
});

test('a pass whose worker dies is computed again', async () => {
  const policy = tinyPolicy();
  const summed = workers.gradientsOf(sftObjective, source, policy)([pass(0)], 1);
  await settled();
  const lost = takePass(made[0]!);
  lost.gradients.fill(99);
  made[0]!.die();
  await settled();
  const again = takePass(made[2]!);
  assert.equal(again.told, lost.told);
  assert.equal(again.weights, lost.weights);
  again.finish(1, [1, 2, 3, 4, 5]);
  assert.equal(plain((await summed).gradients), { a: [1, 2], b: [3, 4, 5] });
  tf.dispose([...policy.parameters.values()]);
});

test.run();
