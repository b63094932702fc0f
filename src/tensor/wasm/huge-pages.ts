// Large pages for the wasm heap. A decoder's step and a training step walk through tens of megabytes; with pages of 4 KB
// the processor looks up addresses more often than its table holds, and each fresh page costs a fault.
import { createRequire } from 'node:module';

/** Address space that TF.js' heap may grow into, in bytes. V8 reserves more. */
const reserved = 2 ** 32;
/** Linux' MADV_HUGEPAGE. */
const useHugePages = 14;

/**
 * Asks Linux to back the buffer, and what it grows into, with large pages: most distributions give them only to who
 * asks. It is advice: nothing depends on whether the system takes it.
 */
export function adviseHugePages(buffer: ArrayBuffer): void {
  if (process.platform !== 'linux') return;
  try {
    const koffi: typeof import('koffi').default = createRequire(import.meta.url)('koffi');
    const madvise = koffi.load(null).func('int madvise(uintptr_t address, size_t length, int advice)');
    madvise(koffi.address(buffer), reserved, useHugePages);
  } catch {
    // No koffi, or a libc without it: pages stay small.
  }
}
