// The objective of preference training: the mean loss of pairs of turns.
import type { TrainingSequence } from '../../domain/model.ts';
import { tf, tokenNll } from '../../tensor/index.ts';
import { fillPasses, inEvenPasses, padBatch } from '../batches.ts';
import type { Objective, PassShare } from '../objective.ts';
import { compareIds, packSequences } from '../packing.ts';
import type { ReadPolicy } from '../policy.ts';
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

/** What of the objective is set. */
export interface DpoSettings extends PreferenceLoss {
  /** Pairs that have a beginning in common share its forward and backward pass. */
  readonly packed: boolean;
}

/** A batch's loss is the mean over its pairs, and so are its figures, under the names that TRL gives them. */
export function dpoObjective({
  loss,
  beta,
  alpha,
  simpoGamma,
  packed,
}: DpoSettings): Objective<PreferenceExample> {
  const settings = { loss, beta, alpha, simpoGamma, packed };
  return {
    spec: { name: 'dpo', ...settings },
    countTokens: (batch) =>
      batch.reduce((sum, { chosenIds, rejectedIds }) => sum + chosenIds.length + rejectedIds.length, 0),
    countTerms: (batch) => batch.length,
    planPasses: packed ? planPackedPasses : planPaddedPasses,
    computePass: (policy, pass, terms) => computePass(policy, pass, terms, settings),
  };
}

/** Tokens of a pair's longer sequence. */
export const lengthOf = ({ promptIds, chosenIds, rejectedIds }: PreferenceExample) =>
  promptIds.length + Math.max(chosenIds.length, rejectedIds.length);

/** Each pair as two rows, padded to the longest of the pass. */
function planPaddedPasses(batch: readonly PreferenceExample[], tokensPerPass: number): PreferenceExample[][] {
  const longestFirst = batch.toSorted((one, other) => lengthOf(other) - lengthOf(one));
  return fillPasses(longestFirst, tokensPerPass, (pair) => 2 * lengthOf(pair));
}

/** A tree of a batch is small: two passes already, not four as of padded rows, so that little is computed in both. */
const packedMultiple = 2;

/**
 * What begins alike meets in one pass, which counts about the tokens of its tree: those that each pair adds to what it has
 * in common with the one before.
 */
function planPackedPasses(batch: readonly PreferenceExample[], tokensPerPass: number): PreferenceExample[][] {
  const alike = batch.toSorted((one, other) => compareIds(one.promptIds, other.promptIds));
  const tokensOf = (...pairs: readonly PreferenceExample[]) =>
    packSequences(sequencesOf(pairs)).inputIds.length;
  const costs = alike.map((example, index) => {
    const alone = tokensOf(example);
    const before = alike[index - 1];
    return {
      example,
      alone,
      added: before === undefined ? alone : tokensOf(before, example) - tokensOf(before),
    };
  });
  const fill = (limit: number) => {
    const passes: PreferenceExample[][] = [];
    let tokens = 0;
    for (const { example, alone, added } of costs) {
      const pass = passes.at(-1);
      if (pass !== undefined && tokens + added <= limit) {
        pass.push(example);
        tokens += added;
      } else {
        passes.push([example]);
        tokens = alone;
      }
    }
    return passes;
  };
  return inEvenPasses(fill, tokensPerPass, packedMultiple);
}

/** The chosen ones, then the rejected ones. */
const sequencesOf = (pairs: readonly PreferenceExample[]): TrainingSequence[] => [
  ...pairs.map(({ promptIds, chosenIds }) => sequenceOf(promptIds, chosenIds)),
  ...pairs.map(({ promptIds, rejectedIds }) => sequenceOf(promptIds, rejectedIds)),
];

function computePass(
  policy: ReadPolicy,
  pass: readonly PreferenceExample[],
  terms: number,
  settings: DpoSettings,
): PassShare {
  const { sums, computed, plain } = sumLogprobs(policy, sequencesOf(pass), settings.packed);
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
      // How much likelier the pairs' turns, which the reference said, are under it than under the policy, nats per token.
      'kl/reference': share(drift),
      'tokens/chosen': share(chosenTokens),
      'tokens/rejected': share(rejectedTokens),
      // Sums, not means: what a step reads, and what it would read without shared beginnings and padding.
      'tokens/computed': tf.scalar(computed),
      'tokens/plain': tf.scalar(plain),
    },
  };
}

const sequenceOf = (promptIds: readonly number[], ids: readonly number[]): TrainingSequence => ({
  tokenIds: [...promptIds, ...ids],
  lossMask: [...promptIds.map(() => 0 as const), ...ids.map(() => 1 as const)],
});

/** log π of the tokens of each sequence that count, summed: [sequences]; how many tokens were read for it, and would be. */
function sumLogprobs(
  policy: ReadPolicy,
  sequences: readonly TrainingSequence[],
  packed: boolean,
): { sums: tf.Tensor1D; computed: number; plain: number } {
  const { inputIds, rows, positions, labels, terms, layout } = packed
    ? { ...packSequences(sequences), rows: 1 }
    : padded(sequences, policy.tokenizer.padId);
  const logits = policy.computeLogits(
    tf.tensor2d(inputIds, [rows, inputIds.length / rows], 'int32'),
    tf.tensor1d(positions, 'int32'),
    layout,
  ); // [n, vocab]
  const nll = tokenNll(logits, tf.tensor1d(labels, 'int32')); // [n]
  const n = labels.length;
  const signs = new Float32Array(sequences.length * n);
  for (const [sequence, own] of terms.entries()) for (const term of own) signs[sequence * n + term] = -1;
  const sums = tf.matMul(tf.tensor2d(signs, [sequences.length, n]), tf.expandDims(nll, 1)); // [sequences, 1]
  const plain = sequences.reduce((sum, { tokenIds }) => sum + tokenIds.length - 1, 0);
  return { sums: tf.reshape(sums, [sequences.length]), computed: inputIds.length, plain };
}

/** Each sequence as a row of its own, and which of the predicted tokens are its own. */
function padded(sequences: readonly TrainingSequence[], padId: number) {
  const batch = padBatch(sequences, padId);
  const terms: number[][] = sequences.map(() => []);
  batch.positions.forEach((position, term) => {
    terms[Math.floor(position / batch.time)]!.push(term);
  });
  return { ...batch, terms, layout: undefined };
}
