// What a metric says of a dialogue, read: a bare number, seats without a team's score, a promise of either.
import { isThenable, messageOf, OptimaError, refused } from '../domain/errors.ts';
import type { Judge, Judged, Judgement, Scenario, Score } from './types.ts';

/** A score with all that a metric may leave out. */
export interface Scored {
  readonly score: number;
  readonly exactMatch: boolean;
  /** Of every role; absent where the metric gave none. */
  readonly seats?: Readonly<Record<string, number>>;
}

/** Longest time of a metric's promise where it does not say, ms. */
export const metricTimeoutMs = 15_000;

/** Says why there is no judge to ask. */
export const nobody = (reason: string): Judge => ({
  ask: () => Promise.reject(new OptimaError('usage', reason)),
});

/** `usage` for a scenario whose judge was not given. */
export const withoutJudge = ({ name }: Scenario): OptimaError =>
  new OptimaError('usage', `Scenario "${name}" asks a judge model, and none is given.`, {
    hint: 'Name its checkpoint: --judge <folder>.',
  });

/**
 * Scores a dialogue: at once where the metric does. Throws, or rejects with, `metric.failed`, which names scenario and metric,
 * where the metric throws or rejects, or gives a score that is not a number in [0, 1], of the team or of a seat.
 */
export function scoreDialogue(scenario: Scenario, dialogue: Judged): Scored | Promise<Scored> {
  const { metric } = scenario;
  const read = (given: Judgement) => readScore(scenario, given);
  const fail = (error: unknown): never => {
    throw isMetricFailure(error) ? error : metricFailed(scenario, `threw: ${messageOf(error)}`, error);
  };
  try {
    const given = metric.score(dialogue.answer, dialogue.answers, dialogue);
    return isThenable(given) ? Promise.resolve(given).then(read).catch(fail) : read(given);
  } catch (error) {
    return fail(error);
  }
}

/** `metric.failed` with what a scenario's metric did. */
export const metricFailed = ({ name, metric }: Scenario, problem: string, cause?: unknown): OptimaError =>
  new OptimaError('metric.failed', `Scenario "${name}": metric ${metric.name} ${problem}.`, { cause });

/** Whether it is the scenario's code that gave no score, and not what called it. */
export const isMetricFailure = (error: unknown): boolean =>
  error instanceof OptimaError && error.code === 'metric.failed';

function readScore(scenario: Scenario, given: Judgement): Scored {
  const checked = (value: unknown, of = ''): number => {
    if (typeof value === 'number' && value >= 0 && value <= 1) return value;
    const said = typeof value === 'number' ? value : refused(value);
    throw metricFailed(scenario, `gave ${said}${of}, not a number in [0, 1]`);
  };
  const { score, exactMatch, seats }: Partial<Score> =
    typeof given === 'object' && given !== null ? given : { score: given };
  if (exactMatch !== undefined && typeof exactMatch !== 'boolean')
    throw metricFailed(scenario, `gave ${exactMatch} as exactMatch, not true or false`);
  if (seats === undefined) {
    const team = checked(score);
    return { score: team, exactMatch: exactMatch ?? team === 1 };
  }
  const roles = Object.keys(scenario.roles);
  const stranger = Object.keys(seats).find((seat) => !roles.includes(seat));
  if (stranger !== undefined)
    throw metricFailed(scenario, `gave a score to "${stranger}", which is not one of ${roles.join(', ')}`);
  const own = Object.fromEntries(roles.map((role) => [role, checked(seats[role], ` for seat ${role}`)]));
  const team =
    score === undefined ? roles.reduce((sum, role) => sum + own[role]!, 0) / roles.length : checked(score);
  return { score: team, exactMatch: exactMatch ?? team === 1, seats: own };
}
