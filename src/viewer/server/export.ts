// A static copy of runs: the page and its answers as files, for whoever has no server and no run.
import fs from 'node:fs';
import path from 'node:path';
import { setImmediate as nextTick } from 'node:timers/promises';
import { gzipSync } from 'node:zlib';
import { OptimaError } from '../../domain/errors.ts';
import type { RunReader } from '../../reading/index.ts';
import { ioError, makeFolder } from '../../store/files.ts';
import { type RunAnswer, type RunEntry, type RunList, staticFile } from '../api.ts';
import { machinesAnswer } from './charts.ts';
import type { ClientFiles } from './client-files.ts';
import { listRuns } from './listing.ts';
import { OpenRuns } from './open-runs.ts';
import { runAnswer, taskRows } from './overview.ts';
import { failureWithoutPlaces, lastName, placesOf } from './places.ts';
import type { ViewerTools } from './routes.ts';
import { treeParts } from './trees.ts';

export interface ExportOptions {
  /** Runs, or folders of runs. */
  readonly folders: readonly string[];
  /** Where the copy is made: a folder that is not there, or empty. */
  readonly target: string;
  readonly client: ClientFiles;
  readonly tools?: Pick<ViewerTools, 'pieces'>;
  readonly signal?: AbortSignal;
  /** Hears of each run's trees: how many are written, of how many. */
  readonly onProgress?: (run: string, done: number, total: number) => void;
}

/** What a copy came to. */
export interface Exported {
  readonly runs: number;
  readonly files: number;
  readonly bytes: number;
}

/**
 * Writes the copy. Rejects with `io.write` for a folder that has something in it, and what reading a run rejects with; runs that
 * cannot be read are in the list with why.
 */
export async function exportRuns(options: ExportOptions): Promise<Exported> {
  const { folders, target, client, signal } = options;
  refuseOccupied(target);
  let [files, bytes] = [0, 0];
  const write = (file: string, content: Uint8Array) => {
    const place = path.join(target, file);
    try {
      makeFolder(path.dirname(place));
      fs.writeFileSync(place, content);
    } catch (error) {
      throw ioError('write', place, error);
    }
    files++;
    bytes += content.length;
  };
  const writeAnswer = (file: string, answer: unknown) => {
    const content = Buffer.from(JSON.stringify(answer));
    write(file, file.endsWith('.gz') ? gzipSync(content) : content);
  };
  const writeRun = async (reader: RunReader, entry: RunEntry) => {
    const run = entry.id;
    const pieces = (await options.tools?.pieces?.(reader.folder)) ?? null;
    const answer = answerOfCopy(runAnswer(reader, entry));
    writeAnswer(staticFile('/api/runs/{run}', { run }), answer);
    writeAnswer(staticFile('/api/runs/{run}/machines', { run }), machinesAnswer(reader, entry));
    const rows = taskRows(reader);
    writeAnswer(staticFile('/api/runs/{run}/tasks', { run }), rows);
    for (const [done, { tree: root }] of rows.entries()) {
      const { tree, nodes, dialogues } = treeParts(reader, root, pieces);
      writeAnswer(staticFile('/api/runs/{run}/trees/{tree}', { run, tree: root }), tree);
      writeAnswer(staticFile('/api/runs/{run}/nodes/{node}', { run, node: root }), nodes);
      writeAnswer(staticFile('/api/runs/{run}/dialogues/{dialogue}', { run, dialogue: root }), dialogues);
      options.onProgress?.(run, done + 1, rows.length);
      await nextTick();
      if (signal?.aborted) throw new OptimaError('interrupted', `The copy in ${target} is not complete.`);
    }
    return answer.entry;
  };
  const open = new OpenRuns(folders);
  try {
    const entries: RunEntry[] = [];
    for (const entry of listRuns(open).map(entryOfCopy)) {
      const isRead = entry.state !== 'unreadable';
      entries.push(isRead ? await open.read(entry.id, (reader) => writeRun(reader, entry)) : entry);
    }
    const list: RunList = { runs: entries, abilities: { fork: false, score: false } };
    writeAnswer(staticFile('/api/runs', {}), list);
  } finally {
    await open.close();
  }
  for (const [name, content] of client) write(name, name === 'index.html' ? asCopy(content) : content);
  return { runs: open.names().size, files, bytes };
}

/** A run in the list. Where it lay is nobody's business who gets a copy. */
function entryOfCopy(entry: RunEntry): RunEntry {
  const { folder, failure } = entry;
  if (failure === null) return { ...entry, folder: '' };
  return { ...entry, folder: '', failure: failureWithoutPlaces(failure, placesOf(folder)) };
}

const answerOfCopy = (answer: RunAnswer): RunAnswer => ({
  ...answer,
  command: answer.command.map(lastName),
  partners: Object.fromEntries(
    Object.entries(answer.partners).map(([role, folder]) => [role, lastName(folder)]),
  ),
  judge: answer.judge && lastName(answer.judge),
});

/** The page, told that it has no server. */
const asCopy = (page: Uint8Array): Uint8Array =>
  Buffer.from(
    Buffer.from(page)
      .toString('utf8')
      .replace('name="optima" content="live"', 'name="optima" content="static"'),
  );

function refuseOccupied(target: string): void {
  const found = fs.statSync(target, { throwIfNoEntry: false });
  if (found === undefined || (found.isDirectory() && fs.readdirSync(target).length === 0)) return;
  throw new OptimaError('io.write', `${target} already has something in it.`, {
    hint: 'Name a folder that is not there, or is empty.',
  });
}
