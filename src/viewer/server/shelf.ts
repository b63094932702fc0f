// The runs that the viewer shows: where their folders are, what they are called in addresses, and what their small files say.
import fs from 'node:fs';
import path from 'node:path';
import { messageOf, OptimaError } from '../../domain/errors.ts';
import { isLocked } from '../../store/lock.ts';
import { logPath, openLogFile } from '../../store/log-file.ts';
import { finalFolder, type Manifest, readManifest } from '../../store/manifest.ts';
import type { Failure, RunEntry, RunState } from '../api.ts';

/** Files of a run that are read; none of them may be a link, which would show what lies elsewhere as a part of the run. */
const ownFiles = ['manifest.json', 'events.jsonl', 'events.jsonl.gz', 'forks.jsonl'];

/** An error as the page shows it. */
export const failureOf = (error: unknown): Failure =>
  error instanceof OptimaError
    ? { code: error.code, message: error.message, hint: error.hint }
    : { code: 'internal', message: messageOf(error) };

/** Throws `run.corrupt` where a file of the run is no file of its own. */
export function refuseLinks(folder: string): void {
  for (const name of ownFiles) {
    const file = path.join(folder, name);
    const found = fs.lstatSync(file, { throwIfNoEntry: false });
    if (found !== undefined && !found.isFile()) {
      throw new OptimaError('run.corrupt', `${file} is not a file of the run: a link, or a folder.`);
    }
  }
}

/** The folders among these, and in these, that hold a run; one that is gone, or cannot be read, holds none. */
export function findRuns(folders: readonly string[]): string[] {
  const holdsRun = (folder: string) => fs.existsSync(path.join(folder, 'manifest.json'));
  return folders.flatMap((folder) => {
    if (holdsRun(folder)) return [folder];
    return entriesOf(folder)
      .filter((entry) => entry.isDirectory())
      .map(({ name }) => path.join(folder, name))
      .filter(holdsRun);
  });
}

function entriesOf(folder: string): fs.Dirent[] {
  try {
    return fs.readdirSync(folder, { withFileTypes: true });
  } catch {
    return [];
  }
}

/** Folders by the ids that addresses name them by. Only what is in here is ever opened. */
export function namesOf(folders: readonly string[]): Map<string, string> {
  const named = new Map<string, string>();
  for (const folder of new Set(folders.map((folder) => path.resolve(folder)))) {
    const name = path.basename(folder) || 'run';
    let id = name;
    for (let number = 2; named.has(id); number++) id = `${name}-${number}`;
    named.set(id, folder);
  }
  return named;
}

/** A run as its small files have it, without figures; what cannot be read is an entry that says why. */
export function entryOf(id: string, folder: string): RunEntry {
  const unread = { base: null, latest: null, iterations: 0 };
  const nameless = { scenario: '', recipe: '', preset: '', seed: null, startedAt: null, seconds: 0 };
  try {
    refuseLinks(folder);
    const manifest = readManifest(folder);
    const { state, failure } = stateOf(folder, manifest);
    const { scenario, preset, recipe, seconds } = manifest;
    return {
      ...{ id, folder, state, failure, scenario: scenario.name, preset, seconds },
      seed: typeof recipe.seed === 'number' ? recipe.seed : null,
      recipe: typeof recipe.recipe === 'string' ? recipe.recipe : '',
      startedAt: startOf(folder),
      isRead: false,
      ...unread,
    };
  } catch (error) {
    return {
      id,
      folder,
      state: 'unreadable',
      failure: failureOf(error),
      isRead: true,
      ...nameless,
      ...unread,
    };
  }
}

/** How far a run is, as its folder tells without its log. */
export function stateOf(folder: string, { failure }: Manifest): Pick<RunEntry, 'state' | 'failure'> {
  const isComplete = fs.lstatSync(finalFolder(folder), { throwIfNoEntry: false }) !== undefined;
  const state: RunState = isComplete
    ? 'completed'
    : isLocked(folder)
      ? 'running'
      : failure === undefined
        ? 'stopped'
        : 'failed';
  return { state, failure: failure ?? null };
}

/** When the first event was written; null where there is none. */
function startOf(folder: string): string | null {
  const head = Buffer.alloc(128);
  const file = logPath(folder);
  if (!fs.existsSync(file)) return null;
  const log = openLogFile(file);
  try {
    const count = log.read(head, 0, head.length, 0);
    return /^\{"seq":0,"at":"([\d:.TZ-]+)"/.exec(head.toString('latin1', 0, count))?.[1] ?? null;
  } finally {
    log.close();
  }
}
