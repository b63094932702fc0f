// The shelf of a run's policies: which weights it gives out, and which it keeps.
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { PolicyHash } from '../../src/domain/ids.ts';
import type { LlamaPolicy } from '../../src/models/llama/index.ts';
import { PolicyShelf } from '../../src/run/policy-shelf.ts';
import { tf } from '../../src/tensor/index.ts';
import { inProcessHost, type PolicyHost } from '../../src/workers/index.ts';
import { temporaryFolder, writeRandomCheckpoint } from '../support/run.ts';
import { spyOn, spyRecipe } from '../support/spy.ts';

const root = temporaryFolder('policies');
test.after(() => fs.rmSync(root, { recursive: true }));
const model = path.join(root, 'model');
let count = 0;
let shelf: PolicyShelf;
let host: PolicyHost;
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
  host = inProcessHost([base]);
  shelf = new PolicyShelf(base, training.run, host);
  const copy = await shelf.load(base.hash);
  const save = () => {
    const [weights] = [...copy.parameters.values()];
    tf.tidy(() => weights!.assign(tf.add(weights!, 0.25)));
    return training.run.saveCheckpoint(copy);
  };
  [one, other] = [await save(), await save()];
  copy.dispose();
  close = async () => {
    await host.stop();
    base.dispose();
    training.run.close();
  };
});
test.after.each(() => close());

const firstWeight = (policy: LlamaPolicy) => [...policy.parameters.values()][0]!.dataSync()[0]!;

const tensors = () => tf.memory().numTensors;
const team = (alice: PolicyHash, bob: PolicyHash) => ({ alice, bob });

test('each role gets its policy, and those of earlier teams are let go; the base stays', async () => {
  const before = tensors();
  const loaded = () => (tensors() - before) / base.parameters.size;
  const hashes = async (alice: PolicyHash, bob: PolicyHash) =>
    (await shelf.speakersOf(team(alice, bob))).map((models) => [models.alice!.hash, models.bob!.hash]);
  assert.equal(await hashes(base.hash, base.hash), [[base.hash, base.hash]]);
  assert.is(loaded(), 0, 'the base is there already');
  assert.equal(await hashes(one, base.hash), [[one, base.hash]]);
  assert.is(loaded(), 1);
  assert.equal(await hashes(other, one), [[other, one]]);
  assert.is(loaded(), 2);
  assert.equal(await hashes(other, other), [[other, other]]);
  assert.is(loaded(), 1);
  const [models] = await shelf.speakersOf(team(one, one));
  assert.is(models!.alice, models!.bob, 'one model is asked once for both roles');
  assert.is((await shelf.modelsOf(base.hash))[0]!.hash, base.hash);
  await host.stop();
  assert.is(loaded(), 0);
});

test('a team speaks side by side as often as each of its policies can', async () => {
  const { training } = await spyOn({ folder: path.join(root, `run-${count++}`), model, recipe: spyRecipe() });
  const [only] = await host.modelsOf(shelf.sourceOf(base.hash));
  const several: PolicyHost = {
    ...host,
    modelsOf: async ({ hash }) => Array.from({ length: hash === one ? 2 : 3 }, () => ({ ...only!, hash })),
  };
  const wide = new PolicyShelf(training.base, training.run, several);
  assert.is((await wide.speakersOf(team(base.hash, base.hash))).length, 3);
  const lanes = await wide.speakersOf(team(one, base.hash));
  assert.is(lanes.length, 2);
  assert.is.not(lanes[0]!.alice, lanes[1]!.alice);
  training.base.dispose();
  training.run.close();
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
  const before = tensors();
  fs.rmSync(folderOf(one), { recursive: true });
  fs.cpSync(folderOf(other), folderOf(one), { recursive: true });
  for (const ask of [() => shelf.load(one), () => shelf.modelsOf(one)]) {
    const error = await ask().then(
      () => null,
      (reason) => reason,
    );
    assert.is(error?.code, 'checkpoint.invalid');
    assert.match(error.message, `has the hash ${other}, not ${one}`);
    assert.match(error.message, folderOf(one));
    assert.is(tensors(), before);
  }
  assert.is((await shelf.modelsOf(other))[0]!.hash, other);
});

test.run();
