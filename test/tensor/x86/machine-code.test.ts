// Machine code against WebAssembly and plain sums, where this machine runs it.
import { type Test, test as uvuTest } from 'uvu';
import * as assert from 'uvu/assert';
import type { OptimaError } from '../../../src/domain/errors.ts';
import { createRng } from '../../../src/domain/rng.ts';
import { readRow } from '../../../src/tensor/frozen-matrix.ts';
import { GrowingMatrix } from '../../../src/tensor/growing-matrix.ts';
import { sumOfSquares, widen } from '../../../src/tensor/index.ts';
import { wasmHeap } from '../../../src/tensor/wasm/install.ts';
import { assemblePaging, layerBytes, tokenRow } from '../../../src/tensor/wasm/paged-attention.ts';
import { assembleVectors } from '../../../src/tensor/wasm/vectors.ts';
import { findMachine, type Machine, Program, type System } from '../../../src/tensor/x86/executable.ts';
import { Helper } from '../../../src/tensor/x86/helper.ts';
import { assembleMachineCode, type MachineCode } from '../../../src/tensor/x86/index.ts';
import { MachineProducts, placeProducts } from '../../../src/tensor/x86/product.ts';
import { assertClose, machineCode as found } from '../compare.ts';

const heap = wasmHeap();
const memory = heap.backend.wasm.asm.memory;
if (typeof found === 'string') console.log(`skipped: machine code: ${found}`);
const code = found as MachineCode;
const test = (typeof found === 'string' ? uvuTest.skip : uvuTest) as Test;
const rng = createRng('machine code');
const size = (most: number) => 1 + rng.int(most);

/** Address of `count` random numbers on the heap. */
function place(count: number): number {
  const at = heap.addressOf(heap.allocate([count]));
  const numbers = heap.floats(at, count);
  for (let i = 0; i < count; i++) numbers[i] = rng.next() * 2 - 1;
  return at;
}

test('each vector function and row function gives what WebAssembly gives, and writes no further', () => {
  const plain = assembleVectors(memory);
  const scalars: Record<string, number> = {
    exponentiate: 1,
    sumExp: 1,
    scaledExp: 2,
    temperedExp: 2,
    adamW: 8,
  };
  const vectors: Record<string, number> = { exponentiate: 1, sumExp: 1, scaledExp: 2, temperedExp: 2 };
  const room = 300;
  const start = place(5 * room);
  const before = heap
    .floats(start, 5 * room)
    .slice()
    .map(Math.abs);
  const at = (i: number) => start + 4 * (i * room + 1);
  const calls: Record<string, number[]>[] = [0, 1, 5, 7, 8, 9, 16, 31, 130].map((length) => ({
    ...Object.fromEntries(
      (
        ['exponentiate', 'sumExp', 'scaledExp', 'temperedExp', 'adamW', 'swiglu', 'swigluBackward'] as const
      ).map((name) => [
        name,
        [
          ...Array.from({ length: vectors[name] ?? (name === 'swiglu' ? 3 : 5) }, (_, i) => at(i)),
          ...Array.from({ length: scalars[name] ?? 0 }, (_, i) => 0.25 + i / 8),
          length,
        ],
      ]),
    ),
    softmaxRows: [at(0), 2, length, Math.max(1, length - 3), length > 3 ? 1 : 0],
    softmaxBackwardRows: [at(0), at(1), 2, length],
    normRows: [at(0), at(1), at(2), 2, length, 1e-5],
    normBackwardRows: [at(0), at(1), at(2), at(3), at(4), 2, length, 1e-5],
  }));
  for (const call of calls) {
    for (const [name, args] of Object.entries(call)) {
      // A row of nothing has no mean.
      if (name.endsWith('Rows') && args.includes(0)) continue;
      const outcomes = [plain, code.vectors].map((functions) => {
        heap.floats(start, 5 * room).set(before);
        const result = (functions as Record<string, (...args: number[]) => number>)[name]!(...args);
        return { result, values: heap.floats(start, 5 * room).slice() };
      });
      const what = `${name} of ${args}`;
      assertClose(outcomes[1]!.values, outcomes[0]!.values, what);
      if (outcomes[0]!.result !== undefined) assertClose([outcomes[1]!.result], [outcomes[0]!.result], what);
    }
  }
});

test('numbers that are none or too large come through the exponential as in WebAssembly', () => {
  const at = place(16);
  heap
    .floats(at, 8)
    .set([Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 100, -100, -87, 88, 0]);
  const outcomes = [assembleVectors(memory), code.vectors].map(({ scaledExp }) => {
    scaledExp!(at, at + 32, 0, 1, 8);
    return [...heap.floats(at + 32, 8)];
  });
  assert.equal(outcomes[1]!.map(Number.isNaN), outcomes[0]!.map(Number.isNaN));
  assertClose(outcomes[1]!.slice(1).map(Math.log1p), outcomes[0]!.slice(1).map(Math.log1p), 'exponentials');
});

test('a product of matrices with rows far apart, set or added, leaves what lies between the rows', () => {
  // Deeper than a block, packed and read where it lies; narrower than a panel; several blocks of rows; more than is packed at once.
  const chosen = [
    [3, 2000, 700],
    [140, 64, 300],
    [140, 48, 600],
    [7, 5, 257],
    [200, 33, 1],
  ] as const;
  for (let turn = 0; turn < 56; turn++) {
    const [m, n, k] = chosen[turn >> 3] ?? [size(140), size(70), size(70)];
    // Of the chosen ones each way once.
    const way = turn < 8 * chosen.length ? turn % 8 : rng.int(8);
    const [transposeA, transposeB, adds] = [(way & 1) === 1, (way & 2) === 2, (way & 4) === 4];
    const [lda, ldb, ldc] = [transposeA ? m : k, transposeB ? k : n, n].map(
      (width) => width + rng.int(9),
    ) as [number, number, number];
    const [sizeA, sizeB] = [lda * (transposeA ? k : m), ldb * (transposeB ? n : k)];
    const [a, b, c] = [place(sizeA), place(sizeB), place(ldc * m)];
    const [x, y, before] = [
      heap.floats(a, sizeA).slice(),
      heap.floats(b, sizeB).slice(),
      heap.floats(c, ldc * m).slice(),
    ];
    code.product(transposeA, transposeB, m, n, k, a, lda, b, ldb, c, ldc, adds);
    const expected = before.map((old, at) => {
      const [i, j] = [Math.floor(at / ldc), at % ldc];
      if (j >= n) return old;
      let sum = adds ? old : 0;
      for (let l = 0; l < k; l++) {
        sum += x[transposeA ? l * lda + i : i * lda + l]! * y[transposeB ? j * ldb + l : l * ldb + j]!;
      }
      return sum;
    });
    const what = `[${m}, ${k}]${transposeA ? 'ᵀ' : ''} [${k}, ${n}]${transposeB ? 'ᵀ' : ''}`;
    assertClose(heap.floats(c, ldc * m), expected, what);
  }
});

test('a product of no depth is nothing', () => {
  const c = place(6);
  code.product(false, true, 2, 3, 0, c, 1, c, 1, c, 3, true);
  assert.not.equal([...heap.floats(c, 6)], Array(6).fill(0));
  code.product(false, true, 2, 3, 0, c, 1, c, 1, c, 3, false);
  assert.equal([...heap.floats(c, 6)], Array(6).fill(0));
});

test('a row of a product is the same to the bit alone, among others, and with a packed matrix', () => {
  for (const [n, k] of [
    [40, 33],
    [128, 400],
    [16, 600],
  ] as const) {
    const most = 201;
    const [a, b, c, alone, packed] = [place(most * k), place(n * k), place(most * n), place(n), place(n)];
    const copy = place(code.packing.size(k, n));
    code.packing.pack(k, n, b, copy);
    for (const m of [1, 2, 3, 5, 6, 7, 8, 13, 97, most]) {
      code.product(false, true, m, n, k, a, k, b, k, c, n, false);
      for (const row of [0, m >> 1, m - 1]) {
        code.product(false, true, 1, n, k, a + 4 * row * k, k, b, k, alone, n, false);
        code.packing.product(1, n, k, a + 4 * row * k, copy, packed, false);
        const expected = [...heap.floats(c + 4 * row * n, n)];
        assert.equal([...heap.floats(alone, n)], expected, `row ${row} of ${m}`);
        assert.equal([...heap.floats(packed, n)], expected, `row ${row} of ${m}, packed`);
      }
    }
  }
});

const wideTest = (typeof found === 'string' || found.lanes === 8 ? uvuTest.skip : test) as Test;
if (typeof found !== 'string' && found.lanes === 8) console.log('skipped: the processor has no AVX-512');

wideTest('vectors of 8 and of 16 lanes give the same product to the bit, and write no further', () => {
  const narrow = assembleMachineCode(heap, 8) as MachineCode;
  assert.equal([narrow.lanes, code.lanes], [8, 16]);
  const most = 220;
  const [a, b, c] = [place(most * most), place(most * most), place(most * most)];
  const before = heap.floats(c, most * most).slice();
  const heights = [...Array.from({ length: 27 }, (_, i) => i + 1), 97, 217];
  for (const [turn, m] of [...heights, ...heights].entries()) {
    const [n, k, way] = [size(70), size(most), turn % 8];
    const [transposeA, transposeB, adds] = [(way & 1) === 1, (way & 2) === 2, (way & 4) === 4];
    const outcomes = [narrow, code].map(({ product }) => {
      heap.floats(c, before.length).set(before);
      product(transposeA, transposeB, m, n, k, a, most, b, most, c, n + 3, adds);
      return heap.floats(c, before.length).slice();
    });
    assert.equal(outcomes[1], outcomes[0], `[${m}, ${k}] by [${k}, ${n}], ${way}`);
    const last = (m - 1) * (n + 3) + n;
    assert.equal(outcomes[1]!.slice(last), before.slice(last));
  }
});

test('a product that several threads share is the same to the bit', () => {
  for (const [transposeA, transposeB, m, n, k] of [
    [false, true, 200, 333, 200],
    [false, false, 150, 64, 1200],
    [true, false, 1030, 16, 600],
    [true, true, 17, 900, 601],
  ] as const) {
    const [a, b, c] = [place(m * k), place(n * k), place(m * n)];
    const [lda, ldb] = [transposeA ? m : k, transposeB ? k : n];
    const [packed, dx] = [place(code.packing.size(k, n)), place(m * k)];
    const growing = new GrowingMatrix([n, k - (k % 16)], 'bfloat16');
    growing.add(heap.floats(b, n * (k - (k % 16))));
    const frozen = growing.finish();
    const outcomes = [1, 2, 3].map((threads) => {
      code.shareAmong(threads);
      const outcome = () => heap.floats(c, m * n).slice();
      heap.floats(c, m * n).fill(1);
      const assertShared = () =>
        threads === 1
          ? assert.is(code.threadsOfLast(), 1)
          : assert.ok(code.threadsOfLast() > 1, `${m}, ${n}, ${k}`);
      code.product(transposeA, transposeB, m, n, k, a, lda, b, ldb, c, n, true);
      assertShared();
      const whole = outcome();
      code.frozen.forward(m, frozen, a, c, false);
      const forward = outcome();
      heap.floats(dx, m * k).fill(2);
      code.frozen.backward(m, frozen, c, dx, true);
      const backward = heap.floats(dx, m * k).slice();
      code.packing.pack(k, n, b, packed);
      code.packing.product(m, n, k, a, packed, c, false);
      return [whole, forward, backward, outcome()];
    });
    code.shareAmong(1);
    for (const several of outcomes.slice(1)) {
      several.forEach(
        (outcome, i) => void assert.equal(outcome, outcomes[0]![i], `[${m}, ${k}] [${k}, ${n}], ${i}`),
      );
    }
  }
});

test('of a product that fails halfway nothing is carried out with the next one', () => {
  const { system } = findMachine() as Machine;
  const program = new Program(system);
  const placed = placeProducts(program, code.lanes);
  program.seal();
  const helper = Helper.start(system)!;
  const products = new MachineProducts(
    program,
    placed,
    heap,
    () => Number(system.koffi.address(heap.buffer)),
    () => helper,
  );
  products.shareAmong(2);
  const [m, n, k] = [200, 400, 200];
  const [a, b, c, other] = [place(m * k), place(k * n), place(m * n), place(m * n)];
  const multiply = (to: number) => products.multiply(false, false, m, n, k, a, k, b, n, to, n, false);
  const before = heap.floats(c, m * n).slice();
  const note = helper.note.bind(helper);
  let noted = 0;
  helper.note = (address, args) => {
    note(address, args);
    if (++noted === 2) throw new RangeError('enough');
  };
  assert.throws(() => multiply(c), /enough/);
  helper.note = note;
  multiply(other);
  assert.is(products.threadsOfLast, 2);
  assert.ok(
    heap.floats(c, m * n).every((value, i) => value === before[i]),
    'what failed is carried out later',
  );
  code.product(false, false, m, n, k, a, k, b, n, c, n, false);
  assert.equal(heap.floats(other, m * n), heap.floats(c, m * n));
});

test('where the system gives no memory or lets none be executed there is no helper, and nothing stays', () => {
  const { system } = findMachine() as Machine;
  for (const allowed of [0, 1, 2]) {
    const mapped: number[] = [];
    const map: System['map'] = (...numbers) => {
      if (mapped.length === allowed) return 2 ** 64;
      mapped.push(Number(system.map(...numbers)));
      return mapped.at(-1)!;
    };
    const unmapped: number[] = [];
    const unmap: System['unmap'] = (at, bytes) => {
      unmapped.push(at);
      return system.unmap(at, bytes);
    };
    assert.is(Helper.start({ ...system, map, unmap, protect: () => -1 }), null);
    assert.is(mapped.length, allowed);
    assert.equal(unmapped, mapped);
  }
});

test('a frozen matrix for which there is no memory is refused with its size', () => {
  assert.throws(
    () => new GrowingMatrix([2 ** 26, 2 ** 20], 'bfloat16'),
    (error: OptimaError) =>
      error.code === 'model.failed' && /\[67108864, 1048576\] of 131072\.0 GiB/.test(error.message),
  );
});

for (const format of ['float32', 'bfloat16'] as const) {
  test(`products with a frozen matrix of ${format} are those with the same matrix on the heap, to the bit`, () => {
    for (const [out, inner] of [
      [16, 16],
      [21, 44],
      [517, 400],
      [40, 2064],
    ] as const) {
      const most = 201;
      const w = place(out * inner);
      const room = most * Math.max(out, inner);
      const [x, y, expected] = [place(room), place(room), place(room)];
      const numbers = heap.ints(w, out * inner);
      if (format === 'bfloat16') for (let i = 0; i < numbers.length; i++) numbers[i]! &= 0xffff0000;
      const growing = new GrowingMatrix([out, inner], format);
      const rows = heap.floats(w, out * inner);
      // In pieces that end anywhere.
      for (let at = 0; at < rows.length; at += 1000) growing.add(rows.slice(at, at + 1000));
      const frozen = growing.finish();
      const row = new Float32Array(inner);
      readRow(frozen, out - 1, row);
      assert.equal([...row], [...rows.slice(-inner)]);
      for (const m of [1, 7, 97, most]) {
        for (const adds of [false, true]) {
          const what = `${m} rows, [${out}, ${inner}], ${adds}`;
          const before = heap.floats(x, room).slice();
          const start = () => [y, expected].forEach((at) => void heap.floats(at, room).set(before));
          start();
          code.product(false, true, m, out, inner, x, inner, w, inner, expected, out, adds);
          code.frozen.forward(m, frozen, x, y, adds);
          assert.equal(heap.floats(y, room), heap.floats(expected, room), what);
          start();
          code.product(false, false, m, inner, out, x, out, w, inner, expected, inner, adds);
          code.frozen.backward(m, frozen, x, y, adds);
          assert.equal(heap.floats(y, room), heap.floats(expected, room), what);
        }
      }
    }
  });
}

for (const shape of [
  { heads: 4, keyValueHeads: 4, headSize: 32 },
  { heads: 6, keyValueHeads: 6, headSize: 16 },
  { heads: 3, keyValueHeads: 3, headSize: 48 },
  { heads: 6, keyValueHeads: 2, headSize: 64 },
  { heads: 7, keyValueHeads: 1, headSize: 128 },
]) {
  const { heads, keyValueHeads, headSize } = shape;
  test(`attention along blocks is WebAssembly's for ${heads} heads of ${headSize} over ${keyValueHeads}`, () => {
    const plain = assemblePaging(memory, shape);
    const machine = code.pagingFor(shape)!;
    const numbers = layerBytes(shape) / 4;
    const rows = 3;
    const blocks = Array.from({ length: 5 }, () => place(2 * numbers));
    const table = heap.addressOf(heap.allocate([blocks.length], 'int32'));
    heap.ints(table, blocks.length).set(blocks);
    const [cos, sin] = [place(headSize / 2), place(headSize / 2)];
    const [q, k, v] = [heads, keyValueHeads, keyValueHeads].map((count) =>
      place(rows * count * headSize),
    ) as [number, number, number];
    const tokens = heap.addressOf(heap.allocate([7 * rows], 'int32'));
    heap.ints(tokens, 7 * rows).set(
      [3, 4, 5].flatMap((count, row) => {
        const slot = 5 * row + 1;
        const visible = 16 * (count - 1) + slot + 1;
        return tokenRow({ table, blocks: count, visible, cos, sin, block: blocks[count - 1]!, slot });
      }),
    );
    const scores = place(heads * 16 * blocks.length);
    const sizes = [rows * heads * headSize, rows * keyValueHeads * headSize, rows * keyValueHeads * headSize];
    const regions = [
      ...[q, k, v].map((at, i) => [at, sizes[i]!] as const),
      ...blocks.map((at) => [at, 2 * numbers] as const),
    ];
    const before = regions.map(([at, count]) => heap.floats(at, count).slice());
    const outcomes = [plain, machine].map(({ attendTokens }) => {
      regions.forEach(([at, count], i) => {
        heap.floats(at, count).set(before[i]!);
      });
      attendTokens(q, k, v, tokens, rows, layerBytes(shape), scores);
      return regions.map(([at, count]) => heap.floats(at, count).slice());
    });
    outcomes[0]!.forEach((expected, i) => {
      assertClose(outcomes[1]![i]!, expected, `region ${i}`);
    });
    // What is written into the blocks is the same to the bit.
    outcomes[0]!.slice(1).forEach((expected, i) => {
      assert.equal(outcomes[1]![i + 1], expected);
    });
  });
}

test('attention that several threads share is the same to the bit, and each row sees those before it', () => {
  const shape = { heads: 6, keyValueHeads: 2, headSize: 64 };
  const { heads, keyValueHeads, headSize } = shape;
  const [rows, numbers] = [301, layerBytes(shape) / 4];
  const blocks = Array.from({ length: Math.ceil(rows / 16) }, () => place(numbers));
  const table = heap.addressOf(heap.allocate([blocks.length], 'int32'));
  heap.ints(table, blocks.length).set(blocks);
  const [cos, sin] = [place(headSize / 2), place(headSize / 2)];
  const sizes = [heads, keyValueHeads, keyValueHeads].map((count) => rows * count * headSize);
  const [q, k, v] = sizes.map(place) as [number, number, number];
  const tokens = heap.addressOf(heap.allocate([7 * rows], 'int32'));
  heap.ints(tokens, 7 * rows).set(
    Array.from({ length: rows }, (_, row) => {
      const last = Math.floor(row / 16);
      const place = { block: blocks[last]!, slot: row % 16 };
      return tokenRow({ table, blocks: last + 1, visible: row + 1, cos, sin, ...place });
    }).flat(),
  );
  const mostScores = heads * 16 * blocks.length;
  const scores = place(mostScores);
  const before = [q, k, v].map((at, i) => heap.floats(at, sizes[i]!).slice());
  const outcomeOf = (attendTokens: (...values: number[]) => void) => {
    [q, k, v].forEach((at, i) => void heap.floats(at, sizes[i]!).set(before[i]!));
    attendTokens(q, k, v, tokens, rows, 0, scores);
    return heap.floats(q, sizes[0]!).slice();
  };
  const { attendTokens } = code.pagingFor(shape)!;
  const outcomes = [1, 2, 3].map((threads) => {
    code.shareAmong(threads);
    heap.floats(scores, mostScores).fill(7);
    const outcome = outcomeOf(attendTokens);
    assert.is(code.threadsOfLast(), threads);
    // The last row's scores are this thread's, or lie elsewhere.
    assert.is(heap.floats(scores, mostScores).at(-1) === 7, threads > 1);
    return outcome;
  });
  code.shareAmong(1);
  assertClose(outcomes[0]!, outcomeOf(assemblePaging(memory, shape).attendTokens), 'as WebAssembly');
  for (const outcome of outcomes) assert.equal(outcome, outcomes[0]);
});

test('heads whose code has no room are left to WebAssembly', () => {
  assert.is(code.pagingFor({ heads: 96, keyValueHeads: 1, headSize: 256 }), null);
});

test('numbers of bfloat16 are widened, also those behind the last eight', () => {
  const bits = Uint16Array.from({ length: 1003 }, () => rng.int(2 ** 16));
  const wide = new Float32Array(bits.length + 1).fill(7);
  widen(bits, wide);
  const words = new Uint32Array(wide.buffer);
  assert.ok(bits.every((word, i) => words[i] === word * 2 ** 16));
  assert.is(wide.at(-1), 7);
});

test('arrays outside the heap are added and measured, in shared memory too', () => {
  const count = 150_001;
  const [x, sum] = [0, 1].map(() => new Float32Array(new SharedArrayBuffer(4 * count + 4), 4)) as [
    Float32Array,
    Float32Array,
  ];
  for (let i = 0; i < count; i++) [x[i], sum[i]] = [rng.next(), rng.next()];
  const expected = sum.map((value, i) => value + x[i]!);
  code.addTo(sum, x);
  assert.equal(sum, expected);
  const squares = x.reduce((total, value) => total + value * value, 0);
  assert.ok(Math.abs(sumOfSquares(x) / squares - 1) < 1e-5);
  assert.is(sumOfSquares(Float32Array.of(1e-23, 1e-23)), 2 * Math.fround(1e-23) ** 2);
  assert.is(sumOfSquares(Float32Array.of(3e20)), Math.fround(3e20) ** 2);
});

uvuTest.run();
