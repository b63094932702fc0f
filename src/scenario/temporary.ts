// Folders for what is needed only while a command is at work.
import { mkdtempSync, readdirSync, readlinkSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { messageOf, OptimaError } from '../domain/errors.ts';

export interface TemporaryFolder {
  readonly path: string;
  /** Removes it, which otherwise happens when the process exits. */
  remove(): void;
}

/**
 * A new folder whose name says what for and for which process. Those that killed processes have left behind are removed first.
 * Throws `io.write` where there can be none.
 */
export function temporaryFolder(purpose: string): TemporaryFolder {
  const parent = tmpdir();
  const namespace = processNamespace();
  let path: string;
  try {
    removeLeftovers(parent, namespace);
    path = mkdtempSync(join(parent, `optima-${purpose}-${namespace}.${process.pid}-`));
  } catch (cause) {
    throw new OptimaError('io.write', `Cannot make a temporary folder: ${messageOf(cause)}.`, { cause });
  }
  const remove = () => {
    process.off('exit', remove);
    rmSync(path, { recursive: true, force: true });
  };
  process.on('exit', remove);
  return { path, remove };
}

/** Among which processes a number names one: containers may share a folder, and not their processes. */
function processNamespace(): string {
  try {
    return /\d+/.exec(readlinkSync('/proc/self/ns/pid'))![0];
  } catch {
    // Elsewhere than on Linux there is but one.
    return '0';
  }
}

function removeLeftovers(parent: string, namespace: string): void {
  for (const name of readdirSync(parent)) {
    const [, of, id] = /^optima-[a-z]+-(\d+)\.(\d+)-\w{6}$/.exec(name) ?? [];
    if (of !== namespace || isAlive(Number(id))) continue;
    try {
      rmSync(join(parent, name), { recursive: true, force: true });
    } catch {
      // Another user's: theirs to remove.
    }
  }
}

function isAlive(id: number): boolean {
  try {
    return process.kill(id, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== 'ESRCH';
  }
}
