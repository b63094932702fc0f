// The one error type users see: what happened, where, and what to do about it.
import { distance } from 'fastest-levenshtein';

/** Stable machine-readable names of what can go wrong; printed by `--json` beside the message. */
export type ErrorCode =
  | 'usage'
  | 'scenario.invalid'
  | 'scenario.types'
  | 'data.invalid'
  | 'checkpoint.missing'
  | 'checkpoint.invalid'
  | 'tokenizer.mismatch'
  | 'backend.unavailable'
  | 'model.failed'
  | 'message.invalid'
  | 'metric.failed'
  | 'reward.invalid'
  | 'selection.empty'
  | 'model.unready'
  | 'model.oversized'
  | 'evaluation.empty'
  | 'run.exists'
  | 'run.missing'
  | 'run.version'
  | 'run.corrupt'
  | 'run.diverged'
  | 'io.write'
  | 'io.read'
  | 'training.diverged'
  | 'interrupted'
  | 'timeout';

/**
 * A failure with a message for people, a `code` for programs and, where there is one, a `hint` that says
 * what to do. The message is one line: what happened and where.
 */
export class OptimaError extends Error {
  readonly code: ErrorCode;
  readonly hint: string | undefined;

  constructor(code: ErrorCode, message: string, options: { hint?: string; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'OptimaError';
    this.code = code;
    this.hint = options.hint;
  }
}

/** The message of anything that was thrown, on one line. */
export function messageOf(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return text.replace(/\s*\n\s*/g, ' ').trim();
}

/**
 * `kindOf` a value that is taken no further, for a message that says what it should be. A promise among such may still reject,
 * which is then nobody's error; what only has a `then`, as a query that it would send, is left alone.
 */
export function refused(value: unknown): string {
  if (value instanceof Promise) Promise.prototype.then.call(value, undefined, () => {});
  return kindOf(value);
}

/** What a value is: `a promise`, `a list`, `a number`, `undefined`. */
function kindOf(value: unknown): string {
  if (value === null || value === undefined) return String(value);
  if (Array.isArray(value)) return 'a list';
  if (isThenable(value)) return 'a promise';
  return typeof value === 'object' ? 'an object' : `a ${typeof value}`;
}

/** Whether `await` would wait for it. */
export const isThenable = (value: unknown): value is PromiseLike<unknown> =>
  typeof (value as { then?: unknown } | null | undefined)?.then === 'function';

/**
 * Carries out `work` and then every clean-up, in order and whatever fails. Rejects with the first error; those after it are kept
 * in its `suppressed`, which OPTIMA_DEBUG=1 shows.
 */
export async function cleaningUp<Result>(
  work: () => Result | Promise<Result>,
  ...cleanUps: readonly (() => unknown)[]
): Promise<Result> {
  const errors: unknown[] = [];
  const attempt = async <Value>(step: () => Value | Promise<Value>) => {
    try {
      return await step();
    } catch (error) {
      errors.push(error);
      return undefined;
    }
  };
  const result = await attempt(work);
  for (const cleanUp of cleanUps) await attempt(cleanUp);
  if (errors.length === 0) return result as Result;
  const [first, ...later] = errors;
  if (later.length > 0 && first instanceof Error) Object.assign(first, { suppressed: later });
  throw first;
}

/**
 * The candidate nearest to `word` by edit distance, or undefined when none is near enough to be a likely
 * misspelling (more than 40 % of the longer word's letters differ).
 */
export function nearest(word: string, candidates: readonly string[]): string | undefined {
  let best: string | undefined;
  let bestDistance = Number.POSITIVE_INFINITY;
  for (const candidate of candidates) {
    const edits = distance(word, candidate);
    if (edits < bestDistance && edits <= 0.4 * Math.max(word.length, candidate.length)) {
      best = candidate;
      bestDistance = edits;
    }
  }
  return best;
}

/** Throws `interrupted` where work has been asked to stop; `what` is the work, as `Reading runs/mine`. */
export function requireWanted(signal: AbortSignal | undefined, what: string): void {
  if (signal?.aborted) throw new OptimaError('interrupted', `${what} was interrupted.`);
}
