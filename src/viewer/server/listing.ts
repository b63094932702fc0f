// The list of runs: what their small files say, and the figures of their logs, which are read a few at a time.
import fs from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';
import { logPath } from '../../store/log-file.ts';
import type { RunEntry } from '../api.ts';
import type { OpenRuns } from './open-runs.ts';
import { figuresIn } from './overview.ts';
import { entryOf, failureOf } from './shelf.ts';

/** Every run without its figures, the newest first. */
export function listRuns(runs: OpenRuns): RunEntry[] {
  const entries = [...runs.names()].map(([id, folder]) => entryOf(id, folder));
  return entries.sort((one, other) => (other.startedAt ?? '').localeCompare(one.startedAt ?? ''));
}

/** What a log said, and which log it was then. */
interface Known {
  readonly log: string | null;
  readonly said: Partial<RunEntry>;
}

/** The list, as somebody asks for it again and again. */
export class Listing {
  readonly #runs: OpenRuns;
  /** By folder. */
  readonly #known = new Map<string, Known>();
  readonly #reading = new Map<string, Promise<void>>();

  constructor(runs: OpenRuns) {
    this.#runs = runs;
  }

  /**
   * Every run, the newest first; one whose log is damaged is unreadable. Logs that are new, or have grown, are read for about
   * `mostMs`: of the others the figures are those of the time before, or there are none yet.
   */
  async read(mostMs: number): Promise<RunEntry[]> {
    const entries = listRuns(this.#runs);
    const done = new AbortController();
    let isLate = false;
    const late = pause(mostMs, undefined, { signal: done.signal }).then(
      () => {
        isLate = true;
      },
      () => {},
    );
    for (const { id, folder, state } of entries) {
      if (isLate) break;
      if (state === 'unreadable') continue;
      const log = logOf(folder);
      if (this.#known.get(folder)?.log === log) continue;
      if (log === null) this.#known.set(folder, { log, said: { isRead: true } });
      else await Promise.race([late, this.#readRun(id, folder, log)]);
    }
    done.abort();
    return entries.map((entry) =>
      entry.state === 'unreadable' ? entry : { ...entry, ...this.#known.get(entry.folder)?.said },
    );
  }

  /** Reads a log, once at a time, and longer than whoever asked for it waits. */
  #readRun(id: string, folder: string, log: string): Promise<void> {
    const known = this.#reading.get(folder);
    if (known !== undefined) return known;
    const reading = this.#runs
      .read(id, (reader): Known['said'] => figuresIn(reader.phases()))
      .catch((error): Known['said'] => ({ isRead: true, state: 'unreadable', failure: failureOf(error) }))
      .then((said) => {
        this.#known.set(folder, { log, said });
        this.#reading.delete(folder);
      });
    this.#reading.set(folder, reading);
    return reading;
  }
}

/** What tells whether a log is as it was; null where there is none. */
function logOf(folder: string): string | null {
  const found = fs.statSync(logPath(folder), { throwIfNoEntry: false });
  return found === undefined ? null : `${found.size} ${found.mtimeMs}`;
}
