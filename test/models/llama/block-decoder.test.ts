// The decoder on the wasm heap against the one of tensors, over random shapes and spans.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { createRng } from '../../../src/domain/rng.ts';
import { createBlockDecoder } from '../../../src/models/llama/block-decoder.ts';
import type { LlamaPolicy } from '../../../src/models/llama/index.ts';
import { RotaryTable } from '../../../src/models/llama/rotary.ts';
import { TensorDecoder } from '../../../src/models/llama/tensor-decoder.ts';
import { arrangeWeights } from '../../../src/models/llama/weights.ts';
import { type BlockDecoder, heapBytes, startEngine, tf } from '../../../src/tensor/index.ts';
import { createTinyPolicy } from '../../support/llama.ts';

const engine = await startEngine({ backend: 'wasm' });
const rng = createRng('block decoder');
const size = (most: number) => 1 + rng.int(most);

function decodersOf({ config, parameters }: LlamaPolicy): { heap: BlockDecoder; tensors: BlockDecoder } {
  const decoder = {
    config,
    weights: arrangeWeights(config, parameters),
    rotary: new RotaryTable(config),
  };
  const heap = createBlockDecoder(decoder);
  assert.not.instance(heap, TensorDecoder);
  return { heap, tensors: new TensorDecoder(decoder) };
}

function assertNear(actual: ArrayLike<number>, expected: ArrayLike<number>, what: string): void {
  assert.is(actual.length, expected.length);
  Array.from(expected).forEach((value, i) => {
    assert.ok(Math.abs(actual[i]! - value) < 1e-4, `${what}, ${i}: ${actual[i]} is not ${value}`);
  });
}

/** Sequences that read pieces of random lengths, each with blocks of its own. */
class Reader {
  readonly #decoder: BlockDecoder;
  readonly #blocks = new Map<number, number[]>();
  readonly #lengths = new Map<number, number>();

  constructor(decoder: BlockDecoder) {
    this.#decoder = decoder;
  }

  read(pieces: readonly { readonly row: number; readonly ids: readonly number[] }[]): void {
    const spans = pieces.map(({ row, ids }) => {
      const start = this.#lengths.get(row) ?? 0;
      const blocks = this.#blocks.get(row) ?? [];
      while (blocks.length < Math.ceil((start + ids.length) / 16)) blocks.push(this.#decoder.allocate());
      this.#blocks.set(row, blocks);
      this.#lengths.set(row, start + ids.length);
      return { ids, start, blocks };
    });
    this.#decoder.read(spans);
  }

  free(): void {
    for (const block of [...this.#blocks.values()].flat()) this.#decoder.free(block);
  }
}

const shapes = [
  { head_dim: 8, num_attention_heads: 4, num_key_value_heads: 4 },
  { head_dim: 8, num_attention_heads: 6, num_key_value_heads: 2 },
  { head_dim: 16, num_attention_heads: 2, num_key_value_heads: 1 },
  { head_dim: 24, num_attention_heads: 5, num_key_value_heads: 1 },
  { head_dim: 32, num_attention_heads: 4, num_key_value_heads: 2 },
  { head_dim: 64, num_attention_heads: 2, num_key_value_heads: 2 },
] as const;

for (const shape of shapes) {
  const { head_dim: dh, num_attention_heads: h, num_key_value_heads: kv } = shape;
  test(`heads of ${dh}, ${h} queries for ${kv}: what the tensors give, also in pieces`, () => {
    const hidden = 8 * size(6);
    const policy = createTinyPolicy(
      { ...shape, hidden_size: hidden, intermediate_size: size(50) },
      { gain: 10 },
    );
    const { heap, tensors } = decodersOf(policy);
    const readers = [new Reader(heap), new Reader(tensors)];
    for (let step = 0; step < 12; step++) {
      const rows = [0, 1, 2, 3, 4].filter(() => rng.int(3) > 0);
      // Now a prompt, now a single token.
      const lengths = rows.map(() => (rng.int(2) === 0 ? 1 : size(40)));
      const pieces = rows.map((row, i) => ({
        row,
        ids: Array.from({ length: lengths[i]! }, () => rng.int(40)),
      }));
      if (pieces.length === 0) continue;
      for (const reader of readers) reader.read(pieces);
      const total = lengths.reduce((sum, length) => sum + length, 0);
      const asked = Array.from({ length: size(5) }, () => rng.int(total));
      const expected = tensors.logits(asked).map(({ values }) => values.slice());
      heap.logits(asked).forEach((row, i) => {
        assertNear(row.values, expected[i]!, `step ${step}, logits`);
        assert.is(row.maximum(), Math.max(...row.values));
        const sum = row.values.reduce((all, logit) => all + Math.exp((logit - 1) * 0.5), 0);
        assert.ok(Math.abs(row.exponentials(1, 0.5).sum - sum) < 1e-4 * sum);
      });
      const labels = asked.map(() => rng.int(40));
      assertNear(heap.logprobs(asked, labels), tensors.logprobs(asked, labels), `step ${step}, logprobs`);
    }
    readers[0]!.free();
    heap.dispose();
    policy.dispose();
  });
}

test('a sequence gets the same, to the bit, whatever is read beside it', () => {
  const policy = createTinyPolicy({ num_key_value_heads: 2, head_dim: 16 });
  const { heap } = decodersOf(policy);
  const ids = Array.from({ length: 50 }, () => rng.int(40));
  const others = Array.from({ length: 6 }, () => Array.from({ length: size(60) }, () => rng.int(40)));
  const logitsOf = (pieces: readonly (readonly number[])[], at: number) => {
    const reader = new Reader(heap);
    reader.read(pieces.map((piece, row) => ({ row, ids: piece })));
    const end = pieces.slice(0, at + 1).reduce((sum, piece) => sum + piece.length, 0) - 1;
    const values = [...heap.logits([end])[0]!.values];
    reader.free();
    return values;
  };
  const alone = logitsOf([ids], 0);
  const together = logitsOf([...others.slice(0, 3), ids, ...others.slice(3)], 3);
  // A BLAS may round another way for other numbers of rows; our own products do not.
  if (engine.blas === null) assert.equal(together, alone);
  else assertNear(together, alone, 'logits');
  policy.dispose();
});

test('what a block held before does not matter, be it not a number', () => {
  const policy = createTinyPolicy();
  const { heap } = decodersOf(policy);
  const held = heap.allocate(); // keeps the blocks from being given back to the heap
  const ids = Array.from({ length: 21 }, () => rng.int(40));
  const read = () => {
    const reader = new Reader(heap);
    reader.read([{ row: 0, ids }]);
    const values = [...heap.logits([20])[0]!.values];
    reader.free();
    return values;
  };
  const expected = read();
  const [weight] = policy.parameters.values();
  const sound = weight!.dataSync().slice();
  tf.tidy(() => weight!.assign(tf.fill(weight!.shape, Number.NaN)));
  assert.ok(read().every(Number.isNaN));
  tf.tidy(() => weight!.assign(tf.tensor(sound, weight!.shape)));
  assert.equal(read(), expected);
  heap.dispose();
  heap.free(held);
  assert.equal(read(), expected, 'after dispose it begins anew');
  heap.dispose();
  policy.dispose();
});

test('a single token gets the same logits however it is read', () => {
  for (const shape of [
    { head_dim: 8, num_attention_heads: 6, num_key_value_heads: 2 },
    { head_dim: 16, num_attention_heads: 5, num_key_value_heads: 1 },
    { head_dim: 32, num_attention_heads: 4, num_key_value_heads: 4 },
  ]) {
    const policy = createTinyPolicy({ ...shape, hidden_size: 24 });
    const { heap } = decodersOf(policy);
    const sequence = () => Array.from({ length: 51 }, () => rng.int(40));
    const [ids, others] = [sequence(), Array.from({ length: 5 }, sequence)];
    /** The logits of the last of `ids`, read as the last of `pieces` in a pass of its own after the rest. */
    const lastLogits = (
      rows: readonly { readonly ids: readonly number[]; readonly last: number }[],
      at: number,
    ) => {
      const reader = new Reader(heap);
      reader.read(rows.map(({ ids, last }, row) => ({ row, ids: ids.slice(0, -last) })));
      reader.read(rows.map(({ ids, last }, row) => ({ row, ids: ids.slice(-last) })));
      const end = rows.slice(0, at + 1).reduce((sum, { last }) => sum + last, 0) - 1;
      const values = [...heap.logits([end])[0]!.values];
      reader.free();
      return values;
    };
    const alone = lastLogits([{ ids, last: 1 }], 0);
    const neighbours = (last: number) => others.map((ids) => ({ ids, last }));
    const ways = {
      'among single tokens': lastLogits([...neighbours(1), { ids, last: 1 }], 5),
      'between longer spans': lastLogits([...neighbours(2), { ids, last: 1 }, ...neighbours(3)], 5),
      'at the end of a span': lastLogits([{ ids, last: 2 }], 0),
    };
    for (const [way, values] of Object.entries(ways)) {
      if (engine.blas === null) assert.equal(values, alone, way);
      else assertNear(values, alone, way);
    }
    heap.dispose();
    policy.dispose();
  }
});

test('weights that are assigned to between two reads count from the next one on', () => {
  const policy = createTinyPolicy();
  const { heap, tensors } = decodersOf(policy);
  const rows = Array.from({ length: 6 }, () => Array.from({ length: 3 }, () => rng.int(40)));
  const logitsOf = (decoder: BlockDecoder) => {
    const reader = new Reader(decoder);
    reader.read(rows.map((ids, row) => ({ row, ids })));
    const logits = decoder.logits(rows.map((_, row) => 3 * row + 2)).map(({ values }) => [...values]);
    reader.free();
    return logits.flat();
  };
  const before = logitsOf(heap);
  assertNear(before, logitsOf(tensors), 'before');
  for (const weight of policy.parameters.values()) tf.tidy(() => weight.assign(tf.mul(weight, -1.5)));
  const after = logitsOf(heap);
  assert.not.equal(after, before);
  assertNear(after, logitsOf(tensors), 'after');
  heap.dispose();
  tensors.dispose();
  policy.dispose();
});

test('blocks are used again, and given back to the heap when none is in use', () => {
  const policy = createTinyPolicy();
  const { heap } = decodersOf(policy);
  const ids = Array.from({ length: 100 }, () => rng.int(40));
  const once = () => {
    const reader = new Reader(heap);
    reader.read(Array.from({ length: 20 }, (_, row) => ({ row, ids })));
    reader.free();
  };
  once();
  const before = heapBytes();
  for (let i = 0; i < 200; i++) once();
  assert.is(heapBytes(), before);
  policy.dispose();
});

test.run();
