// What somebody may have meant who named a task or a turn that a run does not have.
import { nearest } from '../domain/errors.ts';
import type { RunReader } from './run-reader.ts';

/** The nearest task, or the nearest tree or dialogue, as a question; where none is near, one that the run has. */
export function nearestWords(reader: RunReader, what: 'task' | 'node', id: string): string {
  const trees = [...reader.trees()];
  const roots = trees.map(({ root }) => root);
  const tasks = [...new Set(trees.map(({ taskId }) => taskId))];
  const within = nearest(id.replace(/(\.f?\d+)+$/, ''), roots);
  const dialogues = within === undefined ? [] : [...reader.dialogues({ tree: within })].map((one) => one.id);
  const guess = what === 'task' ? nearest(id, tasks) : (nearest(id, dialogues) ?? within);
  if (guess !== undefined) return `Did you mean ${guess}?`;
  return trees.length === 0
    ? 'It has no dialogue yet.'
    : `One that it has: ${what === 'task' ? tasks[0] : roots[0]}.`;
}
