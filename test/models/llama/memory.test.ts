// The memory's book-keeping, with a decoder that only counts: which blocks sequences share, keep and give back.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { OptimaError } from '../../../src/domain/errors.ts';
import { createRng } from '../../../src/domain/rng.ts';
import { Memory, passesOf, type Sequence } from '../../../src/models/llama/memory.ts';
import type { BlockDecoder, Span } from '../../../src/tensor/index.ts';

/** Remembers which tokens stand in which block, and checks every span; `last` is what the sequences of the last pass held then. */
function countingDecoder() {
  const blocks = new Map<number, number[]>();
  const last: { sequences: number[][] } = { sequences: [] };
  let next = 100;
  const decoder: BlockDecoder = {
    blockBytes: 1,
    allocate: () => {
      blocks.set(next, []);
      return next++;
    },
    copy: (from, to) => {
      blocks.get(to)!.splice(0, 16, ...blocks.get(from)!);
    },
    free: (block) => {
      assert.ok(blocks.delete(block), `block ${block} is freed once`);
    },
    read(spans: readonly Span[]) {
      const written = new Set<number>();
      for (const { ids, start, blocks: own } of spans) {
        assert.is(own.length, Math.ceil((start + ids.length) / 16));
        for (const block of own.slice(0, Math.floor(start / 16))) {
          assert.is(blocks.get(block)?.length, 16, `block ${block} holds what came before`);
        }
        ids.forEach((id, i) => {
          const block = own[Math.floor((start + i) / 16)]!;
          const content = blocks.get(block)!;
          assert.ok(content.length >= (start + i) % 16, `block ${block} is written in order`);
          if (i === 0 || (start + i) % 16 === 0)
            assert.not(written.has(block), `block ${block} has one writer`);
          written.add(block);
          // What a copied block held behind is worth nothing now.
          content.splice((start + i) % 16, 16, id);
        });
      }
      last.sequences = spans.map(({ ids, start, blocks: own }) =>
        own.flatMap((block) => blocks.get(block)!).slice(0, start + ids.length),
      );
    },
    logits: () => [],
    logprobs: () => new Float32Array(0),
    dispose: () => {},
  };
  return { decoder, blocks, last };
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

test('blocks are shared, parts of blocks are copied, and no more than was asked for', () => {
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
    [20, 32, 40],
    'the first of a whole block, whole blocks, and of a block that another one still writes',
  );
  assert.is(blocks.size, 5);
  for (const { sequence } of now) memory.close(sequence);
  memory.close(first);
  assert.is(blocks.size, 3, 'copies are given back');
  const branch = readAll(memory, [...range(0, 16), ...range(50, 70)]);
  assert.equal(memory.statistics, { computed: 60, reused: 20 + 32 + 40 + 16 });
  memory.close(branch);
  memory.close(branch);
  memory.forget();
  assert.is(blocks.size, 0);
});

test('what follows an end is read from there, also while its sequence goes on, which nobody else writes to', () => {
  const { decoder, last } = countingDecoder();
  const memory = new Memory(decoder, 100);
  const open = readAll(memory, range(0, 20));
  const branches = [
    [...range(0, 20), 77],
    [...range(0, 19), 88, 89],
  ].map((ids) => readAll(memory, ids));
  assert.equal(memory.statistics, { computed: 20 + 1 + 2, reused: 20 + 19 });
  memory.read([open, ...branches].map((sequence) => ({ sequence, ids: range(200, 215) })));
  assert.equal(
    last.sequences,
    [open, ...branches].map(({ ids }) => ids),
  );
  for (const sequence of [open, ...branches]) memory.close(sequence);
  const again = readAll(memory, [...range(0, 20), 77, ...range(200, 215), 5]);
  assert.is(memory.statistics.computed, 23 + 3 * 15 + 1, 'of an end that was closed nothing is read again');
  memory.close(again);
});

test('of ends that begin alike one stays', () => {
  const { decoder, blocks } = countingDecoder();
  const memory = new Memory(decoder, 100);
  const open = () =>
    memory.plan(
      [0],
      () => [],
      () => 0,
    ).now[0]!.sequence;
  // All open before one has read, so none knows of the others.
  const [short, long, other] = [open(), open(), open()];
  memory.read([
    { sequence: short, ids: range(0, 5) },
    { sequence: long, ids: range(0, 9) },
    { sequence: other, ids: [...range(0, 4), 9] },
  ]);
  for (const sequence of [short, long, other]) memory.close(sequence);
  assert.equal([...blocks.values()], [range(0, 9), [...range(0, 4), 9]]);
});

test('of items that share an unknown prefix the first one reads it', () => {
  const { decoder } = countingDecoder();
  const memory = new Memory(decoder, 100);
  const items = [range(0, 20), [...range(0, 16), 99, 98], range(5, 25), range(0, 10), range(0, 10)];
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
  assert.equal(later, [items[1], items[4]]);
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
  assert.is(blocks.size, 2);
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
  const fresh = readAll(memory, range(200, 216));
  assert.is(blocks.size, 4, 'room is made before a block is taken');
  memory.close(fresh);
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
  const { decoder, blocks, last } = countingDecoder();
  const memory = new Memory(decoder, 12);
  const open: Sequence[] = [];
  for (let i = 0; i < 400; i++) {
    if (open.length > 0 && rng.int(3) === 0) memory.close(open.splice(rng.int(open.length), 1)[0]!);
    else if (open.length > 0 && rng.int(2) === 0) {
      memory.read(open.map((sequence) => ({ sequence, ids: range(0, 1 + rng.int(20)) })));
      assert.equal(
        last.sequences,
        open.map(({ ids }) => ids),
      );
    } else open.push(readAll(memory, range(rng.int(3), 5 + rng.int(60))));
    // Every sequence finds in its blocks what it has read: a later reader of the same ids takes them from there.
    for (const { ids } of open) {
      const { sequence } = memory.plan(
        [ids],
        (all) => all,
        (all) => all.length,
      ).now[0]!;
      assert.ok(sequence.ids.length >= ids.length - (ids.length % 16));
      memory.close(sequence);
    }
  }
  for (const sequence of open) memory.close(sequence);
  assert.ok(blocks.size <= 12);
  memory.forget();
  assert.is(blocks.size, 0);
});

test('a memory holds as many whole blocks as fit into its bytes, one at least, or any number without a bound', () => {
  const blocksOf = (blockBytes: number, maxBytes?: number) =>
    new Memory({ ...countingDecoder().decoder, blockBytes }, maxBytes).maxBlocks;
  assert.equal(
    [0, 1, 9, 10, 19, 20, 25].map((bytes) => blocksOf(10, bytes)),
    [0, 1, 1, 1, 1, 2, 2],
  );
  assert.is(blocksOf(2 ** 20), 256);
  const memory = new Memory(countingDecoder().decoder, 1);
  assert.equal(
    [0, 1, 16, 17, 32].map((tokens) => memory.blocksFor(tokens)),
    [0, 1, 1, 2, 2],
  );
});

test('what is shared is the same in every id, and ids are not run together', () => {
  const { decoder } = countingDecoder();
  const memory = new Memory(decoder, 100);
  const nines = Array.from({ length: 18 }, () => 9);
  memory.close(readAll(memory, [1, 23, ...nines]));
  for (const [other, reused] of [
    [[12, 3], 0],
    [[1, 24], 1],
    [[1, 23], 20],
  ] as const) {
    const before = memory.statistics.reused;
    const { now } = memory.plan(
      [[...other, ...nines]],
      (ids) => ids,
      (ids) => ids.length,
    );
    assert.is(memory.statistics.reused - before, reused, other.join());
    memory.close(now[0]!.sequence);
  }
  // Nor do such items wait for each other.
  const fresh = new Memory(decoder, 100);
  const plan = fresh.plan(
    [
      [1, 23, ...nines],
      [12, 3, ...nines],
    ],
    (ids) => ids,
    (ids) => ids.length,
  );
  assert.is(plan.later.length, 0);
});

test('an item waits only for what it would share and may take', () => {
  const { decoder } = countingDecoder();
  const memory = new Memory(decoder, 100);
  const ids = range(0, 40);
  const laterOf = (...limits: number[]) =>
    memory.plan(
      limits,
      () => ids,
      (limit) => limit,
    ).later;
  assert.equal(laterOf(16, 16), [16]);
  assert.equal(laterOf(15, 15), [15], 'also for a part of it');
  assert.equal(laterOf(3, 3), [], 'which must be worth it');
  assert.equal(laterOf(16, 15), []);
  assert.equal(laterOf(15, 16), []);
  memory.forget();
  // Behind a block that is known, the next one is what they would share.
  memory.close(readAll(memory, range(0, 16)));
  assert.equal(laterOf(32, 31, 40), [40]);
  // The same block behind another beginning is another one.
  memory.close(readAll(memory, range(100, 116)));
  const branches = [range(0, 32), [...range(100, 116), ...range(16, 32)]];
  const { later } = memory.plan(
    branches,
    (all) => all,
    (all) => all.length,
  );
  assert.is(later.length, 0);
  assert.equal(
    new Memory(decoder, 0).plan(
      [1, 2],
      () => ids,
      () => 40,
    ).later,
    [],
  );
});

test('a block that is used again outlives one that was not', () => {
  const { decoder } = countingDecoder();
  const memory = new Memory(decoder, 2);
  const [first, second, third] = [range(0, 16), range(100, 116), range(200, 216)];
  for (const ids of [first, second, first, third]) memory.close(readAll(memory, ids));
  const before = memory.statistics.reused;
  memory.close(readAll(memory, first));
  assert.is(memory.statistics.reused - before, 16);
  memory.close(readAll(memory, second));
  assert.is(memory.statistics.reused - before, 16, 'the second one has been forgotten');
});

test('a sequence that was closed is not read on, and nothing is read with it', () => {
  const { decoder, blocks } = countingDecoder();
  const memory = new Memory(decoder, 100);
  const [open, closed] = [readAll(memory, range(0, 4)), readAll(memory, range(50, 54))];
  memory.close(closed);
  const { computed } = memory.statistics;
  for (const sequences of [
    [closed, open],
    [open, closed],
  ]) {
    assert.throws(
      () => memory.read(sequences.map((sequence) => ({ sequence, ids: [7] }))),
      (error: OptimaError) => error.code === 'interrupted' && /session was closed/.test(error.message),
    );
  }
  assert.is(memory.statistics.computed, computed);
  assert.equal(open.ids, range(0, 4));
  memory.forget();
  assert.is(blocks.size, 0);
  assert.throws(() => memory.read([{ sequence: open, ids: [7] }]), /session was closed/);
});

test('passes hold as many tokens as they may, and a longer piece stands alone', () => {
  assert.equal(
    passesOf([3, 4, 3, 20, 1, 9], (n) => n, 10),
    [[3, 4, 3], [20], [1, 9]],
  );
  assert.equal(
    passesOf([20, 1, 0, 10, 0], (n) => n, 10),
    [[20], [1, 0], [10, 0]],
  );
  assert.equal(
    passesOf([], () => 1, 10),
    [],
  );
});

test.run();
