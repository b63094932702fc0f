// The system's BLAS, called in place on the wasm heap through koffi. Optional: every caller copes without it.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { messageOf } from '../domain/errors.ts';

/** C = op(A)·op(B), or C += with `adds`, row-major; A, B, C are byte addresses in this process, ld* are row lengths. */
export type Sgemm = (
  transposeA: boolean,
  transposeB: boolean,
  m: number,
  n: number,
  k: number,
  a: number,
  lda: number,
  b: number,
  ldb: number,
  c: number,
  ldc: number,
  adds: boolean,
) => void;

export interface Blas {
  /** The name or path it was loaded by. */
  readonly library: string;
  /** The set of kernels OpenBLAS runs, for example `SkylakeX`; null for other libraries. */
  readonly coreType: string | null;
  readonly threads: number;
  readonly sgemm: Sgemm;
  /** Byte address of a buffer's first element. It moves when wasm memory grows. */
  readonly addressOf: (buffer: ArrayBufferLike) => number;
}

const rowMajor = 101;
const noTranspose = 111;
const transpose = 112;

const accelerate = '/System/Library/Frameworks/Accelerate.framework/Accelerate';

function candidates(): readonly string[] {
  if (process.platform === 'darwin') return [accelerate];
  return ['libopenblas.so.0', 'libopenblas.so', 'libopenblasp.so.0', 'libblas.so.3'];
}

/**
 * The first BLAS that loads, or the reason why there is none. `path` names the one library to try. Found by
 * itself, a library counts only if it is OpenBLAS or Accelerate: the reference BLAS is slower than wasm. `threads` is
 * for all of the process; without it the environment decides.
 */
export function loadBlas({
  path,
  threads: wanted,
}: {
  readonly path?: string | undefined;
  readonly threads?: number | undefined;
} = {}): Blas | string {
  let koffi: typeof import('koffi').default;
  try {
    koffi = createRequire(import.meta.url)('koffi');
  } catch (error) {
    return `koffi does not load: ${messageOf(error)}`;
  }
  preferCoreType();
  let reason = 'no BLAS library found';
  for (const library of path === undefined ? candidates() : [path]) {
    try {
      const handle = koffi.load(library);
      const openBlas = hasSymbol(handle, 'openblas_set_num_threads');
      if (path === undefined && library !== accelerate && !openBlas) {
        reason = `${library} is not OpenBLAS`;
        continue;
      }
      const address = 'uintptr_t';
      const cblasSgemm = handle.func('cblas_sgemm', 'void', [
        ...['int', 'int', 'int', 'int', 'int', 'int', 'float'],
        ...[address, 'int', address, 'int', 'float', address, 'int'],
      ]);
      let threads = 1;
      let coreType: string | null = null;
      if (openBlas) {
        const chosen = process.env.OPENBLAS_NUM_THREADS ?? process.env.OMP_NUM_THREADS;
        const count = wanted ?? (chosen ? null : availableParallelism());
        if (count !== null) handle.func('void openblas_set_num_threads(int)')(count);
        threads = handle.func('int openblas_get_num_threads()')() as number;
        coreType = handle.func('const char *openblas_get_corename()')() as string;
      }
      return {
        library,
        coreType,
        threads,
        sgemm: (transposeA, transposeB, m, n, k, a, lda, b, ldb, c, ldc, adds) => {
          const [opA, opB] = [transposeA ? transpose : noTranspose, transposeB ? transpose : noTranspose];
          cblasSgemm(rowMajor, opA, opB, m, n, k, 1, a, lda, b, ldb, adds ? 1 : 0, c, ldc);
        },
        addressOf: (buffer) => Number(koffi.address(buffer)),
      };
    } catch (error) {
      if (path !== undefined) reason = messageOf(error);
    }
  }
  return reason;
}

function hasSymbol(handle: { symbol(name: string): unknown }, name: string): boolean {
  try {
    handle.symbol(name);
    return true;
  } catch {
    return false;
  }
}

/** OpenBLAS takes CPUs newer than itself for old ones (Debian 12's 0.3.21 does); it reads this when it loads. */
function preferCoreType(): void {
  if (process.env.OPENBLAS_CORETYPE || process.platform !== 'linux' || process.arch !== 'x64') return;
  let flags = '';
  try {
    flags = /^flags\s*:(.*)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1] ?? '';
  } catch {
    return; // without /proc OpenBLAS chooses by itself
  }
  const has = (flag: string) => flags.includes(` ${flag} `) || flags.endsWith(` ${flag}`);
  if (has('avx512f')) process.env.OPENBLAS_CORETYPE = 'SkylakeX';
  else if (has('avx2')) process.env.OPENBLAS_CORETYPE = 'Haswell';
}
