// One step, here of supervised fine-tuning: what is computed on which thread, and what the optimizer gets.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { TrainingSequence } from '../../src/domain/model.ts';
import { startEngine, tf } from '../../src/tensor/index.ts';
import type { AdamW, Gradients } from '../../src/training/adamw.ts';
import { planPasses } from '../../src/training/batches.ts';
import { sftObjective } from '../../src/training/sft/index.ts';
import { computePassGradients, takeStep } from '../../src/training/step.ts';
import { near, type ToyPolicy, withPolicy } from './toy-policy.ts';

test.before(async () => {
  await startEngine();
});

/** Two sequences of unlike length; three tokens count, one of them at the end of the longer one. */
const batch: TrainingSequence[] = [
  { tokenIds: [1, 2, 3], lossMask: [1, 0, 1] },
  { tokenIds: [4, 5, 6, 7, 1], lossMask: [0, 1, 0, 0, 1] },
];
const counted: [token: number, next: number][] = [
  [2, 3],
  [4, 5],
  [7, 1],
];

/** An optimizer that notes what it is given. */
function notingOptimizer() {
  const applied: { gradients: Gradients; learningRate: number }[] = [];
  const optimizer: AdamW = {
    apply(gradients, learningRate) {
      applied.push({ gradients, learningRate });
      return 42;
    },
    dispose() {},
  };
  return { optimizer, applied };
}

/** −log p of the toy policy for one pair of tokens, in plain JavaScript. */
function negativeLogLikelihood(policy: ToyPolicy, token: number, next: number): number {
  const values = (name: string) => policy.parameters.get(name)!.dataSync();
  const [embedding, head] = [values('embedding'), values('head')];
  const hidden = Array.from(embedding.slice(token * 8, token * 8 + 8));
  const scale = 1 / Math.sqrt(hidden.reduce((sum, x) => sum + x * x, 0) / 8 + 1e-6);
  const logits = Array.from({ length: 8 }, (_, id) =>
    hidden.reduce((sum, x, i) => sum + x * scale * head[id * 8 + i]!, 0),
  );
  return Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit), 0)) - logits[next]!;
}

test('the loss is the mean over all tokens that count, also over several passes', () =>
  withPolicy(async (policy) => {
    const expected =
      counted.reduce((sum, [token, next]) => sum + negativeLogLikelihood(policy, token, next), 0) / 3;
    for (const tokensPerPass of [1, 100]) {
      const { optimizer, applied } = notingOptimizer();
      const result = await takeStep(policy, sftObjective, optimizer, batch, {
        learningRate: 0.25,
        tokensPerPass,
      });
      near([result.loss], [expected], 1e-5);
      assert.is(result.tokens, 3);
      assert.is(result.gradNorm, 42);
      assert.equal(
        applied.map(({ learningRate }) => learningRate),
        [0.25],
      );
      assert.equal([...applied[0]!.gradients.keys()].sort(), ['embedding', 'head', 'norm']);
    }
  }));

test('the gradient is that of the mean loss', () =>
  withPolicy(async (policy) => {
    const lossOf = async () => {
      const { optimizer, applied } = notingOptimizer();
      const { loss } = await takeStep(policy, sftObjective, optimizer, batch, {
        learningRate: 0,
        tokensPerPass: 1,
      });
      return { loss, gradients: applied[0]!.gradients };
    };
    const { gradients } = await lossOf();
    for (const [name, place] of [
      ['embedding', 2 * 8 + 3],
      ['norm', 1],
      ['head', 5 * 8 + 6],
    ] as const) {
      const variable = policy.parameters.get(name)!;
      const values = variable.dataSync().slice();
      const lossAt = async (change: number) => {
        const moved = values.slice();
        moved[place]! += change;
        tf.tidy(() => variable.assign(tf.tensor(moved, variable.shape)));
        return (await lossOf()).loss;
      };
      const slope = ((await lossAt(0.02)) - (await lossAt(-0.02))) / 0.04;
      await lossAt(0);
      near([gradients.get(name)![place]!], [slope], 1e-3);
    }
  }));

test('passes computed elsewhere are the planned ones, and their sum is what the optimizer gets', () =>
  withPolicy(async (policy) => {
    const { optimizer, applied } = notingOptimizer();
    const gradients = new Map([['head', new Float32Array(64).fill(1)]]);
    const asked: unknown[] = [];
    policy.computeLogits = () => assert.unreachable('computed here') as never;
    const result = await takeStep(policy, sftObjective, optimizer, batch, {
      learningRate: 0.5,
      tokensPerPass: 5,
      computePasses: async (passes, terms) => {
        asked.push({ passes, terms });
        return { loss: 1.5, figures: { margin: 2 }, gradients };
      },
    });
    assert.equal(asked, [{ passes: planPasses(batch, 5), terms: 3 }]);
    assert.equal(result, { loss: 1.5, gradNorm: 42, tokens: 3, figures: { margin: 2 } });
    assert.is(applied[0]!.gradients, gradients);
    assert.is(applied[0]!.learningRate, 0.5);
  }));

test('a pass is padded with the padding token and writes its gradients where it is told', () =>
  withPolicy((policy) => {
    const { computeLogits } = policy;
    policy.tokenizer = { padId: 6 };
    const seen: unknown[] = [];
    policy.computeLogits = (inputIds, positions) => {
      seen.push([inputIds.arraySync(), [...positions.dataSync()]]);
      return computeLogits(inputIds, positions);
    };
    const tensors = tf.memory().numTensors;
    const arrays = new Map<string, Float32Array>();
    const share = computePassGradients(policy, sftObjective, batch, 6, (name, size) => {
      arrays.set(name, new Float32Array(size));
      return arrays.get(name)!;
    });
    assert.equal(seen, [
      [
        [
          [1, 2, 6, 6],
          [4, 5, 6, 7],
        ],
        [1, 4, 7],
      ],
    ]);
    assert.is(tf.memory().numTensors, tensors);
    for (const [name, gradient] of share.gradients) assert.is(gradient, arrays.get(name));
    // Six tokens are said to count in the whole batch, three of them here.
    const whole = computePassGradients(policy, sftObjective, batch, 3);
    near([2 * share.loss], [whole.loss], 1e-6);
    near(
      share.gradients.get('norm')!.map((value) => 2 * value),
      whole.gradients.get('norm')!,
      1e-6,
    );
  }));

test.run();
