// The memory's book-keeping, with a decoder that only counts: which blocks sequences share, keep and give back.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { createRng } from '../../../src/domain/rng.ts';
import { Memory, passesOf, type Sequence } from '../../../src/models/llama/memory.ts';
import type { BlockDecoder, Span } from '../../../src/tensor/index.ts';

/** Remembers which tokens were written to which block, and checks every span. */
function countingDecoder() {
  const blocks = new Map<number, number[]>();
  let next = 100;
  const decoder: BlockDecoder = {
    blockBytes: 1,
    allocate: () => {
      blocks.set(next, []);
      return next++;
    },
    free: (block) => {
      assert.ok(blocks.delete(block), `block ${block} is freed once`);
    },
    read(spans: readonly Span[]) {
      const written = new Set<number>();
      for (const { ids, start, blocks: own } of spans) {
        assert.is(own.length, Math.ceil((start + ids.length) / 16));
        ids.forEach((id, i) => {
          const block = own[Math.floor((start + i) / 16)]!;
          const content = blocks.get(block)!;
          assert.is(content.length, (start + i) % 16, `block ${block} is written in order`);
          if ((start + i) % 16 === 0) assert.not(written.has(block), `block ${block} has one writer`);
          written.add(block);
          content.push(id);
        });
      }
    },
    logits: () => [],
    logprobs: () => new Float32Array(0),
    dispose: () => {},
  };
  return { decoder, blocks };
}

const range = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => from + i);

/** Opens a sequence that takes all it can from memory and reads the rest. */
function readAll(memory: Memory, ids: readonly number[]): Sequence {
  const { now } = memory.plan(
    [ids],
    (all) => all,
    (all) => all.length,
  );
  const { sequence } = now[0]!;
  const known = sequence.ids.length;
  if (known < ids.length) memory.read([{ sequence, ids: ids.slice(known) }]);
  assert.equal(sequence.ids, ids);
  return sequence;
}

test('whole blocks are shared, and no more than was asked for', () => {
  const { decoder, blocks } = countingDecoder();
  const memory = new Memory(decoder, 100);
  const first = readAll(memory, range(0, 40));
  assert.is(blocks.size, 3);
  const { now } = memory.plan(
    [20, 32, 40],
    () => range(0, 40),
    (limit) => limit,
  );
  assert.equal(
    now.map(({ sequence }) => sequence.ids.length),
    [16, 32, 32],
  );
  for (const { sequence } of now) memory.close(sequence);
  memory.close(first);
  assert.is(blocks.size, 2, 'the open block is given back, the whole ones stay');
  const branch = readAll(memory, [...range(0, 16), ...range(50, 70)]);
  assert.equal(memory.statistics, { computed: 60, reused: 16 + 32 + 32 + 16 });
  memory.close(branch);
  memory.close(branch);
  memory.forget();
  assert.is(blocks.size, 0);
});

test('of items that share an unknown prefix the first one reads it', () => {
  const { decoder } = countingDecoder();
  const memory = new Memory(decoder, 100);
  const items = [range(0, 20), [...range(0, 16), 99, 98], range(5, 25), range(0, 10)];
  const plan = () =>
    memory.plan(
      items,
      (ids) => ids,
      (ids) => ids.length - 1,
    );
  const { now, later } = plan();
  assert.equal(
    now.map(({ item }) => items.indexOf(item)),
    [0, 2, 3],
  );
  assert.equal(later, [items[1]]);
});

test('two sequences that wrote the same end up with the same blocks', () => {
  const { decoder, blocks } = countingDecoder();
  const memory = new Memory(decoder, 100);
  // Both open before either has read, so neither knows of the other.
  const open = () =>
    memory.plan(
      [0],
      () => [],
      () => 0,
    ).now[0]!.sequence;
  const pair = [open(), open()];
  for (let i = 0; i < 20; i++) memory.read(pair.map((sequence) => ({ sequence, ids: [i] })));
  assert.is(blocks.size, 3, 'one whole block for both and an open one each');
  for (const sequence of pair) memory.close(sequence);
  memory.forget();
  assert.is(blocks.size, 0);
});

test('what was used longest ago is forgotten first, ends before beginnings, and nothing that is in use', () => {
  const { decoder, blocks } = countingDecoder();
  const memory = new Memory(decoder, 4);
  memory.close(readAll(memory, range(0, 32)));
  memory.close(readAll(memory, range(100, 132)));
  assert.is(blocks.size, 4);
  const known = (ids: readonly number[]) => {
    const { sequence } = memory.plan(
      [ids],
      (all) => all,
      (all) => all.length,
    ).now[0]!;
    memory.close(sequence);
    return sequence.ids.length;
  };
  const held = readAll(memory, range(0, 16));
  memory.close(readAll(memory, range(200, 216)));
  assert.is(blocks.size, 4);
  assert.is(known(range(0, 32)), 16, 'the end of the first path went first');
  assert.is(known(range(100, 132)), 32);
  memory.close(readAll(memory, range(300, 348)));
  assert.is(blocks.size, 4);
  assert.is(known(range(0, 16)), 16, 'it is in use');
  memory.close(held);
  // Sequences that are open go beyond the bound when they have to.
  const long = readAll(memory, range(400, 500));
  assert.is(blocks.size, 7);
  memory.close(long);
  assert.is(blocks.size, 4);
});

test('without room nothing is shared and nothing stays', () => {
  const { decoder, blocks } = countingDecoder();
  const memory = new Memory(decoder, 0);
  const twice = [readAll(memory, range(0, 40)), readAll(memory, range(0, 40))];
  assert.equal(memory.statistics, { computed: 80, reused: 0 });
  assert.is(blocks.size, 6);
  for (const sequence of twice) memory.close(sequence);
  assert.is(blocks.size, 0);
});

test('random use never mixes up blocks, and gives all of them back', () => {
  const rng = createRng('memory');
  const { decoder, blocks } = countingDecoder();
  const memory = new Memory(decoder, 12);
  const open: Sequence[] = [];
  for (let i = 0; i < 400; i++) {
    if (open.length > 0 && rng.int(3) === 0) memory.close(open.splice(rng.int(open.length), 1)[0]!);
    else if (open.length > 0 && rng.int(2) === 0) {
      memory.read(open.map((sequence) => ({ sequence, ids: range(0, 1 + rng.int(20)) })));
    } else open.push(readAll(memory, range(rng.int(3), 5 + rng.int(60))));
    // Every sequence finds in its blocks what it has read: a later reader of the same ids takes them from there.
    for (const { ids } of open) {
      const { sequence } = memory.plan(
        [ids],
        (all) => all,
        (all) => all.length,
      ).now[0]!;
      assert.is(sequence.ids.length, ids.length - (ids.length % 16));
      memory.close(sequence);
    }
  }
  for (const sequence of open) memory.close(sequence);
  assert.ok(blocks.size <= 12);
  memory.forget();
  assert.is(blocks.size, 0);
});

test('passes hold as many tokens as they may, and a longer piece stands alone', () => {
  assert.equal(
    passesOf([3, 4, 3, 20, 1, 9], (n) => n, 10),
    [[3, 4, 3], [20], [1, 9]],
  );
  assert.equal(
    passesOf([], () => 1, 10),
    [],
  );
});

test.run();
