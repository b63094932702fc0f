// Opening a run to read it, as the commands do that show one; and how they say what is not in it.
import fs from 'node:fs';
import path from 'node:path';
import v8 from 'node:v8';
import { nearest, OptimaError } from '../domain/errors.ts';
import { nearestWords, RunReader } from '../reading/index.ts';
import type { Output } from './output.ts';

/**
 * Has the engine give back memory that is no longer in use as soon as it can, for a process that reads long logs: half the memory
 * while an index is made, in the same time (bench/synthetic-run.ts).
 */
export const keepMemorySmall = (): void => v8.setFlagsFromString('--optimize-for-size');

/** Opens a run to read it; where that takes a while it tells how far it is. Rejects as `RunReader.openInParts` does. */
export async function openReader(
  folder: string,
  { progress }: Pick<Output, 'progress'>,
  signal?: AbortSignal,
): Promise<RunReader> {
  let bytes = 0;
  const onProgress = (left: number) => {
    if (bytes === 0) {
      bytes = left;
      progress.begin(`reading ${folder}`, Math.ceil(bytes / 2 ** 20), 'MiB');
    }
    progress.advance(Math.floor((bytes - left) / 2 ** 20));
  };
  const reader = await RunReader.openInParts(folder, { onProgress, signal });
  if (bytes > 0) progress.end(`${reader.size.events} events`);
  return reader;
}

/** Opens a run, does the work, and closes it. Rejects as `openReader`, with the nearest run's name where there is no such folder. */
export async function withReader(
  folder: string,
  output: Output,
  work: (reader: RunReader) => void | Promise<void>,
  signal?: AbortSignal,
): Promise<void> {
  if (!fs.existsSync(folder)) {
    throw new OptimaError('run.missing', `${folder}: no such run.`, { hint: nearestRun(folder) });
  }
  keepMemorySmall();
  const reader = await openReader(folder, output, signal);
  try {
    await work(reader);
  } finally {
    reader.close();
  }
}

/** The runs of a folder: what holds a manifest, by its name in it. */
export function runsIn(folder: string): string[] {
  return fs
    .readdirSync(folder, { withFileTypes: true })
    .filter((entry) => entry.isDirectory() && fs.existsSync(path.join(folder, entry.name, 'manifest.json')))
    .map(({ name }) => name)
    .sort();
}

function nearestRun(folder: string): string {
  const inside = path.dirname(folder);
  for (const place of new Set([inside, 'runs'])) {
    if (!fs.existsSync(place) || !fs.statSync(place).isDirectory()) continue;
    const guess = nearest(path.basename(folder), runsIn(place));
    if (guess !== undefined) return `Did you mean ${path.join(place, guess)}?`;
  }
  return '`optima runs <folder>` lists the runs of a folder.';
}

/** The error for a dialogue, a tree or a task that a run does not have, with the nearest one's name. */
export const notInRun = (reader: RunReader, what: string, id: string): OptimaError =>
  new OptimaError('usage', `${reader.folder}: it has no ${what} ${id}.`, {
    hint: nearestWords(reader, what === 'task' ? 'task' : 'node', id),
  });

/** Bytes in words. */
export function sizeOf(bytes: number): string {
  if (bytes < 2 ** 20) return `${(bytes / 2 ** 10).toFixed(1)} KiB`;
  return bytes < 2 ** 30 ? `${(bytes / 2 ** 20).toFixed(1)} MiB` : `${(bytes / 2 ** 30).toFixed(2)} GiB`;
}

/** Columns of the terminal; where there is none, as many as a line may well have. */
export const widthOf = (): number => Math.max(40, process.stdout.columns ?? 120);

/** A text of others on one line, of at most so many characters. */
export function shortened(text: string, most: number): string {
  const whole = text.replaceAll(/\s+/gu, ' ').trim();
  const characters = [...whole];
  return characters.length <= most ? whole : `${characters.slice(0, Math.max(0, most - 1)).join('')}…`;
}
