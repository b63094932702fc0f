// The readers of the runs that pages look at: opened when one is asked for, followed while it grows, few at a time.
import { OptimaError } from '../../domain/errors.ts';
import { RunReader } from '../../reading/index.ts';
import { findRuns, namesOf, refuseLinks } from './shelf.ts';

/** Most runs that are held open while nobody reads them: each is an index in memory, and two are compared. */
const mostOpen = 4;

/** A run that is open, or is being opened, and how many read it now: until nobody does it is not closed. */
interface OpenRun {
  readonly reader: Promise<RunReader>;
  users: number;
  /** How much of the log has been read, in percent; null once it is open. */
  readonly opening: { percent: number | null };
}

export class OpenRuns {
  readonly #folders: readonly string[];
  /** By folder, the one that was asked for last at the end. */
  readonly #runs = new Map<string, OpenRun>();

  /** `folders` are runs, or hold runs. */
  constructor(folders: readonly string[]) {
    this.#folders = folders;
  }

  /** Folders by their ids, those of runs that have begun since included. */
  names(): Map<string, string> {
    return namesOf(findRuns(this.#folders));
  }

  /** The folder of a run. Throws `run.missing` for an id that no run here has, `run.corrupt` where a file of it is a link. */
  folderOf(id: string): string {
    const folder = this.names().get(id);
    if (folder === undefined)
      throw new OptimaError('run.missing', `No run here is called ${JSON.stringify(id)}.`);
    refuseLinks(folder);
    return folder;
  }

  /**
   * Reads a run as far as its log goes now: its reader is open until `work` is done, and no longer. Rejects with what `folderOf`,
   * `RunReader.open` and `work` throw.
   */
  async read<Result>(id: string, work: (reader: RunReader) => Result | Promise<Result>): Promise<Result> {
    const folder = this.folderOf(id);
    const known = this.#runs.get(folder);
    const run = known ?? this.#open(folder);
    this.#runs.delete(folder);
    this.#runs.set(folder, run);
    run.users++;
    try {
      const reader = await run.reader;
      if (known === undefined || isFollowed(reader)) return await work(reader);
      // The log was cut or replaced: whether it is whole shows when it is read from its beginning.
      this.#forget(folder, run);
    } finally {
      run.users--;
      if (run.users === 0 && this.#runs.get(folder) !== run) void closed(run);
      this.#closeOldest();
    }
    return this.read(id, work);
  }

  /** How much of a run's log has been read, in percent, where it is being opened; null where it is not. Throws as `folderOf` does. */
  openingOf(id: string): number | null {
    return this.#runs.get(this.folderOf(id))?.opening.percent ?? null;
  }

  /** Closes what nobody reads; a run that is being read is closed after that. */
  async close(): Promise<void> {
    const runs = [...this.#runs.values()];
    this.#runs.clear();
    await Promise.all(runs.filter(({ users }) => users === 0).map(closed));
  }

  #open(folder: string): OpenRun {
    const opening: OpenRun['opening'] = { percent: 0 };
    let bytes = 0;
    const onProgress = (left: number) => {
      bytes = Math.max(bytes, left);
      opening.percent = Math.floor(100 * (1 - left / bytes));
    };
    const run = { reader: RunReader.openInParts(folder, { onProgress }), users: 0, opening };
    const opened = () => {
      opening.percent = null;
    };
    run.reader.then(opened, () => this.#forget(folder, run));
    return run;
  }

  /** Whoever asks next opens the folder again; another may have done so already. */
  #forget(folder: string, run: OpenRun): void {
    if (this.#runs.get(folder) === run) this.#runs.delete(folder);
  }

  #closeOldest(): void {
    const idle = [...this.#runs].filter(([, { users }]) => users === 0);
    for (const [folder, run] of idle.slice(0, Math.max(0, this.#runs.size - mostOpen))) {
      this.#runs.delete(folder);
      void closed(run);
    }
  }
}

/** Takes in what the log has gained; false where it is not the log that was opened. */
function isFollowed(reader: RunReader): boolean {
  try {
    reader.refresh();
    return true;
  } catch {
    return false;
  }
}

const closed = ({ reader }: OpenRun): Promise<void> =>
  reader.then(
    (open) => open.close(),
    () => {},
  );
