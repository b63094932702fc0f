// Worker threads: they give what the main thread gives, also when one of them dies in the middle of its work.
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import path from 'node:path';
import threads from 'node:worker_threads';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { OptimaError } from '../../src/domain/errors.ts';
import type { PolicyHash } from '../../src/domain/ids.ts';
import {
  type ChatMessage,
  type GenerationRequest,
  type LanguageModel,
  RequestsRefused,
  type TrainingSequence,
} from '../../src/domain/model.ts';
import { createRng } from '../../src/domain/rng.ts';
import { type LlamaPolicy, loadPolicy } from '../../src/models/llama/index.ts';
import { startEngine } from '../../src/tensor/index.ts';
import { defaultSftConfig, sftObjective, trainSft } from '../../src/training/sft/index.ts';
import type { PolicySource } from '../../src/workers/index.ts';
import { temporaryFolder, writeRandomCheckpoint } from '../support/run.ts';

/** Every worker that was started, so that a test can end one as a crash would. */
const started: threads.Worker[] = [];
const { Worker } = threads;
threads.Worker = class extends Worker {
  constructor(...args: ConstructorParameters<typeof Worker>) {
    super(...args);
    started.push(this);
  }
};
syncBuiltinESMExports();
const { Workers } = await import('../../src/workers/index.ts');

const engine = { backend: 'wasm', blas: false } as const;
await startEngine(engine);
const folder = temporaryFolder('workers');
await writeRandomCheckpoint(path.join(folder, 'model'));
const policy = await loadPolicy(path.join(folder, 'model'));
const source: PolicySource = { folder: path.join(folder, 'model'), hash: policy.hash };
const workers = await Workers.start(2, engine);
test.after(async () => {
  await workers.stop();
  policy.dispose();
  fs.rmSync(folder, { recursive: true });
});

const sampling = { temperature: 0.9, topP: 1, topK: 0, maxTokens: 40 };
const requests: GenerationRequest[] = Array.from({ length: 6 }, (_, i) => ({
  id: `request ${i}`,
  messages: [
    { role: 'system', content: `You are Alice, working with Bob. The mayor of Baldale is Kenron ${i}.` },
  ],
  sampling,
  seed: i,
}));

/** Two turns in one session, then the scores of what was said. */
async function converse(model: LanguageModel, meanwhile: () => unknown = () => {}) {
  const session = model.openSession!();
  const first = await session.generate(requests);
  const views = requests.map(({ messages }, i): ChatMessage[] => [
    ...messages,
    { role: 'assistant', content: first[i]!.text, tokenIds: first[i]!.tokenIds },
    { role: 'user', content: `Kenron ${i}` },
  ]);
  const asked = session.generate(requests.map((request, i) => ({ ...request, messages: views[i]! })));
  const happened = meanwhile();
  const second = await asked;
  await happened;
  const scores = await session.score(views.map((messages, i) => ({ id: `${i}`, messages })));
  session.close();
  return { first, second, scores };
}

test('every worker gives what the main thread gives, to the bit', async () => {
  const expected = await converse(policy);
  const models = await workers.modelsOf(source);
  assert.is(models.length, 2);
  for (const model of models) {
    assert.is(model.hash, policy.hash);
    assert.equal(await converse(model), expected);
  }
  assert.equal(await models[0]!.generate(requests), await policy.generate(requests));
  // Freed, and loaded again.
  workers.keep([]);
  assert.equal(await converse(models[0]!), expected);
});

test('a worker that dies in the middle of a call is replaced, and the session goes on as if nothing was', async () => {
  const expected = await converse(policy);
  const [model] = await workers.modelsOf(source);
  const before = started.length;
  const dying = started[0]!;
  assert.equal(await converse(model!, () => dying.terminate()), expected);
  assert.is(started.length, before + 1, 'one worker should have been started anew');
});

test('refusals, errors and interruptions cross the border as they are', async () => {
  const [model] = await workers.modelsOf(source);
  const long = {
    ...requests[0]!,
    id: 'long',
    messages: [{ role: 'user', content: 'Kenron '.repeat(600) }] as const,
  };
  const refusal = await model!.generate([requests[0]!, long]).catch((error: unknown) => error);
  assert.instance(refusal, RequestsRefused);
  assert.equal([...(refusal as RequestsRefused).reasons.keys()], ['long']);

  const [stranger] = await workers.modelsOf({ ...source, hash: '0123456789abcdef' as PolicyHash });
  const changed = await stranger!.generate(requests).catch((error: unknown) => error);
  assert.is((changed as OptimaError).code, 'checkpoint.invalid');

  const controller = new AbortController();
  const stopped = model!.generate(requests, { signal: controller.signal }).catch((error: unknown) => error);
  controller.abort();
  assert.is(((await stopped) as OptimaError).code, 'interrupted');
});

const sequences = (trainee: LlamaPolicy): TrainingSequence[] =>
  Array.from({ length: 12 }, (_, i) =>
    trainee.encode([
      { role: 'system', content: `The mayor of Baldale is Kenron ${i}.` },
      { role: 'assistant', content: 'Baldale. '.repeat(1 + (i % 4)) },
    ]),
  );

/** Four steps of a few passes each; what `during` does has happened before the second one. */
async function train(use: typeof workers | null, seed: number, during: () => unknown = () => {}) {
  const trainee = await loadPolicy(source.folder);
  const losses: number[] = [];
  const config = { ...defaultSftConfig, batchSize: 6, epochs: 2, tokensPerPass: 120, learningRate: 1e-2 };
  await trainSft(trainee, sequences(trainee), config, createRng(seed), {
    computePasses: use?.gradientsOf(sftObjective, source, trainee),
    onStep: async ({ loss }) => {
      if (losses.push(loss) === 1) await during();
    },
  });
  const { hash } = trainee;
  trainee.dispose();
  return { losses, hash };
}

test('training in workers ends in the very weights of training on the main thread, one training after the other', async () => {
  for (const seed of [3, 4]) {
    const expected = await train(null, seed);
    assert.is(expected.losses.length, 4);
    assert.not.equal(expected.hash, policy.hash);
    assert.equal(await train(workers, seed), expected);
  }
});

test('a worker that dies while training changes nothing', async () => {
  const expected = await train(null, 3);
  const [running] = started.filter(({ threadId }) => threadId > 0) as [threads.Worker];
  const before = started.length;
  assert.equal(await train(workers, 3, () => running.terminate()), expected);
  assert.is(started.length, before + 1);
});

test('what is stopped stays stopped, and says so to those who wait', async () => {
  const [model] = await workers.modelsOf(source);
  const waiting = model!.generate(requests).catch((error: unknown) => error);
  const before = started.length;
  await workers.stop();
  assert.ok(
    started.every(({ threadId }) => threadId < 0),
    'all threads have ended',
  );
  assert.instance(await waiting, OptimaError);
  assert.instance(await model!.generate(requests).catch((error: unknown) => error), OptimaError);
  assert.is(started.length, before);
});

test.run();
