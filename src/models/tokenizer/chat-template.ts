// The chat template, taken apart: what it writes before and after a message's content. The tokenizer encodes
// those frames with special tokens and the content without, so that no content can forge a turn.
import { messageOf, OptimaError } from '../../domain/errors.ts';
import type { ChatMessage } from '../../domain/model.ts';
import { compileTemplate, strip } from './jinja.ts';

/** The role and text of a message: all that a template sees of it. */
export type PlainMessage = Pick<ChatMessage, 'role' | 'content'>;

/** What a template writes around a message's content. */
export interface Frame {
  readonly header: string;
  readonly footer: string;
}

/**
 * A compiled chat template. A message's text is what it adds to the rendering of the messages before it,
 * its `context`. All methods throw `tokenizer.mismatch` where the template refuses a dialogue, or where
 * its text is not "rendering so far, header, content, footer" (it rewrites earlier turns, say). One rewriting is no refusal:
 * that it takes back what it wrote before the content of an earlier assistant message, as templates of reasoning models do with
 * an empty thought. It stays where it was written: the ids of a turn keep standing behind those it was sampled under.
 */
export interface ChatTemplate {
  /**
   * The dialogue in the roles that the template takes. Where it takes no system message of its own, its text opens the first
   * user message, with a blank line behind it. Where users and assistants must alternate, what is heard in a row is one message,
   * a line each, and an empty user message stands before an assistant that heard nothing since it last spoke. Other templates
   * get the messages as they are.
   */
  fold<Message extends PlainMessage>(messages: readonly Message[]): readonly (Message | PlainMessage)[];
  /**
   * What of the `preceding` messages decides how the next one is written: all of them or, where the
   * template treats every message after the first alike, a fixed stand-in.
   */
  contextOf(preceding: readonly PlainMessage[]): readonly PlainMessage[];
  frame(context: readonly PlainMessage[], role: ChatMessage['role']): Frame;
  /** The content as the template writes it: it may trim white space, but change nothing else. */
  content(context: readonly PlainMessage[], message: PlainMessage): string;
  /** What the template writes to make the model speak. */
  generationPrompt(context: readonly PlainMessage[]): string;
}

/** How dialogues are told to a template: what a checkpoint's tokenizer_config.json says under `optima`. */
export interface TemplateOptions {
  /** The names under which the template gets the roles; `{ user: 'assistant' }`: all agents are assistants, as in the paper. */
  readonly roles?: Readonly<Partial<Record<ChatMessage['role'], string>>> | undefined;
  /** Stands before every system text, with a blank line behind it. */
  readonly systemPrompt?: string | undefined;
}

/** Private-use characters: nothing that a template looks for, and white-space trimming leaves them. */
const sentinel = '\uE000\uE001\uE000';
/** Stands for the contents before. */
const mark = '\uE002\uE001\uE002';
const anchor: readonly PlainMessage[] = [{ role: 'system', content: 'anchor' }];

/** Compiles a Jinja `source`; `variables` are what it may read beside the messages (`bos_token` …). */
export function compileChatTemplate(
  source: string,
  variables: Readonly<Record<string, unknown>>,
  { roles = {}, systemPrompt }: TemplateOptions = {},
): ChatTemplate {
  const template = compileTemplate(source);
  const nameOf = (role: ChatMessage['role']): string => roles[role] ?? role;

  const render = (messages: readonly PlainMessage[], addGenerationPrompt = false): string => {
    // No template is asked to render nothing: many read `messages[0]` without looking.
    if (messages.length === 0 && !addGenerationPrompt) return '';
    try {
      return template({
        // What the Hugging Face library gives templates where a dialogue has none.
        ...{ tools: null, documents: null },
        ...variables,
        messages: messages.map(({ role, content }) => ({ role: nameOf(role), content })),
        add_generation_prompt: addGenerationPrompt,
      });
    } catch (cause) {
      const told = messages.map(({ role }) => nameOf(role)).join(', ');
      throw new OptimaError(
        'tokenizer.mismatch',
        `The chat template refuses a dialogue of the roles ${told}: ${messageOf(cause)}`,
        { cause },
      );
    }
  };

  // By the very same array: most contexts are the anchor.
  const renderContext = remembering((context: readonly PlainMessage[]) => render(context));

  const addition = (context: readonly PlainMessage[], message: PlainMessage): string =>
    withoutPrefix(render([...context, message]), renderContext(context)) ??
    afterRewriting(context, (marked) => render([...marked, message]));

  const generationPrompt = (context: readonly PlainMessage[]): string =>
    withoutPrefix(render(context, true), renderContext(context)) ??
    afterRewriting(context, (marked) => render(marked, true));

  /** What `renderMore` adds to the rendering of a context that it rewrites, as `ChatTemplate` says that it may. */
  const afterRewriting = (
    context: readonly PlainMessage[],
    renderMore: (marked: readonly PlainMessage[]) => string,
  ): string => {
    const marked = context.map(({ role }) => ({ role, content: mark }));
    const [before, after] = [render(marked), renderMore(marked)].map((text) => text.split(mark));
    const isKept = before!.slice(0, -1).every((text, i) => {
      const later = after![i]!;
      return text === later || (context[i]!.role === 'assistant' && text.startsWith(later));
    });
    const added = withoutPrefix(after!.at(-1)!, before!.at(-1)!);
    if (isKept && before!.length === after!.length && added !== undefined) return added;
    throw new OptimaError(
      'tokenizer.mismatch',
      'The chat template rewrites earlier messages when a new one is added.',
      { hint: 'Token ids that were sampled could not be reused; use a template that only appends.' },
    );
  };

  const framesIn = remembering((_: readonly PlainMessage[]) => new Map<ChatMessage['role'], Frame>());
  const frame = (context: readonly PlainMessage[], role: ChatMessage['role']): Frame => {
    const frames = framesIn(context);
    const known = frames.get(role) ?? measureFrame(context, role);
    frames.set(role, known);
    return known;
  };
  const measureFrame = (context: readonly PlainMessage[], role: ChatMessage['role']): Frame => {
    const [header, footer, ...more] = addition(context, { role, content: sentinel }).split(sentinel);
    if (header === undefined || footer === undefined || more.length > 0) {
      throw new OptimaError(
        'tokenizer.mismatch',
        `The chat template does not write a ${role} message's content exactly once.`,
      );
    }
    return { header, footer };
  };

  const isLocal = isMessageLocal(addition, generationPrompt);

  /** Whether a dialogue of these roles can be written, each message behind those before it. */
  const takes = (letters: string): boolean => {
    const messages = probesOf(letters);
    return isTaken(() =>
      messages.every((message, i) => {
        const context = messages.slice(0, i);
        frame(context, message.role);
        addition(context, message);
        return true;
      }),
    );
  };
  let dialect: { readonly takesSystem: boolean; readonly takesAnyOrder: boolean } | undefined;
  const probeDialect = () => {
    const takesSystem = takes('suau');
    const s = takesSystem ? 's' : '';
    return { takesSystem, takesAnyOrder: [`${s}uu`, `${s}a`, `${s}uaa`].every(takes) };
  };

  const withSystemPrompt = <Message extends PlainMessage>(message: Message): Message | PlainMessage =>
    message.role === 'system'
      ? { role: 'system', content: `${systemPrompt}\n\n${message.content}`.trimEnd() }
      : message;

  return {
    fold(given) {
      const messages = systemPrompt === undefined ? given : given.map(withSystemPrompt);
      dialect ??= probeDialect();
      const { takesSystem, takesAnyOrder } = dialect;
      if (takesSystem && takesAnyOrder) return messages;
      const folded: (PlainMessage | (typeof messages)[number])[] = [];
      let opens = false;
      for (const message of messages) {
        const isOpening = message.role === 'system' && !takesSystem;
        const role = isOpening ? 'user' : message.role;
        const last = folded.at(-1);
        if (role === 'user' && last?.role === 'user' && (opens || !takesAnyOrder)) {
          const between = last.content === '' ? '' : opens ? '\n\n' : '\n';
          folded[folded.length - 1] = { role, content: last.content + between + message.content };
        } else if (role === 'assistant' && last?.role !== 'user' && !takesAnyOrder) {
          folded.push({ role: 'user', content: '' }, message);
        } else folded.push(isOpening ? { role, content: message.content } : message);
        opens = isOpening;
      }
      return folded;
    },
    contextOf: (preceding) => (isLocal && preceding.length > 0 ? anchor : preceding),
    frame,
    content(context, message) {
      const { header, footer } = frame(context, message.role);
      const text = addition(context, message);
      const content = text.slice(header.length, text.length - footer.length);
      if (header + content + footer !== text || strip(content) !== strip(message.content)) {
        throw new OptimaError(
          'tokenizer.mismatch',
          `The chat template rewrites the content of a ${message.role} message.`,
          { hint: 'Use a template that writes contents as they are.' },
        );
      }
      return content;
    },
    generationPrompt,
  };
}

/** The function, asked once for each object as long as that is held. */
function remembering<Key extends object, Value>(compute: (key: Key) => Value): (key: Key) => Value {
  const known = new WeakMap<Key, Value>();
  return (key) => {
    if (!known.has(key)) known.set(key, compute(key));
    return known.get(key)!;
  };
}

const withoutPrefix = (text: string, prefix: string): string | undefined =>
  text.startsWith(prefix) ? text.slice(prefix.length) : undefined;

/** Probes whether every message after the first is written as it is after the anchor alone. */
function isMessageLocal(
  addition: (context: readonly PlainMessage[], message: PlainMessage) => string,
  generationPrompt: (context: readonly PlainMessage[]) => string,
): boolean {
  const dialogues = ['suuauaua', 'saauauua', 'uauau', 'auaua'];
  // A template that refuses one of the probes is not local; what it does accept is rendered as it stands.
  return isTaken(() =>
    dialogues.map(probesOf).every((messages) =>
      messages.every((message, i) => {
        if (i === 0) return true;
        const context = messages.slice(0, i);
        return (
          addition(context, message) === addition(anchor, message) &&
          generationPrompt(context) === generationPrompt(anchor)
        );
      }),
    ),
  );
}

/** A dialogue of these roles, by their first letters. */
function probesOf(letters: string): PlainMessage[] {
  const roles = { s: 'system', u: 'user', a: 'assistant' } as const;
  return Array.from(letters, (letter, i) => ({
    role: roles[letter as keyof typeof roles],
    content: `probe ${i}`,
  }));
}

/** False where it is, or where the template refuses what is asked of it. */
function isTaken(ask: () => boolean): boolean {
  try {
    return ask();
  } catch (error) {
    if (error instanceof OptimaError) return false;
    throw error;
  }
}
