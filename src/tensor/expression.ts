// What happens to one element of a vector, as a graph of operations: stated once, compiled to WebAssembly and to machine code.

/** A float32 number in every lane. A value that is used twice is one object, and computed once. */
export type Value =
  /** A vector's element, or a scalar. */
  | { readonly op: 'read'; readonly name: string }
  | { readonly op: 'constant'; readonly value: number }
  | { readonly op: 'neg' | 'sqrt'; readonly a: Value }
  /** The 32 bits of a lane, shifted. */
  | { readonly op: 'shiftLeft'; readonly a: Value; readonly bits: number }
  | { readonly op: BinaryOperation; readonly a: Value; readonly b: Value };

export type BinaryOperation = 'add' | 'sub' | 'mul' | 'div' | 'min' | 'lessThan' | 'unless';

const binary =
  (op: BinaryOperation) =>
  (a: Value, b: Value): Value => ({ op, a, b });
export const add = binary('add');
export const sub = binary('sub');
export const mul = binary('mul');
export const div = binary('div');
/** b where it is less than a, else a. */
export const min = binary('min');
/** All bits where a is less than b. */
export const lessThan = binary('lessThan');
/** a where the mask b is clear, 0 where it is set. */
export const unless = binary('unless');
export const neg = (a: Value): Value => ({ op: 'neg', a });
export const sqrt = (a: Value): Value => ({ op: 'sqrt', a });
export const shiftLeft = (a: Value, bits: number): Value => ({ op: 'shiftLeft', a, bits });
export const constant = (value: number): Value => ({ op: 'constant', value });

/** What a step makes of one element of each vector: new values of vectors, by name, and what `reduce` gathers. */
export interface Outcome<Name extends string> {
  readonly stores?: Partial<Readonly<Record<Name, Value>>>;
  readonly reduced?: Value;
}

/**
 * A function `(…vectors, …scalars, length)`: vectors are byte addresses of `length` float32 numbers that need no
 * alignment, scalars are numbers. With `reduce` it returns the sum (0 for an empty vector) or the maximum (-∞; it passes
 * over NaN) over the elements, else nothing.
 */
export interface Formula<Name extends string = string> {
  readonly vectors: readonly Name[];
  readonly scalars: readonly Name[];
  readonly reduce: 'sum' | 'max' | null;
  readonly outcome: Outcome<Name>;
}

/** States a formula. */
export function formula<const Name extends string>({
  vectors,
  scalars = [],
  reduce = null,
  each,
}: {
  readonly vectors: readonly Name[];
  readonly scalars?: readonly Name[];
  readonly reduce?: 'sum' | 'max' | null;
  /** From the element of each vector, before anything is stored, and the scalars. */
  readonly each: (values: Readonly<Record<Name, Value>>) => Outcome<Name>;
}): Formula<Name> {
  const names = [...vectors, ...scalars].map((name): [Name, Value] => [name, { op: 'read', name }]);
  return { vectors, scalars, reduce, outcome: each(Object.fromEntries(names) as Record<Name, Value>) };
}

/** The values that an outcome asks for, stores first. */
export const resultsOf = ({ stores = {}, reduced }: Outcome<string>): Value[] => [
  ...Object.values<Value | undefined>(stores).filter((value) => value !== undefined),
  ...(reduced === undefined ? [] : [reduced]),
];

/** What a value is computed from. */
export const operandsOf = (value: Value): Value[] =>
  'b' in value ? [value.a, value.b] : 'a' in value ? [value.a] : [];

/** How often each value is used, as an operand or a result. */
export function countUses(results: readonly Value[]): Map<Value, number> {
  const uses = new Map<Value, number>();
  const visit = (value: Value): void => {
    uses.set(value, (uses.get(value) ?? 0) + 1);
    if (uses.get(value) === 1) operandsOf(value).forEach(visit);
  };
  results.forEach(visit);
  return uses;
}
