// The trainer against a slow one that counts every pair anew before each merge.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { createRng } from '../../../src/domain/rng.ts';
import { tokenizerFrom, trainTokenizer } from '../../../src/models/tokenizer/index.ts';

interface Model {
  readonly vocab: Readonly<Record<string, number>>;
  readonly merges: readonly string[];
}
const train = (texts: readonly string[], vocabSize: number) =>
  trainTokenizer(texts, { vocabSize }).tokenizerJson.model as unknown as Model;

/** By id: JavaScript puts the digits before all other keys. */
const tokensOf = (vocab: Model['vocab']) => Object.keys(vocab).sort((a, b) => vocab[a]! - vocab[b]!);

/** Merges of byte-pair encoding, of lists of token texts; `ids` gives each token its number, for ties. */
function mergesOf(words: readonly string[], count: number): string[] {
  const lists = words.map((word) => [...word]);
  const ids = new Map<string, number>();
  const idOf = (token: string) => ids.get(token) ?? token.charCodeAt(0) - 1000;
  const merges: string[] = [];
  while (merges.length < count) {
    const pairs = new Map<string, { left: string; right: string; times: number }>();
    for (const list of lists) {
      list.slice(1).forEach((right, i) => {
        const left = list[i]!;
        const pair = pairs.get(`${left} ${right}`) ?? { left, right, times: 0 };
        pair.times++;
        pairs.set(`${left} ${right}`, pair);
      });
    }
    const [best] = [...pairs.values()]
      .filter(({ times }) => times > 1)
      .sort((a, b) => b.times - a.times || idOf(a.left) - idOf(b.left) || idOf(a.right) - idOf(b.right));
    if (best === undefined) break;
    const { left, right } = best;
    merges.push(`${left} ${right}`);
    ids.set(left + right, merges.length);
    for (const list of lists) {
      for (let i = 0; i + 1 < list.length; i++) {
        if (list[i] === left && list[i + 1] === right) list.splice(i, 2, left + right);
      }
    }
  }
  return merges;
}

test('merges are those of counting every pair anew, words, runs of one letter and ties included', () => {
  const rng = createRng('merges');
  for (let round = 0; round < 60; round++) {
    const letters = [...'abcde'].slice(0, 1 + rng.int(5));
    const words = Array.from({ length: 1 + rng.int(30) }, () =>
      Array.from({ length: 1 + rng.int(9) }, () => rng.pick(letters)).join(''),
    );
    // One text a word: so no word has a space before it.
    assert.equal(train(words, 261 + 25).merges, mergesOf(words, 25), words.join());
  }
});

test('the vocabulary is special tokens, bytes and merges in this order, and never larger than asked for', () => {
  const words = ['abcabc', 'abcabc', 'abd'];
  for (const [vocabSize, size] of [
    [261, 261],
    [262, 262],
    [263, 263],
    [400, 264],
  ] as const) {
    const { vocab, merges } = train(words, vocabSize);
    const tokens = tokensOf(vocab);
    assert.is(tokens.length, size);
    assert.equal(
      tokens.map((token) => vocab[token]),
      [...tokens.keys()],
    );
    assert.equal(tokens.slice(0, 5), ['<|pad|>', '<|system|>', '<|user|>', '<|assistant|>', '<|end|>']);
    assert.equal(
      tokens.slice(261),
      merges.map((merge) => merge.replace(' ', '')),
    );
  }
  // Bytes in their order, under GPT-2's names.
  const tokens = tokensOf(train([], 261).vocab);
  for (const [byte, name] of [
    [0x00, 'Ā'],
    [0x20, 'Ġ'],
    [0x21, '!'],
    [0x7e, '~'],
    [0x7f, 'ġ'],
    [0xa0, 'ł'],
    [0xa1, '¡'],
    [0xad, 'Ń'],
    [0xff, 'ÿ'],
  ] as const) {
    assert.is(tokens[5 + byte], name);
  }
});

test('the files say in the Hugging Face form how to cut, and that special tokens are taken as they are', () => {
  const { tokenizerJson } = trainTokenizer(['abc'], { vocabSize: 262 });
  const { version, truncation, padding, normalizer, decoder, added_tokens } = tokenizerJson;
  assert.equal(
    { version, truncation, padding, normalizer },
    {
      version: '1.0',
      truncation: null,
      padding: null,
      normalizer: null,
    },
  );
  assert.equal(decoder, { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false });
  const { model, pre_tokenizer } = tokenizerJson as Record<string, Record<string, unknown>>;
  const [cut, bytes] = pre_tokenizer!.pretokenizers as Record<string, unknown>[];
  assert.equal([cut!.type, cut!.behavior, cut!.invert], ['Split', 'Isolated', false]);
  assert.equal(bytes, decoder);
  const { type, fuse_unk, byte_fallback, ignore_merges } = model!;
  assert.equal([type, fuse_unk, byte_fallback, ignore_merges], ['BPE', false, false, false]);
  const tokens = added_tokens as Record<string, unknown>[];
  assert.equal(tokens[4], {
    id: 4,
    content: '<|end|>',
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special: true,
  });
});

test('words are cut before their space; digits and marks stand alone, and white space keeps to itself', () => {
  // A pair is merged where it occurs twice inside a word, so merges show where words are cut.
  const { tokenizerJson, tokenizerConfig } = trainTokenizer(
    Array.from({ length: 2 }, () => 'ab cd  ef\n\n\ngh 12 (-) é,;\t\tx'),
    { vocabSize: 400 },
  );
  const tokenizer = tokenizerFrom(tokenizerJson, tokenizerConfig);
  const pieces = tokenizer
    .encode('ab cd  ef\n\n\ngh 12 (-) é,;\t\tx')
    .map((token) => tokenizer.decode([token]));
  assert.equal(pieces, [
    ...['ab', ' cd', ' ', ' ef', '\n\n', '\n', 'gh'],
    ...[' ', '1', '2', ' (', '-', ')', ' é', ',', ';', '\t', '\t', 'x'],
  ]);
});

test('a vocabulary size that is no whole number, or has no room for the bytes, is refused by name', () => {
  for (const vocabSize of [260, 0, -1, 300.5, Number.NaN, Number.POSITIVE_INFINITY]) {
    assert.throws(
      () => trainTokenizer(['a'], { vocabSize }),
      (error: { code: string; message: string }) =>
        error.code === 'usage' && error.message.includes(`vocabSize ${vocabSize} is below 261`),
    );
  }
});

test.run();
