// A small WebAssembly assembler for SIMD loops over TF.js' own memory. The inner loops of the fused kernels and
// of the matrix product are written in it: V8 takes several times as long for loops over typed arrays.

/** Instructions. As an expression it leaves one value on the stack, as a statement none. */
export type Code = readonly number[];

const types = { i32: 0x7f, f32: 0x7d, v128: 0x7b } as const;
export type Type = keyof typeof types;

/** A function under construction. Variables are named by their index. */
export class FunctionBuilder<Parameter extends string = string> {
  /** The parameters' variables. */
  readonly parameters: Readonly<Record<Parameter, number>>;
  readonly #parameterTypes: readonly Type[];
  readonly #locals: Type[] = [];
  readonly #result: Type | undefined;
  #body: Code = [];

  constructor(parameters: Readonly<Record<Parameter, Type>>, result?: Type) {
    this.#parameterTypes = Object.values(parameters);
    this.parameters = Object.fromEntries(Object.keys(parameters).map((name, i) => [name, i])) as Record<
      Parameter,
      number
    >;
    this.#result = result;
  }

  /** A new local variable. */
  local(type: Type): number {
    return this.#parameterTypes.length + this.#locals.push(type) - 1;
  }

  locals(type: Type, count: number): number[] {
    return Array.from({ length: count }, () => this.local(type));
  }

  /** States what the function does; where there is a result, its expression comes last. */
  body(...code: Code[]): this {
    this.#body = code.flat();
    return this;
  }

  get signature(): Code {
    const results = this.#result ? [[types[this.#result]]] : [];
    return [0x60, ...list(this.#parameterTypes.map((type) => [types[type]])), ...list(results)];
  }

  get code(): Code {
    return sized([...list(this.#locals.map((type) => [1, types[type]])), ...this.#body, end]);
  }
}

/** A function whose parameters are all integers. */
export const withIntegers = <Name extends string>(...names: Name[]) =>
  new FunctionBuilder(Object.fromEntries(names.map((name) => [name, 'i32'])) as Record<Name, 'i32'>);

/** 0 … n − 1, to unroll over. */
export const range = (n: number): number[] => Array.from({ length: n }, (_, i) => i);

/** Another module's memory. */
export interface WasmMemory {
  readonly buffer: ArrayBuffer;
}

// What this file uses of the WebAssembly interface, which TypeScript declares only together with the DOM.
declare const WebAssembly: {
  Module: new (binary: Uint8Array) => object;
  Instance: new (module: object, imports: object) => { readonly exports: object };
};

/** Compiles functions into one module over `memory` and returns them by name. */
export function assemble<Name extends string>(
  functions: Readonly<Record<Name, FunctionBuilder>>,
  memory: WasmMemory,
): Readonly<Record<Name, (...args: number[]) => number>> {
  const builders = Object.values<FunctionBuilder>(functions);
  const importOfMemory = [...text('tfjs'), ...text('memory'), 0x02, 0x00, 0x00];
  const indices = builders.map((_, i) => unsigned(i));
  const exportsByName = Object.keys(functions).map((name, i) => [...text(name), 0x00, ...unsigned(i)]);
  const binary = Uint8Array.from([
    ...[0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00], // magic number and version
    ...section(1, builders.map((builder) => builder.signature)), // biome-ignore format: one section a line
    ...section(2, [importOfMemory]),
    ...section(3, indices),
    ...section(7, exportsByName),
    ...section(10, builders.map((builder) => builder.code)), // biome-ignore format: one section a line
  ]);
  const instance = new WebAssembly.Instance(new WebAssembly.Module(binary), { tfjs: { memory } });
  return instance.exports as Record<Name, (...args: number[]) => number>;
}

const end = 0x0b;
const unsigned = (n: number): Code => (n < 0x80 ? [n] : [(n & 0x7f) | 0x80, ...unsigned(n >>> 7)]);
const signed = (n: number): Code =>
  n >= -0x40 && n < 0x40 ? [n & 0x7f] : [(n & 0x7f) | 0x80, ...signed(n >> 7)];
const list = (items: readonly Code[]): Code => [...unsigned(items.length), ...items.flat()];
const sized = (bytes: Code): Code => [...unsigned(bytes.length), ...bytes];
const section = (id: number, items: readonly Code[]): Code => [id, ...sized(list(items))];
const text = (name: string): Code => sized([...new TextEncoder().encode(name)]);

// Locals, integers and control

export const get = (local: number): Code => [0x20, ...unsigned(local)];
export const set = (local: number, value: Code): Code => [...value, 0x21, ...unsigned(local)];
export const integer = (value: number): Code => [0x41, ...signed(value)];
/** Adds an integer expression to an integer local. */
export const advance = (local: number, by: Code): Code => set(local, addIntegers(get(local), by));
/** Repeats the body while the local is at least `amount`, and takes `amount` off it after every turn. */
export const countDown = (local: number, amount: number, ...body: Code[]): Code => [
  ...[0x02, 0x40, 0x03, 0x40], // block, loop
  ...[...get(local), ...integer(amount), 0x48, 0x0d, 0x01], // leave the block if less is left
  ...body.flat(),
  ...advance(local, integer(-amount)),
  ...[0x0c, 0x00, end, end],
];

/** Calls a function of the same module, by its place in the list given to `assemble`. */
export const call = (index: number, ...values: Code[]): Code => [...values.flat(), 0x10, ...unsigned(index)];

// Single float32 numbers

const float =
  (opcode: number) =>
  (a: Code, b: Code): Code => [...a, ...b, opcode];
export const addNumbers = float(0x92);
export const multiplyNumbers = float(0x94);
export const divideNumbers = float(0x95);
export const squareRoot = (a: Code): Code => [...a, 0x91];
export const toFloat = (value: Code): Code => [...value, 0xb2];
export const number = (value: number): Code => [0x43, ...new Uint8Array(Float32Array.of(value).buffer)];

// Vectors of four float32 lanes

const simd = (opcode: number): Code => [0xfd, ...unsigned(opcode)];
const unary =
  (opcode: number) =>
  (a: Code): Code => [...a, ...simd(opcode)];
const binary =
  (opcode: number) =>
  (a: Code, b: Code): Code => [...a, ...b, ...simd(opcode)];

export const add = binary(0xe4);
export const sub = binary(0xe5);
export const mul = binary(0xe6);
export const div = binary(0xe7);
/** b where it is less than a, else a: one instruction on x86, where IEEE's minimum is several. */
export const min = binary(0xea);
/** b where it is greater than a, else a. */
export const max = binary(0xeb);
export const neg = unary(0xe1);
export const sqrt = unary(0xe3);
export const lessThan = binary(0x43);
/** a where the mask is clear, 0 where it is set. */
export const unless = binary(0x4f);
/** Shifts each lane's 32 bits to the left. */
export const shiftLeft = (a: Code, bits: number): Code => [...a, ...integer(bits), ...simd(0xab)];

/** A float32 expression in all four lanes. */
export const splat = unary(0x13);
export const constant = (value: number): Code => splat(number(value));

/** How many float32 numbers a load or store moves: four, or one that goes through the first lane. */
export type Width = 4 | 1;
const unaligned = (byteOffset: number): Code => [0x02, ...unsigned(byteOffset)];

/** Loads from an address; with width 1 the other lanes become 0. */
export const load = (width: Width, address: Code, byteOffset = 0): Code => [
  ...address,
  ...simd(width === 4 ? 0x00 : 0x5c),
  ...unaligned(byteOffset),
];
/** Loads one number into all lanes. */
export const loadSplat = (address: Code, byteOffset = 0): Code => [
  ...address,
  ...simd(0x09),
  ...unaligned(byteOffset),
];
/** Loads one float32 number. */
export const loadNumber = (address: Code): Code => [...address, 0x2a, ...unaligned(0)];
/** Loads an integer. */
export const loadInteger = (address: Code): Code => [...address, 0x28, ...unaligned(0)];
/** The sum of two integer expressions. */
export const addIntegers = (a: Code, b: Code): Code => [...a, ...b, 0x6a];
export const subtractIntegers = (a: Code, b: Code): Code => [...a, ...b, 0x6b];
export const multiplyIntegers = (a: Code, b: Code): Code => [...a, ...b, 0x6c];
/** Stores four numbers, or the first lane. */
export const store = (width: Width, address: Code, value: Code, byteOffset = 0): Code => [
  ...address,
  ...value,
  ...(width === 4 ? [...simd(0x0b), ...unaligned(byteOffset)] : [...simd(0x5a), ...unaligned(byteOffset), 0]),
];

/** Stores a float32 expression. */
export const storeNumber = (address: Code, value: Code, byteOffset = 0): Code => [
  ...[...address, ...value, 0x38],
  ...unaligned(byteOffset),
];

/** Sum or maximum, as one float32, of some lanes of vector locals. */
export const combineLanes = (by: 'sum' | 'max', lanes: readonly { local: number; lane: number }[]): Code =>
  lanes.flatMap(({ local, lane }, i) => [
    ...[...get(local), ...simd(0x1f), lane],
    ...(i === 0 ? [] : [by === 'sum' ? 0x92 : 0x97]),
  ]);
