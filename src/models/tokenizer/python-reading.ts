// A tokenizer.json read as Python's `tokenizers` reads it: where the library in JavaScript reads it differently, it is given
// the same in other words. test/models/tokenizer/parity.test.ts holds both against each other.
import { Tokenizer } from '@huggingface/tokenizers';
import { messageOf, OptimaError } from '../../domain/errors.ts';
import { digitPatterns, gpt2Pattern } from './patterns.ts';
import type { JsonObject } from './train.ts';

/**
 * Where a text stands that is encoded: at the very beginning, right after a special token, or after other text that was encoded
 * before. What some tokenizers put before a text (a space, or SentencePiece's mark of one) depends on it.
 */
export type Place = 'start' | 'section' | 'middle';

/** One vocabulary, read for texts at each place. Throws `checkpoint.invalid` for what cannot be read as Python does. */
export function createTokenizers(
  tokenizerJson: JsonObject,
  tokenizerConfig: JsonObject,
): Readonly<Record<Place, Tokenizer>> {
  const start = createTokenizer(placed(tokenizerJson, 'start'), tokenizerConfig);
  const at = (place: Place): Tokenizer => {
    const json = placed(tokenizerJson, place);
    if (JSON.stringify(partsOf(json)) === JSON.stringify(partsOf(placed(tokenizerJson, 'start'))))
      return start;
    const model = json.model as JsonObject | undefined;
    if (model?.type !== 'BPE') return createTokenizer(json, tokenizerConfig);
    // The vocabulary is large: there is one of it.
    const other = createTokenizer({ ...json, model: { ...model, vocab: {}, merges: [] } }, tokenizerConfig);
    other.model = start.model;
    return other;
  };
  return { start, section: at('section'), middle: at('middle') };
}

const partsOf = ({ normalizer, pre_tokenizer }: JsonObject) => [normalizer, pre_tokenizer];

function createTokenizer(json: JsonObject, config: JsonObject): Tokenizer {
  try {
    const tokenizer = new Tokenizer(json, config);
    mendByteFallback(tokenizer.decoder as unknown as DecoderPart | null);
    return tokenizer;
  } catch (cause) {
    if (cause instanceof OptimaError) throw cause;
    throw new OptimaError('checkpoint.invalid', `The tokenizer cannot be used: ${messageOf(cause)}`, {
      cause,
    });
  }
}

function placed(json: JsonObject, place: Place): JsonObject {
  return {
    ...json,
    normalizer: normalizerAt(place, json.normalizer) ?? null,
    pre_tokenizer: preTokenizerAt(place, json.pre_tokenizer) ?? null,
  };
}

const isObject = (value: unknown): value is JsonObject =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

function normalizerAt(place: Place, part: unknown): unknown {
  if (!isObject(part)) return part;
  if (part.type === 'Sequence' && Array.isArray(part.normalizers)) {
    const normalizers = part.normalizers.map((one) => normalizerAt(place, one)).filter((one) => one !== null);
    return { ...part, normalizers };
  }
  return part.type === 'Prepend' && place === 'middle' ? null : part;
}

function preTokenizerAt(place: Place, part: unknown): unknown {
  if (!isObject(part)) return part;
  switch (part.type) {
    case 'Sequence':
      if (!Array.isArray(part.pretokenizers)) return part;
      return { ...part, pretokenizers: part.pretokenizers.map((one) => preTokenizerAt(place, one)) };
    case 'Digits':
      // Python's digits are those of all scripts, and letter-like and other numbers.
      return split(part.individual_digits === true ? digitPatterns.each : digitPatterns.runs);
    case 'ByteLevel': {
      const bytes = { ...part, add_prefix_space: part.add_prefix_space === true && place !== 'middle' };
      if (part.use_regex === false || bytes.add_prefix_space) return bytes;
      return {
        type: 'Sequence',
        // The library's own takes JavaScript's white space for it.
        pretokenizers: [split(gpt2Pattern), { ...bytes, use_regex: false }],
      };
    }
    case 'Metaspace': {
      const scheme = part.prepend_scheme ?? (part.add_prefix_space === false ? 'never' : 'always');
      const prefixed = place === 'start' || (place === 'section' && scheme === 'always');
      return { ...part, prepend_scheme: prefixed ? scheme : 'never' };
    }
    case 'Split': {
      const behavior = String(part.behavior).toLowerCase();
      if (behavior === 'isolated' || behavior === 'removed') return part;
      throw new OptimaError(
        'checkpoint.invalid',
        `tokenizer.json: a pre-tokenizer Split of the behavior ${JSON.stringify(part.behavior)} cannot be read as Python reads it.`,
      );
    }
    default:
      return part;
  }
}

const split = (pattern: string) => ({
  type: 'Split',
  pattern: { Regex: pattern },
  behavior: 'Isolated',
  invert: false,
});

interface DecoderPart {
  readonly config?: { readonly type?: unknown };
  readonly decoders?: readonly DecoderPart[];
  decode_chain?: (tokens: string[]) => string[];
}

/** Bytes that are no UTF-8 become one U+FFFD each, and a byte order mark stays. */
function mendByteFallback(decoder: DecoderPart | null): void {
  if (decoder?.config?.type === 'ByteFallback') decoder.decode_chain = joinBytes;
  decoder?.decoders?.forEach(mendByteFallback);
}

function joinBytes(tokens: string[]): string[] {
  const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
  const joined: string[] = [];
  let bytes: number[] = [];
  const close = () => {
    if (bytes.length === 0) return;
    try {
      joined.push(utf8.decode(Uint8Array.from(bytes)));
    } catch {
      joined.push('\uFFFD'.repeat(bytes.length));
    }
    bytes = [];
  };
  for (const token of tokens) {
    const byte = /^<0x([0-9A-Fa-f]{2})>$/.exec(token)?.[1];
    if (byte !== undefined) {
      bytes.push(Number.parseInt(byte, 16));
      continue;
    }
    close();
    joined.push(token);
  }
  close();
  return joined;
}
