// What docs/library.md does not show: what the one-call functions refuse. Its examples run in test/package.
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { OptimaError } from '../../src/domain/errors.ts';
import { evaluate, holdDialogue, openModel, scriptedModel, train } from '../../src/run/index.ts';
import { tf } from '../../src/tensor/index.ts';
import { temporaryFolder } from '../support/run.ts';

const folder = temporaryFolder('library');
test.after(() => fs.rmSync(folder, { recursive: true }));
const scenario = 'two-hop-qa';
const models = scriptedModel({ reply: () => '<A> nobody</A>' });

async function codeOf(call: () => Promise<unknown>): Promise<string> {
  try {
    await call();
  } catch (error) {
    assert.instance(error, OptimaError);
    return (error as OptimaError).code;
  }
  return 'none';
}

test('a dialogue follows from its seed and its task, and is logged only where it is asked to be', async () => {
  const one = await holdDialogue({ scenario, models, task: 3, folder: path.join(folder, 'one') });
  assert.equal(await holdDialogue({ scenario, models, task: 3 }), one);
  assert.is(one.taskId, 'test-00003');
  assert.not.equal((await holdDialogue({ scenario, models, task: 3, seed: 2 })).views, one.views);
  assert.equal(fs.readdirSync(path.join(folder, 'one')), ['events.jsonl']);
});

test('a folder that holds a run is not written to again', async () => {
  const log = path.join(folder, 'twice', 'events.jsonl');
  await holdDialogue({ scenario, models, folder: path.dirname(log) });
  const before = fs.readFileSync(log, 'utf8');
  assert.is(await codeOf(() => holdDialogue({ scenario, models, folder: path.dirname(log) })), 'run.exists');
  assert.is(fs.readFileSync(log, 'utf8'), before);
});

test('a model for each role speaks for its own', async () => {
  const silent = scriptedModel({ reply: () => 'hm', hash: 'silent' });
  const { turns } = await holdDialogue({ scenario, models: { alice: models, bob: silent } });
  assert.equal(
    new Set(turns.map(({ speaker, policyHash }) => `${speaker} ${policyHash}`)),
    new Set(['alice scripted', 'bob silent']),
  );
});

test('an abort, a scenario, a recipe or a setting that is not there are errors with a code', async () => {
  const signal = AbortSignal.abort();
  assert.is(await codeOf(() => holdDialogue({ scenario, models, signal })), 'interrupted');
  assert.is(await codeOf(() => evaluate({ scenario, models, signal })), 'interrupted');
  assert.is(await codeOf(() => evaluate({ scenario: 'two-hop', models })), 'scenario.invalid');
  assert.is(await codeOf(() => train({ scenario, preset: 'quickly' })), 'usage');
  assert.is(await codeOf(() => train({ scenario, settings: { iteration: 1 } })), 'usage');
  assert.is(await codeOf(() => openModel(path.join(folder, 'nothing'))), 'checkpoint.missing');
});

test('a training that cannot begin, and a model that is disposed, leave no tensor behind', async () => {
  const before = tf.memory().numTensors;
  fs.writeFileSync(path.join(folder, 'file'), '');
  assert.is(await codeOf(() => train({ scenario, folder, workers: 0 })), 'run.exists');
  (await openModel()).dispose();
  const { metrics } = await evaluate({ scenario, tasks: 1, workers: 0 });
  assert.is(metrics.n, 1);
  assert.is(tf.memory().numTensors, before);
});

test.run();
