// Adapters in one thread: over weights that are there once, and are freed with the last that reads them.
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { adaptableMatrices } from '../../src/domain/lora.ts';
import { createRng } from '../../src/domain/rng.ts';
import { freshAdapter, type LlamaPolicy, loadPolicy } from '../../src/models/llama/index.ts';
import { tf } from '../../src/tensor/index.ts';
import { ParameterLayout } from '../../src/training/gradients.ts';
import { sftObjective } from '../../src/training/sft/index.ts';
import { HeldPolicies } from '../../src/workers/held-policies.ts';
import type { PolicySource } from '../../src/workers/host.ts';
import type { Command, FromWorker, SharedNumbers } from '../../src/workers/protocol.ts';
import { WorkerThread } from '../../src/workers/thread.ts';
import { temporaryFolder, writeRandomCheckpoint } from '../support/run.ts';

const root = temporaryFolder('held');
test.after(() => fs.rmSync(root, { recursive: true }));
const lora = { rank: 2, alpha: 2, dropout: 0, targets: adaptableMatrices };
let base: PolicySource;
let adapter: PolicySource;
/** Tensors of a base, and of an adapter. */
let sizes: { readonly base: number; readonly adapter: number };

test.before(async () => {
  const folder = path.join(root, 'base');
  await writeRandomCheckpoint(folder);
  const policy = await loadPolicy(folder);
  const adapted = policy.withAdapter(freshAdapter(policy.config, lora, createRng(1)));
  base = { folder, hash: policy.hash };
  adapter = {
    folder: path.join(root, 'adapter'),
    hash: await adapted.save(path.join(root, 'adapter')),
    base,
  };
  sizes = { base: policy.parameters.size, adapter: adapted.parameters.size };
  for (const one of [adapted, policy]) one.dispose();
});

const tensors = () => tf.memory().numTensors;
const soon = () => new Promise((resolve) => setTimeout(resolve, 5));

test('an adapter reads the base that is held, and keeps it until it is freed itself', async () => {
  const before = tensors();
  const held = new HeldPolicies();
  const weightsOf = (source: PolicySource) => held.use(source, (policy: LlamaPolicy) => policy.weights);
  const weights = await weightsOf(adapter);
  assert.is(tensors() - before, sizes.base + sizes.adapter);
  assert.is(await weightsOf(base), weights);
  held.keep([adapter.hash]);
  await soon();
  assert.is(await weightsOf(adapter), weights, 'the base is in use still');
  assert.is(tensors() - before, sizes.base + sizes.adapter);
  held.keep([base.hash]);
  await soon();
  assert.is(tensors() - before, sizes.base);
  held.keep([]);
  await soon();
  assert.is(tensors(), before);
});

test('an adapter that cannot be loaded leaves nothing behind, and is tried again', async () => {
  const before = tensors();
  const held = new HeldPolicies();
  const away = { ...adapter, folder: path.join(root, 'away') };
  const use = () => held.use(away, ({ hash }) => hash).catch(({ code }) => code);
  assert.is(await use(), 'checkpoint.missing');
  fs.cpSync(adapter.folder, away.folder, { recursive: true });
  assert.is(await use(), adapter.hash);
  held.keep([]);
  await soon();
  assert.is(tensors(), before);
});

test('a worker trains an adapter over the weights with which it speaks', async () => {
  const before = tensors();
  const replies: FromWorker[] = [];
  const thread = new WorkerThread((message) => replies.push(message));
  const answer = async (id: number, command: Parameters<WorkerThread['receive']>[0]) => {
    thread.receive(command);
    while (!replies.some((reply) => 'id' in reply && reply.id === id)) await soon();
    const reply = replies.find((one) => 'id' in one && one.id === id)!;
    assert.not.ok('error' in reply, JSON.stringify(reply));
  };
  const requests = [{ id: 'a', messages: [{ role: 'assistant', content: 'x' }] }] as const;
  await answer(0, { id: 0, command: { type: 'score', policy: base, session: 0, requests } });
  const held = tensors() - before;
  const own = await loadPolicy(adapter.folder);
  const { size } = new ParameterLayout(own.parameters);
  own.dispose();
  const share = (): SharedNumbers => new Float32Array(new SharedArrayBuffer(4 * size));
  const gradients = share();
  const command: Command = {
    ...{
      type: 'gradients',
      policy: base,
      lora,
      objective: sftObjective.spec,
      terms: 1,
      gradients,
      seed: '1',
    },
    weights: { values: share().fill(0.1), version: '1' },
    pass: [{ tokenIds: [5, 6, 7], lossMask: [0, 1, 1] }],
  };
  await answer(1, { id: 1, command });
  assert.is(tensors() - before - held, sizes.adapter);
  assert.ok(gradients.some((value) => value !== 0));
});

test.run();
