// Compressing the log of a run that is over. Whenever the process is killed, the log is there: the plain file until the compressed
// one lies beside it, whole, and has been read back; while both are there, the plain one is the log.
import fs from 'node:fs';
import path from 'node:path';
import { setImmediate as nextTick } from 'node:timers/promises';
import { OptimaError } from '../domain/errors.ts';
import { membersOf } from './compressed-log.ts';
import { ioError, requireWithin, syncFolder, writeFileWhole } from './files.ts';
import { type LogFile, linesIn } from './lines.ts';
import { lock } from './lock.ts';
import { compressedPath, openLogFile } from './log-file.ts';
import { incomplete, type Manifest, readManifest, writeManifest } from './manifest.ts';

export interface CompressOptions {
  /** Hears how many bytes of the log are compressed, of how many. */
  readonly onProgress?: (bytes: number, of: number) => void;
  readonly signal?: AbortSignal | undefined;
}

/** Bytes in which the last event of a run has room. */
const endRoom = 1 << 16;
/** Bytes that are compared at once. */
const comparedBytes = 1 << 20;

/**
 * Compresses the log of a run; resolves with its bytes before and after, or with null where it is compressed already. Rejects with
 * `run.missing` for a run that is not completed, `run.exists` while a process has it, `run.corrupt` for a log that is a link,
 * `interrupted` on abort, and `io.write`.
 */
export async function compressLog(
  folder: string,
  { onProgress = () => {}, signal }: CompressOptions = {},
): Promise<{ readonly before: number; readonly after: number } | null> {
  const plain = path.join(folder, 'events.jsonl');
  const compressed = compressedPath(plain);
  const unlock = lock(folder);
  try {
    const manifest = readManifest(folder);
    if (!fs.existsSync(plain) && fs.existsSync(compressed)) return null;
    requireWithin(folder, plain);
    const log = openLogFile(plain);
    try {
      const before = log.size();
      requireEnd(log, folder, manifest);
      // In the format of now: programs that know an older one refuse the run instead of missing its log.
      writeManifest(folder, manifest);
      const members = stoppable(
        membersOf(log, (bytes) => onProgress(bytes, before)),
        signal,
      );
      const after = await writeFileWhole(compressed, members, { force: true });
      await requireSame(log, compressed);
      fs.rmSync(plain);
      syncFolder(folder);
      return { before, after };
    } finally {
      log.close();
    }
  } catch (error) {
    throw ioError('write', compressed, error);
  } finally {
    unlock();
  }
}

/** Others get a turn between two; on abort the next one is `interrupted`. */
async function* stoppable<Each>(all: Iterable<Each>, signal: AbortSignal | undefined): AsyncGenerator<Each> {
  for (const each of all) {
    if (signal?.aborted)
      throw new OptimaError('interrupted', 'Compressing was interrupted; the log is as it was.');
    yield each;
    await nextTick();
  }
}

/** Throws unless the log ends, to the byte, with the end of the run that the manifest knows. */
function requireEnd(log: LogFile, folder: string, manifest: Manifest): void {
  const size = log.size();
  let last = '';
  for (const [line] of linesIn(log, Math.max(0, size - endRoom), size)) last = line;
  const { events, sum } = manifest.log;
  const isEnd =
    last.startsWith(`{"seq":${events - 1},"at":"`) &&
    last.includes(`","sum":"${sum}","type":"run.completed"`);
  const tail = Buffer.alloc(1);
  log.read(tail, 0, 1, size - 1);
  if (!isEnd || tail.toString() !== '\n') throw incomplete(folder, manifest, 'no end');
}

/** Rejects with `io.write` where a compressed log is not, byte for byte, the plain one: then it goes. */
async function requireSame(log: LogFile, compressed: string): Promise<void> {
  const packed = openLogFile(compressed);
  try {
    const size = log.size();
    if (packed.size() !== size) throw notTheSame(compressed);
    const [before, after] = [Buffer.alloc(comparedBytes), Buffer.alloc(comparedBytes)];
    for (let at = 0; at < size; ) {
      const count = packed.read(after, 0, comparedBytes, at);
      let read = 0;
      while (read < count) read += log.read(before, read, count - read, at + read) || count;
      if (before.compare(after, 0, count, 0, count) !== 0) throw notTheSame(compressed);
      at += count;
      await nextTick();
    }
  } catch (error) {
    fs.rmSync(compressed);
    throw error;
  } finally {
    packed.close();
  }
}

const notTheSame = (file: string): OptimaError =>
  new OptimaError('io.write', `Cannot write ${file}: what is read back is not what was written.`, {
    hint: 'The log is as it was. The disk may be failing.',
  });
