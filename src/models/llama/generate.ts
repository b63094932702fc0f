// Batched generation: rows decode in lockstep, finished ones leave, waiting ones join in the order of the requests.
// Called by policy.ts; cache.ts holds the mathematics, sampler.ts the draws.
import { setImmediate as nextMacrotask } from 'node:timers/promises';
import { OptimaError } from '../../domain/errors.ts';
import { RequestsRefused, type Sampling } from '../../domain/model.ts';
import { createRng, type Rng } from '../../domain/rng.ts';
import type { tf } from '../../tensor/index.ts';
import {
  createCache,
  decodeStep,
  disposeCache,
  gatherRows,
  type KeyValueCache,
  mergeCaches,
  stepsLeft,
} from './cache.ts';
import type { Decoder } from './forward.ts';
import { groupByLength } from './groups.ts';
import { type PrefixMemory, unreadTokens } from './prefixes.ts';
import { sampleToken } from './sampler.ts';

/** A request in token space. */
export interface PromptJob {
  /** Names the request in errors. */
  readonly id: string;
  readonly promptIds: readonly number[];
  readonly sampling: Sampling;
  readonly seed: number;
}

export interface Completion {
  /** The stop token last when `finish` is `stop`. */
  readonly tokenIds: readonly number[];
  /** Nats, at temperature 1, before the filters. */
  readonly logprobs: readonly number[];
  readonly finish: 'stop' | 'length';
}

export interface GenerationLimits {
  /** Tokens that end a message. */
  readonly stopIds: ReadonlySet<number>;
  /** Most rows that decode together. */
  readonly maxRows: number;
  /** Most prompt tokens, padding included, that are read in one pass. */
  readonly tokenBudget: number;
  /** What is known of the prompts; what is read and written here joins it. */
  readonly prefixes: PrefixMemory;
  readonly signal?: AbortSignal | undefined;
}

/** Share of finished rows at which a batch is rearranged. */
const finishedShare = 0.25;

/** A job while it decodes. */
interface Row {
  readonly job: PromptJob;
  readonly rng: Rng;
  /** Most tokens it may produce: its own cap, or what the context still holds. */
  readonly limit: number;
  readonly tokenIds: number[];
  readonly logprobs: number[];
  finish: Completion['finish'] | null;
}

/** A cache and the rows it belongs to, in its order. */
interface Batch {
  readonly cache: KeyValueCache;
  readonly rows: readonly Row[];
}

/**
 * Completes every prompt; results come in the order of the jobs and follow from the jobs alone. Rejects with
 * `RequestsRefused` before any work when prompts or sampling settings are impossible, with `model.failed` when
 * logits are not finite and with `interrupted` when `signal` aborts; nothing stays allocated.
 */
export async function generateTokens(
  decoder: Decoder,
  jobs: readonly PromptJob[],
  limits: GenerationLimits,
): Promise<Completion[]> {
  const context = decoder.config.max_position_embeddings;
  const rows = createRows(jobs, context);
  const waiting = [...rows];
  // Everything allocated is in here whenever control leaves this function.
  let batches: Batch[] = [];
  try {
    for (;;) {
      const decoding = batches.reduce((sum, batch) => sum + batch.rows.filter(isUnfinished).length, 0);
      const newcomers = waiting.splice(0, limits.maxRows - decoding);
      await readPrompts(decoder, newcomers, batches, limits);
      rememberFinished(decoder, batches, limits.prefixes);
      const batch = mergeBatches(decoder, batches);
      batches = batch === null ? [] : [batch];
      if (batch !== null) await decodeUntilRearranged(decoder, batch, limits);
      else if (waiting.length === 0) break;
    }
  } finally {
    for (const { cache } of batches) disposeCache(cache);
  }
  return rows.map(({ tokenIds, logprobs, finish }) => ({ tokenIds, logprobs, finish: finish! }));
}

/** Reads the rows' prompts and draws their first tokens; every group of rows becomes one of the batches. */
async function readPrompts(
  decoder: Decoder,
  rows: readonly Row[],
  batches: Batch[],
  { prefixes, tokenBudget, stopIds, signal }: GenerationLimits,
): Promise<void> {
  let unread = rows;
  while (unread.length > 0) {
    // The last token is always read: its logits are what comes next.
    const { now, later } = prefixes.plan(
      unread,
      ({ job }) => job.promptIds,
      ({ job }) => job.promptIds.length - 1,
    );
    for (const group of groupByLength(now, ({ reading }) => unreadTokens(reading), tokenBudget)) {
      await breathe(signal);
      const { cache, logits } = createCache(
        decoder,
        group.map(({ reading }) => reading.ids),
        prefixes.past(group.map(({ reading }) => reading)),
      );
      batches.push({ cache, rows: group.map(({ item }) => item) });
      prefixes.store(
        cache.layers,
        group.map(({ reading }, row) => ({ ids: reading.ids, row, start: cache.starts[row]! })),
      );
      await extendRows(
        group.map(({ item }) => item),
        logits,
        stopIds,
      );
    }
    unread = later;
  }
}

/** Keeps what finished rows wrote: in a dialogue it is the beginning of their next prompt. */
function rememberFinished(decoder: Decoder, batches: readonly Batch[], prefixes: PrefixMemory): void {
  // The last token was drawn, but never read.
  const readIds = ({ job, tokenIds }: Row) => [...job.promptIds, ...tokenIds.slice(0, -1)];
  for (const { cache, rows } of batches) {
    const leaving = rows.flatMap((row, index) =>
      !isUnfinished(row) && prefixes.lacks(readIds(row)) ? [index] : [],
    );
    if (leaving.length === 0) continue;
    const gathered = gatherRows(decoder, [{ cache, rows: leaving }], 0);
    prefixes.store(
      gathered.layers,
      leaving.map((index, row) => ({ ids: readIds(rows[index]!), row, start: gathered.starts[row]! })),
    );
    disposeCache(gathered);
  }
}

/** A row for every job; throws `RequestsRefused` with all the jobs that cannot have one. */
function createRows(jobs: readonly PromptJob[], context: number): Row[] {
  const refused = new Map<string, OptimaError>();
  const rows = jobs.flatMap((job) => {
    try {
      return [createRow(job, context)];
    } catch (error) {
      if (!(error instanceof OptimaError)) throw error;
      refused.set(job.id, error);
      return [];
    }
  });
  if (refused.size > 0) throw new RequestsRefused(refused);
  return rows;
}

function createRow(job: PromptJob, context: number): Row {
  const { id, promptIds, sampling, seed } = job;
  const refuse = (problem: string, hint?: string): never => {
    throw new OptimaError('model.failed', `Request "${id}": ${problem}.`, hint === undefined ? {} : { hint });
  };
  if (promptIds.length === 0) refuse('its prompt has no tokens');
  if (promptIds.length >= context) {
    refuse(
      `its prompt of ${promptIds.length} tokens leaves no room in the context of ${context}`,
      'Shorten the views or the dialogue, or use a model with a longer context.',
    );
  }
  const { temperature, topP, topK, maxTokens } = sampling;
  if (!(temperature >= 0 && Number.isFinite(temperature)))
    refuse(`temperature ${temperature} is not 0 or more`);
  if (!(topP > 0 && topP <= 1)) refuse(`topP ${topP} is not in (0, 1]`);
  if (!(Number.isInteger(topK) && topK >= 0)) refuse(`topK ${topK} is not an integer of 0 or more`);
  if (!(Number.isInteger(maxTokens) && maxTokens > 0))
    refuse(`maxTokens ${maxTokens} is not a positive integer`);
  const limit = Math.min(maxTokens, context - promptIds.length);
  return { job, rng: createRng(seed), limit, tokenIds: [], logprobs: [], finish: null };
}

const isUnfinished = (row: Row): boolean => row.finish === null;

/** One batch of all unfinished rows, or null when there are none. Takes the batches' caches over. */
function mergeBatches(decoder: Decoder, batches: readonly Batch[]): Batch | null {
  const rows = batches.flatMap((batch) => batch.rows.filter(isUnfinished));
  if (rows.length === 0) {
    for (const { cache } of batches) disposeCache(cache);
    return null;
  }
  const parts = batches.map((batch) => ({
    cache: batch.cache,
    rows: batch.rows.flatMap((row, index) => (isUnfinished(row) ? [index] : [])),
  }));
  return { cache: mergeCaches(decoder, parts), rows };
}

/**
 * Decodes until enough rows are finished for rearranging to pay, or the cache is full. Finished rows decode along
 * until then; their tokens are dropped.
 */
async function decodeUntilRearranged(
  decoder: Decoder,
  { cache, rows }: Batch,
  limits: GenerationLimits,
): Promise<void> {
  let finished = 0;
  while (finished < finishedShare * rows.length && stepsLeft(cache) > 0) {
    await breathe(limits.signal);
    const logits = decodeStep(
      decoder,
      cache,
      rows.map((row) => row.tokenIds.at(-1)!),
    );
    limits.prefixes.count(rows.length);
    await extendRows(rows, logits, limits.stopIds);
    finished = rows.length - rows.filter(isUnfinished).length;
  }
}

/** Draws the next token of every unfinished row from its logits [rows, vocab], and disposes them. */
async function extendRows(
  rows: readonly Row[],
  logits: tf.Tensor2D,
  stopIds: ReadonlySet<number>,
): Promise<void> {
  const vocab = logits.shape[1];
  const values = (await logits.data()) as Float32Array;
  logits.dispose();
  rows.forEach((row, index) => {
    if (!isUnfinished(row)) return;
    const draw = sampleToken(values.subarray(index * vocab, (index + 1) * vocab), row.job.sampling, row.rng);
    if (!Number.isFinite(draw.logprob)) {
      throw new OptimaError('model.failed', `Request "${row.job.id}": the model's logits are not finite.`, {
        hint: 'The weights have diverged; lower the learning rate or use an earlier checkpoint.',
      });
    }
    row.tokenIds.push(draw.id);
    row.logprobs.push(draw.logprob);
    if (stopIds.has(draw.id)) row.finish = 'stop';
    else if (row.tokenIds.length === row.limit) row.finish = 'length';
  });
}

/** Lets timers, signals and progress bars run between two steps; throws `interrupted` when asked to stop. */
export async function breathe(signal: AbortSignal | undefined): Promise<void> {
  await nextMacrotask();
  if (signal?.aborted) throw new OptimaError('interrupted', 'The model call was interrupted.');
}
