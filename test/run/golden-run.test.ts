// The log of a small run, event for event, as it was when it was last looked at. UPDATE_GOLDEN=1 writes it anew: look at
// what changed before committing it.
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { trainTeam } from '../../src/run/train.ts';
import { temporaryFolder, writeRandomCheckpoint } from '../support/run.ts';
import { spyOn, spyRecipe } from '../support/spy.ts';

const golden = fileURLToPath(new URL('golden/spied-run.jsonl', import.meta.url));
const root = temporaryFolder('golden-run');
test.after(() => fs.rmSync(root, { recursive: true }));

test('a small run logs the events that it always has', async () => {
  const model = path.join(root, 'model');
  await writeRandomCheckpoint(model, 'alice bob train validation test number well 0 1 2 3 4 5 6 7 8 9');
  const recipe = spyRecipe(
    'iterations=1',
    'initialization.samplesPerTask=2',
    'evaluation.tasks=1',
    'concurrency=3',
  );
  const { training } = await spyOn({ folder: path.join(root, 'run'), model, recipe });
  await trainTeam(training);
  training.run.close();
  const log = withoutHashes(fs.readFileSync(path.join(training.run.path, 'events.jsonl'), 'utf8'));
  if (process.env.UPDATE_GOLDEN) fs.writeFileSync(golden, log);
  const expected = fs.readFileSync(golden, 'utf8').split('\n');
  for (const [index, line] of log.split('\n').entries())
    assert.is(line, expected[index], `line ${index + 1}`);
  assert.is(log.split('\n').length, expected.length);
});

/** Weights round differently on other machines: policies are numbered as they occur, sums are left out. */
function withoutHashes(log: string): string {
  const policies: string[] = [];
  return log
    .replaceAll(/"(base|policy|policyHash|alice|bob)":"([0-9a-f]{16})"/g, (_, name, hash) => {
      if (!policies.includes(hash)) policies.push(hash);
      return `"${name}":"policy-${policies.indexOf(hash)}"`;
    })
    .replaceAll(/"sum":"[\w-]{6}",/g, '');
}

test.run();
