// Packed passes against pairs one by one, on the embedded model's architecture.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { createRng } from '../../../src/domain/rng.ts';
import type { LlamaPolicy } from '../../../src/models/llama/index.ts';
import { startEngine, tf } from '../../../src/tensor/index.ts';
import { defaultDpoConfig, dpoObjective, type PreferenceExample } from '../../../src/training/dpo/index.ts';
import { computePassGradients, onThisThread } from '../../../src/training/step.ts';
import { createTinyPolicy } from '../../support/llama.ts';

test.before(async () => {
  await startEngine();
});

const rng = createRng('packed');
const ids = (count: number) => Array.from({ length: count }, () => 5 + rng.int(35));

/** Pairs as a search gives them: siblings after one history, and after what one of them led to. */
function searchedPairs(trees: number): PreferenceExample[] {
  return Array.from({ length: trees }, (_, tree) => {
    const system = ids(40 + rng.int(50));
    const turns = Array.from({ length: 3 }, () => ids(1 + rng.int(9)));
    const replies = Array.from({ length: 3 }, () => ids(1 + rng.int(9)));
    const later = [...system, ...turns[0]!, ...ids(6)];
    const pair = (promptIds: number[], chosenIds: number[], rejectedIds: number[]) => ({
      ...{ promptIds, chosenIds, rejectedIds, group: `${tree}` },
      refChosen: -3 * rng.next(),
      refRejected: -3 * rng.next(),
    });
    return [
      pair(system, turns[0]!, turns[1]!),
      pair(system, turns[0]!, turns[2]!),
      pair(system, turns[1]!, turns[2]!),
      pair(later, replies[0]!, replies[1]!),
      pair(later, replies[2]!, replies[0]!),
    ];
  }).flat();
}

const plain = dpoObjective({ ...defaultDpoConfig, packed: false });
const packed = dpoObjective(defaultDpoConfig);

/** The largest difference of two gradients of a parameter, as a share of the largest number in it. */
function apart(one: Float32Array, other: Float32Array): number {
  const most = one.reduce((sofar, value) => Math.max(sofar, Math.abs(value)), 1e-6);
  return one.reduce((sofar, value, place) => Math.max(sofar, Math.abs(value - other[place]!)), 0) / most;
}

const shapes: Readonly<Record<string, Parameters<typeof createTinyPolicy>[0]>> = {
  'grouped queries': {},
  'one key head, tied embeddings': { num_key_value_heads: 1, tie_word_embeddings: true },
};

for (const [name, overrides] of Object.entries(shapes)) {
  test(`gradients, loss and figures of packed pairs are those of pairs one by one: ${name}`, () => {
    const policy: LlamaPolicy = createTinyPolicy(overrides, { gain: 3 });
    const pairs = searchedPairs(3);
    const tensors = tf.memory().numTensors;
    const one = computePassGradients(policy, plain, pairs, pairs.length);
    const together = computePassGradients(policy, packed, pairs, pairs.length);
    assert.is(tf.memory().numTensors, tensors);
    assert.ok(Math.abs(one.loss - together.loss) < 1e-5 * Math.abs(one.loss), `${one.loss} ${together.loss}`);
    assert.equal([...together.gradients.keys()], [...one.gradients.keys()]);
    for (const [parameter, gradient] of one.gradients) {
      const difference = apart(gradient, together.gradients.get(parameter)!);
      assert.ok(difference < 1e-5, `${parameter}: ${difference}`);
    }
    for (const [figure, value] of Object.entries(one.figures)) {
      if (figure === 'tokens/computed') continue;
      assert.ok(Math.abs(value - together.figures[figure]!) < 1e-4, `${figure}: ${value}`);
    }
    const { 'tokens/computed': computed, 'tokens/plain': naive } = together.figures;
    assert.ok(computed! < naive! / 4, `${computed} of ${naive} tokens`);
    assert.ok(one.figures['tokens/computed']! >= naive!);
    policy.dispose();
  });
}

const packSize = (policy: Parameters<typeof computePassGradients>[0], pass: readonly PreferenceExample[]) =>
  computePassGradients(policy, packed, pass, 1).figures['tokens/computed']!;

test('the passes of a batch add up to it, whichever pairs meet in them, and keep to their bound', async () => {
  const policy = createTinyPolicy({}, { gain: 3 });
  const pairs = createRng('order').shuffle(searchedPairs(4));
  const whole = computePassGradients(policy, packed, pairs, pairs.length);
  for (const objective of [packed, plain]) {
    for (const tokensPerPass of [1, 200, 450, 10_000]) {
      const passes = objective.planPasses(pairs, tokensPerPass);
      assert.equal(
        passes
          .flat()
          .map((pair) => pairs.indexOf(pair))
          .sort((a, b) => a - b),
        pairs.map((_, index) => index),
      );
      if (tokensPerPass === 1) assert.is(passes.length, pairs.length);
      for (const pass of passes) {
        const { figures } = computePassGradients(policy, objective, pass, 1);
        assert.ok(figures['tokens/computed']! <= tokensPerPass || pass.length === 1);
      }
      const { loss, gradients } = await onThisThread(policy, objective)(passes, pairs.length);
      assert.ok(Math.abs(loss - whole.loss) < 1e-5 * whole.loss);
      for (const [parameter, gradient] of whole.gradients) {
        assert.ok(apart(gradient, gradients.get(parameter)!) < 2e-5, parameter);
      }
    }
  }
  // Two threads end together: what would go into one pass goes into two of about one size.
  const [first, second, ...others] = packed.planPasses(pairs, 10_000).map((pass) => packSize(policy, pass));
  assert.is(others.length, 0);
  assert.ok(Math.abs(first! - second!) < 0.35 * first!, `${first} and ${second} tokens`);
  assert.is(packed.planPasses(pairs.slice(0, 1), 10_000).length, 1);
  policy.dispose();
});

test('a tree whose branches are longer than a strip of the kernel is computed right, too', () => {
  const policy = createTinyPolicy({ max_position_embeddings: 512 }, { gain: 3 });
  const [system, long, other] = [ids(150), ids(140), ids(70)];
  const pairs = [
    { promptIds: system, chosenIds: long, rejectedIds: other },
    { promptIds: [...system, ...long.slice(0, 80)], chosenIds: ids(90), rejectedIds: ids(3) },
  ].map((pair) => ({ ...pair, refChosen: -200, refRejected: -200, group: 'one' }));
  const one = computePassGradients(policy, plain, pairs, 2);
  const together = computePassGradients(policy, packed, pairs, 2);
  for (const [parameter, gradient] of one.gradients) {
    assert.ok(apart(gradient, together.gradients.get(parameter)!) < 1e-5, parameter);
  }
  policy.dispose();
});

test.run();
