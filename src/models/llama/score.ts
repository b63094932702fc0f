// Log-probabilities of given tokens under a decoder. Called by policy.ts.
import { breathe } from './generate.ts';
import { type Memory, passesOf } from './memory.ts';

/** A sequence and the ascending positions (from 1) of the tokens whose log-probability is asked for. */
export interface ScoreJob {
  readonly tokenIds: readonly number[];
  readonly positions: readonly number[];
}

/** What bounds a call, and what it goes on from. */
export interface ScoreLimits {
  /** Most tokens that are read in one pass; a longer text has a pass of its own. */
  readonly tokenBudget: number;
  /** What is known of the sequences; what is read here joins it. */
  readonly memory: Memory;
  readonly signal?: AbortSignal | undefined;
}

/**
 * log p(token | tokens before it) in nats for every asked position; results in the order of the jobs.
 * Rejects with `interrupted` when `signal` aborts; no sequence stays open.
 */
export async function scoreTokens(
  jobs: readonly ScoreJob[],
  { memory, tokenBudget, signal }: ScoreLimits,
): Promise<number[][]> {
  const results = new Map<ScoreJob, number[]>(jobs.map((job) => [job, []]));
  let unread = jobs.filter(({ positions }) => positions.length > 0);
  while (unread.length > 0) {
    // The token before the first asked one must be read, because it predicts that one.
    const { now, later } = memory.plan(
      unread,
      ({ tokenIds }) => tokenIds,
      ({ positions }) => positions[0]! - 1,
    );
    const pieces = now.map(({ item, sequence }) => {
      const known = sequence.ids.length;
      return { job: item, sequence, known, ids: item.tokenIds.slice(known) };
    });
    try {
      for (const pass of passesOf(pieces, ({ ids }) => ids.length, tokenBudget)) {
        await breathe(signal);
        memory.read(pass);
        const rows: number[] = [];
        const labels: number[] = [];
        let first = 0;
        for (const { job, known, ids } of pass) {
          // The token at a position is predicted one position earlier.
          rows.push(...job.positions.map((position) => first + position - known - 1));
          labels.push(...job.positions.map((position) => job.tokenIds[position]!));
          first += ids.length;
        }
        const logprobs = memory.decoder.logprobs(rows, labels);
        let next = 0;
        for (const { job, sequence } of pass) {
          results.get(job)!.push(...logprobs.subarray(next, next + job.positions.length));
          next += job.positions.length;
          memory.close(sequence);
        }
      }
    } finally {
      for (const { sequence } of pieces) memory.close(sequence);
    }
    unread = later;
  }
  return jobs.map((job) => results.get(job)!);
}
