// The generator against a second implementation on big integers, which is itself held to the published vector.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { createRng, hash32, type Rng } from '../../src/domain/rng.ts';

const word = (x: bigint) => x & 0xffff_ffffn;
const rotate = (x: bigint, k: bigint) => word(x << k) | (x >> (32n - k));

/** xoshiro128** as its authors' xoshiro128starstar.c has it. */
function* xoshiro(state: readonly bigint[]): Generator<number, never> {
  let [a, b, c, d] = state as [bigint, bigint, bigint, bigint];
  for (;;) {
    const result = word(rotate(word(b * 5n), 7n) * 9n);
    const t = word(b << 9n);
    c ^= a;
    d ^= b;
    b ^= c;
    a ^= d;
    c ^= t;
    d = rotate(d, 11n);
    yield Number(result);
  }
}

/** The key of a label under a key: four lanes of multiply and rotate, and murmur3's avalanche twice around. */
function keyOf(key: readonly bigint[], text: string): bigint[] {
  const lanes = [...key];
  const factors = [0x85ebca6bn, 0xc2b2ae35n, 0x27d4eb2fn, 0x165667b1n];
  for (let at = 0; at < text.length; at++) {
    const unit = BigInt(text.charCodeAt(at));
    for (let lane = 0; lane < 4; lane++) {
      const fed = word(rotate(lanes[lane]! ^ unit, 13n) + lanes[(lane + 1) % 4]!);
      lanes[lane] = word(fed * factors[lane]!);
    }
  }
  for (let step = 0; step < 8; step++) {
    const neighbour = lanes[(step + 3) % 4]!;
    let h = lanes[step % 4]! ^ word(neighbour * 0x9e3779b1n) ^ BigInt(text.length);
    h = word((h ^ (h >> 16n)) * 0x85ebca6bn);
    h = word((h ^ (h >> 13n)) * 0xc2b2ae35n);
    lanes[step % 4] = h ^ (h >> 16n);
  }
  return lanes;
}

const root = [0x243f6a88n, 0x85a308d3n, 0x13198a2en, 0x03707344n];
const draws = (rng: Rng, count: number) => Array.from({ length: count }, () => rng.seed32());
const reference = (key: readonly bigint[], count: number) => {
  const numbers = xoshiro(key);
  return Array.from({ length: count }, () => numbers.next().value);
};

test('the second implementation gives the published sequence of the state 1, 2, 3, 4', () => {
  assert.equal(
    reference([1n, 2n, 3n, 4n], 10),
    [11520, 0, 5927040, 70819200, 2031721883, 1637235492, 1287239034, 3734860849, 3729100597, 4258142804],
  );
});

test('seeds and their children draw what the second implementation draws', () => {
  for (const seed of [0, 1, -7, 2 ** 40, 'one', '', 'tâche \u{1F600}']) {
    const key = keyOf(root, `seed:${seed}`);
    assert.equal(draws(createRng(seed), 200), reference(key, 200), `seed ${seed}`);
    for (const label of ['task', 0, 12, '', 'é']) {
      const child = keyOf(key, `/${label}`);
      assert.equal(draws(createRng(seed).split(label), 20), reference(child, 20), `${seed}/${label}`);
      const grandchild = createRng(seed).split(label).split('x');
      assert.equal(draws(grandchild, 20), reference(keyOf(child, '/x'), 20), `${seed}/${label}/x`);
    }
  }
});

test('a seed gives the same numbers from release to release', () => {
  assert.equal(draws(createRng(1), 5), [443032497, 1313211322, 68153386, 1540660472, 287763468]);
  assert.equal(draws(createRng('one'), 3), [1600992236, 3320075057, 190881967]);
  assert.equal(draws(createRng(1).split('task'), 3), [2849740909, 3355725000, 446626497]);
  assert.equal(draws(createRng(1).split(0), 3), [1240635295, 495127143, 370475673]);
  assert.is(
    createRng(7)
      .shuffle([...'abcdefgh'])
      .join(''),
    'ebcfgadh',
  );
});

test('the hash of a text is the same from release to release', () => {
  assert.equal(
    ['', 'a', 'two-hop-qa', 'é\u{1F600}'].map(hash32),
    [3713539463, 685763604, 1628291216, 1046680620],
  );
  const key = [0x9e3779b9n, 0x7f4a7c15n, 0xf39cc060n, 0x5cedc834n];
  for (const text of ['ab', 'ba', 'a line of a task file', '中文']) {
    assert.is(hash32(text), Number(keyOf(key, text)[0]));
  }
});

test('all draws are cut from the same 32 bits', () => {
  const [bits, real, integer, picked] = Array.from({ length: 4 }, () => createRng('draws'));
  const letters = [...'abcdefg'];
  for (let i = 0; i < 1000; i++) {
    const number = bits!.seed32();
    assert.ok(Number.isInteger(number) && number >= 0 && number < 2 ** 32);
    assert.is(real!.next(), number / 2 ** 32);
    assert.is(integer!.int(7), Math.floor((number / 2 ** 32) * 7));
    assert.is(picked!.pick(letters), letters[Math.floor((number / 2 ** 32) * 7)]);
  }
});

test('integers reach both ends of their range and nothing beyond, about equally often', () => {
  const rng = createRng('int');
  const counts = new Map<number, number>();
  for (let i = 0; i < 30_000; i++) {
    const n = rng.int(5);
    counts.set(n, (counts.get(n) ?? 0) + 1);
  }
  assert.equal([...counts.keys()].sort(), [0, 1, 2, 3, 4]);
  for (const count of counts.values()) assert.ok(Math.abs(count - 6000) < 300, `${count} of 30000`);
  assert.is(rng.int(1), 0);
});

test('picking from an empty list is refused', () => {
  assert.throws(() => createRng(1).pick([]), /Rng\.pick: the list is empty/);
});

test('every order of three and of four items is about equally likely', () => {
  for (const [items, orders] of [
    ['abc', 6],
    ['abcd', 24],
  ] as const) {
    const rng = createRng('shuffle');
    const counts = new Map<string, number>();
    for (let i = 0; i < 1000 * orders; i++) {
      const order = rng.shuffle([...items]).join('');
      counts.set(order, (counts.get(order) ?? 0) + 1);
    }
    assert.is(counts.size, orders);
    // Each count has a deviation of about 31.
    for (const [order, count] of counts) assert.ok(Math.abs(count - 1000) < 150, `${order}: ${count}`);
  }
});

test('a shuffle leaves its list alone, and needs one draw fewer than it has items', () => {
  const items = Object.freeze([1, 1, 2, 3, 5]);
  const rng = createRng('copy');
  const shuffled = rng.shuffle(items);
  assert.is.not(shuffled, items);
  assert.equal(items, [1, 1, 2, 3, 5]);
  assert.equal(shuffled.toSorted(), [1, 1, 2, 3, 5]);
  const untouched = createRng('copy');
  draws(untouched, 4);
  assert.is(rng.next(), untouched.next());
  assert.equal(rng.shuffle([]), []);
  assert.equal(rng.shuffle(['x']), ['x']);
});

test('a child depends on the key and the label alone, not on draws or siblings', () => {
  const expected = draws(createRng(3).split('child'), 8);
  const parent = createRng(3);
  draws(parent, 17);
  draws(parent.split('sibling'), 5);
  assert.equal(draws(parent.split('child'), 8), expected);
  assert.equal(draws(parent.split('child'), 8), expected, 'nor on being asked for before');
  // And the parent does not notice its children.
  const undisturbed = createRng(3);
  draws(undisturbed, 17);
  assert.is(parent.seed32(), undisturbed.seed32());
});

test('seeds, children and grandchildren all go ways of their own', () => {
  const labels = ['', 'a', 'b', 'ab', 'ba', 'a/b', 0, 1, 10, 11, '01', 'train', 'test'];
  const families = [1, 2, '', 'a'].flatMap((seed) => [
    createRng(seed),
    ...labels.map((label) => createRng(seed).split(label)),
    ...labels.map((label) => createRng(seed).split('a').split(label)),
  ]);
  const firsts = families.map((rng) => draws(rng, 2).join(' '));
  // Among them the child "a/b" and the child "b" of the child "a".
  assert.is(new Set(firsts).size, families.length);
  assert.equal(draws(createRng(1).split(5), 3), draws(createRng(1).split('5'), 3));
});

test.run();
