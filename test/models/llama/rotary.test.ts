import fs from 'node:fs';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { parseLlamaConfig } from '../../../src/models/llama/config.ts';
import { RotaryTable } from '../../../src/models/llama/rotary.ts';
import { startEngine, tf } from '../../../src/tensor/index.ts';
import { tinyConfig } from '../../support/llama.ts';

test.before(async () => {
  await startEngine();
});

const shape = { head_dim: 6, rope_scaling: null, max_position_embeddings: 1024, rope_theta: 100 };
const half = 3;
/** position · θ^(−2i/dh), both factors in single precision. */
const angle = (position: number, i: number) =>
  Math.fround(position * Math.fround(shape.rope_theta ** ((-2 * i) / shape.head_dim)));

function assertTable(
  table: { cos: ArrayLike<number>; sin: ArrayLike<number> },
  positions: readonly number[],
) {
  positions.forEach((position, row) => {
    for (let i = 0; i < half; i++) {
      const at = row * half + i;
      assert.equal(
        [table.cos[at], table.sin[at]],
        [Math.fround(Math.cos(angle(position, i))), Math.fround(Math.sin(angle(position, i)))],
        `position ${position}, pair ${i}`,
      );
    }
  });
}

const range = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => from + i);

test('the table holds the angles of all positions that are asked for, however it grew', () => {
  const grown = new RotaryTable(shape);
  for (const time of [1, 2, 3, 7, 5, 40, 41, 200]) {
    const { cos, sin } = grown.angles(time);
    assert.ok(cos.length >= time * half && sin.length >= time * half, `${time} positions`);
    assertTable({ cos, sin }, range(0, time));
  }
});

test('growing by one position at a time computes the table a few times only', () => {
  const table = new RotaryTable(shape);
  const tables = new Set<Float32Array>();
  for (let time = 1; time <= 1000; time++) tables.add(table.angles(time).cos);
  assert.ok(tables.size <= 11, `${tables.size} tables`);
  assert.is(table.angles(3).cos, table.angles(1000).cos, 'what is there is not computed anew');
});

test('spans begin at positions of their own', () => {
  const table = new RotaryTable(shape);
  for (const starts of [[0], [5, 0, 12], [1, 90]]) {
    const { cos, sin } = table.forSpans(starts, 4);
    assert.equal(cos.shape, [starts.length, 1, 4, half]);
    assert.equal(sin.shape, cos.shape);
    assertTable(
      { cos: cos.dataSync(), sin: sin.dataSync() },
      starts.flatMap((start) => range(start, start + 4)),
    );
    tf.dispose([cos, sin]);
  }
});

test('two tables know nothing of each other', () => {
  const other = new RotaryTable({
    head_dim: 4,
    rope_scaling: null,
    max_position_embeddings: 1024,
    rope_theta: 10,
  });
  other.angles(50);
  assertTable(new RotaryTable(shape).angles(50), range(0, 50));
});

test('in long contexts the frequencies are those of PyTorch', () => {
  const golden = fs.readFileSync(new URL('./golden/rotary.json', import.meta.url), 'utf8');
  let others = 0;
  for (const { head_dim, rope_parameters, frequencies } of JSON.parse(golden) as {
    head_dim: number;
    rope_parameters: { rope_theta: number };
    frequencies: number[];
  }[]) {
    const given = { ...tinyConfig, head_dim, rope_parameters };
    const config = parseLlamaConfig({ ...given, max_position_embeddings: 2 ** 17 });
    const { cos, sin } = new RotaryTable(config).angles(2);
    frequencies.forEach((frequency, i) => {
      // Of position 1 they are the angles.
      const angle = Math.atan2(sin[frequencies.length + i]!, cos[frequencies.length + i]!);
      const off = Math.abs(angle - frequency) / frequency;
      assert.ok(off < 2e-7, `${JSON.stringify(rope_parameters)}, pair ${i}: ${off}`);
      if (sin[frequencies.length + i] !== Math.fround(Math.sin(Math.fround(frequency)))) others++;
    });
  }
  // PyTorch's own power is not always the nearest float32.
  assert.ok(others <= 2, `${others} differ`);
});

test.run();
