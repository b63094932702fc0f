import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { TrainingSequence } from '../../src/domain/model.ts';
import { createRng } from '../../src/domain/rng.ts';
import { segmentsOf } from '../../src/tensor/ops.ts';
import { commonPrefix, compareIds, packSequences } from '../../src/training/packing.ts';

/** A sequence whose last tokens count. */
const sequence = (text: string, counts: number): TrainingSequence => ({
  tokenIds: [...text].map((letter) => letter.charCodeAt(0)),
  lossMask: [...text].map((_, place) => (place >= text.length - counts ? 1 : 0)),
});
const textOf = (ids: Iterable<number>) => String.fromCharCode(...ids);

/** What the token at each place of the row sees, itself last, as the segments say it. */
function sightOf({ inputIds, layout }: ReturnType<typeof packSequences>): string[] {
  const seen: string[] = [];
  for (const { from, count, before } of segmentsOf({ t: inputIds.length, segments: layout.segments })) {
    for (let place = from; place < from + count; place++) {
      const ranges = [...before, { from, count: place + 1 - from }];
      seen[place] = ranges
        .map((range) => textOf(inputIds.slice(range.from, range.from + range.count)))
        .join('');
    }
  }
  return seen;
}

test('what sequences have in common stands in the row once', () => {
  const packed = packSequences([
    sequence('system:alice.', 6),
    sequence('system:bob.', 4),
    sequence('system:al!', 3),
  ]);
  // Sorted as in a dictionary, without last tokens.
  assert.is(textOf(packed.inputIds), 'system:alicebob');
  assert.equal([...packed.layout.segments], [0, 9, -1, 0, 9, 12, 0, 9, 12, 15, 0, 7]);
  assert.equal(textOf(packed.labels), 'al!ice.bob.');
  assert.equal(
    packed.terms.map((own) => textOf(own.map((term) => packed.labels[term]!))),
    ['alice.', 'bob.', 'al!'],
  );
  assert.equal([...packed.layout.positions], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 7, 8, 9]);
});

test('equal sequences are computed once, and one may be the beginning of another', () => {
  const packed = packSequences([
    sequence('abcd', 2),
    sequence('ab', 1),
    sequence('abcd', 2),
    sequence('abcdef', 3),
  ]);
  assert.is(textOf(packed.inputIds), 'abcde');
  assert.equal([...packed.layout.segments], [0, 1, -1, 0, 1, 3, 0, 1, 3, 5, 1, 2]);
  assert.equal(packed.terms[0], packed.terms[2]);
  assert.is(textOf(packed.labels), 'bcdef');
});

test('in any set of sequences each counted token is predicted after exactly what is before it', () => {
  const rng = createRng('packing');
  for (let trial = 0; trial < 200; trial++) {
    const texts = Array.from({ length: 1 + rng.int(8) }, () =>
      Array.from({ length: 2 + rng.int(9) }, () => rng.pick([...'ab'])).join(''),
    );
    const sequences = texts.map((text) => sequence(text, 1 + rng.int(text.length - 1)));
    const packed = packSequences(sequences);
    const sight = sightOf(packed);
    assert.is(sight.length, packed.inputIds.length);
    assert.is(new Set(sight).size, sight.length, 'nothing stands there twice');
    assert.equal(
      [...packed.layout.positions],
      sight.map((seen) => seen.length - 1),
    );
    for (const [index, { tokenIds, lossMask }] of sequences.entries()) {
      const predicted = packed.terms[index]!.map(
        (term) => `${sight[packed.positions[term]!]}${textOf([packed.labels[term]!])}`,
      );
      const expected = tokenIds.flatMap((_, place) =>
        lossMask[place] === 1 ? [textOf(tokenIds.slice(0, place + 1))] : [],
      );
      assert.equal(predicted, expected);
    }
  }
});

test('ids are ordered as words are', () => {
  assert.is(commonPrefix([1, 2, 3], [1, 2]), 2);
  assert.is(commonPrefix([], [1]), 0);
  const sorted = [[2], [1, 5], [1], [1, 5, 0], [1, 4, 9], []].sort(compareIds);
  assert.equal(sorted, [[], [1], [1, 4, 9], [1, 5], [1, 5, 0], [2]]);
});

test.run();
