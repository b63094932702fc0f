// The file that a log is read from: `events.jsonl`, or where that was compressed, `events.jsonl.gz`. Who reads it need not know which.
import fs from 'node:fs';
import path from 'node:path';
import { OptimaError } from '../domain/errors.ts';
import { CompressedLog } from './compressed-log.ts';
import { ioError, readingFrom, requireNoPipe } from './files.ts';
import type { LogFile } from './lines.ts';

export const compressedPath = (log: string): string => `${log}.gz`;

/** The log of a run's folder as it lies there; the plain one where there is none. */
export function logPath(folder: string): string {
  const plain = path.join(folder, 'events.jsonl');
  return !fs.existsSync(plain) && fs.existsSync(compressedPath(plain)) ? compressedPath(plain) : plain;
}

/** Opens a log, which is compressed where its name says so. Throws `run.corrupt`, `io.read` for a pipe, and what the file system says. */
export function openLogFile(file: string, flags: number = fs.constants.O_RDONLY): LogFile {
  requireNoPipe(file);
  const descriptor = fs.openSync(file, flags);
  if (!file.endsWith(compressedPath(''))) return plainLog(file, descriptor);
  try {
    return new CompressedLog(file, descriptor);
  } catch (error) {
    fs.closeSync(descriptor);
    throw error;
  }
}

/** Opens the log of a run's folder to read it. Throws `run.missing` where there is none, `run.corrupt` and `io.read`. */
export function openLogOf(folder: string): LogFile {
  const file = logPath(folder);
  try {
    return openLogFile(file);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'ENOENT' && code !== 'ENOTDIR') throw ioError('read', file, error);
    // Meanwhile it may have been compressed.
    if (logPath(folder) !== file) return openLogOf(folder);
    throw new OptimaError('run.missing', `${folder} is not a run folder: it has no events.jsonl.`);
  }
}

const plainLog = (file: string, descriptor: number): LogFile => ({
  ...{ path: file, descriptor, isCompressed: false },
  size: () => fs.fstatSync(descriptor).size,
  read: (into, at, length, position) =>
    readingFrom(file, () => fs.readSync(descriptor, into, at, length, position)),
  close: () => fs.closeSync(descriptor),
});
