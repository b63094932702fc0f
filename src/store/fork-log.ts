// The forks of a run, `forks.jsonl`: a log beside the run's, of the same kind, with a lock of its own. Whatever is forked, and
// whenever, the run's own log stays what it is.
import fs from 'node:fs';
import path from 'node:path';
import { systemClock } from '../domain/clock.ts';
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

/** A run's forks as they are when it is made. */
export class ForkLog {
  readonly forks: ReadonlyMap<number, LoggedFork>;
  readonly kept: readonly RunEventOf<'pair.kept'>[];
  /** Number of the next fork: also one that was cut off has its own. */
  readonly next: number;
  readonly end: LogEnd;
  readonly #folder: string;

  private constructor(folder: string, events: readonly RunEvent[], end: LogEnd) {
    this.#folder = folder;
    this.end = end;
    this.kept = events.flatMap((event) => (event.type === 'pair.kept' ? [event] : []));
    const numbers = events.flatMap((event) => (event.type === 'fork.begun' ? [event.fork] : []));
    this.next = 1 + Math.max(-1, ...numbers);
    this.forks = foldForks(events);
  }

  /** No forks. */
  static readonly none = new ForkLog('', [], emptyLog);

  /** Reads the forks of a run; there may be none. Throws `run.corrupt` as `EventLog` does. */
  static read(folder: string): ForkLog {
    const file = forksPath(folder);
    if (!fs.existsSync(file)) return new ForkLog(folder, [], emptyLog);
    const events: RunEvent[] = [];
    const log = new EventLog(file, systemClock, { fold: (event) => events.push(event), readOnly: true });
    log.close();
    return new ForkLog(folder, events, log.end);
  }

  /** Whether the log held, as its first ones, the events that ended so. */
  holds(end: LogEnd): boolean {
    const file = forksPath(this.#folder);
    if (end.events === 0) return true;
    if (!fs.existsSync(file)) return false;
    const log = new EventLog(file, systemClock, { readOnly: true });
    try {
      return log.holds(end);
    } finally {
      log.close();
    }
  }
}

/**
 * Adds events to a run's forks, which `make` gets as they are; on the disk when it returns. Throws `run.exists` while another
 * process does the same, `io.write`, and what `make` throws.
 */
export function appendForks(folder: string, make: (forks: ForkLog) => readonly RunEvent[]): void {
  const unlock = lock(folder, 'forks.lock');
  try {
    const events = make(ForkLog.read(folder));
    const log = new EventLog(forksPath(folder), systemClock);
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
