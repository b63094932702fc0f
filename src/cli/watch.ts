// Watches over a scenario's code from another thread: code that never comes back blocks this one, with its timers and its
// signals, and only another can say so and end the command.
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { OptimaError } from '../domain/errors.ts';
import { type LoadedScenario, loadScenario, reloadScenario } from '../scenario/load.ts';
import type { Scenario } from '../scenario/types.ts';

/** Longest time of one call of a scenario's function; a `load` may read large files. */
const limitSeconds = 20;
const loadLimitSeconds = 120;
const beatMs = 100;

/**
 * What the two threads share. `running`: the number of the function that runs, from 1, else 0, functions that it calls being part of
 * it; `calls`: how many calls there were; `ended`: 1 once a call was broken off. `awaited`: the number of the function whose
 * promise has been awaited for longest, else 0; `awaits`: how many promises there were up to it; `beats`: grows while this thread
 * comes round.
 */
const cell = { running: 0, calls: 1, ended: 2, awaited: 3, awaits: 4, beats: 5 } as const;
const cells = new Int32Array(new SharedArrayBuffer(4 * Object.keys(cell).length));

/** What scenario code does, by its number: what it is called, and what is said where its promise does not settle. */
interface Watched {
  readonly name: string;
  readonly seconds: number;
  readonly unsettled: string;
}
const functions: Watched[] = [{ name: '', seconds: 0, unsettled: '' }];
/** Promises that scenario code gave and that have not settled, by their numbers, each with that of its function. */
const pending = new Map<number, number>();
let promises = 0;
let watcher: Worker | null = null;

/**
 * As `loadScenario`, watched over, from the import of its file on: code that runs too long, also behind an `await`, ends the process
 * with one line that names it, and exit code 1. `seconds` overrides what is too long.
 */
export async function openScenario(
  name: string,
  signal?: AbortSignal,
  seconds?: number,
): Promise<LoadedScenario> {
  const importing = (imported: Promise<LoadedScenario>) => loading(name, imported, seconds);
  return watch(await loadScenario(name, signal, importing), seconds);
}

/** As `reloadScenario`, watched over. */
export async function reopenScenario(loaded: LoadedScenario): Promise<LoadedScenario> {
  return watch(await loading(loaded.file, reloadScenario(loaded)));
}

function loading<Result>(file: string, promise: Promise<Result>, seconds = limitSeconds): Promise<Result> {
  const number = add({
    name: `${file}, as it is imported,`,
    seconds,
    unsettled: `${file}: its top level awaits what never settles.`,
  });
  return watchPromise(promise, number);
}

function watch(loaded: LoadedScenario, seconds?: number): LoadedScenario {
  const { scenario } = loaded;
  return { ...loaded, scenario: watchObject(scenario, `Scenario "${scenario.name}": `, seconds) as Scenario };
}

/** What a command waits for that has nothing left to do; null where it is not for a scenario. */
export function unsettled(): OptimaError | null {
  const [first] = pending.values();
  return first === undefined ? null : new OptimaError('timeout', functions[first]!.unsettled);
}

/** The object with its functions watched, and those of its objects. */
function watchObject(value: object, path: string, seconds: number | undefined): object {
  return Object.fromEntries(
    Object.entries(value).map(([key, part]) => {
      if (typeof part === 'function') return [key, watchFunction(part, path + key, seconds)];
      const isPlain =
        typeof part === 'object' && part !== null && Object.getPrototypeOf(part) === Object.prototype;
      return [key, isPlain ? watchObject(part, `${path}${key}.`, seconds) : part];
    }),
  );
}

function add(watched: Watched): number {
  const number = functions.push(watched) - 1;
  watcher ??= startWatcher();
  watcher.postMessage(watched);
  return number;
}

function watchFunction(own: (...args: unknown[]) => unknown, name: string, seconds?: number) {
  const number = add({
    name,
    seconds: seconds ?? (name.endsWith('load') ? loadLimitSeconds : limitSeconds),
    unsettled: `${name} gave a promise that never settles.`,
  });
  const watched = function (this: unknown, ...args: unknown[]): unknown {
    if (cells[cell.running] !== 0) return own.apply(this, args);
    cells[cell.running] = number;
    cells[cell.calls]!++;
    try {
      const result = own.apply(this, args);
      return result instanceof Promise ? watchPromise(result, number) : result;
    } finally {
      cells[cell.running] = 0;
    }
  };
  // Also how many arguments it takes: a metric of three sees the dialogue.
  return Object.defineProperties(watched, Object.getOwnPropertyDescriptors(own));
}

function watchPromise<Result>(promise: Promise<Result>, number: number): Promise<Result> {
  const entry = ++promises;
  pending.set(entry, number);
  noteFirst();
  return promise.finally(() => {
    pending.delete(entry);
    noteFirst();
  });
}

function noteFirst(): void {
  const [[entry, number] = [0, 0]] = pending;
  cells[cell.awaits] = entry;
  cells[cell.awaited] = number;
}

function startWatcher(): Worker {
  // While this thread is blocked no listener hears a signal: without one, Ctrl-C ends the process.
  process.on('optima.blocked' as 'exit', () => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) {
      const listeners = process.listeners(signal);
      process.removeAllListeners(signal);
      setImmediate(() => {
        for (const listener of listeners) process.on(signal, listener);
      });
    }
  });
  // With the inspector still in this thread, Node would say that it waits for it.
  process.on('optima.ends' as 'exit', () => {
    setInterval(() => cells[cell.ended] === 1 && setTimeout(() => process.exit(1), 50), 10);
  });
  setInterval(() => cells[cell.beats]!++, beatMs).unref();
  const workerData = {
    cells,
    cell,
    json: process.argv.includes('--json'),
    ours: fileURLToPath(new URL('../', import.meta.url)),
  };
  const worker = new Worker(watching, { eval: true, workerData, execArgv: [] });
  worker.unref();
  return worker;
}

/** What the other thread does. The inspector is the one way into a thread that is blocked. */
const watching = `
const { writeSync } = require('node:fs');
const { Session } = require('node:inspector');
const { pathToFileURL } = require('node:url');
const { parentPort, workerData: { cells, cell, json, ours } } = require('node:worker_threads');
const tickMs = 250;
const functions = [{}];
parentPort.on('message', (watched) => functions.push(watched));
const connect = () => {
  const session = new Session();
  session.connectToMainThread();
  return session;
};
const evaluate = (expression, then) => {
  const session = connect();
  const leave = () => {
    session.disconnect();
    if (then) cells[cell.ended] = 1;
  };
  session.post('Runtime.evaluate', { expression }, then ? () => session.post(then, leave) : leave);
};
const isOurs = (url) =>
  !url.startsWith('file:') || url.startsWith(pathToFileURL(ours).href) || url.includes('/node_modules/');
// Whether the main thread, which is blocked, runs code that is neither Node's nor ours.
const runsOthers = (then) => {
  const session = connect();
  const urls = new Map();
  session.on('Debugger.scriptParsed', ({ params: { scriptId, url } }) => urls.set(scriptId, url));
  session.on('Debugger.paused', ({ params: { callFrames } }) => {
    session.post('Debugger.resume', () => session.disconnect());
    then(callFrames.some(({ location }) => !isOurs(urls.get(location.scriptId) ?? '')));
  });
  session.post('Debugger.enable', () => session.post('Debugger.pause'));
};
let over = false;
const end = ({ name, seconds }) => {
  over = true;
  const message = name + ' has not come back for ' + seconds + ' s.';
  const hint = 'Does it loop for ever? What takes long by design belongs into tasks.load, or into a promise.';
  if (json) writeSync(1, JSON.stringify({ event: 'error', code: 'timeout', message, hint }) + '\\n');
  else writeSync(2, 'error: ' + message + '\\nhint: ' + hint + '\\n');
  evaluate("process.emit('optima.ends')", 'Runtime.terminateExecution');
};
let call = 0;
let beat = 0;
let wait = 0;
// Not the clock's time: a process that was suspended has not run.
let ticks = 0;
let still = 0;
let waited = 0;
const due = (count, { seconds }) => count * tickMs === seconds * 1000;
setInterval(() => {
  if (over) return;
  const running = cells[cell.running];
  ticks = running !== 0 && cells[cell.calls] === call ? ticks + 1 : 0;
  call = cells[cell.calls];
  if (ticks === 4) evaluate("process.emit('optima.blocked')");
  if (ticks > 0 && due(ticks, functions[running] ?? {})) end(functions[running]);

  const awaited = functions[cells[cell.awaited]];
  still = cells[cell.awaited] !== 0 && running === 0 && cells[cell.beats] === beat ? still + 1 : 0;
  beat = cells[cell.beats];
  const overdue = still > 0 && due(still, awaited ?? {});
  // Asked once a tick: each session hears of the pause that another one asked for, and would resume from it too.
  if (still === 4 || overdue) runsOthers((are) => {
    if (are && !overdue) evaluate("process.emit('optima.blocked')");
    if (are && overdue) end(awaited);
  });

  waited = cells[cell.awaited] !== 0 && cells[cell.awaits] === wait ? waited + 1 : 0;
  wait = cells[cell.awaits];
  if (waited > 0 && still === 0 && due(waited, awaited ?? {})) {
    writeSync(2, 'note: for ' + awaited.seconds + ' s: ' + awaited.unsettled.replace('never settles', 'has not settled') + '\\n');
  }
}, tickMs);
`;
