// Continuous batching: all running rows write one token in each step, finished ones leave at once, and waiting ones join
// in the order of the requests, whichever call they belong to. Called by policy.ts; memory.ts knows what has been read, sampler.ts draws.
import { setImmediate as nextMacrotask } from 'node:timers/promises';
import { OptimaError } from '../../domain/errors.ts';
import { type Sampling, takeAll } from '../../domain/model.ts';
import { createRng, type Rng } from '../../domain/rng.ts';
import type { LogitsRow } from '../../tensor/index.ts';
import { type Fill, FillTrace } from './fill.ts';
import { type Memory, passesOf, type Sequence } from './memory.ts';
import { sampleToken } from './sampler.ts';

/** A request in token space. */
export interface PromptJob {
  /** Names the request in errors. */
  readonly id: string;
  readonly promptIds: readonly number[];
  readonly sampling: Sampling;
  readonly seed: number;
}

/** What became of a job. */
export interface Completion {
  /** The stop token last when `finish` is `stop`. */
  readonly tokenIds: readonly number[];
  /** Nats, as `Draw` says. */
  readonly logprobs: readonly number[];
  readonly finish: 'stop' | 'length';
}

/** What bounds a loop, and what it goes on from. */
export interface DecodeLimits {
  /** Tokens that end a message. */
  readonly stopIds: ReadonlySet<number>;
  /** Tokens that no message may hold, none of which ends it. */
  readonly neverIds: readonly number[];
  /** Most rows that decode together. */
  readonly maxRows: number;
  /** Most prompt tokens that are read in one pass; a longer prompt has a pass of its own. */
  readonly tokenBudget: number;
  /** Most tokens of a sequence. */
  readonly context: number;
  /** What is known of the prompts; what is read and written here joins it. */
  readonly memory: Memory;
}

/** A job while it decodes. */
interface Row {
  readonly job: PromptJob;
  readonly rng: Rng;
  /** Most tokens it may produce: its own cap, or what the context still holds. */
  readonly limit: number;
  readonly tokenIds: number[];
  readonly logprobs: number[];
  finish: Completion['finish'] | null;
  /** Why it cannot go on, where it cannot. */
  failure: OptimaError | null;
  /** Null before it is read and after it has finished. */
  sequence: Sequence | null;
}

/** Jobs that are asked for together, and whoever waits for all of them. */
interface Call {
  readonly rows: readonly Row[];
  readonly signal: AbortSignal | undefined;
  readonly resolve: (completions: Completion[]) => void;
  readonly reject: (error: unknown) => void;
}

/**
 * Decodes for any number of calls at once: a call that comes while others are under way joins them at the next step. What
 * a job is completed to follows from the job alone.
 */
export class DecodeLoop {
  readonly #limits: DecodeLimits;
  readonly #fill = new FillTrace();
  readonly #calls = new Set<Call>();
  #waiting: Row[] = [];
  #running: Row[] = [];
  #isRunning = false;
  #isClosed = false;

  constructor(limits: DecodeLimits) {
    this.#limits = limits;
  }

  /** Rows that decoded together, step by step. */
  get fill(): Fill {
    return this.#fill;
  }

  /**
   * Completes every prompt; results come in the order of the jobs. Rejects with `RequestsRefused` before any work when
   * prompts or sampling settings are impossible, with `model.failed` when logits are not finite and with `interrupted` when
   * `signal` aborts; no sequence stays open.
   */
  async complete(jobs: readonly PromptJob[], signal?: AbortSignal): Promise<Completion[]> {
    if (this.#isClosed || signal?.aborted) throw interruption();
    const rows = takeAll(jobs, (job) => createRow(job, this.#limits.context));
    if (rows.length === 0) return [];
    return new Promise((resolve, reject) => {
      this.#calls.add({ rows, signal, resolve, reject });
      this.#waiting.push(...rows);
      if (!this.#isRunning) void this.#run();
    });
  }

  /** Interrupts all calls; none is taken any more. */
  close(): void {
    this.#isClosed = true;
    for (const call of [...this.#calls]) this.#end(call, () => call.reject(interruption()));
  }

  async #run(): Promise<void> {
    const { memory } = this.#limits;
    this.#isRunning = true;
    try {
      while (this.#calls.size > 0) {
        const newcomers = admit(this.#waiting, this.#running, this.#limits);
        this.#running.push(...newcomers);
        await this.#readPrompts(newcomers);
        this.#retire();
        if (this.#calls.size === 0) break;
        await nextMacrotask();
        this.#dropAborted();
        if (this.#running.length === 0) continue;
        this.#fill.add(this.#running.length);
        memory.read(this.#running.map((row) => ({ sequence: row.sequence!, ids: row.tokenIds.slice(-1) })));
        drawTokens(
          this.#running,
          memory.decoder.logits(this.#running.map((_, index) => index)),
          this.#limits,
        );
        this.#retire();
      }
    } catch (error) {
      for (const call of [...this.#calls]) this.#end(call, () => call.reject(error));
    }
    this.#isRunning = false;
  }

  /** Opens the rows' sequences, reads their prompts and draws their first tokens; rows of calls that are over are passed over. */
  async #readPrompts(rows: readonly Row[]): Promise<void> {
    const { memory, tokenBudget } = this.#limits;
    let unread = rows;
    while (unread.length > 0) {
      // The last token is always read: its logits are what comes next.
      const { now, later } = memory.plan(
        unread,
        ({ job }) => job.promptIds,
        ({ job }) => job.promptIds.length - 1,
      );
      for (const { item: row, sequence } of now) row.sequence = sequence;
      const unreadOf = ({ job, sequence }: Row) => job.promptIds.slice(sequence!.ids.length);
      const opened = now.map(({ item }) => item);
      for (const planned of passesOf(opened, (row) => unreadOf(row).length, tokenBudget)) {
        await nextMacrotask();
        this.#dropAborted();
        const pass = planned.filter(({ sequence }) => sequence !== null);
        if (pass.length === 0) continue;
        const pieces = pass.map((row) => ({ sequence: row.sequence!, ids: unreadOf(row) }));
        memory.read(pieces);
        let end = 0;
        const last = pieces.map(({ ids }) => {
          end += ids.length;
          return end - 1;
        });
        drawTokens(pass, memory.decoder.logits(last), this.#limits);
      }
      unread = later.filter((row) => this.#running.includes(row));
    }
  }

  /** Closes the sequences of rows that have finished; answers calls of which all have, or of which one cannot go on. */
  #retire(): void {
    for (const row of this.#running) if (row.finish !== null) this.#close(row);
    this.#running = this.#running.filter(({ finish }) => finish === null);
    for (const call of [...this.#calls]) {
      const broken = call.rows.find(({ failure }) => failure !== null);
      if (broken !== undefined) {
        this.#end(call, () => call.reject(broken.failure));
      } else if (call.rows.every(({ finish }) => finish !== null)) {
        const completions = call.rows.map(({ tokenIds, logprobs, finish }) => ({
          tokenIds,
          logprobs,
          finish: finish!,
        }));
        this.#end(call, () => call.resolve(completions));
      }
    }
  }

  #dropAborted(): void {
    for (const call of [...this.#calls]) {
      if (call.signal?.aborted) this.#end(call, () => call.reject(interruption()));
    }
  }

  #end(call: Call, answer: () => void): void {
    const own = new Set(call.rows);
    for (const row of call.rows) this.#close(row);
    this.#waiting = this.#waiting.filter((row) => !own.has(row));
    this.#running = this.#running.filter((row) => !own.has(row));
    this.#calls.delete(call);
    answer();
  }

  #close(row: Row): void {
    if (row.sequence !== null) this.#limits.memory.close(row.sequence);
    row.sequence = null;
  }
}

/** Takes the next rows out of `waiting`: as many as there are places, and room for the longest they can become. */
function admit(waiting: Row[], running: readonly Row[], { maxRows, memory }: DecodeLimits): Row[] {
  const blocksOf = ({ job, limit }: Row) => memory.blocksFor(job.promptIds.length + limit);
  let blocks = running.reduce((sum, row) => sum + blocksOf(row), 0);
  let count = 0;
  for (const row of waiting.slice(0, maxRows - running.length)) {
    blocks += blocksOf(row);
    // A single row is let in however long it is.
    if (blocks > memory.maxBlocks && memory.maxBlocks > 0 && running.length + count > 0) break;
    count++;
  }
  return waiting.splice(0, count);
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
  return {
    job,
    rng: createRng(seed),
    limit,
    tokenIds: [],
    logprobs: [],
    finish: null,
    failure: null,
    sequence: null,
  };
}

/** Draws the next token of every row from its logits; a row whose logits are not finite fails. */
function drawTokens(
  rows: readonly Row[],
  logits: readonly LogitsRow[],
  { stopIds, neverIds }: DecodeLimits,
): void {
  rows.forEach((row, index) => {
    const draw = sampleToken(logits[index]!, row.job.sampling, row.rng, neverIds);
    if (!Number.isFinite(draw.logprob)) {
      row.failure = new OptimaError(
        'model.failed',
        `Request "${row.job.id}": the model's logits are not finite.`,
        {
          hint: 'Its weights hold NaN or infinity: the file is damaged, or training diverged (lower the learning rate, or use an earlier checkpoint).',
        },
      );
      return;
    }
    row.tokenIds.push(draw.id);
    row.logprobs.push(draw.logprob);
    if (stopIds.has(draw.id)) row.finish = 'stop';
    else if (row.tokenIds.length === row.limit) row.finish = 'length';
  });
}

const interruption = () => new OptimaError('interrupted', 'The model call was interrupted.');

/** Lets timers, signals and progress bars run between two steps; throws `interrupted` when asked to stop. */
export async function breathe(signal: AbortSignal | undefined): Promise<void> {
  await nextMacrotask();
  if (signal?.aborted) throw interruption();
}
