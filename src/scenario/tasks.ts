// Tasks by name: the first ones of a split under a run's seed, each with its id.
import { OptimaError } from '../domain/errors.ts';
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

/** Loads tasks under the run's seed. Throws `data.invalid` when the source gives fewer than it is asked for. */
export async function loadTasks(
  scenario: Scenario,
  split: Split,
  { from, count }: TaskRange,
  rng: Rng,
): Promise<NamedTask[]> {
  const tasks = await scenario.tasks.load(split, from + count, rng.split('tasks'));
  if (tasks.length !== from + count) {
    throw new OptimaError(
      'data.invalid',
      `Scenario "${scenario.name}": tasks.load('${split}', ${from + count}) gave ${tasks.length} tasks.`,
    );
  }
  return tasks.slice(from).map((task, index) => ({ id: taskId(split, from + index), task }));
}
