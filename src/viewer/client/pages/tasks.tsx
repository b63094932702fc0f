// The tasks of a phase: sorted, filtered, searched; a list of any length, of which only what is to be seen is there.
import { useEffect, useRef, useState } from 'preact/hooks';
import type { FoundRow, TasksAnswer } from '../../api.ts';
import { pageSize, type TaskFilter, type TaskSort, tasksQuery } from '../../tasks.ts';
import { count, number, Problem, Reading } from '../parts.tsx';
import { href } from '../route.ts';
import { isStatic, useAnswer } from '../source.ts';
import { RunTabs } from './run.tsx';

const rowHeight = 29;
/** How long nothing is typed before it is searched. */
const typingMs = 250;
const sortNames: Readonly<Record<TaskSort, string>> = {
  gap: 'reward gap, widest first',
  worst: 'worst dialogue first',
  best: 'best dialogue first',
  score: 'mean score, lowest first',
  tokens: 'most tokens first',
  task: 'as in the log',
};
const filterNames: Readonly<Record<TaskFilter, string>> = {
  all: 'all',
  kept: 'trained on',
  failed: 'with failures',
  wrong: 'not always right',
};
/** Columns, and by what each is sorted. */
const columns: readonly (readonly [name: string, sort: TaskSort | null])[] = [
  ['task', 'task'],
  ['gap', 'gap'],
  ['best', 'best'],
  ['worst', 'worst'],
  ['score', 'score'],
  ['tokens', 'tokens'],
  ['dialogues', null],
  ['failed', null],
  ['trained on', null],
];

type Query = Readonly<Record<string, string>>;

export function Tasks({ run, query }: { run: string; query: Query }) {
  const list = useRef<HTMLDivElement>(null);
  const [top, setTop] = useState(0);
  const { phase, sort, filter, search } = tasksQuery(query);
  const asked = { phase, sort, filter, search };
  const firstRow = Math.max(0, Math.floor(top / rowHeight) - 10);
  const page = Math.floor(firstRow / pageSize);
  const here = useAnswer('/api/runs/{run}/tasks', { run }, { ...asked, page: String(page) });
  const next = useAnswer('/api/runs/{run}/tasks', { run }, { ...asked, page: String(page + 1) });
  const go = (change: Query) => {
    list.current?.scrollTo(0, 0);
    location.replace(href(['run', run, 'tasks'], { ...query, ...change }));
  };
  const [typed, setTyped] = useState(search);
  const typing = useRef<ReturnType<typeof setTimeout>>(undefined);
  useEffect(() => setTyped(search), [search]);
  // What was said takes a while to be searched: it is when nothing has been typed for a moment.
  const searchSoon = (text: string) => {
    setTyped(text);
    clearTimeout(typing.current);
    typing.current = setTimeout(() => go({ search: text }), typingMs);
  };
  const known = here.value;
  const isSaid = known?.rows.some(({ said }) => said !== undefined) ?? false;
  return (
    <>
      <RunTabs run={run} here="tasks" />
      {here.failure !== null && <Problem failure={here.failure} />}
      {known === null && here.failure === null && <Reading />}
      <form class="controls" onSubmit={(event) => event.preventDefault()}>
        <Choice
          name="phase"
          value={known?.phase ?? phase}
          options={(known?.phases ?? []).map(({ name, trees }) => [name, `${name} (${count(trees)})`])}
          onChange={(value) => go({ phase: value })}
        />
        <Choice
          name="show"
          value={filter}
          options={Object.entries(filterNames)}
          onChange={(value) => go({ filter: value })}
        />
        <Choice
          name="sort"
          value={sort}
          options={Object.entries(sortNames)}
          onChange={(value) => go({ sort: value })}
        />
        <label>
          search{' '}
          <input
            type="search"
            value={typed}
            placeholder={isStatic ? 'part of a task’s id' : 'an id, or what was said'}
            onInput={({ currentTarget }) => searchSoon(currentTarget.value)}
          />
        </label>
        <output class="faint">{known !== null && `${count(known.total)} tasks`}</output>
      </form>
      <section
        class="wide tall"
        aria-label="Tasks"
        ref={list as preact.RefObject<HTMLElement>}
        tabIndex={0}
        onScroll={({ currentTarget }) => setTop(currentTarget.scrollTop)}
        onKeyDown={walkRows}
      >
        <table class="rows" aria-rowcount={known?.total}>
          <thead>
            <tr>
              {columns.map(([name, own]) => (
                <th
                  key={name}
                  scope="col"
                  aria-sort={own === sort ? 'descending' : undefined}
                  class={name === 'task' ? '' : 'number'}
                >
                  {own === null ? (
                    name
                  ) : (
                    <button type="button" class="quiet" onClick={() => go({ sort: own })}>
                      {name}
                      {own === sort && <span aria-hidden="true"> ▾</span>}
                    </button>
                  )}
                </th>
              ))}
              {isSaid && (
                <th scope="col" class="number">
                  said
                </th>
              )}
            </tr>
          </thead>
          {known !== null && (
            <Rows
              run={run}
              first={firstRow}
              total={known.total}
              height={list.current?.clientHeight ?? 700}
              isSaid={isSaid}
              pages={[known, next.value]}
            />
          )}
        </table>
        {known?.total === 0 && <p class="faint padded">No task here.</p>}
      </section>
    </>
  );
}

/** The rows that are to be seen, between two that are as high as what is not. */
function Rows({
  run,
  first,
  total,
  height,
  isSaid,
  pages,
}: {
  run: string;
  first: number;
  total: number;
  height: number;
  isSaid: boolean;
  pages: readonly (TasksAnswer | null)[];
}) {
  const last = Math.min(total, first + Math.ceil(height / rowHeight) + 20);
  const rowAt = (index: number): FoundRow | undefined =>
    pages.find((page) => page !== null && Math.floor(index / pageSize) === page.page)?.rows[index % pageSize];
  return (
    <tbody>
      <tr style={{ height: `${first * rowHeight}px` }} aria-hidden="true" />
      {Array.from({ length: Math.max(0, last - first) }, (_, index) => {
        const row = rowAt(first + index);
        return row === undefined ? (
          <tr key={first + index} style={{ height: `${rowHeight}px` }}>
            <td class="faint">…</td>
          </tr>
        ) : (
          <Row key={first + index} run={run} row={row} index={first + index} isSaid={isSaid} />
        );
      })}
      <tr style={{ height: `${(total - last) * rowHeight}px` }} aria-hidden="true" />
    </tbody>
  );
}

function Row({ run, row, index, isSaid }: { run: string; row: FoundRow; index: number; isSaid: boolean }) {
  const { tree, taskId, gap, best, worst, taskScore, tokens, dialogues, failed, kept, said } = row;
  return (
    <tr aria-rowindex={index + 2} style={{ height: `${rowHeight}px` }}>
      <th scope="row">
        <a href={href(['run', run, 'tree', tree])}>{taskId}</a>
      </th>
      <td class="number">{number(gap)}</td>
      <td class="number">{number(best)}</td>
      <td class="number">{number(worst)}</td>
      <td class="number">{number(taskScore, 2)}</td>
      <td class="number">{number(tokens, 1)}</td>
      <td class="number">{dialogues}</td>
      <td class={failed > 0 ? 'number worse' : 'number faint'}>{failed}</td>
      <td class={kept > 0 ? 'number' : 'number faint'}>{kept}</td>
      {isSaid && (
        <td class="number">
          {said && (
            <a href={href(['run', run, 'turn', said.first])} title="the first turn that said it">
              {count(said.messages)}
            </a>
          )}
        </td>
      )}
    </tr>
  );
}

/** Up and down go from row to row. */
function walkRows(event: KeyboardEvent): void {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (step === undefined) return;
  const links = [...(event.currentTarget as HTMLElement).querySelectorAll<HTMLElement>('tbody th a')];
  const at = links.indexOf(document.activeElement as HTMLElement);
  const next = links[at < 0 ? 0 : at + step];
  if (next === undefined) return;
  event.preventDefault();
  next.focus();
}

export function Choice({
  name,
  value,
  options,
  onChange,
}: {
  name: string;
  value: string;
  options: readonly (readonly [value: string, name: string])[];
  onChange: (value: string) => void;
}) {
  return (
    <label>
      {name}{' '}
      <select value={value} onChange={({ currentTarget }) => onChange(currentTarget.value)}>
        {options.map(([each, shown]) => (
          <option key={each} value={each}>
            {shown}
          </option>
        ))}
      </select>
    </label>
  );
}
