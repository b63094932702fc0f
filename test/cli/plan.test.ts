// `optima plan`: what it prints and emits for the shipped model, and that plan and train refuse by one function what cannot fit.
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { shippedFolder } from '../../src/run/locate.ts';
import { optimaHere, temporaryFolder } from '../support/run.ts';

const root = temporaryFolder('plan');
test.after(() => fs.rmSync(root, { recursive: true }));

/** A folder with the shipped tokenizer and a config of more than a billion weights, which are not there. */
const large = path.join(root, 'large');
test.before(() => {
  fs.cpSync(shippedFolder, large, { recursive: true, filter: (file) => !file.endsWith('.safetensors') });
  const file = path.join(large, 'config.json');
  const config = JSON.parse(fs.readFileSync(file, 'utf8'));
  const size = { hidden_size: 2048, intermediate_size: 8192, num_hidden_layers: 24, vocab_size: 32_000 };
  const heads = { num_attention_heads: 32, num_key_value_heads: 8, head_dim: 64 };
  fs.writeFileSync(file, JSON.stringify({ ...config, ...size, ...heads }));
});

test('a plan says dialogues, memory by phase, tokens and hours, and reads no weights', async () => {
  const folder = path.join(root, 'without-weights');
  fs.cpSync(shippedFolder, folder, { recursive: true, filter: (file) => !file.endsWith('.safetensors') });
  const { code, stdout, stderr } = await optimaHere([
    'plan',
    'two-hop-qa',
    '--model',
    folder,
    '--workers',
    '1',
  ]);
  assert.is(code, 0, stderr);
  assert.match(stdout, /plan +dialogues/);
  assert.match(stdout, /model: 0\.7 M parameters, 4 layers of width 128/);
  for (const part of ['load', 'base', 'generate', 'search', 'train']) {
    assert.match(stdout, new RegExp(`\n${part} +\\d+ MiB +\\d+ MiB`));
  }
  assert.match(stdout, /peak: about .* of this machine's .*, with 1 worker\n/);
  assert.match(stdout, /tokens, at most: .* generated, .* trained on; .* TFLOP\n/);
  assert.match(
    stdout,
    /time, at most: (\d\.\d s|\d\d s|\d+ min|\d+\.\d h), of which training (\d\.\d s|\d\d s|\d+ min|\d+\.\d h); /,
  );
});

test('a plan is a line of JSON for machines', async () => {
  const { code, stdout } = await optimaHere([
    'plan',
    'two-hop-qa',
    '--workers',
    '0',
    '--json',
    '--set',
    'iterations=0',
  ]);
  assert.is(code, 0);
  const events = stdout
    .trim()
    .split('\n')
    .map((line: string) => JSON.parse(line));
  const { workers, parameters, peakBytes, machineBytes, seconds } = events.find(
    ({ event }: { event: string }) => event === 'resources',
  );
  assert.is(workers, 0);
  assert.ok(parameters > 5e5 && peakBytes > 2 ** 27 && peakBytes < machineBytes);
  assert.ok(seconds.reading > 0 && seconds.training > 0);
});

test('plan and train refuse what cannot fit in one line, before weights are looked for, partners too', async () => {
  const train = ['train', '--anyway', '--out', path.join(root, 'run')];
  for (const args of [
    ['plan', '--model', large],
    [...train, '--model', large],
    ['plan', '--policy', `bob=${large}`],
    [...train, '--policy', `bob=${large}`],
  ]) {
    const [command, ...more] = args;
    const { code, stderr } = await optimaHere([command!, 'two-hop-qa', '--workers', '1', ...more]);
    assert.is(code, 1, stderr);
    assert.match(
      stderr,
      /^error: The run does not fit: one thread needs [\d.]+ GiB on its heap, which holds 4\.0 GiB\.$/m,
    );
    assert.match(
      stderr,
      /^hint: No setting makes it small enough; a model of about [\d.]+ M parameters would fit\.$/m,
    );
  }
  assert.not.ok(fs.existsSync(path.join(root, 'run')));
});

test.run();
