// The shelf of a run's policies: which weights it gives out, and which it keeps.
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { PolicyHash } from '../../src/domain/ids.ts';
import type { LlamaPolicy } from '../../src/models/llama/index.ts';
import { PolicyShelf } from '../../src/run/policy-shelf.ts';
import { tf } from '../../src/tensor/index.ts';
import { inProcessHost } from '../../src/workers/index.ts';
import { temporaryFolder, writeRandomCheckpoint } from '../support/run.ts';
import { spyOn, spyRecipe } from '../support/spy.ts';

const root = temporaryFolder('policies');
test.after(() => fs.rmSync(root, { recursive: true }));
const model = path.join(root, 'model');
let count = 0;
let shelf: PolicyShelf;
let base: LlamaPolicy;
let folderOf: (hash: PolicyHash) => string;
/** Two checkpoints of the run. */
let one: PolicyHash;
let other: PolicyHash;
let close: () => Promise<void>;

test.before(() => writeRandomCheckpoint(model));
test.before.each(async () => {
  const { training } = await spyOn({ folder: path.join(root, `run-${count++}`), model, recipe: spyRecipe() });
  base = training.base;
  folderOf = (hash) => training.run.checkpointFolder(hash);
  shelf = new PolicyShelf(base, training.run, inProcessHost([base]));
  const copy = await shelf.load(base.hash);
  const save = () => {
    const [weights] = [...copy.parameters.values()];
    tf.tidy(() => weights!.assign(tf.add(weights!, 0.25)));
    return training.run.saveCheckpoint(copy);
  };
  [one, other] = [await save(), await save()];
  copy.dispose();
  close = async () => {
    await shelf.host.stop();
    base.dispose();
    training.run.close();
  };
});
test.after.each(() => close());

const firstWeight = (policy: LlamaPolicy) => [...policy.parameters.values()][0]!.dataSync()[0]!;

test('a checkpoint is loaded once, and freed when another one is asked for; the base stays', async () => {
  const tensors = () => tf.memory().numTensors;
  const before = tensors();
  assert.is((await shelf.modelsOf(base.hash))[0]!.hash, base.hash);
  assert.is(tensors(), before, 'the base is there already');
  for (const hash of [one, one, base.hash, one]) {
    assert.is((await shelf.modelsOf(hash))[0]!.hash, hash);
    assert.is(tensors(), before + base.parameters.size);
  }
  const [second] = await shelf.modelsOf(other);
  assert.is(second!.hash, other);
  assert.is(tensors(), before + base.parameters.size);
  await shelf.host.stop();
  assert.is(tensors(), before);
});

test('a copy to train is a copy, with the weights that it is asked for', async () => {
  const copy = await shelf.load(base.hash);
  assert.is.not(copy, base);
  assert.is(firstWeight(copy), firstWeight(base));
  const trained = await shelf.load(other);
  assert.ok(Math.abs(firstWeight(trained) - firstWeight(base) - 0.5) < 1e-6);
  trained.dispose();
  copy.dispose();
  assert.is((await base.score([{ id: 'a', messages: [] }])).length, 1, 'the base is still there');
});

test('sources name the folder of the base, and those of checkpoints', () => {
  assert.equal(shelf.sourceOf(base.hash), { hash: base.hash, folder: model });
  assert.equal(shelf.sourceOf(one), { hash: one, folder: folderOf(one) });
});

test('weights that are not what they were are refused, and not kept', async () => {
  const tensors = tf.memory().numTensors;
  fs.rmSync(folderOf(one), { recursive: true });
  fs.cpSync(folderOf(other), folderOf(one), { recursive: true });
  for (const ask of [() => shelf.load(one), () => shelf.modelsOf(one)]) {
    const error = await ask().then(
      () => null,
      (reason) => reason,
    );
    assert.is(error?.code, 'checkpoint.invalid');
    assert.match(error.message, `have the hash ${other}, not ${one}`);
    assert.match(error.message, path.relative('', folderOf(one)));
    assert.is(tf.memory().numTensors, tensors);
  }
  assert.is((await shelf.modelsOf(other))[0]!.hash, other);
});

test.run();
