// What a set of dialogues amounts to: the figures every table shows. Pure arithmetic.
import type { Rng } from './rng.ts';
import { messageTokens, type Trajectory } from './transcript.ts';

/** Figures over the dialogues that have a verdict; those that failed are counted beside them, never as 0. */
export interface TeamMetrics {
  /** Mean task score, in [0, 1]: F1 for information exchange, exact match for debate. */
  readonly f1: number;
  /** 95 % bootstrap interval of `f1`. */
  readonly f1Interval: readonly [number, number];
  readonly exactMatch: number;
  /** Mean message tokens per dialogue. */
  readonly tokens: number;
  /** Share of dialogues that ended in agreement. */
  readonly agreement: number;
  /** Mean messages per dialogue. */
  readonly turns: number;
  /** Dialogues with a verdict. */
  readonly n: number;
  /** Dialogues without one. */
  readonly failed: number;
}

/** The arithmetic mean; 0 for an empty list. */
export function mean(values: readonly number[]): number {
  return values.length === 0 ? 0 : values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** Sample standard deviation (n − 1); 0 for fewer than two values. */
export function standardDeviation(values: readonly number[]): number {
  if (values.length < 2) return 0;
  const centre = mean(values);
  const squares = values.reduce((sum, value) => sum + (value - centre) ** 2, 0);
  return Math.sqrt(squares / (values.length - 1));
}

/**
 * Percentile bootstrap interval of the mean (Efron, 1979): the middle `level` of the means of `resamples`
 * samples drawn with replacement. An empty list gives [0, 0].
 */
export function bootstrapInterval(
  values: readonly number[],
  rng: Rng,
  { resamples = 1000, level = 0.95 } = {},
): readonly [number, number] {
  if (values.length === 0) return [0, 0];
  const means = new Float64Array(resamples);
  for (let sample = 0; sample < resamples; sample++) {
    let sum = 0;
    for (let draw = 0; draw < values.length; draw++) sum += values[rng.int(values.length)]!;
    means[sample] = sum / values.length;
  }
  means.sort();
  const tail = (1 - level) / 2;
  const at = (quantile: number) => means[Math.round(quantile * (resamples - 1))]!;
  return [at(tail), at(1 - tail)];
}

/** The figures of a set of dialogues; `rng` draws the bootstrap samples. */
export function measureTeam(trajectories: readonly Trajectory[], rng: Rng): TeamMetrics {
  const judged = trajectories.flatMap((trajectory) =>
    trajectory.verdict === null ? [] : [{ ...trajectory, verdict: trajectory.verdict }],
  );
  const scores = judged.map((trajectory) => trajectory.verdict.taskScore);
  return {
    f1: mean(scores),
    f1Interval: bootstrapInterval(scores, rng),
    exactMatch: mean(judged.map((trajectory) => Number(trajectory.verdict.exactMatch))),
    tokens: mean(judged.map((trajectory) => messageTokens(trajectory.turns))),
    agreement: mean(judged.map((trajectory) => Number(trajectory.outcome === 'agreed'))),
    turns: mean(judged.map((trajectory) => trajectory.turns.length)),
    n: judged.length,
    failed: trajectories.length - judged.length,
  };
}
