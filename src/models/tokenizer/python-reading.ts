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
  if (countByteLevels(tokenizerJson.pre_tokenizer) > 1) {
    throw new OptimaError(
      'checkpoint.invalid',
      'tokenizer.json: there is more than one pre-tokenizer ByteLevel, each of which would take the bytes of the one before for text.',
    );
  }
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

function countByteLevels(part: unknown): number {
  if (!isObject(part)) return 0;
  const within = Array.isArray(part.pretokenizers) ? part.pretokenizers : [];
  return within.reduce((sum, one) => sum + countByteLevels(one), part.type === 'ByteLevel' ? 1 : 0);
}

const partsOf = ({ normalizer, pre_tokenizer }: JsonObject) => [normalizer, pre_tokenizer];

function createTokenizer(json: JsonObject, config: JsonObject): Tokenizer {
  try {
    const tokenizer = new Tokenizer(withLiteralReplacements(json), config);
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

/** Most characters of a text that replacements make longer: a file may double it with each of any number of steps. */
const mostReplaced = 2 ** 20;
/** Most of what is put in the place of one match. */
const mostContent = 256;

/** What a Replace puts in is text as it stands, no pattern of JavaScript's; and a text does not grow without end. */
function withLiteralReplacements({ normalizer, pre_tokenizer, decoder, ...json }: JsonObject): JsonObject {
  return { ...json, ...(mendReplaces({ normalizer, pre_tokenizer, decoder }) as JsonObject) };
}

function mendReplaces(part: unknown): unknown {
  if (Array.isArray(part)) return part.map(mendReplaces);
  if (!isObject(part)) return part;
  const mended = Object.fromEntries(Object.entries(part).map(([key, value]) => [key, mendReplaces(value)]));
  return part.type === 'Replace' ? { ...mended, content: replacement(String(part.content ?? '')) } : mended;
}

/** `content`, as `replaceAll` calls for it. */
function replacement(content: string): (match: string, ...more: unknown[]) => string {
  const refuse = (problem: string): never => {
    throw new OptimaError('checkpoint.invalid', `tokenizer.json: a Replace ${problem}.`, {
      hint: 'Take the tokenizer.json that belongs to this checkpoint.',
    });
  };
  if (content.length > mostContent) refuse(`puts in ${content.length} characters, more than ${mostContent}`);
  let [text, last, added] = ['', 0, 0];
  return (match, ...more) => {
    const at = more.findLastIndex((one) => typeof one === 'number');
    const [offset, whole] = [more[at] as number, more[at + 1] as string];
    if (whole !== text || offset <= last) [text, added] = [whole, 0];
    last = offset;
    added += content.length - match.length;
    if (added > 0 && whole.length + added > mostReplaced) {
      refuse(`makes a text longer than ${mostReplaced} characters`);
    }
    return content;
  };
}

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
      const replacement = part.replacement ?? '\u2581';
      if (typeof replacement !== 'string' || [...replacement].length !== 1) {
        throw new OptimaError(
          'checkpoint.invalid',
          `tokenizer.json: a pre-tokenizer Metaspace puts ${JSON.stringify(replacement).slice(0, 40)} in the place of a space, not one character.`,
        );
      }
      return { ...part, replacement, str_rep: replacement, prepend_scheme: prefixed ? scheme : 'never' };
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
