// What a name of a model stands for.
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { PolicyHash } from '../../src/domain/ids.ts';
import { emptyAdapter, loadPolicy } from '../../src/models/llama/index.ts';
import { openModel } from '../../src/models/open.ts';
import { locateModel } from '../../src/run/locate.ts';
import { temporaryFolder, writeRandomCheckpoint } from '../support/run.ts';
import { began, writeRun } from '../viewer/hand-made-run.ts';

const folder = temporaryFolder('locate');
const [whole, adapter, script] = ['model', 'adapter', 'partner.mjs'].map((name) =>
  path.join(folder, name),
) as [string, string, string];
test.before(async () => {
  await writeRandomCheckpoint(whole);
  const base = await loadPolicy(whole);
  await base
    .withAdapter(emptyAdapter(base.config, { rank: 2, alpha: 4, dropout: 0, targets: ['q_proj'] }))
    .save(adapter);
  fs.writeFileSync(script, 'export default () => "?";');
});
test.after(() => fs.rmSync(folder, { recursive: true }));

for (const [what, model, file] of [
  ['a checkpoint', whole, 'model.safetensors'],
  ['an adapter', adapter, 'adapter_model.safetensors'],
  ['a module', script, ''],
] as const) {
  test(`a run that ended with its base is that base, ${what}, unless it was changed since`, async () => {
    const { generates, dispose } = await openModel(model);
    dispose();
    const hash = generates.hash as PolicyHash;
    const run = path.join(folder, `run of ${path.basename(model, '.mjs')}`);
    const end = { type: 'run.completed', policy: { alice: hash, bob: hash } } as const;
    writeRun(run, [began, end], { base: { folder: model, hash } });
    assert.is(await locateModel(run, '--model'), model);
    const at = path.join(model, file);
    const bytes = fs.readFileSync(at);
    bytes[bytes.length - 3]! ^= 1;
    fs.writeFileSync(at, bytes);
    const error = await locateModel(run, '--model').then(
      () => assert.unreachable(),
      (thrown) => thrown,
    );
    assert.is(error.code, 'run.diverged');
    assert.is(error.message, `${model} was changed since ${run} ended with it.`);
    bytes[bytes.length - 3]! ^= 1;
    fs.writeFileSync(at, bytes);
  });
}

test.run();
