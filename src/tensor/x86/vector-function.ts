// Formulas as machine code: the loop of eight lanes at a time around what happens to an element.
import { countUses, type Formula, operandsOf, resultsOf, type Value } from '../expression.ts';
import {
  add,
  addNumber,
  and,
  andNot,
  at,
  blend,
  broadcast,
  type Code,
  clearUpper,
  countDown,
  divide,
  exclusiveOr,
  giveBack,
  half,
  lessThan,
  load,
  loadMasked,
  lowAdd,
  lowMaximum,
  lowShuffle,
  type Memory,
  maximum,
  minimum,
  move,
  moveNumber,
  multiply,
  multiplyAdd,
  multiplySubtract,
  type Register,
  r8,
  r9,
  r10,
  range,
  rax,
  rcx,
  rdi,
  rdx,
  rsi,
  rsp,
  shiftLanes,
  shiftLeft,
  squareRoot,
  store,
  storeMasked,
  subtract,
  subtractFrom,
  subtractNumber,
  timesPlus,
} from './assembler.ts';
import { maskWords, type Program } from './executable.ts';

/** Where System V's convention puts whole numbers. */
const integers: readonly Register[] = [rdi, rsi, rdx, rcx, r8, r9];
const lanes = 8;
const bytes = 4 * lanes;
/** The registers at the end hold what a reduction has gathered, and the mask of the lanes that are left. */
const [gathered, mask] = [14, 15];

/**
 * A formula as a function in System V's convention, which leaves rbx, rbp and r12 to r15 alone. Up to five vectors
 * and eight scalars.
 */
export function vectorFunction(program: Program, formula: Formula): Code {
  const { vectors, scalars, reduce } = formula;
  const [pool, left] = [rax, integers[vectors.length]!];
  const empty = reduce === 'max' ? Number.NEGATIVE_INFINITY : 0;
  const masks = program.words(pool, maskWords);
  const advance = vectors.flatMap((_, i) => addNumber(integers[i]!, bytes));
  const total = reduce === 'max' ? lowMaximum : lowAdd;
  return [
    ...program.pool(pool),
    // The scalars in all lanes lie on the stack.
    ...(scalars.length === 0 ? [] : subtractNumber(rsp, bytes * scalars.length)),
    ...scalars.flatMap((_, i) => [...broadcast(mask, i), ...store(at(rsp, bytes * i), mask)]),
    ...(reduce === null ? [] : load(gathered, program.constant(pool, empty))),
    ...countDown(left, lanes, new Turn(program, formula, false).code(), advance),
    ...countDown(
      left,
      1,
      [...move(r10, pool), ...shiftLeft(left, 2), ...subtractFrom(r10, left)],
      load(mask, at(r10, masks.offset + 2 * bytes)),
      new Turn(program, formula, true).code(),
      moveNumber(left, 0),
    ),
    ...(reduce === null
      ? []
      : [
          ...half(1, gathered, 1),
          ...total(0, gathered, 1),
          ...lowShuffle(1, 0, 0, 0x0e),
          ...total(0, 0, 1),
          ...lowShuffle(1, 0, 0, 0x01),
          ...total(0, 0, 1),
        ]),
    ...(scalars.length === 0 ? [] : addNumber(rsp, bytes * scalars.length)),
    ...clearUpper,
    ...giveBack,
  ];
}

/** What happens to eight elements, or to those under the mask. */
class Turn {
  readonly #program: Program;
  readonly #formula: Formula;
  readonly #masked: boolean;
  readonly #free: Register[] = range(gathered).toReversed();
  /** Where values are that are used again, and how often they will be. */
  readonly #places = new Map<Value, Register>();
  readonly #uses: Map<Value, number>;
  readonly #code: number[] = [];

  constructor(program: Program, formula: Formula, masked: boolean) {
    this.#program = program;
    this.#formula = formula;
    this.#masked = masked;
    this.#uses = countUses(resultsOf(formula.outcome));
  }

  code(): Code {
    const { vectors, outcome, reduce } = this.#formula;
    // Everything is computed before anything is stored: vectors may be the same memory.
    const stores = Object.entries(outcome.stores ?? {}).map(([name, value]) => {
      return { to: at(integers[vectors.indexOf(name)]!), value: value!, from: this.#register(value!) };
    });
    if (outcome.reduced !== undefined) {
      const value = outcome.reduced;
      const from = this.#register(value);
      // What is under no mask is replaced in a copy: the value itself may be stored too.
      const counted = this.#masked ? this.#take() : from;
      if (this.#masked && reduce === 'sum') this.#emit(and(counted, mask, from));
      if (this.#masked && reduce === 'max') {
        this.#emit(load(counted, this.#program.constant(rax, Number.NEGATIVE_INFINITY)));
        this.#emit(blend(counted, counted, from, mask));
      }
      this.#emit(reduce === 'max' ? maximum(gathered, counted, gathered) : add(gathered, gathered, counted));
      if (this.#masked) this.#free.push(counted);
      this.#release(value, from);
    }
    for (const { to, value, from } of stores) {
      this.#emit(this.#masked ? storeMasked(to, mask, from) : store(to, from));
      this.#release(value, from);
    }
    return this.#code;
  }

  #emit(code: Code): void {
    this.#code.push(...code);
  }

  #take(): Register {
    const register = this.#free.pop();
    if (register === undefined) throw new RangeError('The formula needs more registers than there are.');
    return register;
  }

  /** Where a constant or a scalar lies; null for what is computed, or an element. */
  #memory(value: Value): Memory | null {
    if (value.op === 'constant') return this.#program.constant(rax, value.value);
    if (value.op !== 'read') return null;
    const scalar = this.#formula.scalars.indexOf(value.name);
    return scalar < 0 ? null : at(rsp, bytes * scalar);
  }

  /** The register that holds a value, until one `#release` for each use. */
  #register(value: Value): Register {
    const known = this.#places.get(value);
    if (known !== undefined) return known;
    const memory = this.#memory(value);
    if (memory !== null) {
      const register = this.#take();
      this.#emit(load(register, memory));
      return register; // for this use alone
    }
    const register = this.#compute(value);
    this.#places.set(value, register);
    return register;
  }

  #operand(value: Value): Register | Memory {
    return this.#memory(value) ?? this.#register(value);
  }

  #release(value: Value, place: Register | Memory): void {
    if (typeof place !== 'number') return;
    if (this.#memory(value) !== null) {
      this.#free.push(place);
      return;
    }
    const left = this.#uses.get(value)! - 1;
    this.#uses.set(value, left);
    if (left > 0) return;
    this.#places.delete(value);
    this.#free.push(place);
  }

  /** Whether a value is a product for this one use, and not computed yet. */
  #isFreshProduct(value: Value): value is Value & { readonly op: 'mul' } {
    return value.op === 'mul' && this.#uses.get(value) === 1 && !this.#places.has(value);
  }

  #compute(value: Value): Register {
    if (value.op === 'read') {
      const register = this.#take();
      const from = at(integers[this.#formula.vectors.indexOf(value.name)]!);
      this.#emit(this.#masked ? loadMasked(register, mask, from) : load(register, from));
      return register;
    }
    if (value.op === 'add' && this.#isFreshProduct(value.a))
      return this.#fused(multiplyAdd, value.a, value.b);
    if (value.op === 'add' && this.#isFreshProduct(value.b))
      return this.#fused(multiplyAdd, value.b, value.a);
    if (value.op === 'sub' && this.#isFreshProduct(value.b))
      return this.#fused(multiplySubtract, value.b, value.a);
    const operands = operandsOf(value);
    if (value.op === 'min' || value.op === 'unless') operands.reverse();
    const commutes = value.op === 'add' || value.op === 'mul';
    if (commutes && this.#memory(operands[0]!) !== null) operands.reverse();
    const a = this.#register(operands[0]!);
    const b = operands.length === 1 ? a : this.#operand(operands[1]!);
    this.#release(operands[0]!, a);
    if (operands.length === 2) this.#release(operands[1]!, b);
    const to = this.#take();
    this.#emit(this.#instruction(value, to, a, b));
    return to;
  }

  #instruction(value: Value, to: Register, a: Register, b: Register | Memory): Code {
    switch (value.op) {
      case 'add':
        return add(to, a, b);
      case 'sub':
        return subtract(to, a, b);
      case 'mul':
        return multiply(to, a, b);
      case 'div':
        return divide(to, a, b);
      // Like WebAssembly's: its second operand comes first, and is what a comparison with NaN does not take.
      case 'min':
        return minimum(to, a, b);
      case 'lessThan':
        return lessThan(to, a, b);
      case 'unless':
        return andNot(to, a, b);
      case 'sqrt':
        return squareRoot(to, a);
      case 'neg':
        return exclusiveOr(to, a, this.#program.constant(rax, -0));
      case 'shiftLeft':
        return shiftLanes(to, a, value.bits);
      default:
        throw new TypeError(`No instruction for ${value.op}.`);
    }
  }

  /** A product and a sum or difference in one instruction, rounded once. */
  #fused(instruction: typeof multiplyAdd, product: Value & { readonly op: 'mul' }, addend: Value): Register {
    this.#uses.set(product, 0);
    const factors: [Value, Value] =
      this.#memory(product.a) === null ? [product.a, product.b] : [product.b, product.a];
    const memory = this.#memory(addend);
    const [a, b] = [this.#register(factors[0]), this.#operand(factors[1])];
    const replaceable = factors[0] !== factors[1] && this.#uses.get(factors[0]) === 1;
    if (instruction === multiplyAdd && memory !== null && typeof b === 'number' && replaceable) {
      this.#emit(timesPlus(a, b, memory));
      this.#release(factors[1], b);
      this.#uses.set(factors[0], 0);
      this.#places.delete(factors[0]);
      return a;
    }
    const from = memory ?? this.#register(addend);
    const last = typeof from === 'number' && this.#uses.get(addend) === 1;
    const to = last ? from : this.#take();
    if (last) {
      this.#uses.set(addend, 0);
      this.#places.delete(addend);
    } else {
      this.#emit(load(to, from));
      this.#release(addend, from);
    }
    this.#emit(instruction(to, a, b));
    this.#release(factors[0], a);
    this.#release(factors[1], b);
    return to;
  }
}
