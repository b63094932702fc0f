// Large pages for the wasm heap and frozen matrices. A decoder's step and a training step walk through tens of megabytes; with pages of 4 KB
// the processor looks up addresses more often than its table holds, and each fresh page costs a fault.
import { createRequire } from 'node:module';

/** Advice begins with a page. */
const pageBytes = 4096;
/** Linux' MADV_HUGEPAGE. */
const useHugePages = 14;

type Koffi = typeof import('koffi').default;
interface Libc {
  readonly koffi: Koffi;
  readonly madvise: (address: number, length: number, advice: number) => number;
}

/** Null: none was found; undefined: none was looked for. */
let libc: Libc | null | undefined;

function findLibc(): Libc | null {
  if (process.platform !== 'linux') return null;
  try {
    const koffi: Koffi = createRequire(import.meta.url)('koffi');
    const madvise = koffi.load(null).func('int madvise(uintptr_t address, size_t length, int advice)');
    return { koffi, madvise };
  } catch {
    // No koffi, or a libc without it: pages stay small.
    return null;
  }
}

/**
 * Asks Linux to back so many bytes from the memory's beginning on with large pages: most distributions give them only to who
 * asks. It is advice: nothing depends on whether the system takes it.
 */
export function adviseHugePages(memory: ArrayBuffer | ArrayBufferView, bytes: number): void {
  if (libc === undefined) libc = findLibc();
  if (libc === null) return;
  const start = Number(libc.koffi.address(memory));
  const first = Math.floor(start / pageBytes) * pageBytes;
  libc.madvise(first, start + bytes - first, useHugePages);
}
