// The lock of a run folder: the process id of its owner.
import fs from 'node:fs';
import path from 'node:path';
import { OptimaError } from '../domain/errors.ts';
import { ioError } from './files.ts';

const lockPath = (folder: string): string => path.join(folder, 'lock');

/**
 * Takes a run folder for this process: two on one log would ruin it. Throws `run.exists` while another process holds it; a
 * lock whose process is gone is taken over.
 */
export function lock(folder: string): void {
  const file = lockPath(folder);
  try {
    if (fs.existsSync(file)) {
      const owner = Number(fs.readFileSync(file, 'utf8'));
      if (owner !== process.pid && isAlive(owner)) {
        throw new OptimaError('run.exists', `${folder} is in use by process ${owner}.`, {
          hint: `Wait for it to end; if it is not an optima process, delete ${file}.`,
        });
      }
    }
    fs.writeFileSync(file, String(process.pid));
  } catch (error) {
    throw ioError('write', file, error);
  }
}

/** Gives the folder free. */
export function unlock(folder: string): void {
  fs.rmSync(lockPath(folder), { force: true });
}

function isAlive(pid: number): boolean {
  if (!Number.isInteger(pid) || pid <= 0) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}
