// Text and dialogues to token ids and back. Every model in process reads and is trained on what `encodeChat`
// gives, so prompts at training and at generation cannot differ.
import { join } from 'node:path';
import { Tokenizer } from '@huggingface/tokenizers';
import { messageOf, OptimaError } from '../../domain/errors.ts';
import { hash16 } from '../../domain/hash.ts';
import type { ChatMessage, TrainingSequence } from '../../domain/model.ts';
import { readJsonFile, readTextFile } from '../files.ts';
import { type ChatTemplate, compileChatTemplate, type Frame, type PlainMessage } from './chat-template.ts';
import type { JsonObject, TokenizerFiles } from './train.ts';

export { trainTokenizer } from './train.ts';

/** A tokenizer with its chat template. Immutable but for its caches. */
export interface ChatTokenizer {
  /** One more than the highest token id. */
  readonly vocabSize: number;
  /** The id that ends an assistant's turn. */
  readonly endOfTurnId: number;
  readonly padId: number;
  /** Ids that are no text: special tokens, and those with which the chat template frames messages. Only frames hold them. */
  readonly controlIds: readonly number[];
  /** What it was made from, to be saved beside the weights. */
  readonly files: TokenizerFiles;
  /** Hash of what it was made from, chat template included. */
  readonly hash: string;
  /** Ids of a text. Special tokens spelt out in it are encoded as the plain text they are. */
  encode(text: string): number[];
  /** The text of ids, special tokens left out. Bytes that are not UTF-8 become U+FFFD. */
  decode(tokenIds: readonly number[]): string;
  /**
   * The view in token space, with the generation prompt at the end where asked for. An assistant message
   * with `tokenIds` keeps exactly these, after the generation prompt under which they were sampled.
   * The mask is 1 on the assistant's own tokens and on the end-of-turn token it wrote itself: a message cut
   * off by its token cap is closed with mask 0. Throws `tokenizer.mismatch` where the chat template does
   * not fit (see `ChatTemplate`).
   */
  encodeChat(messages: readonly ChatMessage[], addGenerationPrompt: boolean): TrainingSequence;
}

/** Encoded messages kept per tokenizer: a run's views repeat the same system texts and turns over and over. */
const cacheCapacity = 8192;

/**
 * The tokenizer of a Hugging Face folder. Throws `checkpoint.missing` where a file is not there and
 * `checkpoint.invalid` where one cannot be used.
 */
export async function loadTokenizer(folder: string): Promise<ChatTokenizer> {
  const tokenizerJson = await readObject(folder, 'tokenizer.json');
  const tokenizerConfig = await readObject(folder, 'tokenizer_config.json');
  // Newer checkpoints keep the template in a file of its own.
  const chat_template =
    tokenizerConfig.chat_template ?? (await readTextFile(join(folder, 'chat_template.jinja')));
  try {
    return tokenizerFrom(tokenizerJson, { ...tokenizerConfig, chat_template });
  } catch (error) {
    if (!(error instanceof OptimaError)) throw error;
    const { code, message, hint } = error;
    throw new OptimaError(code, `${folder}: ${message}`, { hint, cause: error });
  }
}

/** The tokenizer of these contents of `tokenizer.json` and `tokenizer_config.json`. */
export function tokenizerFrom(tokenizerJson: JsonObject, tokenizerConfig: JsonObject): ChatTokenizer {
  requireTokenIds(tokenizerJson);
  const addedTokens = (tokenizerJson.added_tokens ?? []) as readonly AddedToken[];
  const framing = createTokenizer(tokenizerJson, tokenizerConfig);
  const idOf = (name: string): number | undefined => {
    const token = tokenText(tokenizerConfig[name]);
    return token === undefined ? undefined : framing.token_to_id(token);
  };

  const template = compileChatTemplate(chatTemplateOf(tokenizerConfig), {
    ...Object.fromEntries(
      ['bos_token', 'eos_token', 'pad_token', 'unk_token'].map((name) => [
        name,
        tokenText(tokenizerConfig[name]) ?? '',
      ]),
    ),
    // Llama 3 writes today's date into the system message unless it is given one; a run has no today.
    date_string: '26 Jul 2024',
  });

  const encodeFrame = (text: string): number[] =>
    text === '' ? [] : framing.encode(text, { add_special_tokens: false }).ids;
  const frameOf = (role: PlainMessage['role']) =>
    template.frame(template.contextOf([{ role: 'user', content: 'probe' }]), role);
  // What stands between messages is no text, whether or not the file calls it special: nobody may write it.
  const frames = [...(['user', 'assistant'] as const).map(frameOf), ...openingFrames(template)];
  const between = frames.map(({ header, footer }) => header + footer);
  const isControl = ({ special, content }: AddedToken) =>
    special === true || (content.trim() !== '' && between.some((frame) => frame.includes(content)));
  // Two readings of one vocabulary: frames know these tokens, contents do not.
  const controls = addedTokens.filter(isControl);
  const controlIds = controls.map(({ id }) => id);
  const isControlId = new Set(controlIds);
  const plain = createTokenizer(
    { ...tokenizerJson, added_tokens: addedTokens.filter((token) => !isControl(token)) },
    tokenizerConfig,
  );
  const encode = (text: string): number[] =>
    text === '' ? [] : plain.encode(text, { add_special_tokens: false }).ids;

  const assistantFooter = encodeFrame(frameOf('assistant').footer);
  const endOfTurnId = assistantFooter.find((id) => isControlId.has(id)) ?? idOf('eos_token');
  if (endOfTurnId === undefined) {
    throw new OptimaError('checkpoint.invalid', 'The chat template ends no turn with a special token.', {
      hint: 'Name one as eos_token in tokenizer_config.json.',
    });
  }

  const prompts = leastRecentlyUsed<readonly number[]>(cacheCapacity);
  const encodedFrames = leastRecentlyUsed<Record<'header' | 'footer', readonly number[]>>(cacheCapacity);
  const contents = leastRecentlyUsed<readonly number[]>(cacheCapacity);

  return {
    vocabSize: Math.max(...framing.get_vocab().values()) + 1,
    endOfTurnId,
    padId: idOf('pad_token') ?? endOfTurnId,
    controlIds,
    files: { tokenizerJson, tokenizerConfig },
    hash: hash16(JSON.stringify([tokenizerJson, tokenizerConfig])),
    encode,
    decode(tokenIds) {
      const ids = tokenIds.filter((id) => !isControlId.has(id));
      // The library's default "clean-up" drops spaces before punctuation: then texts would not round-trip.
      return ids.length === 0 ? '' : framing.decode(ids, { clean_up_tokenization_spaces: false });
    },
    encodeChat(messages, addGenerationPrompt) {
      const tokenIds: number[] = [];
      const lossMask: (0 | 1)[] = [];
      const append = (ids: readonly number[], mask: 0 | 1): void => {
        for (const id of ids) {
          tokenIds.push(id);
          lossMask.push(mask);
        }
      };
      const appendPrompt = (context: readonly PlainMessage[]): void =>
        append(
          prompts(keyOf(context), () => encodeFrame(template.generationPrompt(context))),
          0,
        );

      messages.forEach((message, index) => {
        const { role, content, tokenIds: sampled } = message;
        const context = template.contextOf(messages.slice(0, index));
        const frame = encodedFrames(keyOf(context, role), () => {
          const { header, footer } = template.frame(context, role);
          return { header: encodeFrame(header), footer: encodeFrame(footer) };
        });
        const isOwn = role === 'assistant';
        if (isOwn && sampled !== undefined) {
          appendPrompt(context);
          append(sampled, 1);
          const ended = sampled.at(-1) === endOfTurnId;
          append(ended ? frame.footer.slice(frame.footer.indexOf(endOfTurnId) + 1) : frame.footer, 0);
          return;
        }
        append(frame.header, 0);
        append(
          contents(keyOf(context, role, content), () => encode(template.content(context, message))),
          isOwn ? 1 : 0,
        );
        const ownFooter = isOwn ? frame.footer.indexOf(endOfTurnId) + 1 : 0;
        append(frame.footer.slice(0, ownFooter), 1);
        append(frame.footer.slice(ownFooter), 0);
      });
      if (addGenerationPrompt) appendPrompt(template.contextOf(messages));
      return { tokenIds, lossMask };
    },
  };
}

/** Frames of first messages, of the roles that the template accepts there. */
function openingFrames(template: ChatTemplate): Frame[] {
  return (['system', 'user'] as const).flatMap((role) => {
    try {
      return [template.frame([], role)];
    } catch (error) {
      if (error instanceof OptimaError) return [];
      throw error;
    }
  });
}

interface AddedToken {
  readonly id: number;
  readonly content: string;
  readonly special?: boolean;
}

/** No vocabulary has as many tokens; an id beyond it would be reserved room for. */
const maxTokens = 2 ** 22;

/** Throws `checkpoint.invalid` where what should be a token's id is none. */
function requireTokenIds({ model, added_tokens: added }: JsonObject): void {
  const { vocab } = (model ?? {}) as { vocab?: unknown };
  const named =
    typeof vocab === 'object' && vocab !== null && !Array.isArray(vocab) ? Object.entries(vocab) : [];
  const ids = [
    ...named,
    ...(Array.isArray(added) ? added : []).map((token) => [String(token?.content), token?.id] as const),
  ];
  for (const [token, id] of ids) {
    if (Number.isInteger(id) && id >= 0 && id < maxTokens) continue;
    throw new OptimaError(
      'checkpoint.invalid',
      `tokenizer.json: token ${JSON.stringify(token).slice(0, 40)} has the id ${JSON.stringify(id)}, not a whole number from 0 to ${maxTokens - 1}.`,
    );
  }
}

function createTokenizer(tokenizerJson: JsonObject, tokenizerConfig: JsonObject): Tokenizer {
  try {
    return new Tokenizer(tokenizerJson, tokenizerConfig);
  } catch (cause) {
    throw new OptimaError('checkpoint.invalid', `The tokenizer cannot be used: ${messageOf(cause)}`, {
      cause,
    });
  }
}

/** A special token of the configuration: its text, or an object that holds it. */
function tokenText(token: unknown): string | undefined {
  if (typeof token === 'string') return token;
  const content = (token as { content?: unknown } | null | undefined)?.content;
  return typeof content === 'string' ? content : undefined;
}

/** The template's source: a string, or the one named "default" of several. */
function chatTemplateOf({ chat_template: template }: JsonObject): string {
  const source = Array.isArray(template)
    ? template.find((entry) => entry?.name === 'default')?.template
    : template;
  if (typeof source === 'string') return source;
  throw new OptimaError('checkpoint.invalid', 'tokenizer_config.json holds no chat_template.', {
    hint: 'Use an instruction-tuned checkpoint, or add a template.',
  });
}

function keyOf(context: readonly PlainMessage[], ...more: string[]): string {
  return JSON.stringify([...context.flatMap(({ role, content }) => [role, content]), ...more]);
}

/** Computes each key's value once, for as long as it stays among the `capacity` keys used last. */
function leastRecentlyUsed<V>(capacity: number): (key: string, compute: () => V) => V {
  // A Map iterates in order of insertion: the first key is the one not used for longest.
  const values = new Map<string, V>();
  return (key, compute) => {
    const value = values.has(key) ? values.get(key)! : compute();
    values.delete(key);
    values.set(key, value);
    if (values.size > capacity) values.delete(values.keys().next().value!);
    return value;
  };
}

/** An object of JSON in a file. */
async function readObject(folder: string, name: string): Promise<JsonObject> {
  const path = join(folder, name);
  const value = await readJsonFile(path);
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as JsonObject;
  throw new OptimaError('checkpoint.invalid', `${path} does not hold an object.`);
}
