// The lock of a run folder: which process has it. A lock is a file that is made whole and only where there is none, so of two
// that come together one has it; what a dead process left is not deleted but followed by a lock that is named after it.
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { nanoid } from 'nanoid';
import { z } from 'zod';
import { OptimaError } from '../domain/errors.ts';
import { hash16 } from '../domain/hash.ts';
import { ioError, partialOf, requireNoPipe } from './files.ts';

const ownerSchema = z.object({
  host: z.string(),
  /** Since when the host runs, where it says so. */
  boot: z.string(),
  /** The namespace in which `pid` is the process's number; empty where there are none. */
  namespace: z.string(),
  pid: z.int(),
  /** When the process began, in the host's own measure: numbers are given again. */
  began: z.string(),
  /** Tells two locks of one process apart. */
  id: z.string(),
});

type Owner = z.output<typeof ownerSchema>;

/**
 * Takes a run folder, or by another name a part of it, for this process: two on one log would ruin it. Gives what gives it back. Throws `run.exists` while
 * another process holds it, or one of which this host cannot tell whether it is alive: a process of another host, or of
 * another PID namespace.
 */
export function lock(folder: string, name = 'lock'): () => void {
  const own = JSON.stringify({ ...thisProcess(), id: nanoid() });
  const draft = partialOf(path.join(folder, `${name}.${nanoid()}`));
  try {
    fs.writeFileSync(draft, own);
    for (;;) {
      const { file, last } = walk(folder, name);
      if (last !== null) requireDead(last, folder);
      try {
        take(draft, file);
      } catch (error) {
        const { code } = error as NodeJS.ErrnoException;
        if (code === 'ENOENT')
          fs.writeFileSync(draft, own); // Whoever has the folder has tidied it up.
        else if (code !== 'EEXIST') throw error; // Else another one was faster: who is it?
        continue;
      }
      // Whoever had given the folder back meanwhile took the way to this lock with it: then it is nobody's.
      if (walk(folder, name).last?.text === own) break;
      fs.rmSync(file, { force: true });
    }
  } catch (error) {
    throw ioError('write', path.join(folder, name), error);
  } finally {
    fs.rmSync(draft, { force: true });
  }
  // What processes left that were killed before they had a lock.
  for (const other of fs.readdirSync(folder)) {
    if (isDraft(other, name)) fs.rmSync(path.join(folder, other), { force: true });
  }
  return () => release(folder, name, own);
}

/** Puts a lock where there is none, whole; throws EEXIST where there is one. */
function take(draft: string, file: string): void {
  try {
    fs.linkSync(draft, file);
  } catch (error) {
    // Not every file system has links: there whoever reads a lock that is being written waits in vain for its owner.
    if (!['EPERM', 'ENOTSUP', 'ENOSYS'].includes((error as NodeJS.ErrnoException).code!)) throw error;
    fs.copyFileSync(draft, file, fs.constants.COPYFILE_EXCL);
  }
}

const isDraft = (file: string, name: string) => file.startsWith(`${name}.`) && file.endsWith(partialOf(''));

/** Goes from lock to lock: the last one, if there is any, and the file of the one that would follow. */
function walk(
  folder: string,
  name: string,
): {
  readonly file: string;
  readonly last: Lock | null;
  readonly files: string[];
} {
  const files: string[] = [];
  let last: Lock | null = null;
  for (let file = path.join(folder, name); ; ) {
    const text = readIfThere(file);
    if (text === null) return { file, last, files };
    files.push(file);
    last = { file, text };
    file = path.join(folder, `${name}.${hash16(text)}`);
  }
}

interface Lock {
  readonly file: string;
  readonly text: string;
}

function readIfThere(file: string): string | null {
  try {
    requireNoPipe(file);
    return fs.readFileSync(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw ioError('read', file, error);
  }
}

/** Whether a process has the folder, or by another name the part of it, or may have it as far as this host can tell. */
export function isLocked(folder: string, name = 'lock'): boolean {
  const { last } = walk(folder, name);
  try {
    if (last !== null) requireDead(last, folder);
    return false;
  } catch {
    return true;
  }
}

/** Deletes the own lock and those before it, the first one first: without it the others are nobody's. */
function release(folder: string, name: string, own: string): void {
  const { files, last } = walk(folder, name);
  if (last?.text !== own) return;
  for (const file of files) fs.rmSync(file, { force: true });
}

function requireDead({ file, text }: Lock, folder: string): void {
  const owner = ownerOf(text);
  // Locks are made whole: one that says nothing is what a machine that went down has left.
  if (owner === null) return;
  const here = thisProcess();
  const isNear = owner.host === here.host && owner.namespace === here.namespace;
  if (owner.host === here.host && owner.boot !== here.boot) return;
  if (isNear && beganOf(owner.pid) !== owner.began) return;
  const where = isNear ? '' : owner.host === here.host ? ' in another PID namespace' : ` on ${owner.host}`;
  throw new OptimaError('run.exists', `${folder} is in use by process ${owner.pid}${where}.`, {
    // Where the host says when a process began, it is the one that took the lock, and it lives.
    hint: `Wait for it to end${isNear && owner.began !== '' ? '' : `; if it is not an optima process, delete ${file}`}.`,
  });
}

function ownerOf(text: string): Owner | null {
  try {
    return ownerSchema.safeParse(JSON.parse(text)).data ?? null;
  } catch {
    return null;
  }
}

function thisProcess(): Omit<Owner, 'id'> {
  return {
    host: os.hostname(),
    boot: procText('sys/kernel/random/boot_id'),
    namespace: linkIfThere('/proc/self/ns/pid'),
    pid: process.pid,
    began: beganOf(process.pid) ?? '',
  };
}

/** When a process of this namespace began; null when there is none of this number. */
function beganOf(pid: number): string | null {
  try {
    process.kill(pid, 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EPERM') return null;
  }
  // The name, in brackets, may hold anything; the 20th field behind it is the time. Elsewhere than on Linux the number has to do.
  return procText(`${pid}/stat`).split(') ').at(-1)!.split(' ')[19] ?? '';
}

const procText = (file: string): string => readQuietly(() => fs.readFileSync(`/proc/${file}`, 'utf8').trim());
const linkIfThere = (file: string): string => readQuietly(() => fs.readlinkSync(file));

/** Empty where the system has no such file. */
function readQuietly(read: () => string): string {
  try {
    return read();
  } catch {
    return '';
  }
}
