// Formulas as WebAssembly: the loop of four lanes at a time around what happens to an element.
import { countUses, type Formula, operandsOf, resultsOf, type Value } from '../expression.ts';
import {
  add,
  advance,
  type Code,
  combineLanes,
  constant,
  countDown,
  div,
  FunctionBuilder,
  get,
  integer,
  lessThan,
  load,
  max,
  min,
  mul,
  neg,
  set,
  shiftLeft,
  splat,
  sqrt,
  store,
  sub,
  type Type,
  unless,
  type Width,
} from './assembler.ts';

const operations = { add, sub, mul, div, min, lessThan, unless };

/** A formula as a function of a module. */
export function vectorFunction({ vectors, scalars, reduce, outcome }: Formula): FunctionBuilder {
  const types = [...vectors.map((name) => [name, 'i32']), ...scalars.map((name) => [name, 'f32'])];
  const parameterTypes: Record<string, Type> = Object.fromEntries([...types, ['length', 'i32']]);
  const builder = new FunctionBuilder(parameterTypes, reduce === null ? undefined : 'f32');
  const parameter = (name: string) => builder.parameters[name]!;
  const values = new Map([...vectors, ...scalars].map((name) => [name, builder.local('v128')]));
  // One accumulator for the turns over four elements and one for those over a single one, where only the
  // first lane counts.
  const [wide, narrow] = [builder.local('v128'), builder.local('v128')];
  const combine = reduce === 'max' ? max : add;
  // Constants are put in a local once for all turns.
  const constants = new Map<number, number>();
  const results = resultsOf(outcome);
  const uses = countUses(results);
  const isRead = (name: string) =>
    [...uses.keys()].some((value) => value.op === 'read' && value.name === name);

  const turns = (width: Width): Code => {
    const accumulator = width === 4 ? wide : narrow;
    const kept: Code[] = [];
    const known = new Map<Value, Code>();
    /** The value's code; of one that is used again, the local that holds it. */
    const codeOf = (value: Value): Code => {
      if (value.op === 'read') return get(values.get(value.name)!);
      if (value.op === 'constant') {
        const local = constants.get(value.value) ?? builder.local('v128');
        constants.set(value.value, local);
        return get(local);
      }
      const before = known.get(value);
      if (before !== undefined) return before;
      const [a, b] = operandsOf(value).map(codeOf) as [Code, Code];
      const code =
        value.op === 'neg'
          ? neg(a)
          : value.op === 'sqrt'
            ? sqrt(a)
            : value.op === 'shiftLeft'
              ? shiftLeft(a, value.bits)
              : operations[value.op](a, b);
      if (uses.get(value) === 1) return code;
      const local = builder.local('v128');
      kept.push(set(local, code));
      known.set(value, get(local));
      return get(local);
    };
    const stores = Object.entries(outcome.stores ?? {}).map(([name, value]) =>
      store(width, get(parameter(name)), codeOf(value!)),
    );
    const reduction = outcome.reduced
      ? set(accumulator, combine(get(accumulator), codeOf(outcome.reduced)))
      : [];
    const loads = vectors
      .filter(isRead)
      .flatMap((name) => set(values.get(name)!, load(width, get(parameter(name)))));
    const steps = vectors.map((name) => advance(parameter(name), integer(4 * width)));
    return countDown(parameter('length'), width, loads, ...kept, reduction, ...stores, ...steps);
  };

  const empty = constant(reduce === 'max' ? Number.NEGATIVE_INFINITY : 0);
  const start = reduce === null ? [] : [...set(wide, empty), ...set(narrow, empty)];
  const splats = scalars.map((name) => set(values.get(name)!, splat(get(parameter(name)))));
  const lanes = [narrow, wide, wide, wide, wide].map((local, i) => ({ local, lane: Math.max(0, i - 1) }));
  const result = reduce === null ? [] : combineLanes(reduce, lanes);
  const loops = [turns(4), turns(1)];
  const hoisted = [...constants].map(([value, local]) => set(local, constant(value)));
  return builder.body(...splats, ...hoisted, start, ...loops, result);
}
