// The figures of a set of dialogues at once.
import { TeamFigures, type TeamMetrics } from '../../src/domain/metrics.ts';
import type { Rng } from '../../src/domain/rng.ts';
import type { Trajectory } from '../../src/domain/transcript.ts';

export function measureTeam(trajectories: Iterable<Trajectory>, rng: Rng): TeamMetrics {
  const figures = new TeamFigures();
  for (const trajectory of trajectories) figures.add(trajectory);
  return figures.metrics(rng);
}
