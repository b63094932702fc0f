// A model that fails at any of its calls stops the run; the resumed run ends as an undisturbed one, line for line.
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { OptimaError } from '../../src/domain/errors.ts';
import { trainTeam } from '../../src/run/train.ts';
import { temporaryFolder, writeRandomCheckpoint } from '../support/run.ts';
import { script, spyOn, spyRecipe } from '../support/spy.ts';

const root = temporaryFolder('faults');
test.after(() => fs.rmSync(root, { recursive: true }));
const model = path.join(root, 'model');
await writeRandomCheckpoint(model, 'alice bob train validation test number well 0 1 2 3 4 5 6 7 8 9');
const recipe = spyRecipe(
  'iterations=1',
  'initialization.samplesPerTask=2',
  'evaluation.tasks=1',
  'concurrency=3',
);

/** Carries the run of a folder out, as far as its model answers; the n-th message that it is asked for fails. */
async function run(folder: string, { failsAt = 0, resume = false }) {
  let asked = 0;
  const { training } = await spyOn({
    ...{ folder, model, recipe, resume },
    reply: (request) => {
      if (++asked === failsAt) throw new Error('the memory of the device is used up');
      return script(request);
    },
  });
  const error = await trainTeam(training).then(
    () => null,
    (error: OptimaError) => error,
  );
  training.run.close();
  const log = fs.readFileSync(path.join(folder, 'events.jsonl'), 'utf8').replaceAll(/"at":"[^"]*"/g, '');
  return { error, log, asked };
}

test('a model that fails at any call stops the run, and the resumed run is the same run', async () => {
  const whole = await run(path.join(root, 'whole'), {});
  assert.is(whole.error, null);
  const places = [1, 2, 9, Math.floor(whole.asked / 2), whole.asked];
  for (const failsAt of places) {
    const folder = path.join(root, String(failsAt));
    const { error, log } = await run(folder, { failsAt });
    assert.is(error?.code, 'model.failed', `${failsAt}`);
    assert.match(error!.message, /^Model [0-9a-f]{16} failed: the memory of the device is used up$/);
    assert.not.match(log, '"outcome":"failed"');
    assert.ok(whole.log.startsWith(log), `${failsAt}`);
    const resumed = await run(folder, { resume: true });
    assert.is(resumed.error, null);
    assert.is(resumed.log, whole.log, `${failsAt}`);
  }
});

test.run();
