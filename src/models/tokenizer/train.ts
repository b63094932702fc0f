// Trains a byte-level BPE tokenizer and writes it in the Hugging Face layout: how the embedded model's
// tokenizer was made. `tokenizerFrom` turns the result into a tokenizer.
import { OptimaError } from '../../domain/errors.ts';
import { ownPattern } from './patterns.ts';

export type JsonObject = Readonly<Record<string, unknown>>;

/** The contents of `tokenizer.json` and `tokenizer_config.json`. */
export interface TokenizerFiles {
  readonly tokenizerJson: JsonObject;
  readonly tokenizerConfig: JsonObject;
}

const specialTokens = ['<|pad|>', '<|system|>', '<|user|>', '<|assistant|>', '<|end|>'];

/** No newlines and no spaces around the markers: in a model this small every token of framing is felt. */
const chatTemplate =
  "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}" +
  "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}";

/**
 * Byte-pair encoding (Sennrich et al., 2016) over UTF-8 bytes (Radford et al., 2019): starts from all 256
 * bytes, so that any text can be encoded, and repeatedly joins the pair of neighbouring tokens that is most
 * frequent inside words. Ties go to the pair with the lower ids: same texts, same tokenizer.
 *
 * `vocabSize` counts the 5 special tokens (ids 0–4), the bytes (5–260) and the merges; the vocabulary stays
 * smaller where the texts hold too few pairs that occur twice. Time grows with merges × distinct pairs:
 * seconds for a vocabulary of a few thousand. Throws `usage` when `vocabSize` is below 261.
 */
export function trainTokenizer(
  texts: readonly string[],
  { vocabSize }: { readonly vocabSize: number },
): TokenizerFiles {
  const firstMerge = specialTokens.length + 256;
  if (!Number.isInteger(vocabSize) || vocabSize < firstMerge) {
    throw new OptimaError(
      'usage',
      `Tokenizer: vocabSize ${vocabSize} is below ${firstMerge}: every byte needs a token.`,
    );
  }
  const tokens = [...specialTokens, ...byteAlphabet()];
  const merges: string[] = [];
  const pairs = countPairs(countWords(texts));
  while (tokens.length < vocabSize) {
    const best = pairs.mostFrequent();
    if (best === undefined) break;
    const [left, right] = best;
    merges.push(`${tokens[left]} ${tokens[right]}`);
    pairs.merge(left, right, tokens.length);
    tokens.push(tokens[left]! + tokens[right]!);
  }
  return {
    tokenizerJson: {
      version: '1.0',
      truncation: null,
      padding: null,
      added_tokens: specialTokens.map((content, id) => ({
        id,
        content,
        single_word: false,
        lstrip: false,
        rstrip: false,
        normalized: false,
        special: true,
      })),
      normalizer: null,
      pre_tokenizer: {
        type: 'Sequence',
        pretokenizers: [
          { type: 'Split', pattern: { Regex: ownPattern }, behavior: 'Isolated', invert: false },
          { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false },
        ],
      },
      post_processor: null,
      decoder: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false },
      model: {
        type: 'BPE',
        dropout: null,
        unk_token: null,
        continuing_subword_prefix: null,
        end_of_word_suffix: null,
        fuse_unk: false,
        byte_fallback: false,
        ignore_merges: false,
        vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
        merges,
      },
    },
    tokenizerConfig: {
      tokenizer_class: 'PreTrainedTokenizerFast',
      bos_token: null,
      eos_token: '<|end|>',
      pad_token: '<|pad|>',
      additional_special_tokens: ['<|system|>', '<|user|>', '<|assistant|>'],
      clean_up_tokenization_spaces: false,
      chat_template: chatTemplate,
    },
  };
}

/**
 * GPT-2's printable stand-in for each byte: printable Latin-1 stands for itself, the other 68 bytes follow
 * from U+0100 on, in order.
 */
function byteAlphabet(): string[] {
  let next = 0x100;
  return Array.from({ length: 256 }, (_, byte) => {
    const printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte !== 0xad);
    return String.fromCharCode(printable ? byte : next++);
  });
}

interface Word {
  /** Token ids; shortened as merges apply. */
  ids: number[];
  readonly count: number;
}

/** The distinct words of the texts as byte tokens, in order of first appearance. */
function countWords(texts: readonly string[]): Word[] {
  const counts = new Map<string, number>();
  const pattern = new RegExp(ownPattern, 'gu');
  for (const text of texts) {
    for (const word of text.match(pattern) ?? []) counts.set(word, (counts.get(word) ?? 0) + 1);
  }
  const utf8 = new TextEncoder();
  return Array.from(counts, ([text, count]) => ({
    ids: Array.from(utf8.encode(text), (byte) => specialTokens.length + byte),
    count,
  }));
}

/** Pair counts that follow each merge, touching only the words that hold the merged pair. */
function countPairs(words: readonly Word[]) {
  // Ids stay below 2^21, so that a pair is one exact integer: a fast Map key in the order of (left, right).
  const base = 2 ** 21;
  const counts = new Map<number, number>();
  const wordsWith = new Map<number, Set<Word>>();

  const add = (word: Word, sign: 1 | -1): void => {
    for (let i = 0; i + 1 < word.ids.length; i++) {
      const key = word.ids[i]! * base + word.ids[i + 1]!;
      counts.set(key, (counts.get(key) ?? 0) + sign * word.count);
      const holders = wordsWith.get(key) ?? new Set();
      if (sign === 1) wordsWith.set(key, holders.add(word));
      else holders.delete(word);
    }
  };
  for (const word of words) add(word, 1);

  return {
    mostFrequent(): readonly [left: number, right: number] | undefined {
      let bestKey = -1;
      let bestCount = 1;
      for (const [key, count] of counts) {
        if (count > bestCount || (count === bestCount && key < bestKey)) {
          bestKey = key;
          bestCount = count;
        }
      }
      return bestKey < 0 ? undefined : [Math.floor(bestKey / base), bestKey % base];
    },
    merge(left: number, right: number, merged: number): void {
      const key = left * base + right;
      for (const word of [...wordsWith.get(key)!]) {
        add(word, -1);
        word.ids = joinPairs(word.ids, left, right, merged);
        add(word, 1);
      }
      counts.delete(key);
      wordsWith.delete(key);
    },
  };
}

function joinPairs(ids: readonly number[], left: number, right: number, merged: number): number[] {
  const joined: number[] = [];
  for (let i = 0; i < ids.length; i++) {
    if (ids[i] === left && ids[i + 1] === right) {
      joined.push(merged);
      i++;
    } else {
      joined.push(ids[i]!);
    }
  }
  return joined;
}
