// Preference training: what is left out and counted, what a policy learns from pairs, and what its figures say.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { OptimaError } from '../../../src/domain/errors.ts';
import { createRng } from '../../../src/domain/rng.ts';
import type { LlamaPolicy } from '../../../src/models/llama/index.ts';
import { startEngine, tf } from '../../../src/tensor/index.ts';
import { groupedBatches } from '../../../src/training/batches.ts';
import {
  type DpoConfig,
  defaultDpoConfig,
  type PreferenceExample,
  trainDpo,
} from '../../../src/training/dpo/index.ts';
import type { StepReport } from '../../../src/training/loop.ts';
import { objectiveOf } from '../../../src/training/objectives.ts';
import { createTinyPolicy } from '../../support/llama.ts';

test.before(async () => {
  await startEngine();
});

const config: DpoConfig = { ...defaultDpoConfig, learningRate: 3e-3, epochs: 10, batchSize: 4 };

/** Say 7 after 10 and 8 after 11, not the other way round. */
const pair = (signal: number, change: Partial<PreferenceExample> = {}): PreferenceExample => ({
  ...{ promptIds: [5, 6, 10 + signal], chosenIds: [7 + signal, 1], rejectedIds: [8 - signal, 9, 9, 1] },
  ...{ refChosen: -7, refRejected: -14, group: `${signal}` },
  ...change,
});
const pairs = [0, 1, 0, 1].map((signal) => pair(signal));

async function logprobOf(policy: LlamaPolicy, promptIds: readonly number[], ids: readonly number[]) {
  const all = [...promptIds, ...ids];
  return tf.tidy(() => {
    const logits = policy.computeLogits(tf.tensor2d([all], [1, all.length], 'int32')).arraySync();
    return ids.reduce((sum, id, place) => {
      const row = logits[promptIds.length - 1 + place]!;
      return sum + row[id]! - Math.log(row.reduce((total, logit) => total + Math.exp(logit), 0));
    }, 0);
  });
}

for (const [loss, alpha] of [
  ['dpo', 1],
  ['dpo', 0],
  ['ipo', 0],
  ['simpo', 0],
] as const) {
  test(`the chosen turns become likelier than the rejected ones: ${loss}, α ${alpha}`, async () => {
    const policy = createTinyPolicy({}, { gain: 1 });
    const margin = async () => {
      const margins: number[] = [];
      for (const { promptIds, chosenIds, rejectedIds } of pairs) {
        const [better, worse] = [chosenIds, rejectedIds].map((ids) => logprobOf(policy, promptIds, ids));
        margins.push((await better!) - (await worse!));
      }
      return Math.min(...margins);
    };
    const before = await margin();
    const reports: StepReport[] = [];
    const result = await trainDpo(policy, pairs, { ...config, loss, alpha }, createRng(1), {
      onStep: (report) => void reports.push(report),
    });
    assert.ok((await margin()) > before + 0.5, `${before} → ${await margin()}`);
    assert.equal([result.steps, result.pairs, result.tooLong, result.identical], [10, 4, 0, 0]);
    const [first, last] = [reports[0]!, reports.at(-1)!];
    assert.ok(last.figures['rewards/margins']! > first.figures['rewards/margins']!);
    assert.equal(result.figures, last.figures, 'one step is one epoch here');
    assert.is(last.tokens, 4 * 6);
    policy.dispose();
  });
}

test('figures are what they are called', async () => {
  const policy = createTinyPolicy({}, { gain: 1 });
  const logprobs = await Promise.all(
    [0, 1].map(async (signal) => {
      const { promptIds, chosenIds, rejectedIds } = pair(signal);
      return [
        await logprobOf(policy, promptIds, chosenIds),
        await logprobOf(policy, promptIds, rejectedIds),
      ] as const;
    }),
  );
  let first: StepReport | undefined;
  await trainDpo(policy, [pair(0), pair(1)], { ...config, epochs: 1, beta: 0.3 }, createRng(1), {
    onStep: (report) => {
      first ??= report;
    },
  });
  const mean = (of: (chosen: number, rejected: number) => number) =>
    logprobs.reduce((sum, [chosen, rejected]) => sum + of(chosen, rejected) / 2, 0);
  const expected = {
    'rewards/chosen': mean((chosen) => 0.3 * (chosen + 7)),
    'rewards/rejected': mean((_, rejected) => 0.3 * (rejected + 14)),
    'rewards/margins': mean((chosen, rejected) => 0.3 * (chosen + 7 - rejected - 14)),
    'rewards/accuracies': mean((chosen, rejected) => Number(chosen + 7 > rejected + 14)),
    'logps/chosen': mean((chosen) => chosen),
    'logps/rejected': mean((_, rejected) => rejected),
    nll_loss: mean((chosen) => -chosen / 2),
    'kl/reference': mean((chosen, rejected) => -(chosen + 7 + rejected + 14) / 6),
    'tokens/chosen': 2,
    'tokens/rejected': 4,
    // In a pass each.
    'tokens/computed': 2 * (2 + 1 + 1 + 3),
    'tokens/plain': 2 * (3 - 1 + 2 + 3 - 1 + 4),
  };
  assert.equal(Object.keys(first!.figures), Object.keys(expected));
  for (const [name, value] of Object.entries(expected)) {
    assert.ok(
      Math.abs(first!.figures[name]! - value) < 1e-3,
      `${name}: ${first!.figures[name]} is not ${value}`,
    );
  }
  policy.dispose();
});

test('pairs that are too long or twice the same are left out and counted, none is cut', async () => {
  const policy = createTinyPolicy({}, { gain: 1 });
  const long = pair(0, { promptIds: [5, 6, 7, 8, 10] });
  const same = pair(1, { rejectedIds: [8, 1] });
  const steps: number[] = [];
  const result = await trainDpo(
    policy,
    [pair(0), long, same, pair(1)],
    { ...config, epochs: 1, maxSequenceTokens: 7 },
    createRng(1),
    { onStep: ({ tokens }) => void steps.push(tokens) },
  );
  assert.equal([result.pairs, result.tooLong, result.identical], [2, 1, 1]);
  assert.equal(steps, [2 * 6]);
  let error: OptimaError | undefined;
  await trainDpo(policy, [same, long], { ...config, maxSequenceTokens: 7 }, createRng(1)).catch((caught) => {
    error = caught;
  });
  assert.is(error?.code, 'selection.empty');
  policy.dispose();
});

test('pairs of a group are dealt to one step as far as there is room', () => {
  const items = Array.from({ length: 22 }, (_, index) => ({ index, group: `${index % 4}` }));
  for (const seed of [1, 2, 3]) {
    const batches = groupedBatches(items, ({ group }) => group, 8, createRng(seed));
    assert.equal(
      batches.map(({ length }) => length),
      [7, 7, 8],
    );
    assert.equal(
      batches
        .flat()
        .map(({ index }) => index)
        .sort((a, b) => a - b),
      items.map(({ index }) => index),
    );
    const runs = batches.flat().filter(({ group }, place, all) => group !== all[place - 1]?.group);
    assert.is(runs.length, 4, 'each group is a row of its own');
  }
  const [one, other] = [1, 2].map((seed) => groupedBatches(items, ({ group }) => group, 8, createRng(seed)));
  assert.not.equal(one, other);
});

test('a worker makes the objective again from its spec', () => {
  const spec = { name: 'dpo', loss: 'ipo', beta: 0.2, alpha: 0.5, simpoGamma: 1, packed: false } as const;
  assert.equal(objectiveOf(spec).spec, spec);
});

test.run();
