// The shelf of a run's policies without worker threads: which weights it gives out, and when it frees them.
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { PolicyHash } from '../../src/domain/ids.ts';
import type { LlamaPolicy } from '../../src/models/llama/index.ts';
import { PolicyShelf } from '../../src/run/policy-shelf.ts';
import { tf } from '../../src/tensor/index.ts';
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
let close: () => void;

test.before(() => writeRandomCheckpoint(model));
test.before.each(async () => {
  const { training } = await spyOn({ folder: path.join(root, `run-${count++}`), model, recipe: spyRecipe() });
  base = training.base;
  folderOf = (hash) => training.run.checkpointFolder(hash);
  shelf = new PolicyShelf(base, training.run, null);
  const copy = await shelf.load(base.hash);
  const save = () => {
    const [weights] = [...copy.parameters.values()];
    tf.tidy(() => weights!.assign(tf.add(weights!, 0.25)));
    return training.run.saveCheckpoint(copy);
  };
  [one, other] = [await save(), await save()];
  copy.dispose();
  close = () => training.run.close();
});
test.after.each(() => close());

const firstWeight = (policy: LlamaPolicy) => [...policy.parameters.values()][0]!.dataSync()[0]!;

test('the base speaks itself, a checkpoint is loaded once, and freed when another one is asked for', async () => {
  const tensors = () => tf.memory().numTensors;
  const before = tensors();
  assert.equal(await shelf.modelsOf(base.hash), [base]);
  assert.is(tensors(), before);
  const [first] = await shelf.modelsOf(one);
  assert.is(first!.hash, one);
  assert.is((await shelf.modelsOf(one))[0], first);
  const withOne = tensors();
  assert.ok(withOne > before);
  assert.is((await shelf.modelsOf(base.hash))[0], base);
  assert.is((await shelf.modelsOf(one))[0], first, 'asking for the base does not free it');
  const [second] = await shelf.modelsOf(other);
  assert.is(second!.hash, other);
  assert.is(tensors(), withOne);
  shelf.dispose();
  assert.is(tensors(), before - base.parameters.size);
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
  shelf.dispose();
});

test('sources name the folder of the base, and those of checkpoints', () => {
  assert.equal(shelf.sourceOf(base.hash), { hash: base.hash, folder: model });
  assert.equal(shelf.sourceOf(one), { hash: one, folder: folderOf(one) });
  shelf.dispose();
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
  shelf.dispose();
});

test('with workers every model is asked from them, the base too', async () => {
  const { training } = await spyOn({ folder: path.join(root, `run-${count++}`), model, recipe: spyRecipe() });
  const withWorkers = new PolicyShelf(training.base, training.run, training.workers!);
  for (const hash of [training.base.hash, one]) {
    const [spied] = await withWorkers.modelsOf(hash);
    assert.is(spied!.hash, hash);
    assert.is.not(spied, training.base);
  }
  withWorkers.dispose();
  training.run.close();
});

test.run();
