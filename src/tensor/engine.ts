// Chooses the TF.js backend once per process, patches it, and says in one line what was chosen and why.
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { messageOf, nearest, OptimaError } from '../domain/errors.ts';
import { type Blas, loadBlas } from './blas.ts';
import tf from './tfjs.cjs';
import { adviseHugePages } from './wasm/huge-pages.ts';
import { installWasmKernels, wasmHeap, wasmLoops } from './wasm/install.ts';
import { checkMachineCode, warnOfMachineCode } from './x86/check.ts';
import { assembleMachineCode, type MachineCode } from './x86/index.ts';

/** How each backend starts, in the order in which `auto` tries them. A new backend is a new line here. */
const backends = {
  tensorflow: startTensorflow,
  wasm: startWasm,
  cpu: startCpu,
};

export type BackendName = keyof typeof backends;

/** Every backend that `startEngine` knows, the preferred one first. */
export const backendNames = Object.keys(backends) as readonly BackendName[];

export interface Engine {
  readonly backend: BackendName;
  /** The library behind the wasm backend's matrix products; null where there is none. */
  readonly blas: Pick<Blas, 'library' | 'coreType' | 'threads'> | null;
  /** The instructions that the wasm backend's machine code uses; null where it has none. */
  readonly machineCode: 'AVX2' | 'AVX-512' | null;
  /** One line for people: which engine runs and why. */
  readonly description: string;
  /** What computes, without why: two runs of one seed agree where this does. */
  readonly name: string;
}

export interface EngineOptions {
  /** `auto` takes the first backend that starts. Default: the environment's OPTIMA_BACKEND, else `auto`. */
  readonly backend?: BackendName | 'auto';
  /**
   * Whether the wasm backend looks for a system BLAS. Default: what the environment's OPTIMA_BLAS says, `on`, `off` or
   * the path of the library to use; without it, only where a BLAS is faster than what else there is.
   */
  readonly blas?: boolean;
  /**
   * Threads that a large matrix product is shared among. Default: one for each core, of a BLAS what OPENBLAS_NUM_THREADS says,
   * of machine code four at most. Of machine code they decide no bit.
   */
  readonly threads?: number;
}

/** What a backend reports once it runs. */
interface Started {
  readonly blas: Blas | null;
  readonly machineCode?: Engine['machineCode'];
  /** What it does without, and why. */
  readonly lacks?: readonly string[];
  /** What runs behind it, in words that follow its name. */
  readonly detail: string;
}

let engine: Promise<Engine> | undefined;

/**
 * Starts the tensor engine. It is chosen once per process: later calls return the running engine, whatever
 * they ask for. Throws `usage` for an unknown OPTIMA_BACKEND and `backend.unavailable` when a backend or a
 * library that was asked for by name does not start.
 */
export function startEngine(options: EngineOptions = {}): Promise<Engine> {
  engine ??= start(options).catch((error: unknown) => {
    engine = undefined;
    throw error;
  });
  return engine;
}

async function start(options: EngineOptions): Promise<Engine> {
  tf.enableProdMode(); // silences TF.js' banners
  const wanted = options.backend ?? backendFromEnvironment();
  if (wanted !== 'auto') {
    try {
      return describe(wanted, await backends[wanted](options), []);
    } catch (error) {
      if (error instanceof OptimaError) throw error;
      throw new OptimaError(
        'backend.unavailable',
        `Backend "${wanted}" does not start: ${reasonOf(error)}.`,
        {
          hint: `Use --backend auto, or one of ${backendNames.join(', ')}.`,
          cause: error,
        },
      );
    }
  }
  const failures: string[] = [];
  for (const name of backendNames) {
    try {
      return describe(name, await backends[name](options), failures);
    } catch (error) {
      if (error instanceof OptimaError) throw error;
      failures.push(`${name}: ${reasonOf(error)}`);
    }
  }
  throw new OptimaError('backend.unavailable', `No tensor backend starts: ${failures.join('; ')}.`);
}

function describe(
  backend: BackendName,
  { blas, machineCode = null, detail, lacks = [] }: Started,
  failures: readonly string[],
): Engine {
  return {
    backend,
    blas: blas && { library: blas.library, coreType: blas.coreType, threads: blas.threads },
    machineCode,
    name: `${backend} ${detail}`,
    description: [`${backend} ${detail}`, ...lacks, ...failures].join('; '),
  };
}

function backendFromEnvironment(): BackendName | 'auto' {
  const name = process.env.OPTIMA_BACKEND || 'auto';
  const known = ['auto', ...backendNames];
  if (known.includes(name)) return name as BackendName | 'auto';
  const near = nearest(name, known);
  throw new OptimaError('usage', `OPTIMA_BACKEND is "${name}", which is not one of ${known.join(', ')}.`, {
    hint: near && `Did you mean ${near}?`,
  });
}

async function startTensorflow(): Promise<Started> {
  process.env.TF_CPP_MIN_LOG_LEVEL ??= '2'; // libtensorflow's own chatter
  createRequire(import.meta.url)('@tensorflow/tfjs-node-gpu');
  await activate('tensorflow');
  const { isUsingGpuDevice } = tf.backend() as unknown as { isUsingGpuDevice?: boolean };
  return { blas: null, detail: `on the ${isUsingGpuDevice ? 'GPU' : 'CPU'}` };
}

async function startWasm(options: EngineOptions): Promise<Started> {
  const require = createRequire(import.meta.url);
  const events = ['uncaughtException', 'unhandledRejection'] as const;
  const before = events.map((event) => new Set(process.listeners(event as 'uncaughtException')));
  require('@tensorflow/tfjs-backend-wasm');
  await activate('wasm');
  // Emscripten's listeners rethrow what they get, which hides the place where it was thrown.
  for (const [i, event] of events.entries()) {
    for (const listener of process.listeners(event as 'uncaughtException')) {
      if (!before[i]!.has(listener)) process.removeListener(event, listener);
    }
  }
  // With what the heap may grow into. V8 reserves more.
  adviseHugePages(wasmHeap().buffer, heapEnd);
  const found = chooseMachineCode();
  const code = typeof found === 'string' ? null : found;
  const blas = chooseBlas(options, code);
  installWasmKernels({ blas: typeof blas === 'string' ? null : blas, machineCode: code });
  code?.shareAmong(options.threads ?? Math.min(availableParallelism(), mostThreads));
  const instructions = code && (code.lanes === 16 ? 'AVX-512' : 'AVX2');
  const parts = instructions === null ? [] : [`${instructions} code`];
  if (typeof blas !== 'string') {
    const core = blas.coreType === null ? '' : `${blas.coreType}, `;
    const threads = `${blas.threads} ${blas.threads === 1 ? 'thread' : 'threads'}`;
    parts.push(`${blas.library} (${core}${threads})`);
  }
  return {
    blas: typeof blas === 'string' ? null : blas,
    machineCode: instructions,
    detail: parts.length > 0 ? `with ${parts.join(' and ')}` : `without BLAS (${blas})`,
    lacks: [
      ...(typeof found === 'string' ? [`machine code: ${found}`] : []),
      ...(typeof blas === 'string' && parts.length > 0 && blas !== notNeeded ? [`BLAS: ${blas}`] : []),
    ],
  };
}

async function startCpu(): Promise<Started> {
  await activate('cpu');
  return { blas: null, detail: '(plain JavaScript)' };
}

async function activate(tfjsName: string): Promise<void> {
  if (!(await tf.setBackend(tfjsName))) throw new Error(`TF.js could not set its backend "${tfjsName}"`);
  await tf.ready();
}

/**
 * What OPTIMA_MACHINE_CODE allows, the machine offers and WebAssembly confirms, or why there is none. Throws `usage` for
 * another value.
 */
function chooseMachineCode(): MachineCode | string {
  const setting = process.env.OPTIMA_MACHINE_CODE || 'on';
  if (setting === 'off') return 'switched off by OPTIMA_MACHINE_CODE';
  if (setting !== 'on') {
    throw new OptimaError('usage', `OPTIMA_MACHINE_CODE is "${setting}", which is not one of on, off.`);
  }
  const heap = wasmHeap();
  try {
    const code = assembleMachineCode(heap);
    if (typeof code !== 'string') checkMachineCode(heap, code, wasmLoops(heap));
    return code;
  } catch (error) {
    warnOfMachineCode(error);
    return messageOf(error);
  }
}

/** Threads of a product in machine code by default: more share too little of it. */
const mostThreads = 4;

/** Why there is no BLAS where machine code is as fast. */
const notNeeded = 'not needed';

/** The library, or why there is none. */
function chooseBlas(
  { blas: wanted, threads }: EngineOptions,
  machineCode: MachineCode | null,
): Blas | string {
  const setting = process.env.OPTIMA_BLAS ?? '';
  if (wanted === false) return 'switched off';
  if (wanted === undefined && setting === 'off') return 'switched off by OPTIMA_BLAS';
  const asked = wanted === true || setting === 'on';
  const path = ['', 'on', 'off'].includes(setting) ? undefined : setting;
  if (machineCode !== null && !asked && path === undefined) return notNeeded;
  const blas = loadBlas({ path, threads });
  if (typeof blas === 'string' && path !== undefined) {
    throw new OptimaError(
      'backend.unavailable',
      `OPTIMA_BLAS names "${path}", which does not load: ${blas}.`,
      {
        hint: 'Give the path of a library with cblas_sgemm, or OPTIMA_BLAS=off.',
      },
    );
  }
  return blas;
}

/** Why a backend did not start, short enough for one line. */
function reasonOf(error: unknown): string {
  if ((error as { code?: unknown }).code === 'MODULE_NOT_FOUND') return 'not installed';
  const message = messageOf(error).replace(/\.$/, '');
  return message.length > 160 ? `${message.slice(0, 160)}…` : message;
}

/** Where a wasm heap ends: its addresses have 32 bits. */
const heapEnd = 2 ** 32;

/** Bytes of tensors that the engine can hold at once, and that are still free, or somewhat less; null where only the machine's memory bounds them. */
export function heapRoom(): { readonly all: number; readonly free: number } | null {
  return tf.getBackend() === 'wasm' ? { all: heapEnd, free: heapEnd - tf.memory().numBytes } : null;
}

/** Bytes that the engine holds for tensors: the whole wasm heap, which never shrinks, else the live tensors. */
export function heapBytes(): number {
  if (tf.getBackend() !== 'wasm') return tf.memory().numBytes;
  return wasmHeap().buffer.byteLength;
}
