// The chat template, taken apart: what it writes before and after a message's content. The tokenizer encodes
// those frames with special tokens and the content without, so that no content can forge a turn.
import { Environment, Interpreter, parse as parseTemplate, tokenize } from '@huggingface/jinja';
import { messageOf, OptimaError } from '../../domain/errors.ts';
import type { ChatMessage } from '../../domain/model.ts';

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
 * its text is not "rendering so far, header, content, footer" (it rewrites earlier turns, say).
 */
export interface ChatTemplate {
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

/** Private-use characters: nothing that a template looks for, and white-space trimming leaves them. */
const sentinel = '\uE000\uE001\uE000';
const anchor: readonly PlainMessage[] = [{ role: 'system', content: 'anchor' }];

/** Most elements of a `range` that a template may ask for, and most steps of one rendering: a clock would make load an error. */
const [maxRange, maxSteps] = [10_000, 100_000];

/** What Jinja gives every template. It has no clock: what a template writes may not depend on the day. */
const builtIns = {
  ...{ true: true, false: false, none: null, True: true, False: false, None: null },
  raise_exception: (message: unknown) => {
    throw new Error(String(message));
  },
  range: (start: number, stop?: number, step = 1) => {
    const [from, to] = stop === undefined ? [0, start] : [start, stop];
    const length = Math.max(0, Math.ceil((to - from) / step));
    if (!(length <= maxRange)) throw new Error(`range() of more than ${maxRange} elements`);
    return Array.from({ length }, (_, i) => from + i * step);
  },
};

/**
 * Runs a template that may come from anywhere. Throws what it raises, and an Error for one that is still at work after
 * `maxSteps`.
 */
function interpret(template: ReturnType<typeof parseTemplate>, environment: Environment): string {
  const interpreter = new Interpreter(environment);
  const steps = interpreter as unknown as Record<string, (...given: unknown[]) => unknown>;
  let left = maxSteps;
  for (const name of ['evaluate', 'evaluateBlock']) {
    const step = steps[name]!.bind(interpreter);
    steps[name] = (...given) => {
      if (--left < 0) throw new Error(`it takes more than ${maxSteps} steps`);
      return step(...given);
    };
  }
  return String(interpreter.run(template).value);
}

/** Compiles a Jinja `source`; `variables` are what it may read beside the messages (`bos_token` …). */
export function compileChatTemplate(
  source: string,
  variables: Readonly<Record<string, unknown>>,
): ChatTemplate {
  const template = parse(source);

  const render = (messages: readonly PlainMessage[], addGenerationPrompt = false): string => {
    // No template is asked to render nothing: many read `messages[0]` without looking.
    if (messages.length === 0 && !addGenerationPrompt) return '';
    try {
      const environment = new Environment();
      for (const [name, value] of Object.entries({
        ...builtIns,
        ...variables,
        messages: messages.map(({ role, content }) => ({ role, content })),
        add_generation_prompt: addGenerationPrompt,
      })) {
        environment.set(name, value);
      }
      return interpret(template, environment);
    } catch (cause) {
      const roles = messages.map(({ role }) => role).join(', ');
      throw new OptimaError(
        'tokenizer.mismatch',
        `The chat template refuses a dialogue of the roles ${roles}: ${messageOf(cause)}`,
        { cause },
      );
    }
  };

  // By the very same array: most contexts are the anchor.
  const renderContext = remembering((context: readonly PlainMessage[]) => render(context));

  const addition = (context: readonly PlainMessage[], message: PlainMessage): string =>
    withoutPrefix(render([...context, message]), renderContext(context));

  const generationPrompt = (context: readonly PlainMessage[]): string =>
    withoutPrefix(render(context, true), renderContext(context));

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

  return {
    contextOf: (preceding) => (isLocal && preceding.length > 0 ? anchor : preceding),
    frame,
    content(context, message) {
      const { header, footer } = frame(context, message.role);
      const text = addition(context, message);
      const content = text.slice(header.length, text.length - footer.length);
      if (header + content + footer !== text || content.trim() !== message.content.trim()) {
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

function parse(source: string): ReturnType<typeof parseTemplate> {
  try {
    // As the Hugging Face library does: a block takes its line with it.
    return parseTemplate(tokenize(source, { lstrip_blocks: true, trim_blocks: true }));
  } catch (cause) {
    throw new OptimaError('checkpoint.invalid', `The chat template does not parse: ${messageOf(cause)}`, {
      cause,
    });
  }
}

function withoutPrefix(text: string, prefix: string): string {
  if (!text.startsWith(prefix)) {
    throw new OptimaError(
      'tokenizer.mismatch',
      'The chat template rewrites earlier messages when a new one is added.',
      { hint: 'Token ids that were sampled could not be reused; use a template that only appends.' },
    );
  }
  return text.slice(prefix.length);
}

/** Probes whether every message after the first is written as it is after the anchor alone. */
function isMessageLocal(
  addition: (context: readonly PlainMessage[], message: PlainMessage) => string,
  generationPrompt: (context: readonly PlainMessage[]) => string,
): boolean {
  const dialogues = ['suuauaua', 'saauauua', 'uauau', 'auaua'];
  const roles = { s: 'system', u: 'user', a: 'assistant' } as const;
  try {
    return dialogues.every((letters) => {
      const messages = Array.from(letters, (letter, i) => ({
        role: roles[letter as keyof typeof roles],
        content: `probe ${i}`,
      }));
      return messages.every((message, i) => {
        if (i === 0) return true;
        const context = messages.slice(0, i);
        return (
          addition(context, message) === addition(anchor, message) &&
          generationPrompt(context) === generationPrompt(anchor)
        );
      });
    });
  } catch (error) {
    // A template that refuses one of the probes is not local; what it does accept is rendered as it stands.
    if (error instanceof OptimaError) return false;
    throw error;
  }
}
