// The tasks of a run: a hash of all that the roles will be told.
import { messageOf, OptimaError } from '../domain/errors.ts';
import { createHash16 } from '../domain/hash.ts';
import { createRng } from '../domain/rng.ts';
import type { Recipe } from '../recipe/schema.ts';
import { Course } from '../scenario/course.ts';
import { loadTasks } from '../scenario/tasks.ts';
import { type Scenario, type Split, splits } from '../scenario/types.ts';
import { planRun } from './plan.ts';

/** How many tasks of each split a run needs, the first ones. */
export function taskCounts(scenario: Scenario, recipe: Recipe): Readonly<Record<Split, number>> {
  const counts = { train: 0, validation: 0, test: 0 };
  for (const phase of planRun(recipe, scenario)) {
    if (phase.kind === 'generate' || phase.kind === 'search') {
      counts.train = Math.max(counts.train, phase.tasks.from + phase.tasks.count);
    } else if (phase.kind === 'evaluate') {
      counts[phase.split] = Math.max(counts[phase.split], phase.tasks);
    }
  }
  return counts;
}

/** Throws `scenario.invalid` unless the scenario, loaded or dealt again, says what made this hash of its tasks. */
export async function requireRepeats(scenario: Scenario, recipe: Recipe, tasks: string): Promise<void> {
  if ((await hashTasks(scenario, recipe)) === tasks) return;
  throw new OptimaError(
    'scenario.invalid',
    `Scenario "${scenario.name}": dealt twice from one seed, its tasks, views or answers are not the same.`,
    {
      hint: 'Draw from the rng of `tasks` alone: nothing else may be random or go by the clock. `optima check` names the function.',
    },
  );
}

/** Throws `run.diverged` unless the scenario's tasks are those that a run began with, of this hash. */
export async function requireSameTasks(scenario: Scenario, recipe: Recipe, tasks: string): Promise<void> {
  if ((await hashTasks(scenario, recipe)) === tasks) return;
  throw new OptimaError('run.diverged', `The tasks of "${scenario.name}" are not those the run began with.`, {
    hint: 'Restore the files the scenario imports and its data, or start a new run.',
  });
}

/**
 * Deals all the tasks that a run will need, so that what is wrong with them shows before it begins; resolves with
 * a hash of all that is said before the first turn and of the right answers: 16 hexadecimal digits of a SHA-256. Rejects with what
 * the task source throws, and with `scenario.invalid` when a view or the answers cannot be written.
 */
export async function hashTasks(scenario: Scenario, recipe: Recipe): Promise<string> {
  const counts = taskCounts(scenario, recipe);
  const hash = createHash16().update(JSON.stringify(scenario.formats));
  for (const split of splits) {
    const range = { from: 0, count: counts[split] };
    for (const { id, task } of await loadTasks(scenario, split, range, createRng(recipe.seed))) {
      try {
        const { views, opening } = new Course(scenario, task).deal();
        const said = [id, Object.values(views), scenario.answers(task), ...(opening ?? [])];
        hash.update(`\n${JSON.stringify(said)}`);
      } catch (error) {
        throw new OptimaError(
          'scenario.invalid',
          `Scenario "${scenario.name}": task ${id} cannot be dealt: ${messageOf(error)}.`,
          { cause: error },
        );
      }
    }
  }
  return hash.digest();
}
