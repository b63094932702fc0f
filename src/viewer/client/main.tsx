// The page: reads its address, shows what lies there.
import { signal } from '@preact/signals';
import { render } from 'preact';
import { useEffect, useRef } from 'preact/hooks';
import { rootOf } from '../api.ts';
import { Compare } from './pages/compare.tsx';
import { Dialogue } from './pages/dialogue.tsx';
import { Machines } from './pages/machines.tsx';
import { Run } from './pages/run.tsx';
import { Runs } from './pages/runs.tsx';
import { Tasks } from './pages/tasks.tsx';
import { Tree } from './pages/tree.tsx';
import { Turn } from './pages/turn.tsx';
import { href, parseRoute } from './route.ts';
import { isStatic, takeToken } from './source.ts';
import { lineOf } from './visible.ts';

void takeToken();
const route = signal(parseRoute(location.hash));
addEventListener('hashchange', () => {
  void takeToken();
  route.value = parseRoute(location.hash);
});

/** A page: its title, the way to it, and what it shows. */
interface Page {
  readonly title: string;
  readonly way: readonly (readonly [name: string, address: string])[];
  readonly body: preact.ComponentChild;
}

function pageOf(): Page {
  const { path, query } = route.value;
  const [place, run, what, id] = path;
  if (place === undefined) return { title: 'Runs', way: [], body: <Runs /> };
  if (place === 'run' && run !== undefined) {
    const way = [[run, href(['run', run])]] as const;
    const task = id === undefined ? '' : rootOf(id);
    const phase = task.slice(0, task.lastIndexOf('/'));
    const toTasks = [...way, [phase, href(['run', run, 'tasks'], { phase })]] as const;
    const toTree = [...toTasks, [task.slice(phase.length + 1), href(['run', run, 'tree', task])]] as const;
    if (what === undefined) return { title: run, way, body: <Run run={run} /> };
    if (what === 'tasks') return { title: 'Tasks', way, body: <Tasks run={run} query={query} /> };
    if (what === 'machines') return { title: 'Machines', way, body: <Machines run={run} /> };
    if (id !== undefined) {
      if (what === 'tree')
        return {
          title: id.slice(phase.length + 1),
          way: toTasks,
          body: <Tree run={run} tree={id} node={query.node} />,
        };
      if (what === 'turn')
        return { title: id.slice(phase.length + 1), way: toTree, body: <Turn run={run} node={id} /> };
      if (what === 'dialogue')
        return {
          title: `Dialogue ${id.slice(phase.length + 1)}`,
          way: toTree,
          body: <Dialogue run={run} dialogue={id} />,
        };
    }
  }
  const [, one, other] = path;
  if (place === 'compare' && one !== undefined && other !== undefined) {
    const body = <Compare one={one} other={other} query={query} />;
    return { title: `${one} and ${other}`, way: [], body };
  }
  return { title: 'Nothing here', way: [], body: <p>There is nothing at this address.</p> };
}

const themes = ['light dark', 'light', 'dark'] as const;
const themeNames = { 'light dark': 'as the system', light: 'light', dark: 'dark' } as const;
const theme = signal(themes.find((name) => name === localStorage.getItem('theme')) ?? themes[0]);

function ThemeButton() {
  const { value } = theme;
  useEffect(() => {
    document.documentElement.style.colorScheme = value;
    localStorage.setItem('theme', value);
  }, [value]);
  const turn = () => {
    theme.value = themes[(themes.indexOf(value) + 1) % themes.length]!;
  };
  return (
    <button type="button" class="quiet" onClick={turn} aria-label={`Colours: ${themeNames[value]}. Change`}>
      <svg viewBox="0 0 16 16" width="15" height="15" aria-hidden="true">
        <circle cx="8" cy="8" r="6" class="outline" />
        <path d="M8 2a6 6 0 0 1 0 12z" class="solid" />
      </svg>
    </button>
  );
}

function App() {
  const { title, way, body } = pageOf();
  const main = useRef<HTMLElement>(null);
  const place = route.value.path.join('/');
  const seen = useRef(place);
  useEffect(() => {
    document.title = `${lineOf(title)} · optima`;
    if (seen.current === place) return;
    // Who does not see the page hears that it is another one.
    seen.current = place;
    main.current?.focus({ preventScroll: true });
    scrollTo(0, 0);
  }, [title, place]);
  return (
    <>
      <button type="button" class="skip" onClick={() => main.current?.focus()}>
        to the content
      </button>
      <header>
        <nav aria-label="Where you are">
          <ol>
            <li>
              <a href="#/" class="brand">
                optima
              </a>
            </li>
            {way.map(([name, address]) => (
              <li key={address}>
                <a href={address}>{name}</a>
              </li>
            ))}
          </ol>
        </nav>
        {isStatic && <span class="chip">a copy</span>}
        <ThemeButton />
      </header>
      <main id="main" ref={main} tabIndex={-1}>
        <h1>{lineOf(title)}</h1>
        {body}
      </main>
    </>
  );
}

render(<App />, document.body);
