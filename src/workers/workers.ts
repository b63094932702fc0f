// Worker threads with an engine each: models that generate and score off the main thread, and gradients by the pass.
// A worker that dies is replaced, and what it was doing is done again with the same result.
import { Worker } from 'node:worker_threads';
import { OptimaError } from '../domain/errors.ts';
import type { PolicyHash } from '../domain/ids.ts';
import type {
  Generation,
  LanguageModel,
  ModelSession,
  ScoreResult,
  SessionStatistics,
} from '../domain/model.ts';
import { type EngineOptions, readInto } from '../tensor/index.ts';
import { ParameterLayout, PassSum } from '../training/gradients.ts';
import type { Objective } from '../training/objective.ts';
import type { DifferentiablePolicy } from '../training/policy.ts';
import { type ComputePasses, passSeed } from '../training/step.ts';
import { modelOf, type PolicyHost, type PolicySource } from './host.ts';
import {
  type Command,
  type FromWorker,
  fromPlain,
  type PassResult,
  type SessionSource,
  type SharedNumbers,
  type ToWorker,
  type WorkerSetting,
} from './protocol.ts';

/** A worker went away in the middle of a command. */
class WorkerDied extends Error {}

/** Times that a command is tried before its worker's deaths are taken for its fault. */
const maxAttempts = 3;

interface Call {
  readonly resolve: (result: unknown) => void;
  readonly reject: (error: Error) => void;
}

/** What a session has asked, to be asked again of a worker that replaces its own. */
interface Past {
  readonly commands: Command[];
  /** How many of the thread's workers had died when the last one was told. */
  deaths: number;
  /** The telling that is under way, which all calls of the session wait for. */
  telling: Promise<void> | null;
}

/** The main thread's end of one worker. */
class Thread {
  readonly #setting: WorkerSetting;
  #worker: Worker | null = null;
  #ready: Promise<string> | null = null;
  #calls = new Map<number, Call>();
  #nextCall = 0;
  #deaths = 0;
  /** Which policies are needed, once that has been said. */
  #kept: Command | null = null;
  /** Whose weights the worker has been told to share, and not since that they are not needed. */
  #told = new Set<PolicyHash>();
  /** Once it is stopped nothing starts it again, and the process stays until it has ended. */
  #stopped = false;

  constructor(setting: WorkerSetting) {
    this.#setting = setting;
  }

  /** Starts the worker unless it runs; resolves with the name of its engine. */
  start(): Promise<string> {
    this.#ready ??= new Promise((resolve, reject) => {
      // Where tests run under `--import tsx`, the worker must not inherit it: it has a launcher of its own.
      const launcher = new URL('../../bin/worker.js', import.meta.url);
      const worker = new Worker(launcher, { workerData: this.#setting, execArgv: [] });
      this.#worker = worker;
      const calls = this.#calls;
      let reason = '';
      worker.on('message', (message: FromWorker) => {
        if ('ready' in message) {
          // An idle worker must not keep the process alive.
          worker.unref();
          if (this.#kept !== null) this.tell(this.#kept);
          return resolve(message.engine);
        }
        if ('failed' in message) return reject(fromPlain(message.failed));
        const call = calls.get(message.id);
        calls.delete(message.id);
        if ('error' in message) call?.reject(fromPlain(message.error));
        else call?.resolve(message.result);
      });
      worker.on('error', (error) => {
        reason = `: ${error.message}`;
      });
      worker.on('exit', () => {
        if (this.#worker === worker) {
          this.#worker = null;
          this.#ready = null;
          this.#calls = new Map();
          this.#told = new Set();
          this.#deaths++;
        }
        const died = new WorkerDied(`A worker thread died${reason}.`);
        reject(died);
        for (const call of calls.values()) call.reject(died);
      });
    });
    return this.#ready;
  }

  /** Carries out a command. Rejects with `WorkerDied` when the worker goes away before it has answered or is stopped. */
  async call(command: Command, signal?: AbortSignal): Promise<unknown> {
    if (this.#stopped) throw new WorkerDied('The worker thread was stopped.');
    await this.start();
    const worker = this.#worker;
    if (worker === null) throw new WorkerDied('A worker thread died.');
    const id = this.#nextCall++;
    const post = (message: ToWorker) => worker.postMessage(message);
    const abort = () => post({ id, abort: true });
    /** A source without shared weights, which the worker is sent once. */
    const told = ({ shared, base, ...source }: PolicySource): PolicySource => {
      if (shared !== undefined && !this.#told.has(shared.hash)) {
        this.#told.add(shared.hash);
        post({ shared });
      }
      return { ...source, ...(base && { base: told(base) }) };
    };
    worker.ref();
    try {
      return await new Promise((resolve, reject) => {
        this.#calls.set(id, { resolve, reject });
        signal?.addEventListener('abort', abort, { once: true });
        post({
          id,
          command: 'policy' in command ? { ...command, policy: told(command.policy) } : command,
        });
        if (command.type === 'keep') {
          for (const hash of this.#told) if (!command.hashes.includes(hash)) this.#told.delete(hash);
        }
        if (signal?.aborted) abort();
      });
    } finally {
      signal?.removeEventListener('abort', abort);
      if (this.#calls.size === 0 && !this.#stopped) worker.unref();
    }
  }

  /**
   * As `call`, in a new worker when the old one dies. A worker that is new to the session, also because the old one died
   * between two calls, is told the session's past first.
   */
  async insist(command: Command, signal?: AbortSignal, past?: Past): Promise<unknown> {
    for (let attempt = 1; ; attempt++) {
      try {
        if (past !== undefined) await this.#repeat(past, signal);
        return await this.call(command, signal);
      } catch (error) {
        if (!(error instanceof WorkerDied)) throw error;
        if (attempt < maxAttempts && !this.#stopped) continue;
        throw new OptimaError('model.failed', `${error.message} It was tried ${attempt} times.`, {
          cause: error,
        });
      }
    }
  }

  async #repeat(past: Past, signal?: AbortSignal): Promise<void> {
    if (past.telling === null && past.deaths === this.#deaths) return;
    past.telling ??= this.#tellPast(past, signal).finally(() => {
      past.telling = null;
    });
    await past.telling;
  }

  async #tellPast(past: Past, signal?: AbortSignal): Promise<void> {
    const deaths = this.#deaths;
    for (const earlier of [...past.commands]) await this.call(earlier, signal);
    past.deaths = deaths;
  }

  /** Tells the worker, and each that replaces it, which policies are needed. */
  keep(hashes: readonly PolicyHash[]): void {
    this.#kept = { type: 'keep', hashes };
    this.tell(this.#kept);
  }

  tell(command: Command): void {
    if (this.#worker !== null) this.call(command).catch(() => {});
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#worker?.ref();
    await this.#worker?.terminate();
  }
}

/** A session of a policy in one worker. */
function openSession(thread: Thread, source: SessionSource): ModelSession {
  // What the session remembers follows from its calls: a new worker repeats them to remember the same.
  const past: Past = { commands: [], deaths: 0, telling: null };
  const ask = async (command: Command, signal?: AbortSignal) => {
    const result = await thread.insist(command, signal, past);
    past.commands.push(command);
    return result;
  };
  return {
    hash: source.policy.hash,
    generate: async (requests, { signal } = {}) =>
      (await ask({ ...source, type: 'generate', requests }, signal)) as readonly Generation[],
    score: async (requests, { signal } = {}) =>
      (await ask({ ...source, type: 'score', requests }, signal)) as readonly ScoreResult[],
    // A worker that is new to the session does not know, and nothing is done again for it.
    measure: () =>
      thread.call({ ...source, type: 'measure' }).then(
        (statistics) => statistics as SessionStatistics | null,
        () => null,
      ),
    close: () => thread.tell({ type: 'close', session: source.session }),
  };
}

/** A set of worker threads. The owner stops them. */
export class Workers implements PolicyHost {
  /** What computes in each. */
  readonly engine: string;
  readonly #threads: readonly Thread[];
  #sessions = 0;
  #trainings = 0;

  private constructor(threads: readonly Thread[], engine: string) {
    this.#threads = threads;
    this.engine = engine;
  }

  /** Starts `count` workers, each with one core's share of the engine. Rejects as `startEngine` does. */
  static async start(count: number, engine: EngineOptions = {}): Promise<Workers> {
    const setting = { engine: { ...engine, threads: 1 } };
    const threads = Array.from({ length: count }, () => new Thread(setting));
    try {
      const [name] = await Promise.all(threads.map((thread) => thread.start()));
      return new Workers(threads, name!);
    } catch (error) {
      await Promise.all(threads.map((thread) => thread.stop()));
      throw error;
    }
  }

  get count(): number {
    return this.#threads.length;
  }

  /** The policy as one model in each worker, which loads it with the first call. */
  async modelsOf(source: PolicySource): Promise<readonly LanguageModel[]> {
    return this.#threads.map((thread) =>
      modelOf(source.hash, (options) =>
        openSession(thread, { policy: source, session: this.#sessions++, ...(options && { options }) }),
      ),
    );
  }

  /** As `PolicyHost` says, each pass in the next worker that is free. */
  gradientsOf<Example>(
    objective: Objective<Example>,
    source: PolicySource,
    policy: DifferentiablePolicy,
  ): ComputePasses<Example> {
    const layout = new ParameterLayout(policy.parameters);
    const share = (): SharedNumbers => new Float32Array(new SharedArrayBuffer(4 * layout.size));
    const values = share();
    // Arrays for passes' gradients, used again from step to step: a few, as the sum takes them in as they come.
    const arrays: SharedNumbers[] = [];
    const training = this.#trainings++;
    let step = 0;
    return async (passes, terms, seed) => {
      for (const [name, variable] of policy.parameters) readInto(variable, layout.partOf(values, name));
      const weights = { values, version: `${training}/${step++}` };
      const free = [...arrays];
      const takeArray = () => {
        const known = free.pop();
        if (known !== undefined) return known;
        const fresh = share();
        arrays.push(fresh);
        return fresh;
      };
      const sum = new PassSum();
      const queue = [...passes.entries()];
      const work = async (thread: Thread) => {
        for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
          const [index, pass] = next;
          const array = takeArray();
          const command = {
            type: 'gradients',
            policy: source,
            lora: policy.lora ?? null,
            weights,
            objective: objective.spec,
            pass,
            terms,
            seed: passSeed(seed, index),
            gradients: array,
          } as const;
          const { loss, figures, names } = (await thread.insist(command)) as PassResult;
          const gradients = new Map(names.map((name) => [name, layout.partOf(array, name)]));
          sum.add(index, { loss, figures, gradients }, () => free.push(array));
        }
      };
      const stopOthers = (error: unknown) => {
        queue.length = 0;
        throw error;
      };
      // No array may be written to any more when this is over, also where a pass failed.
      const ends = await Promise.allSettled(this.#threads.map((thread) => work(thread).catch(stopOthers)));
      for (const end of ends) if (end.status === 'rejected') throw end.reason;
      return sum.total;
    };
  }

  keep(hashes: readonly PolicyHash[]): void {
    for (const thread of this.#threads) thread.keep(hashes);
  }

  /** Ends all workers. */
  async stop(): Promise<void> {
    await Promise.all(this.#threads.map((thread) => thread.stop()));
  }
}
