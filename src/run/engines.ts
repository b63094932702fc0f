// What computes in a process: the tensor engine of its main thread, and the workers that share the work. TF.js is loaded when
// they start and not before.
import { availableParallelism } from 'node:os';
import { OptimaError } from '../domain/errors.ts';
import type { LlamaPolicy } from '../models/llama/index.ts';
import type { Engine, EngineOptions } from '../tensor/index.ts';
import type { PolicyHost } from '../workers/index.ts';

/** By default no more than these: each takes 0.4 GB for an engine of its own. */
const mostWorkers = 4;

/** Nobody needs more than these, and a number that was mistyped takes the machine's memory. */
export const maxWorkers = Math.max(16, 4 * availableParallelism());

export interface Engines {
  readonly engine: Engine;
  /** Worker threads that `startHost` starts. */
  readonly workers: number;
  /** Starts the workers, or without any gives what computes on this thread, with a policy if one is there. The caller stops it. */
  readonly startHost: (known: LlamaPolicy | null) => Promise<PolicyHost>;
}

/**
 * Starts the engine, and has workers where the backend computes on one core: each has the same engine with one thread, and so
 * has the main thread. They are a second of work each, and are started when all input has been found good. `workers`: how
 * many, at most `maxWorkers`; 0: compute on the main thread; by default one for each core, if there are several. Rejects with
 * `usage` for another number, and as `startEngine` does.
 */
export async function openEngines({
  backend,
  workers,
}: {
  readonly backend?: EngineOptions['backend'];
  readonly workers?: number;
}): Promise<Engines> {
  if (workers !== undefined && !(Number.isInteger(workers) && workers >= 0 && workers <= maxWorkers)) {
    throw new OptimaError('usage', `workers ${workers}: must be a whole number from 0 to ${maxWorkers}.`);
  }
  const { startEngine } = await import('../tensor/index.ts');
  const cores = availableParallelism();
  const most = workers ?? (cores === 1 ? 0 : Math.min(cores, mostWorkers));
  const engine = await startEngine({ backend, ...(most > 0 && { threads: 1 }) });
  const count = engine.backend === 'tensorflow' ? 0 : most;
  return {
    engine,
    workers: count,
    startHost: async (known) => {
      const { inProcessHost, Workers } = await import('../workers/index.ts');
      return count === 0
        ? inProcessHost(known === null ? [] : [known])
        : Workers.start(count, { backend: engine.backend });
    },
  };
}
