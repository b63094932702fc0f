// Log-probabilities of given tokens under a decoder, in length-sorted batches. Called by policy.ts.
import { tf, tokenNll } from '../../tensor/index.ts';
import { computeHidden, type Decoder, type KeysValues, project } from './forward.ts';
import { breathe } from './generate.ts';
import { groupByLength, padSequences } from './groups.ts';
import { type PrefixMemory, type Reading, unreadTokens } from './prefixes.ts';

/** A sequence and the ascending positions (from 1) of the tokens whose log-probability is asked for. */
export interface ScoreJob {
  readonly tokenIds: readonly number[];
  readonly positions: readonly number[];
}

export interface ScoreLimits {
  /** Most tokens, padding included, in one pass. */
  readonly tokenBudget: number;
  /** What is known of the sequences; what is read here joins it. */
  readonly prefixes: PrefixMemory;
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
  const { prefixes, tokenBudget, signal } = limits;
  const results = new Map<ScoreJob, number[]>(jobs.map((job) => [job, []]));
  let unread = jobs.filter(({ positions }) => positions.length > 0);
  while (unread.length > 0) {
    // The token before the first asked one must be read, because it predicts that one.
    const { now, later } = prefixes.plan(
      unread,
      ({ tokenIds }) => tokenIds,
      ({ positions }) => positions[0]! - 1,
    );
    for (const group of groupByLength(now, ({ reading }) => unreadTokens(reading), tokenBudget)) {
      await breathe(signal);
      const nll = computeNll(decoder, group, prefixes); // [positions of the group]
      const values = await nll.data();
      nll.dispose();
      let next = 0;
      for (const { item } of group) for (const _ of item.positions) results.get(item)!.push(-values[next++]!);
    }
    unread = later;
  }
  return jobs.map((job) => results.get(job)!);
}

function computeNll(
  decoder: Decoder,
  group: readonly { readonly item: ScoreJob; readonly reading: Reading }[],
  prefixes: PrefixMemory,
): tf.Tensor1D {
  return tf.tidy(() => {
    const past = prefixes.past(group.map(({ reading }) => reading));
    const known = past?.lengths ?? group.map(() => 0);
    const ids = padSequences(group.map(({ item }, b) => item.tokenIds.slice(known[b]))); // [b, t]
    const time = ids.shape[1];
    const layers: KeysValues[] = [];
    const hidden = computeHidden(decoder, ids, { past, onLayer: (layer) => layers.push(layer) }); // [b·t, d]
    const slots = layers[0]!.keys.shape[2];
    prefixes.store(
      layers,
      group.map(({ item }, row) => ({ ids: item.tokenIds, row, start: slots - time - known[row]! })),
    );
    // The token at a position is predicted one position earlier.
    const rows = group.flatMap(({ item }, b) =>
      item.positions.map((position) => b * time + position - known[b]! - 1),
    );
    const labels = group.flatMap(({ item }) => item.positions.map((position) => item.tokenIds[position]!));
    const chunk = Math.max(1, Math.floor(maxLogits / decoder.config.vocab_size));
    const parts: tf.Tensor1D[] = [];
    for (let start = 0; start < rows.length; start += chunk) {
      const part = (all: number[]) => tf.tensor1d(all.slice(start, start + chunk), 'int32');
      parts.push(tf.tidy(() => tokenNll(project(decoder, hidden, part(rows)), part(labels))));
    }
    return tf.concat(parts);
  });
}
