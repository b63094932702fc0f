// Which tasks are shown, and in which order: the same on the server and in a static copy.
import type { FoundRow, TaskRow, TasksAnswer } from './api.ts';

export const taskSorts = ['gap', 'worst', 'best', 'score', 'tokens', 'task'] as const;
export type TaskSort = (typeof taskSorts)[number];
export const taskFilters = ['all', 'kept', 'failed', 'wrong'] as const;
export type TaskFilter = (typeof taskFilters)[number];

export interface TasksQuery {
  readonly phase: string;
  readonly sort: TaskSort;
  readonly filter: TaskFilter;
  /** Part of a task's id, or of what was said in its dialogues. */
  readonly search: string;
  /** From 0. */
  readonly page: number;
}

export const pageSize = 200;

/** A query as an address has it; what is not known is what is usual. */
export function tasksQuery(query: Readonly<Record<string, string | undefined>>): TasksQuery {
  const page = Number(query.page);
  return {
    phase: query.phase ?? '',
    sort: taskSorts.find((name) => name === query.sort) ?? 'gap',
    filter: taskFilters.find((name) => name === query.filter) ?? 'all',
    search: query.search ?? '',
    page: Number.isSafeInteger(page) && page >= 0 ? page : 0,
  };
}

const keys: Readonly<Record<Exclude<TaskSort, 'task'>, (row: TaskRow) => number | null>> = {
  gap: ({ gap }) => negated(gap),
  worst: ({ worst }) => worst,
  best: ({ best }) => negated(best),
  score: ({ taskScore }) => taskScore,
  tokens: ({ tokens }) => negated(tokens),
};

const negated = (value: number | null) => (value === null ? null : -value);

const filters: Readonly<Record<TaskFilter, (row: TaskRow) => boolean>> = {
  all: () => true,
  kept: ({ kept }) => kept > 0,
  failed: ({ failed }) => failed > 0,
  wrong: ({ taskScore }) => taskScore !== null && taskScore < 1,
};

/** The phase that a query is of; without one the last whose dialogues were ranked, or the last at all. */
export const phaseOf = (all: readonly TaskRow[], phase: string): string | undefined =>
  all.some((row) => row.phase === phase)
    ? phase
    : (all.findLast(({ of }) => of === 'reward') ?? all.at(-1))?.phase;

/** The rows of a query, a page of them; `found` has the trees in whose dialogues stands what is searched for. */
export function tasksAnswer(
  all: readonly TaskRow[],
  { phase, sort, filter, search, page }: TasksQuery,
  found: ReadonlyMap<string, NonNullable<FoundRow['said']>> = new Map(),
): TasksAnswer {
  const trees = new Map<string, number>();
  for (const row of all) trees.set(row.phase, (trees.get(row.phase) ?? 0) + 1);
  const shown = phaseOf(all, phase);
  const wanted = search.toLowerCase();
  const rows = all.filter(
    (row) =>
      row.phase === shown &&
      filters[filter](row) &&
      (row.taskId.toLowerCase().includes(wanted) || found.has(row.tree)),
  );
  if (sort !== 'task') {
    const key = keys[sort];
    // What has no such figure comes last; the rest stays in the order of the log.
    const rank = (row: TaskRow) => key(row) ?? Number.POSITIVE_INFINITY;
    rows.sort((one, other) => (rank(one) === rank(other) ? 0 : rank(one) - rank(other)));
  }
  return {
    rows: rows
      .slice(page * pageSize, (page + 1) * pageSize)
      .map((row) => ({ ...row, said: found.get(row.tree) })),
    total: rows.length,
    ...{ page, pageSize, phase: shown ?? '' },
    phases: [...trees].map(([name, count]) => ({ name, trees: count })),
  };
}
