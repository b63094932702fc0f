// The checkpoint and the logits come from Transformers: tools/fixtures/make_llama_fixture.py.
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { loadPolicy } from '../../../src/models/llama/index.ts';
import { startEngine, tf } from '../../../src/tensor/index.ts';
import { lettersTokenizer } from '../../support/letters.ts';

const golden = fileURLToPath(new URL('./golden', import.meta.url));

test.before(async () => {
  await startEngine();
});

test('a checkpoint of Transformers gives the logits that Transformers gives', async () => {
  const policy = await loadPolicy(golden, { tokenizer: lettersTokenizer });
  const cases = JSON.parse(await readFile(`${golden}/logits.json`, 'utf8')) as {
    ids: number[];
    logits: number[][];
  }[];
  for (const { ids, logits } of cases) {
    const actual = tf.tidy(() =>
      policy.computeLogits(tf.tensor2d([ids], [1, ids.length], 'int32')).arraySync(),
    );
    assert.ok(Math.max(...logits.flat()) > 1, 'logits this small would prove little');
    logits.forEach((row, position) => {
      row.forEach((logit, id) => {
        assert.ok(Math.abs(actual[position]![id]! - logit) < 1e-5, `position ${position}, id ${id}`);
      });
    });
  }
  policy.dispose();
});

test('the content hash of a checkpoint stays the same from release to release', async () => {
  const policy = await loadPolicy(golden, { tokenizer: lettersTokenizer });
  assert.is(policy.hash, 'fb008371ac64ed22');
  policy.dispose();
});

test.run();
