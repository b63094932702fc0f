// The tasks of a run: which of them each phase takes, and a hash of all that the roles will be told.
import { createHash } from 'node:crypto';
import { messageOf, OptimaError } from '../domain/errors.ts';
import { createRng } from '../domain/rng.ts';
import type { IterationPlan } from '../machines/index.ts';
import type { Recipe } from '../recipe/schema.ts';
import { loadTasks, type TaskRange } from '../scenario/tasks.ts';
import { type Scenario, type Split, systemText } from '../scenario/types.ts';

/** The training tasks of an iteration, which no other one has. */
export function trainingTasks({ initialization, isft }: Recipe, { index, kind }: IterationPlan): TaskRange {
  return kind === 'init'
    ? { from: 0, count: initialization.tasks }
    : { from: initialization.tasks + (index - 1) * isft.tasks, count: isft.tasks };
}

/**
 * Deals all the tasks that a run will need, so that what is wrong with them shows before it begins; resolves with
 * a hash of what the roles are told and of the right answers: 16 hexadecimal digits of a SHA-256. Rejects with what
 * the task source throws, and with `scenario.invalid` when a view or the answers cannot be written.
 */
export async function hashTasks(scenario: Scenario, recipe: Recipe): Promise<string> {
  const { initialization, isft, iterations, evaluation } = recipe;
  const counts = {
    train: initialization.tasks + iterations * isft.tasks,
    validation: evaluation.validationTasks,
    test: evaluation.tasks,
  };
  const hash = createHash('sha256').update(JSON.stringify(scenario.formats));
  for (const [split, count] of Object.entries(counts) as [Split, number][]) {
    for (const { id, task } of await loadTasks(scenario, split, { from: 0, count }, createRng(recipe.seed))) {
      try {
        const views = Object.keys(scenario.roles).map((role) => systemText(scenario, role, task, null));
        hash.update(`\n${JSON.stringify([id, views, scenario.answers(task)])}`);
      } catch (error) {
        throw new OptimaError(
          'scenario.invalid',
          `Scenario "${scenario.name}": task ${id} cannot be dealt: ${messageOf(error)}.`,
          { cause: error },
        );
      }
    }
  }
  return hash.digest('hex').slice(0, 16);
}
