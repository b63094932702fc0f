// The readers of the runs that pages look at: opened when one is asked for, followed while it grows, few at a time.
import { OptimaError } from '../../domain/errors.ts';
import { RunReader } from '../../reading/index.ts';
import { findRuns, namesOf, refuseLinks } from './shelf.ts';

/** Most runs that are held open: each is an index in memory, and two are compared. */
const mostOpen = 4;

export class OpenRuns {
  readonly #folders: readonly string[];
  /** By folder, the one that was asked for last at the end. */
  readonly #readers = new Map<string, Promise<RunReader>>();

  /** `folders` are runs, or hold runs. */
  constructor(folders: readonly string[]) {
    this.#folders = folders;
  }

  /** Folders by their ids, those of runs that have begun since included. */
  names(): Map<string, string> {
    return namesOf(findRuns(this.#folders));
  }

  /** The folder of a run. Throws `run.missing` for an id that no run here has. */
  folderOf(id: string): string {
    const folder = this.names().get(id);
    if (folder === undefined)
      throw new OptimaError('run.missing', `No run here is called ${JSON.stringify(id)}.`);
    return folder;
  }

  /** A run as far as its log goes now. Throws what `RunReader.open` throws. */
  async reader(id: string): Promise<RunReader> {
    const folder = this.folderOf(id);
    refuseLinks(folder);
    const open = this.#readers.get(folder);
    if (open !== undefined) {
      const reader = await open;
      try {
        reader.refresh();
        this.#readers.delete(folder);
        this.#readers.set(folder, open);
        return reader;
      } catch {
        // The log was cut or replaced: whether it is whole shows when it is read from its beginning.
        await this.#close(folder);
      }
    }
    return this.#open(folder);
  }

  async close(): Promise<void> {
    await Promise.all([...this.#readers.keys()].map((folder) => this.#close(folder)));
  }

  #open(folder: string): Promise<RunReader> {
    const opened = RunReader.openInParts(folder);
    this.#readers.set(folder, opened);
    opened.catch(() => this.#readers.delete(folder));
    const [oldest] = this.#readers.keys();
    if (this.#readers.size > mostOpen) void this.#close(oldest!);
    return opened;
  }

  async #close(folder: string): Promise<void> {
    const reader = this.#readers.get(folder);
    this.#readers.delete(folder);
    await reader?.then(
      (open) => open.close(),
      () => {},
    );
  }
}
