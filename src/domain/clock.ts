// Wall-clock time, kept behind an interface so that nothing but a log's timestamps depends on it.

export interface Clock {
  /** Milliseconds since the epoch. */
  now(): number;
}

export const systemClock: Clock = { now: () => Date.now() };
