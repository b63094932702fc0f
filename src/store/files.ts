// Files a run writes: whole or not at all, and with errors that name the path and the cause.
import fs from 'node:fs';
import path from 'node:path';
import { setImmediate as nextTick } from 'node:timers/promises';
import { cleaningUp, messageOf, OptimaError } from '../domain/errors.ts';

const causes: Readonly<Record<string, string>> = {
  ENOSPC: 'no space is left on the device',
  EDQUOT: 'the disk quota is used up',
  EACCES: 'permission denied',
  EPERM: 'permission denied',
  EROFS: 'the file system is read-only',
  EEXIST: 'a file of that name is there already',
  EFBIG: 'it would grow beyond the limit on file sizes',
  ENOTDIR: 'a part of the path is not a folder',
  EISDIR: 'it is a folder',
  ENOENT: 'no such file or folder',
  ELOOP: 'it is a link',
};

/** An error of the file system as one line; errors that are ours already pass through. */
export function ioError(action: 'read' | 'write', file: string, error: unknown): OptimaError {
  if (error instanceof OptimaError) return error;
  const code = (error as NodeJS.ErrnoException | null)?.code;
  const cause = (code !== undefined && causes[code]) || messageOf(error);
  return new OptimaError(`io.${action}`, `Cannot ${action} ${file}: ${cause}.`, {
    hint: code === 'ENOSPC' || code === 'EDQUOT' ? 'Free some space, then resume the run.' : undefined,
    cause: error,
  });
}

/** What the file system answers when it is asked for a file's content; throws `io.read`. */
export function readingFrom<Result>(file: string, read: () => Result): Result {
  try {
    return read();
  } catch (error) {
    throw ioError('read', file, error);
  }
}

/** Throws `io.read` for a pipe and its like, which to open would wait for ever; that a folder is none the system says. */
export function requireNoPipe(file: string): void {
  const found = readingFrom(file, () => (fs.existsSync(file) ? fs.statSync(file) : undefined));
  if (found === undefined || found.isFile() || found.isDirectory()) return;
  throw new OptimaError('io.read', `Cannot read ${file}: it is a pipe, a socket or a device.`);
}

/** The text of a file; throws `io.read`. */
export function readText(file: string): string {
  requireNoPipe(file);
  return readingFrom(file, () => fs.readFileSync(file, 'utf8'));
}

/**
 * Makes a folder and those above it that are not there; throws `io.write`. Node's own recursive mkdir does not
 * return where the system answers ENOENT for a folder that is there, as it does in /proc.
 */
export function makeFolder(folder: string): void {
  const parent = path.dirname(folder);
  if (parent !== folder && !fs.existsSync(parent)) makeFolder(parent);
  try {
    fs.mkdirSync(folder);
  } catch (error) {
    if (!fs.existsSync(folder) || !fs.statSync(folder).isDirectory()) throw ioError('write', folder, error);
  }
}

/** Where a file is written before it takes its name. */
export const partialOf = (file: string): string => `${file}.partial`;

/** Replaces a file in one step, so that a reader or a crash sees the old content or the new, never a part. */
export function writeFileAtomic(file: string, content: string): void {
  const temporary = partialOf(file);
  try {
    const descriptor = fs.openSync(temporary, 'w');
    try {
      fs.writeFileSync(descriptor, content);
      fs.fsyncSync(descriptor);
    } finally {
      fs.closeSync(descriptor);
    }
    fs.renameSync(temporary, file);
    syncFolder(path.dirname(file));
  } catch (error) {
    throw ioError('write', file, error);
  }
}

/** Most bytes that `writeFileWhole` holds back. */
const bufferBytes = 1 << 20;

/**
 * Writes a file piece by piece beside its place, and puts it there at the end: whole or not at all. Resolves with its bytes.
 * Rejects with `io.write`, for a file that is there already too unless `force` says to replace it, with `interrupted` on abort,
 * and as `pieces` does.
 */
export async function writeFileWhole(
  file: string,
  pieces: Iterable<string | Uint8Array> | AsyncIterable<string | Uint8Array>,
  { force = false, signal }: { readonly force?: boolean; readonly signal?: AbortSignal | undefined } = {},
): Promise<number> {
  refuseExisting(file, force);
  // Of this process: another one may be writing the same file.
  const partial = `${file}.${process.pid}.partial`;
  const descriptor = opened(partial, file);
  const written = async (): Promise<number> => {
    let size = 0;
    let held: Buffer[] = [];
    let heldBytes = 0;
    const flush = (): void => {
      for (const bytes of held) fs.writeFileSync(descriptor, bytes);
      [held, heldBytes] = [[], 0];
    };
    for await (const piece of pieces) {
      const bytes = Buffer.from(piece as string);
      held.push(bytes);
      size += bytes.length;
      heldBytes += bytes.length;
      if (heldBytes < bufferBytes) continue;
      flush();
      await nextTick();
      if (signal?.aborted) throw new OptimaError('interrupted', `Writing ${file} was interrupted.`);
    }
    flush();
    fs.fsyncSync(descriptor);
    return size;
  };
  try {
    const size = await cleaningUp(written, () => fs.closeSync(descriptor));
    refuseExisting(file, force);
    fs.renameSync(partial, file);
    syncFolder(path.dirname(file));
    return size;
  } catch (error) {
    fs.rmSync(partial, { force: true });
    throw isOfFiles(error) ? ioError('write', file, error) : error;
  }
}

function opened(partial: string, file: string): number {
  try {
    return fs.openSync(partial, 'w');
  } catch (error) {
    throw ioError('write', file, error);
  }
}

/** Throws `io.write` where a file is there that must not be replaced. */
export function refuseExisting(file: string, force: boolean): void {
  if (force || !fs.existsSync(file)) return;
  throw new OptimaError('io.write', `${file} exists already.`, {
    hint: 'Name another file, or replace it with --force.',
  });
}

const isOfFiles = (error: unknown): boolean =>
  typeof (error as NodeJS.ErrnoException | null)?.syscall === 'string';

/** Flushes a folder's entries (a rename in it) to the disk. */
export function syncFolder(folder: string): void {
  // Windows cannot open a folder; there a rename is durable by itself.
  if (process.platform === 'win32') return;
  const descriptor = fs.openSync(folder, 'r');
  try {
    fs.fsyncSync(descriptor);
  } finally {
    fs.closeSync(descriptor);
  }
}

/** Whether a file or folder is a folder or lies in it, wherever links lead; both must be there. */
export function isWithin(folder: string, file: string): boolean {
  const way = path.relative(fs.realpathSync(folder), fs.realpathSync(file));
  return way !== '..' && !way.startsWith(`..${path.sep}`) && !path.isAbsolute(way);
}

/**
 * Throws `run.corrupt` for a file of a run that is a link and leads out of the run's folder, or is neither file nor folder:
 * whoever made the folder must not have others read what it cannot, or wait for ever. A file that is not there passes.
 */
export function requireWithin(folder: string, file: string): void {
  let found: fs.Stats | undefined;
  let isInside: boolean;
  try {
    found = fs.statSync(file, { throwIfNoEntry: false });
    if (found === undefined) return;
    isInside = isWithin(folder, file);
  } catch (error) {
    throw ioError('read', file, error);
  }
  if (isInside && (found.isFile() || found.isDirectory())) return;
  const what = isInside ? 'is neither a file nor a folder' : "is a link that leads out of the run's folder";
  throw new OptimaError('run.corrupt', `${file} ${what}.`, { hint: 'Put the file itself there.' });
}
