// Tasks by name: the first ones of a split under a run's seed, each with its id.
import { isThenable, messageOf, OptimaError, refused } from '../domain/errors.ts';
import { type TaskId, taskId } from '../domain/ids.ts';
import type { Rng } from '../domain/rng.ts';
import type { Scenario, Split } from './types.ts';

export interface NamedTask {
  readonly id: TaskId;
  readonly task: unknown;
}

/** A run of consecutive tasks of a split. */
export interface TaskRange {
  readonly from: number;
  readonly count: number;
}

/** Loads tasks under the run's seed. Throws `data.invalid` when the source throws, gives fewer than it is asked for, or
 * what is no task. */
export async function loadTasks(
  scenario: Scenario,
  split: Split,
  { from, count }: TaskRange,
  rng: Rng,
): Promise<NamedTask[]> {
  let tasks: readonly unknown[];
  try {
    tasks = await scenario.tasks.load(split, from + count, rng.split('tasks'));
  } catch (error) {
    if (error instanceof OptimaError) throw error;
    throw new OptimaError(
      'data.invalid',
      `Scenario "${scenario.name}": tasks.load('${split}', ${from + count}) threw: ${messageOf(error)}.`,
      { cause: error },
    );
  }
  if (!Array.isArray(tasks) || tasks.length !== from + count) {
    throw new OptimaError(
      'data.invalid',
      `Scenario "${scenario.name}": tasks.load('${split}', ${from + count}) gave ${Array.isArray(tasks) ? tasks.length : 'no list of'} tasks.`,
    );
  }
  const kinds = tasks.map((task) => (task === undefined || isThenable(task) ? refused(task) : null));
  const none = kinds.findIndex((kind) => kind !== null);
  if (none >= 0) {
    throw new OptimaError(
      'data.invalid',
      `Scenario "${scenario.name}": task ${none} of ${split} is ${kinds[none]}: each must be made at once, and given back.`,
    );
  }
  return tasks.slice(from).map((task, index) => ({ id: taskId(split, from + index), task }));
}
