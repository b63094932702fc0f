// A run's folder: manifest, event log, metrics, checkpoints. Keeps the phases done and where each task was dealt, folded
// from the log.
import fs from 'node:fs';
import path from 'node:path';
import { type Clock, systemClock } from '../domain/clock.ts';
import { dealIn, Forest, type LoggedTree, treesIn } from '../domain/conversation-tree.ts';
import { OptimaError } from '../domain/errors.ts';
import type { PhaseKind, PhaseOutput, PhaseOutputOf, RunEvent } from '../domain/events.ts';
import { hash16 } from '../domain/hash.ts';
import type { DialogueId, PolicyHash, TeamPolicy } from '../domain/ids.ts';
import type { MessageOf } from '../domain/messages.ts';
import type { TrainablePolicy } from '../domain/model.ts';
import type { Trajectory, Turn } from '../domain/transcript.ts';
import { EventLog, emptyLog } from './event-log.ts';
import { ioError, makeFolder, partialOf, syncFolder, writeFileAtomic } from './files.ts';
import { lock } from './lock.ts';
import { logPath } from './log-file.ts';
import {
  checkpointFolder,
  finalFolder,
  type Manifest,
  manifestPath,
  notThisLog,
  policyFolder,
  readManifest,
  writeManifest,
} from './manifest.ts';

/** A completed phase: where its events lie in the log and what it handed on. */
export interface PhaseRecord {
  /** Number of its first event, `phase.started`. */
  readonly from: number;
  /** Number after its last event, `phase.completed`. */
  readonly to: number;
  readonly output: PhaseOutput;
}

/** Where a deal lies in the log, and what it says, as a hash. */
interface Deal {
  readonly number: number;
  readonly hash: string;
}

/** What a log holds, apart from the messages themselves. */
class LogIndex {
  readonly phases = new Map<string, PhaseRecord>();
  /** The events that dealt a task or a format, in phases that are completed. */
  readonly deals = new Map<string, Deal>();
  /** Number of the event at which a resumed run goes on: behind the last completed phase. */
  end = 0;
  /** What the run ended with; null while it has not. */
  policy: TeamPolicy | null = null;
  readonly #file: string;
  #phaseStart = 0;
  readonly #dealt: [string, Deal][] = [];

  constructor(file: string) {
    this.#file = file;
  }

  /** Takes in the next event; throws `run.corrupt` behind the run's last one. */
  add(event: RunEvent, number: number, body: string): void {
    if (this.policy !== null) {
      throw new OptimaError('run.corrupt', `${this.#file}:${number + 1}: events follow the run's end.`, {
        hint: 'The file was changed; restore it or start a new run.',
      });
    }
    if (event.type === 'run.started') {
      this.end = number + 1;
    } else if (event.type === 'phase.started') {
      this.#phaseStart = number;
      this.#dealt.length = 0;
    } else if (event.type === 'phase.completed') {
      this.phases.set(event.phase, { from: this.#phaseStart, to: number + 1, output: event.output });
      for (const [key, deal] of this.#dealt) this.deals.set(key, deal);
      this.end = number + 1;
    } else if (event.type === 'run.completed') {
      this.policy = event.policy;
    } else {
      const key = dealKey(event);
      if (key !== null) this.#dealt.push([key, { number, hash: hash16(body) }]);
    }
  }
}

/** What a deal is known by; null for other events. */
function dealKey(event: RunEvent): string | null {
  if (event.type === 'task.dealt') return `task ${event.taskId}`;
  return event.type === 'format.dealt' ? `format ${event.format}` : null;
}

export class RunFolder {
  readonly path: string;
  readonly log: EventLog;
  readonly #clock: Clock;
  readonly #index: LogIndex;
  readonly #unlock: () => void;
  #manifest: Manifest;
  #mark: number;

  private constructor(folder: string, manifest: Manifest, clock: Clock, { readOnly = false } = {}) {
    this.path = folder;
    this.#manifest = manifest;
    this.#clock = clock;
    this.#mark = clock.now();
    this.#unlock = readOnly ? () => {} : lock(folder);
    const file = logPath(folder);
    this.#index = new LogIndex(file);
    try {
      const isGone = manifest.log.events > 0 && !fs.existsSync(file);
      if (isGone) throw notThisLog(file, manifest);
      this.log = new EventLog(file, clock, {
        fold: (...event) => this.#index.add(...event),
        readOnly,
      });
      if (!this.log.holds(manifest.log)) {
        this.log.close();
        throw notThisLog(file, manifest);
      }
    } catch (error) {
      this.#unlock();
      throw error;
    }
  }

  /** Starts a run in a folder that is not there yet, or is empty; throws `run.exists` or `io.write`. */
  static create(folder: string, begun: Omit<Manifest, 'log'>, clock: Clock): RunFolder {
    const manifest = { ...begun, log: emptyLog };
    RunFolder.refuseOccupied(folder);
    makeFolder(folder);
    writeManifest(folder, manifest);
    return new RunFolder(folder, manifest, clock);
  }

  /** Throws what `create` would throw for a folder that is there and is not empty, or cannot be looked into. */
  static refuseOccupied(folder: string): void {
    try {
      // A process that was killed before it had a manifest has left nothing to lose.
      const lost = path.basename(partialOf(manifestPath(folder)));
      if (fs.readdirSync(folder).every((name) => name === lost)) return;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return;
      throw ioError('write', folder, error);
    }
    const isRun = fs.existsSync(manifestPath(folder));
    throw new OptimaError('run.exists', `${folder} already ${isRun ? 'holds a run' : 'has files in it'}.`, {
      hint: isRun ? `Continue it with --resume ${folder}, or name another folder.` : 'Name another folder.',
    });
  }

  /** Opens a run to continue it. Throws `run.missing`, `run.version`, `run.corrupt`, `run.exists`. */
  static open(folder: string, clock: Clock): RunFolder {
    const run = new RunFolder(folder, readManifest(folder), clock);
    run.log.skipTo(run.#index.end);
    if (run.log.end.events > run.#manifest.log.events) run.#update({});
    return run;
  }

  /** Opens a run to read it, whoever has it in use; nothing is changed. Throws `run.missing`, `run.version`, `run.corrupt`. */
  static read(folder: string): RunFolder {
    return new RunFolder(folder, readManifest(folder), systemClock, { readOnly: true });
  }

  get manifest(): Manifest {
    return this.#manifest;
  }

  /** What the run ended with; null while it has not. */
  get policy(): TeamPolicy | null {
    return this.#index.policy;
  }

  /** The completed phases, in order. */
  get phases(): ReadonlyMap<string, PhaseRecord> {
    return this.#index.phases;
  }

  /** What a phase handed on, or null while it is not completed. Throws `run.corrupt` when it was of another kind. */
  outputOf<Kind extends PhaseKind>({ name, kind }: PhaseName<Kind>): PhaseOutputOf<Kind> | null {
    const output = this.#index.phases.get(name)?.output ?? null;
    return output && requireKind(output, { name, kind }, this.log.path);
  }

  /** What a completed phase dealt first of the task or format that an event deals. */
  dealtBefore(event: RunEvent): RunEvent | undefined {
    const key = dealKey(event);
    return key === null ? undefined : this.#dealOf(key);
  }

  /** The events of a completed phase, one after the other. */
  eventsOf(phase: string): Iterable<RunEvent> {
    const { from, to } = this.#recordOf(phase);
    return this.log.events(from, to);
  }

  /** The finished dialogues of a completed phase, one after the other. */
  *dialoguesOf(phase: string): Generator<Trajectory> {
    const record = this.#recordOf(phase);
    const forest = this.forest(record.from);
    for (const event of this.log.events(record.from, record.to)) yield* forest.take(event);
  }

  /** The trees of a completed phase, one after the other. */
  treesOf(phase: string): Generator<LoggedTree> {
    const { from } = this.#recordOf(phase);
    return treesIn(this.eventsOf(phase), () => this.forest(from));
  }

  /** An empty forest for the events of a phase, which begins at event `from`, that knows what the run said before. */
  forest(from: number): Forest {
    return new Forest({
      dealOf: (task) => {
        const deal = this.#dealOf(`task ${task}`);
        return deal?.type === 'task.dealt' ? dealIn(deal) : null;
      },
      format: (name) => {
        const deal = this.#dealOf(`format ${name}`);
        return deal?.type === 'format.dealt' ? deal : null;
      },
      turnsBefore: (opened) => this.#turnsBefore(opened, from),
    });
  }

  /**
   * Records an event, unless it deals what was dealt before. With the first and the last one of a run, log and manifest are
   * then on the disk. Throws as `EventLog.append` does, and `scenario.invalid` when it deals otherwise than before.
   */
  record(event: RunEvent): void {
    const key = dealKey(event);
    if (key === null || !this.#isKnown(key, event)) this.log.append(event);
    if (event.type === 'run.completed') this.#index.policy = event.policy;
    if (event.type !== 'run.started' && event.type !== 'run.completed') return;
    this.log.sync();
    this.#update(event.type === 'run.completed' ? { failure: undefined } : {});
  }

  /**
   * The events of a cohort that an earlier process completed, which a resumed phase passes over, one after the other; null
   * when it is to be held.
   */
  replayCohort(phase: string, cohort: number): Iterable<RunEvent> | null {
    const dealt: (() => void)[] = [];
    let next = this.log.position;
    const range = this.log.replayThrough((event) => {
      const number = next++;
      const key = dealKey(event);
      if (key !== null) dealt.push(() => this.#isKnown(key, event, number));
      return event.type === 'cohort.completed' && event.phase === phase && event.cohort === cohort;
    });
    if (range === null) return null;
    for (const note of dealt) note();
    return this.log.events(range.from, range.to);
  }

  /**
   * Carries out a phase between `phase.started` and `phase.completed`, or returns the output of one that was
   * completed before. `run` gets the number of the phase's first event. When it resolves, log and manifest are on the
   * disk.
   */
  async carryOut<Kind extends PhaseKind>(
    { name: phase, kind }: PhaseName<Kind>,
    run: (from: number) => Promise<PhaseOutputOf<Kind>>,
  ): Promise<PhaseOutputOf<Kind>> {
    const done = this.outputOf({ name: phase, kind });
    if (done !== null) return done;
    const from = this.log.position;
    this.log.append({ type: 'phase.started', phase });
    const output = await run(from);
    this.log.append({ type: 'phase.completed', phase, output: output as PhaseOutput });
    this.log.sync();
    this.#index.phases.set(phase, { from, to: this.log.position, output: output as PhaseOutput });
    const now = this.#clock.now();
    this.#update({ seconds: this.#manifest.seconds + (now - this.#mark) / 1000, failure: undefined });
    this.#mark = now;
    return output;
  }

  checkpointFolder(hash: PolicyHash): string {
    return checkpointFolder(this.path, hash);
  }

  policyFolder(hash: PolicyHash): string {
    return policyFolder(this.path, this.#manifest, hash);
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

  /** Links the policy that the run ended with: `checkpoints/final`, or below it one link for each role. */
  nameFinal(policy: TeamPolicy): void {
    const final = finalFolder(this.path);
    const hashes = new Set(Object.values(policy));
    const links: [string, PolicyHash][] =
      hashes.size === 1
        ? [[final, [...hashes][0]!]]
        : Object.entries(policy).map(([role, hash]) => [path.join(final, role), hash]);
    try {
      fs.rmSync(final, { recursive: true, force: true });
      for (const [link, hash] of links) {
        const folder = path.dirname(link);
        makeFolder(folder);
        const target = path.resolve(this.policyFolder(hash));
        // Relative within the run, which may be moved; a junction, where the system has them, needs no privilege.
        const inside = target === path.resolve(this.checkpointFolder(hash));
        fs.symlinkSync(
          inside ? path.relative(fs.realpathSync(folder), fs.realpathSync(target)) : target,
          link,
          'junction',
        );
      }
    } catch (error) {
      throw ioError('write', final, error);
    }
  }

  /** Notes in the manifest what ended the run, for whoever reads it; the next phase that completes takes it back. */
  noteFailure({ code, message, hint }: OptimaError): void {
    this.#update({ failure: { code, message, hint } });
  }

  /** Replaces `metrics.jsonl`. */
  writeMetrics(rows: readonly object[]): void {
    const lines = rows.map((row) => `${JSON.stringify(row)}\n`);
    writeFileAtomic(path.join(this.path, 'metrics.jsonl'), lines.join(''));
  }

  close(): void {
    this.log.close();
    this.#unlock();
  }

  /** Whether a deal was recorded before; if not, it is from now on. */
  #isKnown(key: string, event: RunEvent, number = this.log.position): boolean {
    const hash = hash16(JSON.stringify(event));
    const known = this.#index.deals.get(key);
    if (known === undefined) this.#index.deals.set(key, { number, hash });
    else if (known.hash !== hash) {
      throw new OptimaError('scenario.invalid', `The ${key} was dealt otherwise before in this run.`, {
        hint: 'What a role sees must follow from its task alone, not from chance, time or state.',
      });
    }
    return known !== undefined;
  }

  #recordOf(phase: string): PhaseRecord {
    const record = this.#index.phases.get(phase);
    if (record === undefined) throw new RangeError(`Phase ${phase} is not completed.`);
    return record;
  }

  #dealOf(key: string): RunEvent | undefined {
    const number = this.#index.deals.get(key)?.number;
    return number === undefined ? undefined : this.log.events(number, number + 1).next().value;
  }

  /** By a walk through the phase: what is opened at a node of an earlier cohort is read seldom. */
  #turnsBefore({ tree, dialogueId }: MessageOf<'dialogue.opened'>, from: number): Turn[] {
    const dialogues = new Set<DialogueId>();
    const turns: Turn[] = [];
    // As far as the log goes, wherever this process has come to in it.
    for (const event of this.log.events(from, this.log.end.events)) {
      if (event.type === 'dialogue.opened') {
        if (event.dialogueId === dialogueId) break;
        if (event.tree === tree) dialogues.add(event.dialogueId);
      } else if (event.type === 'turn.taken' && dialogues.has(event.dialogueId)) turns.push(event.turn);
      else if (event.type === 'observation.given' && dialogues.has(event.dialogueId)) {
        const at = turns.findIndex(({ id }) => id === event.nodeId);
        turns[at] = { ...turns[at]!, observed: event.observations };
      }
    }
    return turns;
  }

  #update(change: Partial<Manifest>): void {
    this.#manifest = { ...this.#manifest, ...change, log: this.log.end };
    writeManifest(this.path, this.#manifest);
  }
}

/** A phase by its name in the log, and what kind of output it has. */
export interface PhaseName<Kind extends PhaseKind> {
  readonly name: string;
  readonly kind: Kind;
}

/** What a phase handed on, as of its kind; throws `run.corrupt` where the log has it as of another. */
export function requireKind<Kind extends PhaseKind>(
  output: PhaseOutput,
  { name, kind }: PhaseName<Kind>,
  log: string,
): PhaseOutputOf<Kind> {
  if (output.kind === kind) return output as PhaseOutputOf<Kind> & PhaseOutput;
  throw new OptimaError('run.corrupt', `${log}: phase ${name} is of kind ${output.kind}, not ${kind}.`);
}
