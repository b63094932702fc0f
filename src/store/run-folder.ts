// A run's folder: manifest, event log, metrics, checkpoints. Keeps the phases done, folded from the log.
import fs from 'node:fs';
import path from 'node:path';
import type { Clock } from '../domain/clock.ts';
import { OptimaError } from '../domain/errors.ts';
import type { RunEvent, RunEventOf } from '../domain/events.ts';
import type { PolicyHash } from '../domain/ids.ts';
import type { TrainablePolicy } from '../domain/model.ts';
import { EventLog } from './event-log.ts';
import { ioError, makeFolder, syncFolder, writeFileAtomic } from './files.ts';
import { type Manifest, manifestPath, readManifest, writeManifest } from './manifest.ts';

/** A completed phase: where its events lie in the log and what it handed on. */
export interface PhaseRecord {
  /** Number of its first event, `phase.started`. */
  readonly from: number;
  /** Number after its last event, `phase.completed`. */
  readonly to: number;
  /** Hash of its events, the last one left out. */
  readonly hash: string;
  readonly output: RunEventOf<'phase.completed'>['output'];
}

export class RunFolder {
  readonly path: string;
  readonly log: EventLog;
  readonly #clock: Clock;
  readonly #phases = new Map<string, PhaseRecord>();
  #manifest: Manifest;
  #mark: number;

  private constructor(folder: string, manifest: Manifest, clock: Clock) {
    this.path = folder;
    this.#manifest = manifest;
    this.#clock = clock;
    this.#mark = clock.now();
    lock(folder);
    try {
      this.log = new EventLog(path.join(folder, 'events.jsonl'), clock);
    } catch (error) {
      unlock(folder);
      throw error;
    }
  }

  /** Starts a run in a folder that is not there yet, or is empty; throws `run.exists` or `io.write`. */
  static create(folder: string, manifest: Manifest, clock: Clock): RunFolder {
    makeFolder(folder);
    try {
      if (fs.readdirSync(folder).length > 0) {
        const isRun = fs.existsSync(manifestPath(folder));
        throw new OptimaError(
          'run.exists',
          `${folder} already ${isRun ? 'holds a run' : 'has files in it'}.`,
          {
            hint: isRun
              ? `Continue it with --resume ${folder}, or name another folder.`
              : 'Name another folder.',
          },
        );
      }
    } catch (error) {
      throw ioError('write', folder, error);
    }
    writeManifest(folder, manifest);
    return new RunFolder(folder, manifest, clock);
  }

  /** Opens a run to continue or to read it. Throws `run.missing`, `run.version`, `run.corrupt`, `run.exists`. */
  static open(folder: string, clock: Clock): RunFolder {
    const run = new RunFolder(folder, readManifest(folder), clock);
    try {
      run.#replay();
    } catch (error) {
      run.close();
      throw error;
    }
    return run;
  }

  get manifest(): Manifest {
    return this.#manifest;
  }

  /** The completed phases, in order. */
  get phases(): ReadonlyMap<string, PhaseRecord> {
    return this.#phases;
  }

  /** The events of a completed phase. */
  eventsOf(phase: string): RunEvent[] {
    const record = this.#phases.get(phase);
    if (record === undefined) throw new RangeError(`Phase ${phase} is not completed.`);
    return this.log.read(record.from, record.to);
  }

  /**
   * Carries out a phase between `phase.started` and `phase.completed`, or returns the output of one that was
   * completed before. When it resolves, log and manifest are on the disk.
   */
  async carryOut<Output extends object>(phase: string, run: () => Promise<Output>): Promise<Output> {
    const done = this.#phases.get(phase);
    if (done !== undefined) return done.output as Output;
    const from = this.log.position;
    this.log.append({ type: 'phase.started', phase });
    const result = await run();
    const output = result as Output & PhaseRecord['output'];
    const hash = this.log.hash(from);
    this.log.append({ type: 'phase.completed', phase, hash, output });
    this.log.sync();
    this.#phases.set(phase, { from, to: this.log.position, hash, output });
    const now = this.#clock.now();
    this.#update({ seconds: this.#manifest.seconds + (now - this.#mark) / 1000 });
    this.#mark = now;
    return result;
  }

  checkpointFolder(hash: PolicyHash): string {
    return path.join(this.path, 'checkpoints', hash);
  }

  /** Saves a policy under its content hash; the folder appears whole or not at all. */
  async saveCheckpoint(policy: TrainablePolicy): Promise<PolicyHash> {
    const partial = path.join(this.path, 'checkpoints', 'partial');
    try {
      makeFolder(path.dirname(partial));
      fs.rmSync(partial, { recursive: true, force: true });
      const hash = await policy.save(partial);
      const folder = this.checkpointFolder(hash);
      if (fs.existsSync(folder)) fs.rmSync(partial, { recursive: true });
      else fs.renameSync(partial, folder);
      syncFolder(path.dirname(folder));
      return hash;
    } catch (error) {
      throw ioError('write', partial, error);
    }
  }

  /** Replaces `metrics.jsonl`. */
  writeMetrics(rows: readonly object[]): void {
    const lines = rows.map((row) => `${JSON.stringify(row)}\n`);
    writeFileAtomic(path.join(this.path, 'metrics.jsonl'), lines.join(''));
  }

  close(): void {
    this.log.close();
    unlock(this.path);
  }

  #replay(): void {
    const isStart = (event: RunEvent) => event.type === 'run.started';
    const isBegun = this.log.replayThrough(isStart) !== null;
    while (isBegun) {
      const from = this.log.position;
      const passed = this.log.replayThrough((event) => event.type === 'phase.completed');
      const end = passed?.at(-1);
      if (end?.type !== 'phase.completed') break;
      const to = this.log.position;
      if (this.log.hash(from, to - 1) !== end.hash) {
        throw new OptimaError(
          'run.corrupt',
          `${this.log.path}: the events of phase ${end.phase} (lines ${from + 1} to ${to}) do not have the hash they were closed with.`,
          { hint: 'The file was changed; restore it or start a new run.' },
        );
      }
      this.#phases.set(end.phase, { from, to, hash: end.hash, output: end.output });
    }
    const unlogged = this.#manifest.phases.find(({ phase }) => !this.#phases.has(phase));
    if (unlogged !== undefined) {
      throw new OptimaError(
        'run.corrupt',
        `${this.path}: the manifest holds phase ${unlogged.phase} as done, the log does not.`,
        { hint: 'events.jsonl was cut or replaced; restore it or start a new run.' },
      );
    }
    if (this.#phases.size > this.#manifest.phases.length) this.#update({});
  }

  #update(change: Partial<Manifest>): void {
    const phases = [...this.#phases].map(([phase, { hash }]) => ({ phase, hash }));
    this.#manifest = { ...this.#manifest, ...change, phases };
    writeManifest(this.path, this.#manifest);
  }
}

const lockPath = (folder: string): string => path.join(folder, 'lock');

/** Two processes on one log would ruin it; a lock whose process is gone is taken over. */
function lock(folder: string): void {
  const file = lockPath(folder);
  try {
    if (fs.existsSync(file)) {
      const owner = Number(fs.readFileSync(file, 'utf8'));
      if (owner !== process.pid && isAlive(owner)) {
        throw new OptimaError('run.exists', `${folder} is in use by process ${owner}.`, {
          hint: `Wait for it to end; if it is not an optima process, delete ${file}.`,
        });
      }
    }
    fs.writeFileSync(file, String(process.pid));
  } catch (error) {
    throw ioError('write', file, error);
  }
}

function unlock(folder: string): void {
  fs.rmSync(lockPath(folder), { force: true });
}

function isAlive(pid: number): boolean {
  if (!Number.isInteger(pid) || pid <= 0) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}
