// Large pages for the wasm heap. A decoder's step and a training step walk through tens of megabytes; with pages of 4 KB
// the processor looks up addresses more often than its table holds, and each fresh page costs a fault.
import { createRequire } from 'node:module';

/** Address space that TF.js' heap may grow into, in bytes. V8 reserves more. */
const reserved = 2 ** 32;
/** Linux' MADV_HUGEPAGE. */
const useHugePages = 14;

/**
 * Asks Linux to back the buffer, and what it grows into, with large pages: most distributions give them only to who
 * asks. It is advice: nothing depends on the answer, which is whether the system took it.
 */
export function adviseHugePages(buffer: ArrayBuffer): boolean {
  if (process.platform !== 'linux') return false;
  try {
    const koffi: typeof import('koffi').default = createRequire(import.meta.url)('koffi');
    const madvise = koffi.load(null).func('int madvise(uintptr_t address, size_t length, int advice)');
    return madvise(koffi.address(buffer), reserved, useHugePages) === 0;
  } catch {
    return false; // no koffi, or a libc without it
  }
}
