// Watches over a scenario's code from another thread: a function that never comes back blocks this one, with its timers and its
// signals, and only another can say so and end the command.
import { Worker } from 'node:worker_threads';
import { OptimaError } from '../domain/errors.ts';
import { type LoadedScenario, loadScenario, reloadScenario } from '../scenario/load.ts';
import type { Scenario } from '../scenario/types.ts';

/** Longest time of one call of a scenario's function; a `load` may read large files. */
const limitSeconds = 20;
const loadLimitSeconds = 120;

/** The number of the function that runs, from 1, else 0; how many calls there were; 1 once a call was broken off. Functions that it calls are part of it. */
const cells = new Int32Array(new SharedArrayBuffer(12));
/** By their numbers. */
const names = [''];
/** Promises that scenario code gave and that have not settled. */
const pending = new Set<{ readonly name: string }>();
let watcher: Worker | null = null;

/** As `loadScenario`, watched over: a function that runs too long ends the process with one line that names it, and exit code 1. */
export async function openScenario(
  name: string,
  signal?: AbortSignal,
  seconds?: number,
): Promise<LoadedScenario> {
  return watch(await loadScenario(name, signal), seconds);
}

/** As `reloadScenario`, watched over. */
export async function reopenScenario(loaded: LoadedScenario): Promise<LoadedScenario> {
  return watch(await reloadScenario(loaded));
}

function watch(loaded: LoadedScenario, seconds?: number): LoadedScenario {
  const { scenario } = loaded;
  const watched = watchObject(scenario, `Scenario "${scenario.name}": `) as Scenario;
  watcher ??= startWatcher();
  watcher.postMessage(
    names.map((name) => ({
      name,
      seconds: seconds ?? (name.endsWith('load') ? loadLimitSeconds : limitSeconds),
    })),
  );
  return { ...loaded, scenario: watched };
}

/** What a command waits for that has nothing left to do; null where it is not for a scenario. */
export function unsettled(): OptimaError | null {
  const [first] = pending;
  if (first === undefined) return null;
  return new OptimaError('timeout', `${first.name} gave a promise that never settles.`);
}

/** The object with its functions watched, and those of its objects. */
function watchObject(value: object, path: string): object {
  return Object.fromEntries(
    Object.entries(value).map(([key, part]) => {
      if (typeof part === 'function') return [key, watchFunction(part, path + key)];
      const isPlain =
        typeof part === 'object' && part !== null && Object.getPrototypeOf(part) === Object.prototype;
      return [key, isPlain ? watchObject(part, `${path}${key}.`) : part];
    }),
  );
}

function watchFunction(own: (...args: unknown[]) => unknown, name: string) {
  const number = names.push(name) - 1;
  const watched = function (this: unknown, ...args: unknown[]): unknown {
    if (cells[0] !== 0) return own.apply(this, args);
    cells[0] = number;
    cells[1]!++;
    try {
      const result = own.apply(this, args);
      return result instanceof Promise ? watchPromise(result, name) : result;
    } finally {
      cells[0] = 0;
    }
  };
  // Also how many arguments it takes: a metric of three sees the dialogue.
  return Object.defineProperties(watched, Object.getOwnPropertyDescriptors(own));
}

function watchPromise(promise: Promise<unknown>, name: string): Promise<unknown> {
  const entry = { name };
  pending.add(entry);
  return promise.finally(() => pending.delete(entry));
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
    setInterval(() => cells[2] === 1 && setTimeout(() => process.exit(1), 50), 10);
  });
  const workerData = { cells, json: process.argv.includes('--json') };
  const worker = new Worker(watching, { eval: true, workerData, execArgv: [] });
  worker.unref();
  return worker;
}

/** What the other thread does. The inspector is the one way into a thread that is blocked. */
const watching = `
const { writeSync } = require('node:fs');
const { Session } = require('node:inspector');
const { parentPort, workerData: { cells, json } } = require('node:worker_threads');
const tickMs = 250;
let functions = [];
parentPort.on('message', (known) => { functions = known; });
const evaluate = (expression, then) => {
  const session = new Session();
  session.connectToMainThread();
  const leave = () => {
    session.disconnect();
    if (then) cells[2] = 1;
  };
  session.post('Runtime.evaluate', { expression }, then ? () => session.post(then, leave) : leave);
};
let call = 0;
// Not the clock's time: a process that was suspended has not run.
let ticks = 0;
setInterval(() => {
  ticks = cells[0] !== 0 && cells[1] === call ? ticks + 1 : 0;
  call = cells[1];
  if (ticks === 4) evaluate("process.emit('optima.blocked')");
  const { name, seconds } = functions[cells[0]] ?? {};
  if (ticks === 0 || ticks * tickMs !== seconds * 1000) return;
  const message = name + ' has not come back for ' + seconds + ' s.';
  const hint = 'Does it loop for ever? What takes long by design belongs into tasks.load, or into a promise.';
  if (json) writeSync(1, JSON.stringify({ event: 'error', code: 'timeout', message, hint }) + '\\n');
  else writeSync(2, 'error: ' + message + '\\nhint: ' + hint + '\\n');
  evaluate("process.emit('optima.ends')", 'Runtime.terminateExecution');
}, tickMs);
`;
