// A small x86-64 assembler: the integer instructions that loops need, AVX2 with fused multiply-add on vectors of eight
// float32 lanes, and of AVX-512 what a matrix product needs. Instructions are numbers, as in ../wasm/assembler.ts, so code
// is put together from pieces; jumps are relative and never leave the piece they are in. Encodings: Intel's Software
// Developer's Manual, volume 2.

/** Instructions, byte by byte. */
export type Code = readonly number[];

/** A general register of 64 bits, or a vector register of float32 lanes, by its number. */
export type Register = number;

/** Where in memory an operand lies: base + index · scale + offset, in bytes. */
export interface Memory {
  readonly base: Register;
  readonly offset: number;
  readonly index?: Register;
  readonly scale: 1 | 2 | 4 | 8;
}

type Operand = Register | Memory;

export const [rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi] = [0, 1, 2, 3, 4, 5, 6, 7] as const;
export const [r8, r9, r10, r11, r12, r13, r14, r15] = [8, 9, 10, 11, 12, 13, 14, 15] as const;

/** 0 … n − 1, to unroll over. */
export const range = (n: number): number[] => Array.from({ length: n }, (_, i) => i);

export const at = (base: Register, offset = 0): Memory => ({ base, offset, scale: 1 });
/** base + index · scale + offset; rsp is no index. */
export const indexed = (base: Register, index: Register, scale: 1 | 2 | 4 | 8 = 1, offset = 0): Memory => ({
  base,
  index,
  scale,
  offset,
});

const bytesOf = (value: number, count: number): number[] =>
  range(count).map((i) => Math.floor(value / 2 ** (8 * i)) & 0xff);
const fitsByte = (value: number): boolean => value >= -128 && value < 128;

/** The bytes that name a register field and an operand; an offset of one byte counts multiples of `unit`. */
function operands(field: number, operand: Operand, unit = 1): number[] {
  const low = (field & 7) << 3;
  if (typeof operand === 'number') return [0xc0 | low | (operand & 7)];
  const { base, index, scale, offset } = operand;
  // rbp and r13 as a base always have an offset.
  const isShort = offset % unit === 0 && fitsByte(offset / unit);
  const mode = offset === 0 && (base & 7) !== rbp ? 0 : isShort ? 1 : 2;
  const place = bytesOf(isShort ? offset / unit : offset, [0, 1, 4][mode]!);
  if (index === undefined && (base & 7) !== rsp) return [(mode << 6) | low | (base & 7), ...place];
  const sib = (Math.log2(scale) << 6) | (((index ?? rsp) & 7) << 3) | (base & 7);
  return [(mode << 6) | low | 4, sib, ...place];
}

/** The fourth bits of a register field, an index and a base (or register) operand. */
function highBits(field: number, operand: Operand): [number, number, number] {
  const [index, base] = typeof operand === 'number' ? [0, operand] : [operand.index ?? 0, operand.base];
  return [field >> 3, index >> 3, base >> 3];
}

// Integers and addresses, of 64 bits

function wide(opcode: Code, field: number, operand: Operand, bits: 64 | 32 = 64): Code {
  const [r, x, b] = highBits(field, operand);
  return [0x40 | (bits === 64 ? 8 : 0) | (r << 2) | (x << 1) | b, ...opcode, ...operands(field, operand)];
}

/** to = from */
export const move = (to: Register, from: Operand): Code => wide([0x8b], to, from);
/** The memory's 64 bits = from */
export const keep = (to: Memory, from: Register): Code => wide([0x89], from, to);
/** to = the memory's 32 bits, unsigned */
export const moveUnsigned = (to: Register, from: Memory): Code => wide([0x8b], to, from, 32);
/** to = an unsigned number below 2^53 */
export const moveNumber = (to: Register, value: number): Code => [
  0x48 | (to >> 3),
  0xb8 | (to & 7),
  ...bytesOf(value, 8),
];
/** to = the operand's address */
export const address = (to: Register, of: Memory): Code => wide([0x8d], to, of);
export const addTo = (to: Register, by: Operand): Code => wide([0x03], to, by);
export const subtractFrom = (from: Register, by: Operand): Code => wide([0x2b], from, by);
/** to = from · factor */
export const times = (to: Register, from: Operand, factor: number): Code => [
  ...wide([0x69], to, from),
  ...bytesOf(factor, 4),
];
/** Brings the cache line near, for reading; a hint that never fails. */
export const prefetch = (from: Memory): Code => wide([0x0f, 0x18], 1, from, 32);
/** As `prefetch`, for writing. */
export const prefetchToWrite = (from: Memory): Code => wide([0x0f, 0x0d], 1, from, 32);
const withNumber =
  (extension: number) =>
  (to: Register, value: number): Code =>
    fitsByte(value)
      ? [...wide([0x83], extension, to), ...bytesOf(value, 1)]
      : [...wide([0x81], extension, to), ...bytesOf(value, 4)];
export const addNumber = withNumber(0);
export const subtractNumber = withNumber(5);
const compareNumber = withNumber(7);
export const shiftLeft = (to: Register, bits: number): Code => [...wide([0xc1], 4, to), bits];

// Control

const jump = (condition: number, distance: number): Code => [0x0f, 0x80 | condition, ...bytesOf(distance, 4)];
const [equal, less, atLeast] = [0x4, 0xc, 0xd];
const jumpBytes = jump(equal, 0).length;

/** Does the body while the counter is at least `amount`, and takes `amount` off it after every turn. */
export function countDown(counter: Register, amount: number, ...body: Code[]): Code {
  const turn = [...body.flat(), ...subtractNumber(counter, amount), ...compareNumber(counter, amount)];
  return [
    ...compareNumber(counter, amount),
    ...jump(less, turn.length + jumpBytes),
    ...turn,
    ...jump(atLeast, -turn.length - jumpBytes),
  ];
}

/** Does the body again and again; it never ends. */
export const forever = (body: Code): Code => [...body, 0xe9, ...bytesOf(-body.length - 5, 4)];

/** Does the body if the register is not 0, else the other one. */
export function unlessZero(register: Register, body: Code, otherwise: Code = []): Code {
  const skip: Code = otherwise.length === 0 ? [] : [0xe9, ...bytesOf(otherwise.length, 4)];
  const test = compareNumber(register, 0);
  return [...test, ...jump(equal, body.length + skip.length), ...body, ...skip, ...otherwise];
}

const callAddress = (operand: Operand): Code => wide([0xff], 2, operand);
/** Calls the function whose address lies there. */
export const callAt = (place: Memory): Code => callAddress(place);
/** Calls the function at an address; rax is lost. */
export const call = (target: number): Code => [...moveNumber(rax, target), ...callAddress(rax)];
export const giveBack: Code = [0xc3];
/** Tells the processor that a loop waits for another one. */
export const pause: Code = [0xf3, 0x90];

const saved: readonly Register[] = [rbx, rbp, r12, r13, r14, r15];
const push = (register: Register): Code => [...(register > 7 ? [0x41] : []), 0x50 | (register & 7)];
const pop = (register: Register): Code => [...(register > 7 ? [0x41] : []), 0x58 | (register & 7)];

/** Clears the upper halves: code with 128-bit instructions, such as C's, is slow without it. */
export const clearUpper: Code = [0xc5, 0xf8, 0x77];

/**
 * A function that may use all registers, with `slots` places of 8 bytes at rbp − 8, rbp − 16 … for what it must keep.
 * Arguments come as in System V's convention: whole numbers in rdi, rsi, rdx, rcx, r8, r9 and then `stackArgument`s,
 * float32 in the first lanes of the vector registers.
 */
export const procedure = (slots: number, ...body: Code[]): Code => [
  ...saved.flatMap(push),
  ...move(rbp, rsp),
  ...subtractNumber(rsp, 8 * slots),
  ...body.flat(),
  ...clearUpper,
  ...move(rsp, rbp),
  ...saved.toReversed().flatMap(pop),
  ...giveBack,
];

/** The n-th of the arguments that came on the stack, in a `procedure`. */
export const stackArgument = (n: number): Memory => at(rbp, 8 * (saved.length + 1 + n));
/** A place of a `procedure`'s own. */
export const slot = (n: number): Memory => at(rbp, -8 * (n + 1));

// Vectors

const prefixes = { none: 0, x66: 1, xf3: 2, xf2: 3 } as const;

/** An instruction on vectors. `lanes` is 8, or 4 (or 1) for the lower half alone. */
function vex(
  prefix: keyof typeof prefixes,
  map: 1 | 2 | 3,
  opcode: number,
  field: number,
  second: Register,
  operand: Operand,
  lanes: 8 | 4 = 8,
): Code {
  const [r, x, b] = highBits(field, operand);
  return [
    0xc4,
    ((r ^ 1) << 7) | ((x ^ 1) << 6) | ((b ^ 1) << 5) | map,
    ((second ^ 15) << 3) | (lanes === 8 ? 4 : 0) | prefixes[prefix],
    opcode,
    ...operands(field, operand),
  ];
}

/** to = from; neither needs alignment. */
export const load = (to: Register, from: Operand): Code => vex('none', 1, 0x10, to, 0, from);
export const store = (to: Memory, from: Register): Code => vex('none', 1, 0x11, from, 0, to);
/** As `load` and `store` for one number; the other lanes become 0. */
export const loadNumber = (to: Register, from: Memory): Code => vex('xf3', 1, 0x10, to, 0, from, 4);
export const storeNumber = (to: Memory, from: Register): Code => vex('xf3', 1, 0x11, from, 0, to, 4);
/** Loads the lanes whose mask has its highest bit set, zeros elsewhere; what is masked off is not touched. */
export const loadMasked = (to: Register, mask: Register, from: Memory): Code =>
  vex('x66', 2, 0x2c, to, mask, from);
export const storeMasked = (to: Memory, mask: Register, from: Register): Code =>
  vex('x66', 2, 0x2e, from, mask, to);
/** Eight words of 16 bits as 32 bits each, zeros above them. */
export const loadWords = (to: Register, from: Memory): Code => vex('x66', 2, 0x33, to, 0, from);
/** One number, or a register's first, in all lanes. */
export const broadcast = (to: Register, from: Operand): Code => vex('x66', 2, 0x18, to, 0, from);

const binary =
  (opcode: number) =>
  (to: Register, a: Register, b: Operand): Code =>
    vex('none', 1, opcode, to, a, b);
export const add = binary(0x58);
export const multiply = binary(0x59);
export const subtract = binary(0x5c);
/** The second where one of the two is NaN, or both are 0. */
export const minimum = binary(0x5d);
export const divide = binary(0x5e);
export const maximum = binary(0x5f);
export const and = binary(0x54);
/** b where a's bits are not set. */
export const andNot = binary(0x55);
export const exclusiveOr = binary(0x57);
export const squareRoot = (to: Register, from: Operand): Code => vex('none', 1, 0x51, to, 0, from);
export const clear = (register: Register): Code => exclusiveOr(register, register, register);
/** All bits where a < b. */
export const lessThan = (to: Register, a: Register, b: Operand): Code => [
  ...vex('none', 1, 0xc2, to, a, b),
  1,
];
/** b where the mask's highest bit is set, else a. */
export const blend = (to: Register, a: Register, b: Operand, mask: Register): Code => [
  ...vex('x66', 3, 0x4a, to, a, b),
  mask << 4,
];
/** Shifts each lane's 32 bits to the left. */
export const shiftLanes = (to: Register, from: Register, bits: number): Code => [
  ...vex('x66', 1, 0x72, 6, to, from),
  bits,
];

/** Shifts each lane's 32 bits to the right, zeros behind them. */
export const shiftLanesRight = (to: Register, from: Register, bits: number): Code => [
  ...vex('x66', 1, 0x72, 2, to, from),
  bits,
];
/** The words of 16 bits that a's lanes hold in the lower half, then b's. */
export const joinWords = (to: Register, a: Register, b: Register): Code => [
  ...vex('x66', 2, 0x2b, to, a, b),
  // Which gives those of each half side by side: the middle quarters change places.
  ...permuteQuarters(to, to, 0xd8),
];
/** Quarters of a register by two bits of `choice` each. */
const permuteQuarters = (to: Register, from: Register, choice: number): Code => {
  const [r, , b] = highBits(to, from);
  const second = 0x80 | (15 << 3) | 4 | prefixes.x66;
  return [0xc4, ((r ^ 1) << 7) | 0x40 | ((b ^ 1) << 5) | 3, second, 0x00, ...operands(to, from), choice];
};

const fused =
  (opcode: number) =>
  (to: Register, a: Register, b: Operand): Code =>
    vex('x66', 2, opcode, to, a, b);
/** to += a · b, rounded once */
export const multiplyAdd = fused(0xb8);
/** to −= a · b, rounded once */
export const multiplySubtract = fused(0xbc);
/** to = to · a + b, rounded once */
export const timesPlus = fused(0xa8);

/** An integer of 64 bits as a float32 number in the first lane; the others come from the same register. */
export const toFloat = (to: Register, from: Register): Code => {
  const [r, , b] = highBits(to, from);
  const second = ((to ^ 15) << 3) | 0x80 | prefixes.xf3;
  return [0xc4, ((r ^ 1) << 7) | 0x40 | ((b ^ 1) << 5) | 1, second, 0x2a, ...operands(to, from)];
};

/** The lower (0) or upper (1) four lanes of a register as the lower four of another. */
export const half = (to: Register, from: Register, which: 0 | 1): Code => [
  ...vex('x66', 3, 0x19, from, 0, to),
  which,
];
/** Stores the lower (0) or upper (1) half. */
export const storeHalf = (to: Memory, from: Register, which: 0 | 1): Code => [
  ...vex('x66', 3, 0x19, from, 0, to),
  which,
];
/** Within each four lanes: a0 b0 a1 b1 */
export const interleaveLow = binary(0x14);
/** Within each four lanes: a2 b2 a3 b3 */
export const interleaveHigh = binary(0x15);
/** Within each four lanes: two of a's by the low, two of b's by the high bits of `choice`. */
export const shuffle = (to: Register, a: Register, b: Operand, choice: number): Code => [
  ...vex('none', 1, 0xc6, to, a, b),
  choice,
];
/** The lower halves of both (0x20), or the upper halves (0x31). */
export const joinHalves = (to: Register, a: Register, b: Operand, choice: 0x20 | 0x31): Code => [
  ...vex('x66', 3, 0x06, to, a, b),
  choice,
];
/** The four lanes of the lower half alone: to = a by b. */
export const lowAdd = (to: Register, a: Register, b: Operand): Code => vex('none', 1, 0x58, to, a, b, 4);
export const lowMaximum = (to: Register, a: Register, b: Operand): Code => vex('none', 1, 0x5f, to, a, b, 4);
/** Lanes of the lower half, two of a's and two of b's. */
export const lowShuffle = (to: Register, a: Register, b: Operand, choice: number): Code => [
  ...vex('none', 1, 0xc6, to, a, b, 4),
  choice,
];

// Vectors of 16 lanes, in registers 0 … 31 (AVX-512)

/**
 * An instruction on vectors of 16 lanes. What lies in memory has `bytes`, of which short offsets count multiples. `mask` is
 * the number of a mask register (0: all lanes); with `zeroes` what it leaves out becomes 0.
 */
function evex(
  prefix: keyof typeof prefixes,
  map: 1 | 2,
  opcode: number,
  field: number,
  second: Register,
  operand: Operand,
  { bytes = 64, mask = 0, zeroes = false } = {},
): Code {
  const isRegister = typeof operand === 'number';
  const [r, x, b] = highBits(field & 15, isRegister ? operand & 15 : operand);
  // The fifth bit of a register operand stands where an index has its fourth.
  const high = isRegister ? operand >> 4 : x;
  return [
    0x62,
    ((r ^ 1) << 7) | ((high ^ 1) << 6) | ((b ^ 1) << 5) | (((field >> 4) ^ 1) << 4) | map,
    (((second & 15) ^ 15) << 3) | 4 | prefixes[prefix],
    (zeroes ? 0x80 : 0) | 0x40 | (((second >> 4) ^ 1) << 3) | mask,
    opcode,
    ...operands(field, operand, bytes),
  ];
}

/** As their namesakes without a number. */
export const load16 = (to: Register, from: Operand): Code => evex('none', 1, 0x10, to, 0, from);
export const store16 = (to: Memory, from: Register): Code => evex('none', 1, 0x11, from, 0, to);
export const broadcast16 = (to: Register, from: Operand): Code =>
  evex('x66', 2, 0x18, to, 0, from, { bytes: 4 });
export const multiplyAdd16 = (to: Register, a: Register, b: Operand): Code => evex('x66', 2, 0xb8, to, a, b);
export const clear16 = (register: Register): Code => evex('x66', 1, 0xef, register, register, register);
export const loadWords16 = (to: Register, from: Memory): Code =>
  evex('x66', 2, 0x33, to, 0, from, { bytes: 32 });
export const shiftLanes16 = (to: Register, from: Register, bits: number): Code => [
  ...evex('x66', 1, 0x72, 6, to, from),
  bits,
];
/** The lanes whose bit is set in a mask register, 1 … 7. */
export const loadMasked16 = (to: Register, mask: number, from: Memory): Code =>
  evex('none', 1, 0x10, to, 0, from, { mask, zeroes: true });
export const storeMasked16 = (to: Memory, mask: number, from: Register): Code =>
  evex('none', 1, 0x11, from, 0, to, { mask });
/** A mask register = the memory's 16 bits */
export const setMask = (mask: number, from: Memory): Code => vex('none', 1, 0x90, mask, 0, from, 4);
