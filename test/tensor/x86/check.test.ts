// Machine code that is wrong is found and given up. What stands for it here is WebAssembly's own, so that this runs everywhere.
import { Worker } from 'node:worker_threads';
import { type Test, test } from 'uvu';
import * as assert from 'uvu/assert';
import type { DecoderWeights } from '../../../src/tensor/decoder.ts';
import { type FrozenMatrix, readRow } from '../../../src/tensor/frozen-matrix.ts';
import { startEngine, tf } from '../../../src/tensor/index.ts';
import {
  createHeapDecoder,
  currentMachineCode,
  installWasmKernels,
  wasmHeap,
  wasmLoops,
} from '../../../src/tensor/wasm/install.ts';
import { assemblePaging, type HeadShape } from '../../../src/tensor/wasm/paged-attention.ts';
import { checkMachineCode, checkMachinePaging } from '../../../src/tensor/x86/check.ts';
import type { MachineCode } from '../../../src/tensor/x86/index.ts';
import { machineCode as found } from '../compare.ts';

const heap = wasmHeap();
const loops = wasmLoops(heap);
const shape = { heads: 4, keyValueHeads: 2, headSize: 16 };
const twin = assemblePaging(heap.backend.wasm.asm.memory, shape);

const paging = { attendTokens: twin.attendTokens };

/** Address of a frozen matrix, row by row. */
function unpacked(matrix: FrozenMatrix): number {
  const [out, inner] = matrix.shape;
  const rows = Array.from({ length: out }, (_, row) => {
    const numbers = new Float32Array(inner);
    readRow(matrix, row, numbers);
    return [...numbers];
  });
  const at = heap.addressOf(heap.allocate([out, inner]));
  heap.floats(at, out * inner).set(rows.flat());
  return at;
}

/** As good as WebAssembly. */
const good: MachineCode = {
  vectors: loops.vectors,
  product: loops.product,
  packing: {
    size: (k, n) => k * n,
    pack: (k, n, b, out) => void loops.vectors.copy(b, out, k * n),
    product: (m, n, k, a, packed, c, adds) =>
      loops.product(false, true, m, n, k, a, k, packed, k, c, n, adds),
  },
  frozen: {
    forward: (m, w, x, y, adds) => {
      const [out, inner] = w.shape;
      const at = unpacked(w);
      loops.product(false, true, m, out, inner, x, inner, at, inner, y, out, adds);
    },
    backward: (m, w, dy, dx, adds) => {
      const [out, inner] = w.shape;
      const at = unpacked(w);
      loops.product(false, false, m, inner, out, dy, out, at, inner, dx, inner, adds);
    },
  },
  pagingFor: () => paging,
  addTo: (sum, x) => {
    for (let i = 0; i < sum.length; i++) sum[i]! += x[i]!;
  },
  sumOfSquares: (x) => x.reduce((sum, value) => sum + value * value, 0),
  lanes: 8,
  shareAmong: () => {},
  threadsOfLast: () => 1,
};

/** The function, after which one of the numbers at one of the addresses that it is given is off by a thousandth. */
function spoilt<Args extends unknown[], Out>(run: (...args: Args) => Out, which = 0): (...args: Args) => Out {
  return (...args) => {
    const out = run(...args);
    heap.floats(args[which] as number, 1)[0]! += 1e-3;
    return out;
  };
}

/** What is printed as a warning meanwhile. */
async function warningsOf(body: () => unknown): Promise<string[]> {
  const printed: string[] = [];
  const { warn } = console;
  console.warn = (line: string) => printed.push(line);
  try {
    await body();
  } finally {
    console.warn = warn;
  }
  return printed;
}

test('code that does what WebAssembly does passes', () => {
  checkMachineCode(heap, good, loops);
  checkMachinePaging(heap, shape, paging, twin);
});

test('each wrong vector function is found', () => {
  const names = Object.keys(loops.vectors) as (keyof typeof loops.vectors)[];
  assert.ok(names.length > 15);
  for (const name of names) {
    const vectors = { ...loops.vectors, [name]: spoilt(loops.vectors[name]) };
    assert.throws(
      () => checkMachineCode(heap, { ...good, vectors }, loops),
      new RegExp(`^${name} gives \\S+ where WebAssembly gives \\S+$`),
    );
  }
  const dot = (...args: number[]) => 1.001 * loops.vectors.dot(...args);
  assert.throws(() => checkMachineCode(heap, { ...good, vectors: { dot } }, loops), /^dot gives/);
});

test('a number that is none is a difference', () => {
  const dot = () => Number.NaN;
  assert.throws(() => checkMachineCode(heap, { ...good, vectors: { dot } }, loops), /^dot gives NaN/);
});

test('what rounding may do is none', () => {
  const dot = (...args: number[]) => (1 + 2e-7) * loops.vectors.dot(...args);
  checkMachineCode(heap, { ...good, vectors: { dot } }, loops);
});

test('a wrong product is found, in whatever shape it is wrong', () => {
  const check = (parts: Partial<MachineCode>) => checkMachineCode(heap, { ...good, ...parts }, loops);
  const { product, packing } = good;
  const wrongWhere = (isWrong: (...args: Parameters<typeof product>) => boolean): typeof product => {
    const wrong = spoilt(product, 9);
    return (...args) => (isWrong(...args) ? wrong : product)(...args);
  };
  for (const rows of [1, 2, 3, 4, 5, 6]) {
    for (const sums of [false, true]) {
      const wrong = wrongWhere((...args) => args[2] === rows && args[11] === sums);
      assert.throws(() => check({ product: wrong }), /^a matrix product gives/);
    }
  }
  for (const way of [0, 1, 2, 3]) {
    const wrong = wrongWhere((transposeA, transposeB) => Number(transposeA) + 2 * Number(transposeB) === way);
    assert.throws(() => check({ product: wrong }), /^a matrix product gives/);
  }
  for (const part of ['pack', 'product'] as const) {
    const wrong = { ...packing, [part]: spoilt<never[], void>(packing[part], part === 'pack' ? 3 : 5) };
    assert.throws(() => check({ packing: wrong }), /^a product with a packed matrix gives/);
  }
  const { frozen } = good;
  for (const format of ['float32', 'bfloat16']) {
    const wrongWith = (run: typeof frozen.forward): typeof frozen.forward => {
      const wrong = spoilt(run, 3);
      return (...args) => (args[1].format === format ? wrong : run)(...args);
    };
    assert.throws(
      () => check({ frozen: { ...frozen, forward: wrongWith(frozen.forward) } }),
      new RegExp(`^a product with a frozen matrix of ${format} gives`),
    );
    assert.throws(
      () => check({ frozen: { ...frozen, backward: wrongWith(frozen.backward) } }),
      new RegExp(`^a product with a turned matrix of ${format} gives`),
    );
  }
});

test('wrong sums of arrays are found', () => {
  const check = (parts: Partial<MachineCode>) => checkMachineCode(heap, { ...good, ...parts }, loops);
  assert.throws(() => check({ addTo: () => {} }), /^addTo gives/);
  assert.throws(() => check({ sumOfSquares: (x) => good.sumOfSquares(x) + 1e-3 }), /^sumOfSquares gives/);
});

test('wrong paged attention is found: in its results, keys and values', () => {
  for (const at of [0, 1, 'block'] as const) {
    const attendTokens = (...args: number[]) => {
      twin.attendTokens(...args);
      const where = at === 'block' ? heap.ints(args[3]!, 6)[5]! : args[at]!;
      heap.floats(where, 1)[0]! += 1e-3;
    };
    assert.throws(() => checkMachinePaging(heap, shape, { attendTokens }, twin), /^attendTokens gives/);
  }
});

test('what has passed is not tried again', () => {
  let calls = 0;
  const counted = {
    attendTokens: (...args: number[]) => {
      calls++;
      twin.attendTokens(...args);
    },
  };
  for (let i = 0; i < 3; i++) checkMachinePaging(heap, shape, counted, twin);
  assert.is(calls, 1);
});

/** A decoder over no weights, for heads of a shape. */
function decoderFor({ heads, keyValueHeads, headSize }: HeadShape) {
  const sizes = { hiddenSize: 8, feedForwardSize: 8, layers: 1, vocabSize: 8, eps: 1e-5 };
  const angles = () => ({ cos: new Float32Array(0), sin: new Float32Array(0) });
  return createHeapDecoder({ ...sizes, heads, keyValueHeads, headSize }, {} as DecoderWeights, angles)!;
}

test('a decoder whose attention would be wrong makes all go back to WebAssembly, and one line says why', async () => {
  const a = tf.tensor2d([1, 2, 3, 4], [2, 2]);
  const product = () => tf.tidy(() => [...tf.matMul(a, a).dataSync()]);
  for (const [wrong, reason] of [
    [
      () => ({ attendTokens: spoilt(paging.attendTokens) }),
      'attendTokens gives \\S+ where WebAssembly gives \\S+',
    ],
    [
      () => {
        throw new Error('no memory is left for it');
      },
      'no memory is left for it',
    ],
  ] as const) {
    const code = { ...good, product: spoilt(good.product, 9), pagingFor: wrong };
    installWasmKernels({ blas: null, machineCode: code });
    assert.not.equal(product(), [7, 10, 15, 22]);
    const warnings = await warningsOf(() => {
      for (let i = 0; i < 2; i++) decoderFor(shape).dispose();
    });
    assert.is(warnings.length, 1);
    assert.match(
      warnings[0]!,
      new RegExp(
        `^warning: machine code is not used, WebAssembly computes instead, more slowly: ${reason}\\.$`,
      ),
    );
    assert.is(currentMachineCode(), null);
    assert.equal(product(), [7, 10, 15, 22]);
  }
  a.dispose();
});

test('a decoder whose attention is right leaves all as it is, and prints nothing', async () => {
  installWasmKernels({ blas: null, machineCode: good });
  assert.equal(await warningsOf(() => decoderFor(shape).dispose()), []);
  assert.is(currentMachineCode(), good);
});

test('a worker says nothing: the main thread has found the same', async () => {
  const module = new URL('../../../src/tensor/x86/check.ts', import.meta.url);
  const worker = new Worker(
    `import('tsx/esm/api')
      .then(({ register }) => (register(), import('${module}')))
      .then(({ warnOfMachineCode }) => warnOfMachineCode(new Error('wrong')))
      .then(() => require('node:worker_threads').parentPort.postMessage('done'));`,
    { eval: true, execArgv: [], stderr: true, stdout: true },
  );
  let printed = '';
  for (const stream of [worker.stderr, worker.stdout]) {
    stream.on('data', (text) => {
      printed += text;
    });
  }
  const messages: unknown[] = [];
  worker.on('message', (message) => messages.push(message));
  await new Promise((resolve) => worker.on('exit', resolve));
  assert.equal(messages, ['done'], printed);
  assert.is(printed, '');
});

if (typeof found === 'string') console.log(`skipped: machine code: ${found}`);
const machineTest = (typeof found === 'string' ? test.skip : test) as Test;

machineTest(
  'the machine code itself passes when the engine starts, and for heads of several shapes',
  async () => {
    const code = found as MachineCode;
    assert.match((await startEngine()).machineCode!, /^AVX(2|-512)$/);
    checkMachineCode(heap, code, loops);
    for (const heads of [
      { heads: 4, keyValueHeads: 4, headSize: 32 },
      { heads: 6, keyValueHeads: 2, headSize: 48 },
      { heads: 8, keyValueHeads: 1, headSize: 64 },
    ]) {
      const machine = code.pagingFor(heads);
      assert.ok(machine !== null);
      checkMachinePaging(heap, heads, machine, assemblePaging(heap.backend.wasm.asm.memory, heads));
    }
  },
);

test.run();
