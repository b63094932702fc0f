// A thread of the system's own beside JavaScript's, which knows nothing but machine code: while a function here computes one
// part of a result, it carries out calls that were noted down for the other.
import {
  addNumber,
  address,
  at,
  call,
  callAt,
  countDown,
  forever,
  keep,
  type Memory,
  move,
  moveNumber,
  moveUnsigned,
  pause,
  procedure,
  r8,
  r9,
  r13,
  r14,
  r15,
  range,
  rax,
  rbx,
  rcx,
  rdi,
  rdx,
  rsi,
  rsp,
  shiftLeft,
  unlessZero,
} from './assembler.ts';
import { Program, type System } from './executable.ts';

/** Numbers of 8 bytes of a call: the function, and arguments in registers and on the stack. */
const [inRegisters, onStack] = [6, 14];
const callNumbers = 1 + inRegisters + onStack;
const callBytes = 8 * callNumbers;

// What the thread and its owner have in common: two semaphores, the mask of signals that it leaves to others, and its calls.
const [begun, ended, thread, allSignals, oldSignals] = [0, 64, 128, 192, 320];
const [count, calls] = [504, 512];
/** Address space; pages that are not touched cost nothing. */
const sharedBytes = 2 ** 22;
const mostCalls = Math.floor((sharedBytes - calls) / callBytes);

/** Looks at a semaphore before the system is asked to wait: some 50 µs, as long as what lies between two products. */
const looks = 1000;
const [readable, writable, privateMemory, setMask] = [1, 2, 0x22, 2];

/** The functions of libc by their addresses, or null where one is missing. */
function findThreads({ koffi }: System) {
  const libc = koffi.load(null);
  const addressOf = libc.func('uintptr_t dlsym(uintptr_t, const char *)');
  const [wait, post] = ['sem_wait', 'sem_post'].map((name) => Number(addressOf(0, name)));
  if (!wait || !post) return null;
  return {
    ...{ wait, post },
    create: libc.func('int pthread_create(uintptr_t, uintptr_t, uintptr_t, uintptr_t)'),
    initialize: libc.func('int sem_init(uintptr_t, int, uint32_t)'),
    raise: libc.func('int sem_post(uintptr_t)'),
    fill: libc.func('int sigfillset(uintptr_t)'),
    block: libc.func('int pthread_sigmask(int, uintptr_t, uintptr_t)'),
  };
}

/** Waits until a semaphore is above 0, and takes 1 off it. */
const waitFor = (semaphore: Memory, wait: number) => [
  // Its lower half is its number.
  ...moveNumber(r13, looks),
  ...countDown(r13, 1, pause, moveUnsigned(rax, semaphore), unlessZero(rax, moveNumber(r13, 1))),
  // A signal may end the waiting early.
  ...moveNumber(r13, 1),
  ...countDown(
    r13,
    1,
    address(rdi, semaphore),
    call(wait),
    shiftLeft(rax, 32),
    unlessZero(rax, addNumber(r13, 1)),
  ),
];

/** One thread. It sleeps until it has calls, and ends with the process. */
export class Helper {
  readonly #shared: number;
  readonly #copy: System['copy'];
  readonly #raise: (semaphore: number) => number;
  readonly #join: (...args: number[]) => number;
  #noted = new Uint32Array(2 * (1 + 64 * callNumbers));
  #calls = 0;

  private constructor(
    shared: number,
    system: System,
    raise: (semaphore: number) => number,
    join: (...args: number[]) => number,
  ) {
    [this.#shared, this.#copy, this.#raise, this.#join] = [shared, system.copy, raise, join];
  }

  /** Null where the system does not give a thread, or what one needs; nothing of it stays then. */
  static start(system: System): Helper | null {
    const taken: (() => void)[] = [];
    try {
      const helper = Helper.#startWith(system, taken);
      if (helper !== null) return helper;
    } catch {
      // Products go on with the threads there are.
    }
    for (const giveBack of taken) giveBack();
    return null;
  }

  /** `taken` gets what gives back the memory that it took. */
  static #startWith(system: System, taken: (() => void)[]): Helper | null {
    const libc = findThreads(system);
    if (libc === null) return null;
    const shared = Number(system.map(0, sharedBytes, readable | writable, privateMemory, -1, 0));
    // MAP_FAILED is −1, as an unsigned number.
    if (shared >= 2 ** 63) return null;
    taken.push(() => system.unmap(shared, sharedBytes));
    const program = new Program(system);
    taken.push(() => program.dispose());
    // An odd number of slots leaves the stack where System V's convention wants it in a call.
    const body = program.place(
      procedure(
        onStack + 1,
        move(rbx, rdi),
        forever([
          ...waitFor(at(rbx, begun), libc.wait),
          ...move(r14, at(rbx, count)),
          ...address(r15, at(rbx, calls)),
          ...countDown(
            r14,
            1,
            range(onStack).flatMap((i) => [
              ...move(rax, at(r15, 8 * (1 + inRegisters + i))),
              ...keep(at(rsp, 8 * i), rax),
            ]),
            [rdi, rsi, rdx, rcx, r8, r9].flatMap((register, i) => move(register, at(r15, 8 * (1 + i)))),
            callAt(at(r15)),
            addNumber(r15, callBytes),
          ),
          ...address(rdi, at(rbx, ended)),
          ...call(libc.post),
        ]),
      ),
    );
    const join = program.place(procedure(1, move(rbx, rdi), waitFor(at(rbx, ended), libc.wait)));
    program.seal();
    const placed = { address: join, pointers: 1, parameters: [], result: 'void' } as const;
    const helper = new Helper(shared, system, libc.raise, program.callable(placed));
    for (const semaphore of [begun, ended]) libc.initialize(shared + semaphore, 0, 0);
    // Signals are for the threads that know what to do.
    libc.fill(shared + allSignals);
    libc.block(setMask, shared + allSignals, shared + oldSignals);
    const failed = libc.create(shared + thread, 0, body, shared) !== 0;
    libc.block(setMask, shared + oldSignals, 0);
    return failed ? null : helper;
  }

  /** Notes a call down: a function's address, and whole numbers from 0 on. */
  note(address: number, args: readonly number[]): void {
    if (this.#calls === mostCalls) throw new RangeError(`More than ${mostCalls} calls for one helper.`);
    const at = 2 * (1 + this.#calls * callNumbers);
    if (at + 2 * callNumbers > this.#noted.length) {
      const longer = new Uint32Array(2 * this.#noted.length);
      longer.set(this.#noted);
      this.#noted = longer;
    }
    const put = (i: number, value: number) => {
      this.#noted[at + 2 * i] = value % 2 ** 32;
      this.#noted[at + 2 * i + 1] = value / 2 ** 32;
    };
    put(0, address);
    for (let i = 0; i < args.length; i++) put(i + 1, args[i]!);
    this.#calls++;
    this.#noted[0] = this.#calls;
  }

  /** Drops what was noted. */
  forget(): void {
    this.#calls = 0;
  }

  /** Carries out what was noted, elsewhere: until `join` nothing of it may be touched, nor may the heap grow. */
  begin(): void {
    const bytes = 8 * (1 + this.#calls * callNumbers);
    this.#copy(this.#shared + count, new Uint8Array(this.#noted.buffer, 0, bytes), bytes);
    this.#calls = 0;
    this.#raise(this.#shared + begun);
  }

  /** Waits until all of it is done. */
  join(): void {
    this.#join(this.#shared);
  }
}
