// Text and dialogues to token ids and back. Every model in process reads and is trained on what `encodeChat`
// gives, so prompts at training and at generation cannot differ.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { messageOf, OptimaError } from '../../domain/errors.ts';
import { hash16 } from '../../domain/hash.ts';
import type { ChatMessage, TrainingSequence } from '../../domain/model.ts';
import { readJsonFile, readTextFile } from '../files.ts';
import {
  type ChatTemplate,
  compileChatTemplate,
  type Frame,
  type PlainMessage,
  type TemplateOptions,
} from './chat-template.ts';
import { limitPatterns } from './patterns.ts';
import { createTokenizers, type Place } from './python-reading.ts';
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
  requireTokenizerJson(folder);
  const tokenizerJson = await readObject(folder, 'tokenizer.json');
  const tokenizerConfig = await readObject(folder, 'tokenizer_config.json');
  // Newer checkpoints keep the template in a file of its own.
  const inFile = join(folder, 'chat_template.jinja');
  const chat_template =
    tokenizerConfig.chat_template ?? (existsSync(inFile) ? await readTextFile(inFile) : undefined);
  try {
    return tokenizerFrom(tokenizerJson, { ...tokenizerConfig, chat_template });
  } catch (error) {
    // What the library meets in a damaged file it says in its own words.
    const { code, message, hint } =
      error instanceof OptimaError
        ? error
        : {
            code: 'checkpoint.invalid' as const,
            message: `tokenizer.json cannot be used: ${messageOf(error)}`,
            hint: 'Take the tokenizer.json that belongs to this checkpoint.',
          };
    throw new OptimaError(code, `${folder}: ${message}`, { hint, cause: error });
  }
}

/** Throws `checkpoint.invalid` where a tokenizer is there in another format alone. */
function requireTokenizerJson(folder: string): void {
  if (existsSync(join(folder, 'tokenizer.json'))) return;
  const other = ['tokenizer.model', 'vocab.json'].find((name) => existsSync(join(folder, name)));
  if (other === undefined) return;
  throw new OptimaError(
    'checkpoint.invalid',
    `${folder}: has ${other} but no tokenizer.json, which is what can be read here.`,
    {
      hint: `Python writes one: AutoTokenizer.from_pretrained("${folder}").save_pretrained("${folder}"), with transformers and sentencepiece installed.`,
    },
  );
}

/** The tokenizer of these contents of `tokenizer.json` and `tokenizer_config.json`. */
export function tokenizerFrom(tokenizerJson: JsonObject, tokenizerConfig: JsonObject): ChatTokenizer {
  requireTokenIds(tokenizerJson);
  const addedTokens = (tokenizerJson.added_tokens ?? []) as readonly AddedToken[];
  const template = chatTemplateFrom(tokenizerConfig);
  const frameOf = (...dialogue: readonly PlainMessage['role'][]) => {
    const context = dialogue.slice(0, -1).map((role) => ({ role, content: 'probe' }));
    return template.frame(template.contextOf(context), dialogue.at(-1)!);
  };
  const ownFrame = frameOf('user', 'assistant');
  // What stands between messages is no text, whether or not the file calls it special: nobody may write it.
  const frames = [frameOf('user', 'assistant', 'user'), ownFrame, ...openingFrames(template)];
  const between = frames.map(({ header, footer }) => header + footer);
  const isControl = ({ special, content }: AddedToken) =>
    special === true || (content.trim() !== '' && between.some((frame) => frame.includes(content)));
  const controls = addedTokens.filter(isControl);
  const controlIds = controls.map(({ id }) => id);
  const isControlId = new Set(controlIds);
  // Frames know these tokens, contents do not.
  const limit = limitPatterns(tokenizerJson);
  const source = JSON.stringify([tokenizerJson, tokenizerConfig]);
  // The library reads added tokens as it reads texts.
  const plain = limit.within(source.length, () =>
    createTokenizers(
      { ...tokenizerJson, added_tokens: addedTokens.filter((token) => !isControl(token)) },
      tokenizerConfig,
    ),
  );
  const partsOf = cutAt(controls);
  const vocabulary = plain.start.get_vocab();
  const idOf = (name: string): number | undefined => {
    const token = tokenText(tokenizerConfig[name]);
    return controls.find(({ content }) => content === token)?.id ?? vocabulary.get(token!);
  };
  const encodeAt = (text: string, place: Place): readonly number[] => {
    // Half a surrogate pair is no character.
    const characters = text.replace(/\p{Surrogate}/gu, '\uFFFD');
    const { ids } = limit.within(text.length, () =>
      plain[place].encode(characters, { add_special_tokens: false }),
    );
    return ids;
  };
  for (const text of limit.trials) encodeAt(text, 'start');

  const endOfTurnId = partsOf(ownFrame.footer).find((part) => typeof part === 'number') ?? idOf('eos_token');
  if (endOfTurnId === undefined) {
    throw new OptimaError('checkpoint.invalid', 'The chat template ends no turn with a special token.', {
      hint: 'Name one as eos_token in tokenizer_config.json.',
    });
  }

  const prompts = leastRecentlyUsed<string>(cacheCapacity);
  const framesIn = leastRecentlyUsed<Frame>(cacheCapacity);
  const contents = leastRecentlyUsed<string>(cacheCapacity);
  const texts = leastRecentlyUsed<readonly number[]>(cacheCapacity);
  const known = (id: number): boolean => !isControlId.has(id) && plain.start.id_to_token(id) !== undefined;

  return {
    vocabSize: [...vocabulary.values(), ...controlIds].reduce((most, id) => Math.max(most, id), -1) + 1,
    endOfTurnId,
    padId: idOf('pad_token') ?? endOfTurnId,
    controlIds,
    files: { tokenizerJson, tokenizerConfig },
    hash: hash16(source),
    encode: (text) => (text === '' ? [] : [...encodeAt(text, 'start')]),
    decode(tokenIds) {
      const ids = tokenIds.filter(known);
      // The library's default "clean-up" drops spaces before punctuation: then texts would not round-trip.
      return ids.length === 0
        ? ''
        : limit.within(ids.length, () => plain.start.decode(ids, { clean_up_tokenization_spaces: false }));
    },
    encodeChat(given, addGenerationPrompt) {
      const messages: readonly ChatMessage[] = template.fold(given);
      const tokenIds: number[] = [];
      const lossMask: (0 | 1)[] = [];
      const append = (ids: readonly number[], mask: 0 | 1): void => {
        for (const id of ids) {
          tokenIds.push(id);
          lossMask.push(mask);
        }
      };
      // Text is encoded as far as it goes, through frames and contents: up to a control token, sampled ids or another mask.
      let run = '';
      let runMask: 0 | 1 = 0;
      let place: Place = 'start';
      const endRun = (): void => {
        if (run === '') return;
        const [text, at] = [run, place];
        append(
          texts(`${at} ${text}`, () => encodeAt(text, at)),
          runMask,
        );
        place = 'middle';
        run = '';
      };
      const write = (text: string, mask: 0 | 1): void => {
        if (text === '') return;
        if (mask !== runMask) endRun();
        runMask = mask;
        run += text;
      };
      const appendIds = (ids: readonly number[], mask: 0 | 1): void => {
        endRun();
        append(ids, mask);
        if (ids.length > 0) place = isControlId.has(ids.at(-1)!) ? 'section' : 'middle';
      };
      const writeFrame = (parts: readonly (string | number)[], mask: 0 | 1): void => {
        for (const part of parts) typeof part === 'string' ? write(part, mask) : appendIds([part], mask);
      };
      const promptIn = (context: readonly PlainMessage[]) =>
        prompts(keyOf(context), () => template.generationPrompt(context));

      messages.forEach((message, index) => {
        const { role, content, tokenIds: sampled } = message;
        const context = template.contextOf(messages.slice(0, index));
        const frame = framesIn(keyOf(context, role), () => template.frame(context, role));
        const isOwn = role === 'assistant';
        const footer = partsOf(frame.footer);
        const end = footer.indexOf(endOfTurnId) + 1;
        if (isOwn && sampled !== undefined) {
          writeFrame(partsOf(promptIn(context)), 0);
          appendIds(sampled, 1);
          writeFrame(sampled.at(-1) === endOfTurnId ? footer.slice(end) : footer, 0);
          return;
        }
        // Text that a template writes between its prompt and the content, a space say, is the speaker's own.
        const prompt = isOwn ? promptIn(context) : '';
        const rest = isOwn && frame.header.startsWith(prompt) ? frame.header.slice(prompt.length) : '';
        const ownHeader = partsOf(rest).length === 1 ? rest : '';
        writeFrame(partsOf(frame.header.slice(0, frame.header.length - ownHeader.length)), 0);
        write(ownHeader, 1);
        write(
          contents(keyOf(context, role, content), () => template.content(context, message)),
          isOwn ? 1 : 0,
        );
        writeFrame(footer.slice(0, isOwn ? end : 0), 1);
        writeFrame(footer.slice(isOwn ? end : 0), 0);
      });
      if (addGenerationPrompt) writeFrame(partsOf(promptIn(template.contextOf(messages))), 0);
      endRun();
      return { tokenIds, lossMask };
    },
  };
}

/** The chat template of a `tokenizer_config.json`, with the special tokens that it may read. */
export function chatTemplateFrom(tokenizerConfig: JsonObject): ChatTemplate {
  const tokens = ['bos_token', 'eos_token', 'pad_token', 'unk_token'];
  const variables = {
    ...Object.fromEntries(tokens.map((name) => [name, tokenText(tokenizerConfig[name]) ?? ''])),
    // Llama 3 writes today's date into the system message unless it is given one; a run has no today.
    date_string: '26 Jul 2024',
    // Thoughts would be turns' tokens that nobody reads: reasoning models are asked to answer at once.
    enable_thinking: false,
  };
  const [source, options] = [chatTemplateOf(tokenizerConfig), optionsOf(tokenizerConfig)];
  return templates(JSON.stringify([source, variables, options]), () =>
    compileChatTemplate(source, variables, options),
  );
}

/** Compiled templates: to find out how one writes takes longer than all else of a tokenizer, and a run's checkpoints share theirs. */
const templates = leastRecentlyUsed<ChatTemplate>(8);

const name = z.string().min(1).optional();
const optionsSchema = z.strictObject({
  roles: z.strictObject({ system: name, user: name, assistant: name }).optional(),
  systemPrompt: z.string().optional(),
});

function optionsOf({ optima = {} }: JsonObject): TemplateOptions {
  const parsed = optionsSchema.safeParse(optima);
  if (parsed.success) return parsed.data;
  const { path, message } = parsed.error.issues[0]!;
  throw new OptimaError(
    'checkpoint.invalid',
    `tokenizer_config.json: field ${['optima', ...path].join('.')}: ${message}.`,
    { hint: 'It may hold roles (system, user, assistant) and systemPrompt.' },
  );
}

/** Cuts a frame into text and the ids of control tokens, the longest where several fit. */
function cutAt(controls: readonly AddedToken[]): (frame: string) => readonly (string | number)[] {
  const ids = new Map(controls.map(({ content, id }) => [content, id]));
  const longestFirst = controls.toSorted((a, b) => b.content.length - a.content.length);
  const patterns = longestFirst.map(({ content, lstrip, rstrip }) => {
    const escaped = content.replace(/[\\^$.*+?()[\]{}|/-]/g, '\\$&');
    return `${lstrip ? '\\s*' : ''}(?:${escaped})${rstrip ? '\\s*' : ''}`;
  });
  if (patterns.length === 0) return (frame) => [frame];
  const pattern = new RegExp(`(${patterns.join('|')})`, 'u');
  const cut = leastRecentlyUsed<readonly (string | number)[]>(cacheCapacity);
  return (frame) =>
    cut(frame, () =>
      frame.split(pattern).map((part, i) => (i % 2 === 0 ? part : (ids.get(part) ?? ids.get(part.trim())!))),
    );
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
  /** Whether white space around it goes with it. */
  readonly lstrip?: boolean;
  readonly rstrip?: boolean;
}

/** No vocabulary has as many tokens; an id beyond it would be reserved room for. */
const maxTokens = 2 ** 22;

/** Throws `checkpoint.invalid` where what should be a token's id is none. */
function requireTokenIds({ model, added_tokens: added }: JsonObject): void {
  const { type, vocab, merges } = (model ?? {}) as { type?: unknown; vocab?: unknown; merges?: unknown };
  if (type === 'BPE' && !Array.isArray(merges)) {
    throw new OptimaError(
      'checkpoint.invalid',
      'tokenizer.json: model.merges is no list, which a BPE needs.',
      {
        hint: 'Take the tokenizer.json that belongs to this checkpoint.',
      },
    );
  }
  const check = (token: unknown, id: unknown): void => {
    if (Number.isInteger(id) && (id as number) >= 0 && (id as number) < maxTokens) return;
    throw new OptimaError(
      'checkpoint.invalid',
      `tokenizer.json: token ${JSON.stringify(token).slice(0, 40)} has the id ${JSON.stringify(id)}, not a whole number from 0 to ${maxTokens - 1}.`,
    );
  };
  const named = typeof vocab === 'object' && vocab !== null && !Array.isArray(vocab) ? vocab : {};
  for (const token in named) check(token, (named as JsonObject)[token]);
  for (const token of Array.isArray(added) ? added : []) check(String(token?.content), token?.id);
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
  throw new OptimaError(
    'checkpoint.invalid',
    'tokenizer_config.json holds no chat_template, and there is no chat_template.jinja.',
    { hint: 'Base models have none: use the instruction-tuned checkpoint, or put a template in that file.' },
  );
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
