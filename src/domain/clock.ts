// Wall-clock time, kept behind an interface so that nothing but a log's timestamps depends on it.

export interface Clock {
  /** Milliseconds since the epoch. */
  now(): number;
}

export const systemClock: Clock = { now: () => Date.now() };

/** The longest that a timer of Node can wait, in ms: 24 days. For what takes as long as it takes. */
export const longestTimerMs = 2 ** 31 - 1;
