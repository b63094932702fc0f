// The worker's own end, here without a thread: which policies and sessions it keeps, and what it answers.
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { PolicyHash } from '../../src/domain/ids.ts';
import type { TrainingSequence } from '../../src/domain/model.ts';
import { LlamaPolicy, loadPolicy } from '../../src/models/llama/index.ts';
import type { LlamaSession } from '../../src/models/llama/policy.ts';
import { isFrozen, readInto, startEngine, tf } from '../../src/tensor/index.ts';
import { ParameterLayout } from '../../src/training/gradients.ts';
import { sftObjective } from '../../src/training/sft/index.ts';
import { computePassGradients } from '../../src/training/step.ts';
import type { PolicySource } from '../../src/workers/index.ts';
import type { Command, FromWorker, PassResult, PlainError, ToWorker } from '../../src/workers/protocol.ts';
import { WorkerThread } from '../../src/workers/thread.ts';
import { temporaryFolder, writeRandomCheckpoint } from '../support/run.ts';

const engine = await startEngine({ backend: 'wasm', blas: false });
const said: FromWorker[] = [];
const thread = new WorkerThread((message) => said.push(message));

let nextId = 0;
const tell = (message: ToWorker) => thread.receive(message);
const begin = (command: Command): number => {
  tell({ id: nextId, command });
  return nextId++;
};
const answered = async (id: number) => {
  for (;;) {
    const place = said.findIndex((message) => 'id' in message && message.id === id);
    if (place >= 0) return said.splice(place, 1)[0] as { result?: unknown; error?: PlainError };
    await new Promise((resolve) => setImmediate(resolve));
  }
};

const ask = async (command: Command): Promise<unknown> => {
  const { result, error } = await answered(begin(command));
  if (error !== undefined) return assert.unreachable(error.message);
  return result;
};
const failureOf = async (command: Command): Promise<PlainError> => (await answered(begin(command))).error!;

// Four policies that differ in one weight, with their folders.
const folder = temporaryFolder('thread');
const sources: PolicySource[] = [];
await writeRandomCheckpoint(path.join(folder, '0'));
const policy = await loadPolicy(path.join(folder, '0'));
const [embedding] = [...policy.parameters.values()] as [tf.Variable];
for (const name of ['0', '1', '2', '3']) {
  if (name !== '0') tf.tidy(() => embedding.assign(tf.add(embedding, 0.01)));
  const place = path.join(folder, name);
  sources.push({ folder: place, hash: await policy.save(place) });
}
policy.dispose();
const [a, b, c, d] = sources as [PolicySource, PolicySource, PolicySource, PolicySource];
test.after(() => fs.rmSync(folder, { recursive: true }));

/** Every session that the thread opened. */
const opened: { policy: LlamaPolicy; session: LlamaSession; closed: number }[] = [];
const { openSession } = LlamaPolicy.prototype;
LlamaPolicy.prototype.openSession = function (this: LlamaPolicy) {
  const session = openSession.call(this);
  const entry = { policy: this, session, closed: 0 };
  opened.push(entry);
  const { close } = session;
  session.close = () => {
    entry.closed++;
    close();
  };
  return session;
};

const requests = [0, 1].map((seed) => ({
  id: `request ${seed}`,
  messages: [{ role: 'system', content: `The mayor of Baldale is Kenron ${seed}.` }] as const,
  sampling: { temperature: 0.9, topP: 1, topK: 0, maxTokens: 12 },
  seed,
}));
const generate = (source: PolicySource, session: number): Command => ({
  type: 'generate',
  policy: source,
  session,
  requests,
});
const views = [
  {
    id: 'view',
    messages: [
      { role: 'system', content: 'Baldale' },
      { role: 'assistant', content: 'Kenron' },
    ] as const,
  },
];
const score = (source: PolicySource, session: number): Command => ({
  type: 'score',
  policy: source,
  session,
  requests: views,
});
const close = (session: number): Command => ({ type: 'close', session });
const keep = (...kept: PolicySource[]): Command => ({ type: 'keep', hashes: kept.map(({ hash }) => hash) });

test('calls of one number share a session until it is closed, others have their own', async () => {
  const own = await loadPolicy(a.folder);
  const session = openSession.call(own);
  const [generated, scores] = [await session.generate(requests), await session.score(views)];
  session.close();
  own.dispose();

  opened.length = 0;
  assert.equal(await ask(generate(a, 1)), generated);
  assert.equal(await ask(score(a, 1)), scores);
  assert.is(opened.length, 1);
  assert.ok(opened[0]!.session.statistics.computed > 0);
  assert.equal(await ask(generate(a, 2)), generated);
  assert.is(opened.length, 2);
  assert.is(opened[1]!.policy, opened[0]!.policy, 'the policy is loaded once');
  assert.is(await ask(close(1)), null);
  assert.equal(
    opened.map(({ closed }) => closed),
    [1, 0],
  );
  assert.equal(await ask(generate(a, 1)), generated);
  assert.is(opened.length, 3);
  for (const number of [1, 2, 7]) assert.is(await ask(close(number)), null);
  assert.equal(
    opened.map(({ closed }) => closed),
    [1, 1, 1],
  );
});

/** Whether each policy's weights are there, when all that is due has happened. */
async function alive(...policies: LlamaPolicy[]): Promise<boolean[]> {
  await new Promise((resolve) => setImmediate(resolve));
  return policies.map(({ parameters }) => [...parameters.values()].every((one) => !one.isDisposed));
}

test('as many policies are held as are asked for, until it is told which ones are needed', async () => {
  let number = 10;
  const use = async (source: PolicySource) => {
    opened.length = 0;
    await ask(generate(source, number));
    await ask(close(number++));
    return opened[0]!.policy;
  };
  const [first, second, third, fourth] = [await use(a), await use(b), await use(c), await use(d)];
  assert.is(await use(a), first);
  assert.is(await use(b), second);
  assert.equal(await alive(first, second, third, fourth), [true, true, true, true]);
  assert.is(await ask(keep(a, c)), null);
  assert.equal(await alive(first, second, third, fourth), [true, false, true, false]);
  assert.is(await use(c), third);
  const again = await use(b);
  assert.is(again.hash, b.hash);
  assert.equal(await alive(again, third), [false, true], 'it was not needed, and is used no more');
});

test('what is in use is freed only when its last session is closed and its last call has ended', async () => {
  await ask(keep(a, b));
  opened.length = 0;
  const generated = await ask(generate(a, 70));
  await ask(keep(b));
  assert.equal(await ask(generate(a, 70)), generated);
  assert.equal(await alive(opened[0]!.policy), [true]);
  await ask(close(70));
  assert.equal(await alive(opened[0]!.policy), [false]);

  for (const last of [generate(a, 71), score(a, 71)]) {
    opened.length = 0;
    await ask(generate(a, 71));
    const { policy, session } = opened[0]!;
    let end = () => {};
    const untilEnded = () => new Promise<[]>((resolve) => (end = () => resolve([])));
    Object.assign(session, { generate: untilEnded, score: untilEnded });
    const underway = begin(last);
    await ask(close(71));
    assert.equal(await alive(policy), [true]);
    end();
    await answered(underway);
    assert.equal(await alive(policy), [false]);
  }

  // While it loads, too.
  const loading = begin(generate(a, 72));
  await ask(keep(b));
  assert.equal((await answered(loading)).result, generated);
  const late = opened.at(-1)!.policy;
  assert.equal(await alive(late), [true]);
  await ask(close(72));
  assert.equal(await alive(late), [false]);
});

const batch: TrainingSequence[] = [
  { tokenIds: [7, 8, 9, 10, 11], lossMask: [0, 1, 1, 0, 1] },
  { tokenIds: [12, 13, 14], lossMask: [0, 0, 1] },
];

/** Gradients of weights that are those of a checkpoint, but for `change` added to the first one. */
async function prepareGradients(source: PolicySource, version: string, change: number) {
  const own = await loadPolicy(source.folder);
  const layout = new ParameterLayout(own.parameters);
  const share = () => new Float32Array(new SharedArrayBuffer(4 * layout.size));
  const values = share();
  for (const [name, variable] of own.parameters) readInto(variable, layout.partOf(values, name));
  values[0]! += change;
  const name = [...own.parameters.keys()][0]!;
  const variable = own.parameters.get(name)!;
  tf.tidy(() => variable.assign(tf.tensor(layout.partOf(values, name).slice(), variable.shape)));
  const expected = computePassGradients(own, sftObjective, batch, 8);
  const gradients = share();
  const weights = { values, version };
  const { spec: objective } = sftObjective;
  const command: Command = {
    type: 'gradients',
    lora: null,
    seed: undefined,
    policy: source,
    weights,
    objective,
    pass: batch,
    terms: 8,
    gradients,
  };
  own.dispose();
  return async () => {
    const reply = await answered(begin(command));
    const { names = [], loss, figures } = (reply.result ?? {}) as Partial<PassResult>;
    const computed = new Map(names.map((one) => [one, layout.partOf(gradients, one)]));
    return { reply, computed: { loss, figures, gradients: computed }, expected };
  };
}
const askForGradients = async (...settings: Parameters<typeof prepareGradients>) =>
  (await prepareGradients(...settings))();

test('gradients are those of the weights that it is given, which it takes over with each version', async () => {
  const first = await askForGradients(a, 'x/0', 1);
  assert.equal(first.computed, first.expected);
  assert.ok(first.computed.gradients.size > 5);
  const second = await askForGradients(a, 'x/1', 2);
  assert.equal(second.computed, second.expected);
  assert.not.equal(second.computed.loss, first.computed.loss);
  const other = await askForGradients(a, 'y/1', 3);
  assert.equal(other.computed, other.expected);
  // The same version once more: the weights are not read again, so it is still those of before.
  const same = await askForGradients(a, 'y/1', 9);
  assert.equal(same.computed, other.computed);
});

test('a training from another checkpoint takes the place of the one before, also under the same version', async () => {
  await askForGradients(a, 'z/0', 1);
  const tensors = tf.memory().numTensors;
  const other = await askForGradients(d, 'z/0', 1);
  assert.equal(other.computed, other.expected);
  assert.is(tf.memory().numTensors, tensors);
  const back = await askForGradients(a, 'z/0', 1);
  assert.equal(back.computed, back.expected);
  assert.is(tf.memory().numTensors, tensors);
});

test('two trainings at once, and being told that neither is needed, disturb nothing', async () => {
  await ask(keep());
  const tensors = tf.memory().numTensors;
  const prepared = await Promise.all([
    prepareGradients(a, 'p/0', 1),
    prepareGradients(d, 'q/0', 2),
    prepareGradients(a, 'p/1', 3),
  ]);
  const asked = prepared.map((begun) => begun());
  await ask(keep());
  for (const { reply, computed, expected } of await Promise.all(asked)) {
    assert.is(reply.error, undefined);
    assert.equal(computed, expected);
  }
  await alive();
  assert.is(tf.memory().numTensors, tensors);
});

(engine.machineCode === null ? test.skip : test)(
  'frozen weights that another thread shares are read where they are, and a training of them has its own',
  async () => {
    await ask(keep());
    const owner = await loadPolicy(a.folder, { frozen: true });
    const before = await ask(generate(a, 80));
    await ask(close(80));
    await ask(keep());
    tell({ shared: owner.shared! });
    assert.equal(await ask(generate(a, 81)), before);
    const { weights } = opened.at(-1)!.policy;
    for (const [name, weight] of owner.weights) {
      const there = weights.get(name)!;
      assert.is(isFrozen(there), weight.shape.length === 2);
      if (isFrozen(there) && isFrozen(weight)) assert.is(there.numbers.buffer, weight.numbers.buffer);
    }
    const { computed, expected } = await askForGradients(a, 'shared/0', 1);
    assert.equal(computed, expected);
    await ask(close(81));
    await ask(keep());
    owner.dispose();
    // What is not needed is not held for later either.
    assert.equal(await ask(generate(a, 82)), before);
    assert.not.ok([...opened.at(-1)!.policy.weights.values()].some(isFrozen));
    await ask(close(82));
  },
);

test('a trainee is freed when it is not needed', async () => {
  await ask(keep());
  const tensors = tf.memory().numTensors;
  const { expected } = await askForGradients(a, 'r/0', 1);
  await ask(keep(a));
  assert.is(tf.memory().numTensors, tensors + expected.gradients.size);
  await ask(keep(b));
  await alive();
  assert.is(tf.memory().numTensors, tensors);
});

test('the figures of a pass are told with its loss', async () => {
  const { computePass } = sftObjective;
  sftObjective.computePass = (...args) => ({
    ...computePass(...args),
    figures: { rows: tf.scalar(args[1].length) },
  });
  const { computed, expected } = await askForGradients(a, 'figures/0', 1);
  sftObjective.computePass = computePass;
  assert.equal(computed.figures, { rows: 2 });
  assert.equal(computed, expected);
});

test('weights of another hash are refused, for generating, scoring and training, and freed', async () => {
  const wrong = { ...a, hash: '0123456789abcdef' as PolicyHash };
  await askForGradients(a, 'hash/0', 0);
  const tensors = tf.memory().numTensors;
  const failures = [
    await failureOf(generate(wrong, 20)),
    await failureOf(score(wrong, 21)),
    (await askForGradients(wrong, 'hash/0', 0)).reply.error!,
  ];
  for (const { code, message, hint } of failures) {
    assert.is(code, 'checkpoint.invalid');
    assert.is(message, `${a.folder}: it has the hash ${a.hash}, not ${wrong.hash}.`);
    assert.is(hint, 'The files were changed since they were written.');
  }
  const right = await askForGradients(a, 'hash/0', 0);
  assert.equal(right.computed, right.expected);
  assert.is(tf.memory().numTensors, tensors);
});

test('a policy that could not be loaded is tried again, also in the same session', async () => {
  const late = { ...d, folder: path.join(folder, 'late') };
  assert.is((await failureOf(generate(late, 30))).code, 'checkpoint.missing');
  fs.cpSync(d.folder, late.folder, { recursive: true });
  opened.length = 0;
  await ask(generate(late, 30));
  assert.is(opened[0]!.policy.hash, d.hash);
  await ask(close(30));
});

test('a policy that fails to load is let go without ending the worker', async () => {
  const unhandled: unknown[] = [];
  const note = (error: unknown) => unhandled.push(error);
  process.on('unhandledRejection', note);
  const missing = ['x', 'y', 'z'].map((name) => ({
    folder: path.join(folder, name),
    hash: name as PolicyHash,
  }));
  // All at once: none is needed, and each session is closed before it is open.
  await ask(keep());
  const calls = missing.map((source, i) => begin(generate(source, 40 + i)));
  const closes = missing.map((_, i) => begin(close(40 + i)));
  for (const id of calls) assert.is((await answered(id)).error!.code, 'checkpoint.missing');
  for (const id of closes) assert.is((await answered(id)).result, null);
  for (let i = 0; i < 3; i++) await new Promise((resolve) => setImmediate(resolve));
  process.off('unhandledRejection', note);
  assert.equal(unhandled, []);
});

test('an abort stops its own call, and one that comes too late nothing', async () => {
  await ask(generate(a, 50));
  const [stopped, fine] = [begin(generate(a, 50)), begin(generate(a, 51))];
  tell({ id: stopped, abort: true });
  const scored = begin(score(a, 50));
  tell({ id: scored, abort: true });
  assert.is((await answered(stopped)).error!.code, 'interrupted');
  assert.is((await answered(scored)).error!.code, 'interrupted');
  assert.is(((await answered(fine)).result as unknown[]).length, 2);
  tell({ id: fine, abort: true });
  assert.is(((await ask(generate(a, 50))) as unknown[]).length, 2);
  for (const number of [50, 51]) await ask(close(number));
});

test('requests that are refused are named with their reasons', async () => {
  const long = {
    ...requests[0]!,
    id: 'long',
    messages: [{ role: 'user', content: 'Kenron '.repeat(600) }] as const,
  };
  const { code, reasons } = await failureOf({
    type: 'generate',
    policy: a,
    session: 60,
    requests: [requests[0]!, long],
  });
  assert.is(code, 'model.failed');
  assert.equal([...reasons!.keys()], ['long']);
  await ask(close(60));
});

test.run();
