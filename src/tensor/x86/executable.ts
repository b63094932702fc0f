// Memory for generated machine code, and what the processor and the system must offer for it.
import { createRequire } from 'node:module';
import { messageOf } from '../../domain/errors.ts';
import { at, type Code, type Memory, moveNumber, type Register } from './assembler.ts';

/** Address space of a program; pages that it does not touch cost nothing. */
const mappedBytes = 2 ** 19;
/** The first part holds constants. */
const poolBytes = 2 ** 13;
const [readable, writable, executable] = [1, 2, 4];
/** Linux' MAP_PRIVATE | MAP_ANONYMOUS. */
const privateMemory = 0x22;

type Koffi = typeof import('koffi').default;

/** The functions of libc that take memory and give it back, say what may be done with it, and fill it. */
export interface System {
  readonly koffi: Koffi;
  readonly map: (...numbers: number[]) => number | bigint;
  readonly unmap: (at: number, bytes: number) => number;
  readonly protect: (at: number, bytes: number, rights: number) => number;
  readonly copy: (to: number, from: Uint8Array, bytes: number) => number;
}

/** What a machine offers. */
export interface Machine {
  readonly system: System;
  /** The widest vectors of float32 numbers: AVX2's, or those of AVX-512. */
  readonly lanes: Lanes;
}

/** Lanes of a vector of float32 numbers. */
export type Lanes = 8 | 16;

let machine: Machine | string | null = null;

/** The machine that generated code runs on, or the reason why it does not run here. */
export function findMachine(): Machine | string {
  machine ??= askMachine();
  return machine;
}

function askMachine(): Machine | string {
  if (process.platform !== 'linux' || process.arch !== 'x64') return 'only for x86-64 on Linux';
  try {
    const koffi: Koffi = createRequire(import.meta.url)('koffi');
    const libc = koffi.load(null);
    return askProcessor({
      koffi,
      map: libc.func('uintptr_t mmap(uintptr_t, size_t, int, int, int, int64_t)'),
      unmap: libc.func('int munmap(uintptr_t, size_t)'),
      protect: libc.func('int mprotect(uintptr_t, size_t, int)'),
      copy: libc.func('uintptr_t memcpy(uintptr_t, const uint8_t *, size_t)'),
    });
  } catch (error) {
    return messageOf(error);
  }
}

/** What the processor can do, by its own account, and of which registers the system keeps the state. */
function askProcessor(system: System): Machine | string {
  const program = new Program(system);
  const [pushRbx, popRbx, ret] = [0x53, 0x5b, 0xc3];
  const cpuid = (leaf: number, toEax: Code): Code => [
    ...[pushRbx, 0xb8, leaf, 0, 0, 0, 0x31, 0xc9], // eax = leaf, ecx = 0
    ...[0x0f, 0xa2, ...toEax, popRbx, ret],
  ];
  const [fromEbx, fromEcx] = [
    [0x89, 0xd8],
    [0x89, 0xc8],
  ] as const;
  const ask = (code: Code) =>
    program.callable({ address: program.place(code), pointers: 0, parameters: [], result: 'uint32_t' });
  const featuresOf1 = ask(cpuid(1, fromEcx));
  const featuresOf7 = ask(cpuid(7, fromEbx));
  const keptStates = ask([0x31, 0xc9, 0x0f, 0x01, 0xd0, ret]); // xgetbv(0)
  program.seal();
  const has = (features: number, bit: number) => ((features >>> bit) & 1) === 1;
  const first = featuresOf1();
  if (!has(first, 27) || !has(first, 28) || (keptStates() & 0x06) !== 0x06) return 'the processor has no AVX';
  if (!has(first, 12)) return 'the processor has no fused multiply-add';
  const seventh = featuresOf7();
  if (!has(seventh, 5)) return 'the processor has no AVX2';
  return { system, lanes: has(seventh, 16) && (keptStates() & 0xe6) === 0xe6 ? 16 : 8 };
}

/** −1 sixteen times, then 0 as often: from word 16 − n on, a mask of the first n lanes. */
export const maskWords = Int32Array.from({ length: 32 }, (_, i) => (i < 16 ? -1 : 0));

/** A function in a program: where it is, how many addresses it takes, and what comes behind them. */
export interface Placed {
  readonly address: number;
  readonly pointers: number;
  readonly parameters: readonly ('int64_t' | 'float')[];
  readonly result: 'void' | 'float' | 'uint32_t';
}

/** A program is too long. */
export class NoRoom extends RangeError {}

export type MachineFunction = (...args: number[]) => number;

/** Code in the making: pieces are placed one after the other, then sealed, then called. It stays until it is disposed. */
export class Program {
  readonly #system: System;
  readonly #start: number;
  readonly #bytes: number[] = [];
  readonly #pool: number[] = [];
  readonly #places = new Map<string, number>();

  /** Throws when the system gives no memory. */
  constructor(system: System) {
    this.#system = system;
    this.#start = Number(system.map(0, mappedBytes, readable | writable, privateMemory, -1, 0));
    // MAP_FAILED is −1, as an unsigned number.
    if (this.#start >= 2 ** 63) throw new Error('the system gives no memory for machine code');
  }

  /** Sets a register to where the constants lie. */
  pool(register: Register): Code {
    return moveNumber(register, this.#start);
  }

  /** A float32 number in eight lanes, behind a register that points to the pool. */
  constant(pool: Register, value: number): Memory {
    return this.words(pool, new Int32Array(Float32Array.from({ length: 8 }, () => value).buffer));
  }

  /** Words of 32 bits, behind a register that points to the pool. */
  words(pool: Register, words: Int32Array): Memory {
    const key = words.join();
    const offset = this.#places.get(key) ?? this.#pool.length;
    if (!this.#places.has(key)) {
      this.#places.set(key, offset);
      this.#pool.push(...new Uint8Array(words.buffer));
      while (this.#pool.length % 32 !== 0) this.#pool.push(0);
    }
    return at(pool, offset);
  }

  /** Adds code, and returns its address. */
  place(code: Code): number {
    while (this.#bytes.length % 32 !== 0) this.#bytes.push(0xcc);
    const address = this.#start + poolBytes + this.#bytes.length;
    for (const byte of code) this.#bytes.push(byte);
    return address;
  }

  /** Makes the code executable, and no longer writable. Throws `NoRoom`, or when the system does not allow it. */
  seal(): void {
    if (this.#pool.length > poolBytes || this.#bytes.length > mappedBytes - poolBytes) {
      throw new NoRoom(`Machine code of ${this.#bytes.length} bytes has no room.`);
    }
    this.#system.copy(this.#start, Uint8Array.from(this.#pool), this.#pool.length);
    this.#system.copy(this.#start + poolBytes, Uint8Array.from(this.#bytes), this.#bytes.length);
    if (this.#system.protect(this.#start, mappedBytes, readable | executable) !== 0) {
      throw new Error('the system lets no memory be executed');
    }
  }

  /** Gives the memory back: nothing of it may be called any more. */
  dispose(): void {
    this.#system.unmap(this.#start, mappedBytes);
  }

  /** Placed code as a function of JavaScript, once it is sealed. Pointers are addresses in the process. */
  callable({ address, pointers, parameters, result }: Placed): MachineFunction {
    const { koffi } = this.#system;
    const types = [...Array<string>(pointers).fill('uintptr_t'), ...parameters];
    return koffi.decode(address, koffi.proto(result, types)) as MachineFunction;
  }

  /** Where an array lies in the process. */
  addressOf(memory: ArrayBuffer | Float32Array): number {
    return Number(this.#system.koffi.address(memory));
  }
}

/** A function whose pointers are addresses behind `base()`. Without an array of arguments: that takes longer than the call. */
export function behind(
  base: () => number,
  call: MachineFunction,
  { pointers, parameters }: Placed,
): MachineFunction {
  const [second, third] = [pointers > 1, pointers > 2];
  switch (pointers > 3 ? 0 : pointers + parameters.length) {
    case 3:
      return (a, b, c) => {
        const start = base();
        return call(a! + start, second ? b! + start : b!, third ? c! + start : c!);
      };
    case 4:
      return (a, b, c, d) => {
        const start = base();
        return call(a! + start, second ? b! + start : b!, third ? c! + start : c!, d!);
      };
    case 5:
      return (a, b, c, d, e) => {
        const start = base();
        return call(a! + start, second ? b! + start : b!, third ? c! + start : c!, d!, e!);
      };
    case 6:
      return (a, b, c, d, e, f) => {
        const start = base();
        return call(a! + start, second ? b! + start : b!, third ? c! + start : c!, d!, e!, f!);
      };
    default:
      return (...args) => {
        const start = base();
        for (let i = 0; i < pointers; i++) args[i]! += start;
        return call(...args);
      };
  }
}
