// Log-probabilities of given tokens under a decoder, in length-sorted batches. Called by policy.ts.
import { tf, tokenNll } from '../../tensor/index.ts';
import { computeHidden, type Decoder, project } from './forward.ts';
import { breathe } from './generate.ts';
import { groupByLength, padSequences } from './groups.ts';

/** A sequence and the ascending positions (from 1) of the tokens whose log-probability is asked for. */
export interface ScoreJob {
  readonly tokenIds: readonly number[];
  readonly positions: readonly number[];
}

export interface ScoreLimits {
  /** Most tokens, padding included, in one pass. */
  readonly tokenBudget: number;
  readonly signal?: AbortSignal | undefined;
}

/** Most logits at a time, so that a vocabulary of 100,000 and more does not fill the memory. */
const maxLogits = 2 ** 24;

/**
 * log p(token | tokens before it) in nats for every asked position; results in the order of the jobs.
 * Rejects with `interrupted` when `signal` aborts; nothing stays allocated.
 */
export async function scoreTokens(
  decoder: Decoder,
  jobs: readonly ScoreJob[],
  limits: ScoreLimits,
): Promise<number[][]> {
  const results = new Map<ScoreJob, number[]>(jobs.map((job) => [job, []]));
  const asked = jobs.filter(({ positions }) => positions.length > 0);
  for (const group of groupByLength(asked, ({ tokenIds }) => tokenIds.length, limits.tokenBudget)) {
    await breathe(limits.signal);
    const nll = tf.tidy(() => computeNll(decoder, group)); // [positions of the group]
    const values = await nll.data();
    nll.dispose();
    let next = 0;
    for (const job of group) for (const _ of job.positions) results.get(job)!.push(-values[next++]!);
  }
  return jobs.map((job) => results.get(job)!);
}

function computeNll(decoder: Decoder, group: readonly ScoreJob[]): tf.Tensor1D {
  const ids = padSequences(group.map(({ tokenIds }) => tokenIds)); // [b, t]
  const time = ids.shape[1];
  const hidden = computeHidden(decoder, ids); // [b·t, d]
  // The token at a position is predicted one position earlier.
  const rows = group.flatMap(({ positions }, b) => positions.map((position) => b * time + position - 1));
  const labels = group.flatMap(({ tokenIds, positions }) => positions.map((position) => tokenIds[position]!));
  const chunk = Math.max(1, Math.floor(maxLogits / decoder.config.vocab_size));
  const parts: tf.Tensor1D[] = [];
  for (let start = 0; start < rows.length; start += chunk) {
    const part = (all: number[]) => tf.tensor1d(all.slice(start, start + chunk), 'int32');
    parts.push(tf.tidy(() => tokenNll(project(decoder, hidden, part(rows)), part(labels))));
  }
  return tf.concat(parts);
}
