// The objective of preference training: the mean loss of pairs of turns.
import type { TrainingSequence } from '../../domain/model.ts';
import { tf, tokenNll } from '../../tensor/index.ts';
import { padBatch } from '../batches.ts';
import type { Objective, PassShare } from '../objective.ts';
import type { DifferentiablePolicy } from '../policy.ts';
import { type PreferenceLoss, preferenceLosses } from './loss.ts';

/** Two turns after the same history, in token space, as plain data. */
export interface PreferenceExample {
  /** What their speaker had read, up to where it speaks. */
  readonly promptIds: readonly number[];
  /** As they were sampled, the end of the turn included where it was reached. */
  readonly chosenIds: readonly number[];
  readonly rejectedIds: readonly number[];
  /** Log-probabilities under the reference, summed over tokens, nats. */
  readonly refChosen: number;
  readonly refRejected: number;
  /** Examples of one group are dealt to the same step as far as they fit, so that they can share what they have in common. */
  readonly group: string;
}

const lengthOf = ({ promptIds, chosenIds, rejectedIds }: PreferenceExample) =>
  promptIds.length + Math.max(chosenIds.length, rejectedIds.length);

/** A batch's loss is the mean over its pairs, and so are its figures, under the names that TRL gives them. */
export function dpoObjective(settings: PreferenceLoss): Objective<PreferenceExample> {
  const { loss, beta, alpha, simpoGamma } = settings;
  return {
    spec: { name: 'dpo', loss, beta, alpha, simpoGamma },
    countTokens: (batch) =>
      batch.reduce((sum, { chosenIds, rejectedIds }) => sum + chosenIds.length + rejectedIds.length, 0),
    countTerms: (batch) => batch.length,
    planPasses: (batch, tokensPerPass) => {
      const longestFirst = batch.toSorted((one, other) => lengthOf(other) - lengthOf(one));
      const passes: PreferenceExample[][] = [];
      for (const example of longestFirst) {
        const pass = passes.at(-1);
        if (pass !== undefined && 2 * (pass.length + 1) * lengthOf(pass[0]!) <= tokensPerPass)
          pass.push(example);
        else passes.push([example]);
      }
      return passes;
    },
    computePass: (policy, pass, terms) => computePass(policy, pass, terms, settings),
  };
}

function computePass(
  policy: DifferentiablePolicy,
  pass: readonly PreferenceExample[],
  terms: number,
  settings: PreferenceLoss,
): PassShare {
  const sides = [pass.map(({ chosenIds }) => chosenIds), pass.map(({ rejectedIds }) => rejectedIds)];
  const sums = sumLogprobs(
    policy,
    sides.flatMap((side) => side.map((ids, pair) => sequenceOf(pass[pair]!.promptIds, ids))),
  );
  const [chosen, rejected] = tf.split(sums, 2) as [tf.Tensor1D, tf.Tensor1D];
  const of = (value: (example: PreferenceExample) => number) => tf.tensor1d(pass.map(value), 'float32');
  const [refChosen, refRejected] = [of((example) => example.refChosen), of((example) => example.refRejected)];
  const chosenTokens = of(({ chosenIds }) => chosenIds.length);
  const rejectedTokens = of(({ rejectedIds }) => rejectedIds.length);
  const logprobs = { chosen, rejected, refChosen, refRejected, chosenTokens, rejectedTokens };
  const share = (perPair: tf.Tensor) => tf.div(tf.sum(perPair), terms) as tf.Scalar;
  const losses = preferenceLosses(logprobs, settings);
  const better = tf.sub(chosen, refChosen);
  const worse = tf.sub(rejected, refRejected);
  const drift = tf.neg(tf.div(tf.add(better, worse), tf.add(chosenTokens, rejectedTokens)));
  return {
    loss: share(losses),
    figures: {
      'rewards/chosen': share(tf.mul(better, settings.beta)),
      'rewards/rejected': share(tf.mul(worse, settings.beta)),
      'rewards/margins': share(tf.mul(tf.sub(better, worse), settings.beta)),
      'rewards/accuracies': share(tf.cast(tf.greater(better, worse), 'float32')),
      'logps/chosen': share(chosen),
      'logps/rejected': share(rejected),
      nll_loss: share(tf.neg(tf.div(chosen, chosenTokens))),
      /** An estimate from what the reference sampled, nats per token. */
      'kl/reference': share(drift),
      'tokens/chosen': share(chosenTokens),
      'tokens/rejected': share(rejectedTokens),
    },
  };
}

const sequenceOf = (promptIds: readonly number[], ids: readonly number[]): TrainingSequence => ({
  tokenIds: [...promptIds, ...ids],
  lossMask: [...promptIds.map(() => 0 as const), ...ids.map(() => 1 as const)],
});

/** log π of the tokens of each sequence that count, summed: [sequences]. */
function sumLogprobs(policy: DifferentiablePolicy, sequences: readonly TrainingSequence[]): tf.Tensor1D {
  const { inputIds, rows, time, positions, labels } = padBatch(sequences, policy.tokenizer.padId);
  const logits = policy.computeLogits(
    tf.tensor2d(inputIds, [rows, time], 'int32'),
    tf.tensor1d(positions, 'int32'),
  ); // [n, vocab]
  const nll = tokenNll(logits, tf.tensor1d(labels, 'int32')); // [n]
  const isOf = new Float32Array(rows * positions.length);
  positions.forEach((position, column) => {
    isOf[Math.floor(position / time) * positions.length + column] = -1;
  });
  const sums = tf.matMul(tf.tensor2d(isOf, [rows, positions.length]), tf.expandDims(nll, 1)); // [rows, 1]
  return tf.reshape(sums, [rows]);
}
