// The forks of a run, `forks.jsonl`: a log beside the run's, of the same kind, with a lock of its own. Whatever is forked, and
// whenever, the run's own log stays what it is.
import fs from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { systemClock } from '../domain/clock.ts';
import { OptimaError } from '../domain/errors.ts';
import type { RunEvent, RunEventOf } from '../domain/events.ts';
import type { DialogueId, NodeId } from '../domain/ids.ts';
import type { MessageOf } from '../domain/messages.ts';
import type { Turn } from '../domain/transcript.ts';
import { EventLog, emptyLog, type LogEnd } from './event-log.ts';
import { lock } from './lock.ts';

/** A fork as the log has it. */
export interface LoggedFork {
  readonly begun: RunEventOf<'fork.begun'>;
  readonly format: string | null;
  /** Its own turns, without those that it goes on from. */
  readonly turns: readonly Turn[];
  readonly closed: MessageOf<'dialogue.closed'>;
  readonly verdict: MessageOf<'verdict.given'> | MessageOf<'verdict.failed'> | null;
  readonly ranked: RunEventOf<'trajectory.ranked'>;
}

export const forksPath = (folder: string): string => path.join(folder, 'forks.jsonl');

/** A pair among those of a run's forks and those that it took over from another run, whose nodes may have the same ids. */
export const pairKey = (chosen: string, rejected: string, from = ''): string =>
  `${chosen} ${rejected} ${from}`;

/** A run's forks as they are when it is made. */
export class ForkLog {
  readonly forks: ReadonlyMap<number, LoggedFork>;
  /** Each pair once. */
  readonly kept: readonly RunEventOf<'pair.kept'>[];
  /** Number of the next fork: also one that was cut off has its own. */
  readonly next: number;
  /** Of the whole file. */
  readonly end: LogEnd;
  readonly #folder: string;

  private constructor(folder: string, events: readonly RunEvent[], end: LogEnd) {
    this.#folder = folder;
    this.end = end;
    const kept = new Map<string, RunEventOf<'pair.kept'>>();
    for (const event of events) {
      if (event.type !== 'pair.kept') continue;
      const key = pairKey(event.chosen.id, event.rejected.id, event.from);
      if (!kept.has(key)) kept.set(key, event);
    }
    this.kept = [...kept.values()];
    const numbers = events.flatMap((event) => (event.type === 'fork.begun' ? [event.fork] : []));
    this.next = 1 + Math.max(-1, ...numbers);
    this.forks = foldForks(events);
  }

  /** No forks. */
  static readonly none = new ForkLog('', [], emptyLog);

  /**
   * Reads the forks of a run, or what the first events of them say; there may be none. Throws `run.corrupt` as `EventLog`
   * does, and for a link.
   */
  static read(folder: string, first = Infinity): ForkLog {
    const file = forksPath(folder);
    requireFile(file);
    if (!fs.existsSync(file)) return new ForkLog(folder, [], emptyLog);
    const events: RunEvent[] = [];
    const fold = (event: RunEvent, number: number) => {
      if (number < first) events.push(event);
    };
    const log = new EventLog(file, systemClock, { fold, readOnly: true, noLink: true });
    log.close();
    return new ForkLog(folder, events, log.end);
  }

  /** Whether the log held, as its first ones, the events that ended so. */
  holds(end: LogEnd): boolean {
    const file = forksPath(this.#folder);
    if (end.events === 0) return true;
    if (!fs.existsSync(file)) return false;
    const log = new EventLog(file, systemClock, { readOnly: true, noLink: true });
    try {
      return log.holds(end);
    } finally {
      log.close();
    }
  }
}

/**
 * Throws `run.corrupt` where something else than a file is in its place: a link would have another's file read, and cut off behind
 * its last whole line.
 */
function requireFile(file: string): void {
  const found = fs.lstatSync(file, { throwIfNoEntry: false });
  if (found === undefined || found.isFile()) return;
  const what = found.isSymbolicLink() ? 'is a link' : 'is no file';
  throw new OptimaError('run.corrupt', `${file} ${what}.`, { hint: 'Put the file itself there.' });
}

/** How often the lock is tried, and milliseconds between: whoever has it needs it for a moment. */
const [tries, pauseMs] = [200, 50];

async function lockForks(folder: string): Promise<() => void> {
  for (let left = tries; ; left--) {
    try {
      return lock(folder, 'forks.lock');
    } catch (error) {
      if (left === 0 || !(error instanceof OptimaError && error.code === 'run.exists')) throw error;
    }
    await sleep(pauseMs);
  }
}

/**
 * Adds events to a run's forks, which `make` gets as they are; on the disk when it resolves. Waits for another process that does the
 * same; rejects with `run.exists` where that one does not come to its end, `run.corrupt` for a link, `io.write`, and what `make`
 * throws.
 */
export async function appendForks(
  folder: string,
  make: (forks: ForkLog) => readonly RunEvent[],
): Promise<void> {
  const unlock = await lockForks(folder);
  try {
    const events = make(ForkLog.read(folder));
    const log = new EventLog(forksPath(folder), systemClock, { noLink: true });
    try {
      log.skipTo(log.end.events);
      for (const event of events) log.append(event);
      log.sync();
    } finally {
      log.close();
    }
  } finally {
    unlock();
  }
}

/** The forks that have come to their end, by number. */
function foldForks(events: readonly RunEvent[]): Map<number, LoggedFork> {
  const begun = new Map<DialogueId, RunEventOf<'fork.begun'>>();
  const dialogues = new Map<DialogueId, { -readonly [Key in keyof LoggedFork]?: LoggedFork[Key] }>();
  const forks = new Map<number, LoggedFork>();
  for (const event of events) {
    if (event.type === 'fork.begun') {
      begun.set(event.dialogueId, event);
      dialogues.set(event.dialogueId, { begun: event, turns: [], verdict: null });
    }
    if (!('dialogueId' in event)) continue;
    const dialogue = dialogues.get(event.dialogueId);
    if (dialogue === undefined) continue;
    if (event.type === 'dialogue.opened') dialogue.format = event.format;
    else if (event.type === 'turn.taken') dialogue.turns = [...dialogue.turns!, event.turn];
    else if (event.type === 'observation.given') {
      dialogue.turns = dialogue.turns!.map((turn) =>
        turn.id === event.nodeId ? { ...turn, observed: event.observations } : turn,
      );
    } else if (event.type === 'dialogue.closed') dialogue.closed = event;
    else if (event.type === 'verdict.given' || event.type === 'verdict.failed') dialogue.verdict = event;
    else if (event.type === 'trajectory.ranked' && dialogue.closed !== undefined) {
      forks.set(begun.get(event.dialogueId)!.fork, { ...dialogue, ranked: event } as LoggedFork);
    }
  }
  return forks;
}

/** The fork that a turn belongs to, by the last label of a fork in its id; null: the run's own. */
export function forkOf(node: NodeId | DialogueId): number | null {
  const label = node
    .split('.')
    .slice(1)
    .findLast((part) => /^f\d+$/.test(part));
  return label === undefined ? null : Number(label.slice(1));
}
