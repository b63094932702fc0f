// Functions that run one SIMD expression along vectors: the element's step is stated, the loop is made here.
import {
  add,
  advance,
  type Code,
  combineLanes,
  constant,
  countDown,
  FunctionBuilder,
  get,
  integer,
  load,
  max,
  set,
  splat,
  store,
  type Type,
  type Width,
} from './assembler.ts';

/** Gives a step its function's vectors and scalars as values, and takes what becomes of them. */
export interface Step<Name extends string> {
  /** The vector's element, or the scalar, in every lane. */
  readonly read: Readonly<Record<Name, Code>>;
  /** Evaluates an expression once, for several uses. */
  readonly keep: (value: Code) => Code;
  /** A number in every lane, put there once for all turns of the loop. */
  readonly constant: (value: number) => Code;
  /** Writes to the vector's element; reads in the same step still see the old one. */
  readonly store: (vector: Name, value: Code) => void;
}

export interface VectorFunction<Name extends string> {
  readonly vectors: readonly Name[];
  readonly scalars?: readonly Name[];
  readonly reduce?: 'sum' | 'max';
  /** What happens to one element; with `reduce`, the value to reduce. */
  readonly each: (step: Step<Name>) => Code | undefined;
}

/**
 * Builds a function `(…vectors, …scalars, length)`: vectors are byte addresses of `length` float32 numbers
 * that need no alignment, scalars are numbers. With `reduce` it returns the sum (0 for an empty vector) or the
 * maximum (-∞) over the elements, else nothing.
 */
export function vectorFunction<const Name extends string>({
  vectors,
  scalars = [],
  reduce,
  each,
}: VectorFunction<Name>): FunctionBuilder {
  const types = [...vectors.map((name) => [name, 'i32']), ...scalars.map((name) => [name, 'f32'])];
  const parameterTypes: Record<string, Type> = Object.fromEntries([...types, ['length', 'i32']]);
  const builder = new FunctionBuilder(parameterTypes, reduce && 'f32');
  const addressOf = (vector: Name) => builder.parameters[vector]!;
  const length = builder.parameters.length!;
  const values = new Map([...vectors, ...scalars].map((name) => [name as string, builder.local('v128')]));
  // One accumulator for the turns over four elements and one for those over a single one, where only the
  // first lane counts.
  const [wide, narrow] = [builder.local('v128'), builder.local('v128')];
  const combine = reduce === 'max' ? max : add;
  const constants = new Map<number, number>();

  const turns = (width: Width): Code => {
    const accumulator = width === 4 ? wide : narrow;
    const used = new Set<string>();
    const kept: Code[] = [];
    const stores: Code[] = [];
    const read = Object.create(null) as Record<string, Code>;
    for (const [name, local] of values) {
      Object.defineProperty(read, name, { get: () => used.add(name) && get(local) });
    }
    const reduced = each({
      read: read as Record<Name, Code>,
      keep: (value) => {
        const local = builder.local('v128');
        kept.push(set(local, value));
        return get(local);
      },
      constant: (value) => {
        const local = constants.get(value) ?? builder.local('v128');
        constants.set(value, local);
        return get(local);
      },
      store: (vector, value) => void stores.push(store(width, get(addressOf(vector)), value)),
    });
    const loads = vectors.flatMap((name) =>
      used.has(name) ? set(values.get(name)!, load(width, get(addressOf(name)))) : [],
    );
    const reduction = reduced ? set(accumulator, combine(get(accumulator), reduced)) : [];
    const steps = vectors.map((name) => advance(addressOf(name), integer(4 * width)));
    return countDown(length, width, loads, ...kept, reduction, ...stores, ...steps);
  };

  const empty = constant(reduce === 'max' ? Number.NEGATIVE_INFINITY : 0);
  const start = reduce ? [...set(wide, empty), ...set(narrow, empty)] : [];
  const splats = scalars.map((name) => set(values.get(name)!, splat(get(builder.parameters[name]!))));
  const lanes = [narrow, wide, wide, wide, wide].map((local, i) => ({ local, lane: Math.max(0, i - 1) }));
  const result = reduce ? combineLanes(reduce, lanes) : [];
  const loops = [turns(4), turns(1)];
  const hoisted = [...constants].map(([value, local]) => set(local, constant(value)));
  return builder.body(...splats, ...hoisted, start, ...loops, result);
}
