import { type Test, test } from 'uvu';
import * as assert from 'uvu/assert';
import { createRng } from '../../src/domain/rng.ts';
import { startEngine, tf } from '../../src/tensor/index.ts';
import { Heap, type WasmBackend } from '../../src/tensor/wasm/heap.ts';
import { assembleStrided } from '../../src/tensor/wasm/strided.ts';
import { assembleVectors } from '../../src/tensor/wasm/vectors.ts';
import type { MachineCode } from '../../src/tensor/x86/index.ts';
import { assertClose, machineCode } from './compare.ts';

await startEngine({ backend: 'wasm', blas: false });
const heap = new Heap(tf.backend() as unknown as WasmBackend);
const vectors = assembleVectors(heap.backend.wasm.asm.memory);
const strided = assembleStrided(heap.backend.wasm.asm.memory);
const rng = createRng('vectors');

const guard = 12345;

/** Places vectors of `length` numbers on the heap, each at an address off by one element, with guards behind. */
function withVectors(
  length: number,
  count: number,
  body: (addresses: number[], read: (i: number) => Float32Array) => void,
): void {
  const tensor = heap.allocate([count * (length + 2) + 1]);
  const start = heap.addressOf(tensor) + 4;
  const addresses = Array.from({ length: count }, (_, i) => start + 4 * i * (length + 2));
  for (const address of addresses) {
    const values = Float32Array.from({ length: length + 2 }, (_, j) =>
      j < length ? rng.next() * 2 - 1 : guard,
    );
    heap.floats(address, length + 2).set(values);
  }
  body(addresses, (i) => heap.floats(addresses[i]!, length));
  for (const address of addresses) {
    assert.equal([...heap.floats(address + 4 * length, 2)], [guard, guard], 'numbers behind the vector');
  }
  heap.free(tensor);
}

const lengths = [0, 1, 2, 3, 4, 5, 7, 8, 9, 31];

test('reductions cover every element once, whatever the length', () => {
  for (const length of lengths) {
    withVectors(length, 3, ([x, y, z], read) => {
      const [xs, ys, zs] = [read(0), read(1), read(2)];
      const sum = (term: (i: number) => number) => xs.reduce((total, _, i) => total + term(i), 0);
      assertClose([vectors.dot(x!, y!, length)], [sum((i) => xs[i]! * ys[i]!)], `dot of ${length}`);
      const triple = sum((i) => xs[i]! * ys[i]! * zs[i]!);
      assertClose([vectors.tripleDot(x!, y!, z!, length)], [triple], `tripleDot of ${length}`);
      assert.is(vectors.maximum(x!, length), Math.max(...xs), `maximum of ${length}`);
      assertClose(
        [vectors.sumExp(x!, 0.5, length)],
        [sum((i) => Math.exp(xs[i]! - 0.5))],
        `sumExp of ${length}`,
      );
    });
  }
});

test('a maximum of negative numbers is negative', () => {
  for (const length of [1, 3, 4, 6]) {
    withVectors(length, 1, ([x], read) => {
      read(0).fill(-7);
      assert.is(vectors.maximum(x!, length), -7);
    });
  }
});

test('stores write the vector and nothing behind it', () => {
  for (const length of lengths) {
    withVectors(length, 4, ([dy, x, w, out], read) => {
      const [before, xs, ws] = [read(0).slice(), read(1), read(2)];
      vectors.scaledProduct(x!, w!, out!, 3, length);
      assertClose(
        read(3),
        xs.map((value, i) => value * ws[i]! * 3),
        `scaledProduct of ${length}`,
      );
      vectors.accumulate(x!, dy!, length);
      assertClose(
        read(0),
        before.map((value, i) => value + xs[i]!),
        `accumulate of ${length}`,
      );
    });
  }
});

test('a step reads the old values of what it stores', () => {
  for (const length of lengths) {
    withVectors(length, 2, ([gate, up], read) => {
      const [gates, ups] = [[...read(0)], [...read(1)]];
      vectors.swiglu(gate!, up!, gate!, length);
      assertClose(
        read(0),
        gates.map((x, i) => (x / (1 + Math.exp(-x))) * ups[i]!),
        `swiglu of ${length} in place`,
      );
    });
  }
});

test('rows are copied and rotated from one distance to another, or in place', () => {
  for (const half of [1, 2, 4, 5, 8, 16]) {
    const [rows, wide, dh] = [3, 2 * half + 3, 2 * half];
    withVectors(rows * wide, 4, ([from, to, cos, sin], read) => {
      const [x, c, s] = [[...read(0)], [...read(2)], [...read(3)]];
      const rotated = (i: number, j: number) => {
        const [k, angle] = [j % half, i * half + (j % half)];
        const [a, b] = [x[i * wide + k]!, x[i * wide + k + half]!];
        return 0.5 * (j < half ? a * c[angle]! + b * s[angle]! : b * c[angle]! - a * s[angle]!);
      };
      const each = (value: (i: number, j: number) => number) =>
        Array.from({ length: rows * dh }, (_, n) => value(Math.floor(n / dh), n % dh));
      strided.copyRows(from!, 4 * wide, to!, 4 * dh, dh, rows);
      assert.equal(
        [...read(1).slice(0, rows * dh)],
        each((i, j) => x[i * wide + j]!),
      );
      strided.rotateRows(from!, 4 * wide, cos!, sin!, to!, 4 * dh, half, rows, -1, 0.5);
      assertClose(read(1).slice(0, rows * dh), each(rotated), `rotated, half ${half}`);
      strided.rotateRows(from!, 4 * wide, cos!, sin!, from!, 4 * wide, half, rows, -1, 0.5);
      const inPlace = read(0);
      assertClose(
        each((i, j) => inPlace[i * wide + j]!),
        each(rotated),
        `in place, half ${half}`,
      );
      assert.is(inPlace[dh], x[dh], 'what lies between the rows stays');
    });
  }
});

function assertExact(exponentiate: typeof vectors.exponentiate): void {
  const length = 4001;
  withVectors(length, 1, ([x], read) => {
    const inputs = Float32Array.from({ length }, (_, i) => -87 + (i / (length - 1)) * 175);
    read(0).set(inputs);
    exponentiate(x!, 0, length);
    for (const [i, power] of read(0).entries()) {
      const exact = Math.exp(inputs[i]!);
      assert.ok(Math.abs(power / exact - 1) < 2.4e-7, `exp(${inputs[i]}) is ${power}, not ${exact}`);
    }
    read(0).set([-88, -1e9, Number.NEGATIVE_INFINITY, 0, 1000, Number.NaN]);
    exponentiate(x!, 0, 6);
    const [low, lower, lowest, one, high, bad] = read(0);
    assert.equal([low, lower, lowest, one], [0, 0, 0, 1]);
    assert.ok(high! > 1e38 && Number.isFinite(high), 'saturates');
    assert.ok(Number.isNaN(bad), 'NaN stays NaN');
  });
}

test('the exponential is exact to two units in the last place, and 0 far below', () => {
  assertExact(vectors.exponentiate);
});

if (typeof machineCode === 'string') console.log(`skipped: machine code: ${machineCode}`);
const machineTest = (typeof machineCode === 'string' ? test.skip : test) as Test;

machineTest('so is the one in machine code', () => {
  assertExact((machineCode as MachineCode).vectors.exponentiate!);
});

test.run();
