// Losses, gradients and a whole step of preference training against TRL and PyTorch (tools/fixtures/make_preference_fixture.py).
import fs from 'node:fs';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { loadPolicy } from '../../../src/models/llama/index.ts';
import { startEngine, tf } from '../../../src/tensor/index.ts';
import { createAdamW } from '../../../src/training/adamw.ts';
import { defaultDpoConfig, dpoObjective, type PreferenceExample } from '../../../src/training/dpo/index.ts';
import type { DifferentiablePolicy } from '../../../src/training/policy.ts';
import { computePassGradients, takeStep } from '../../../src/training/step.ts';
import { lettersTokenizer } from '../../support/letters.ts';

test.before(async () => {
  await startEngine();
});

const golden = JSON.parse(fs.readFileSync(new URL('../golden/preference.json', import.meta.url), 'utf8'));
const { logits, step } = golden;

/** A policy whose logits are its one parameter, a row for each predicted token. */
function policyOf(values: number[][]): DifferentiablePolicy & { dispose(): void } {
  const variable = tf.tidy(() => tf.variable(tf.tensor2d(values)));
  return {
    parameters: new Map([['logits', variable]]),
    tokenizer: { padId: 0 },
    computeLogits: (_, positions) => {
      assert.is(positions.size, values.length);
      return tf.mul(variable, 1) as tf.Tensor2D;
    },
    refreshHash: () => 'hash' as never,
    dispose: () => variable.dispose(),
  };
}

/** The fixture's pairs: what is said after one token is the labels, one turn after the other. */
function pairsOnLogits(): PreferenceExample[] {
  let next = 0;
  const take = (count: number): number[] => {
    next += count;
    return logits.labels.slice(next - count, next);
  };
  const chosen = logits.chosenTokens.map(take);
  const rejected = logits.rejectedTokens.map(take);
  return chosen.map((chosenIds: number[], pair: number) => ({
    ...{ promptIds: [1], chosenIds, rejectedIds: rejected[pair], group: 'one' },
    refChosen: logits.refChosen[pair],
    refRejected: logits.refRejected[pair],
  }));
}

const kinds = { dpo: ['dpo', 0], rpo: ['dpo', 1], ipo: ['ipo', 0], simpo: ['simpo', 0] } as const;

for (const [kind, [loss, alpha]] of Object.entries(kinds)) {
  test(`loss and gradient of ${kind} are those of TRL on the same logits`, () => {
    const policy = policyOf(logits.logits);
    const { beta, gamma: simpoGamma } = logits;
    const objective = dpoObjective({ loss, alpha, beta, simpoGamma, packed: false });
    const pairs = pairsOnLogits();
    const computed = computePassGradients(policy, objective, pairs, pairs.length);
    const expected = logits.cases[kind];
    assert.ok(Math.abs(computed.loss - expected.loss) < 1e-5, `${computed.loss} is not ${expected.loss}`);
    const gradient = computed.gradients.get('logits')!;
    expected.gradient.flat().forEach((value: number, place: number) => {
      assert.ok(Math.abs(gradient[place]! - value) < 1e-5, `${place}: ${gradient[place]} is not ${value}`);
    });
    policy.dispose();
  });
}

test('the loss that is named is the one that is computed: no two of them agree', () => {
  const all = Object.values<{ loss: number }>(logits.cases).map(({ loss }) => loss.toFixed(4));
  assert.is(new Set(all).size, all.length);
});

for (const packed of [true, false]) {
  test(`a whole step gives PyTorch's weights${packed ? ', packed' : ''}`, async () => {
    const policy = await loadPolicy(new URL('../../models/llama/golden', import.meta.url).pathname, {
      tokenizer: lettersTokenizer,
    });
    const optimizer = createAdamW(policy.parameters, { ...defaultDpoConfig, weightDecay: 0, clipNorm: 1 });
    const settings = { ...defaultDpoConfig, beta: step.beta, alpha: 1, packed };
    const result = await takeStep(policy, dpoObjective(settings), optimizer, step.pairs, {
      learningRate: step.learningRate,
      tokensPerPass: 4096,
    });
    assert.ok(Math.abs(result.loss - step.loss) < 1e-4, `${result.loss} is not ${step.loss}`);
    assert.ok(Math.abs(result.gradNorm - step.gradNorm) < 1e-3 * step.gradNorm);
    assert.equal([...policy.parameters.keys()].sort(), Object.keys(step.weights).sort());
    for (const [name, variable] of policy.parameters) {
      const expected: number[] = step.weights[name];
      variable.dataSync<'float32'>().forEach((value, place) => {
        assert.ok(Math.abs(value - expected[place]!) < 1e-4, `${name} ${place}: ${value}`);
      });
    }
    optimizer.dispose();
    policy.dispose();
  });
}

test.run();
