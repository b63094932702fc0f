// Tools that agents call in their messages: an environment that answers what stands in `<call>name arguments</call>`.
import type { z } from 'zod';
import { messageOf } from '../domain/errors.ts';
import type { Turn } from '../domain/transcript.ts';
import { tagged } from './answer.ts';
import type { Dialogue, Environment, Recipients, SaidOnce } from './types.ts';

/** A call as the tool sees it: who called, and the dialogue so far, that message included. */
export interface ToolCall<Task> extends Dialogue<Task> {
  readonly caller: string;
}

export interface Tool<Task = unknown> {
  readonly name: string;
  /** The answer to a call: the tool's result, or what is wrong with the arguments. Throws what `run` throws. */
  answer(argument: string, call: ToolCall<Task>): string;
}

/**
 * A tool. The arguments of a call are JSON that fits the schema; a text alone may stand without quotation marks, as in
 * `<call>lookup Rome</call>`. `run` gives the result as a text, and follows from arguments, task and turns alone; where it
 * throws the dialogue fails.
 *
 * ```ts
 * const add = tool('add', z.tuple([z.number(), z.number()]), ([a, b]) => String(a + b));
 * ```
 */
export function tool<Arguments, Task>(
  name: string,
  schema: z.ZodType<Arguments>,
  run: (args: Arguments, call: ToolCall<Task>) => string,
): Tool<Task> {
  return {
    name,
    answer(argument, call) {
      const parsed = schema.safeParse(parseArgument(argument));
      if (parsed.success) return run(parsed.data, call);
      const { path, message } = parsed.error.issues[0]!;
      return `${path.length > 0 ? `${path.join('.')}: ` : ''}${message}`;
    },
  };
}

const call = tagged('call');
/** A call that is empty, or does not end. */
const broken = /<call>(?:\s*<\/call>|(?![\s\S]*<\/call>))/u;

/**
 * An environment that answers the last call of each message, `<call>name arguments</call>`, with `name: result`: to its caller
 * alone, or to all who heard the call. One that names no tool, or whose arguments do not fit, is answered with what is wrong.
 */
export function tools<Task>(
  all: readonly Tool<Task>[],
  { heardBy = 'caller' }: { readonly heardBy?: 'caller' | 'all' } = {},
  // biome-ignore lint/suspicious/noExplicitAny: it speaks to roles of any scenario.
): Environment<Task, any> {
  const answerTo = ({ speaker, text, to }: Turn, dialogue: Dialogue<Task>): SaidOnce | null => {
    const recipients: Recipients =
      heardBy === 'caller' ? [speaker] : to === undefined ? 'all' : [speaker, ...to];
    const said = (answer: string): SaidOnce => ({ text: answer, to: recipients });
    const wanted = call.parse(text);
    if (wanted === null)
      return broken.test(text) ? said('call: it is written <call>name arguments</call>') : null;
    const [, name = '', argument = ''] = /^(\S*)\s*([\s\S]*)$/u.exec(wanted)!;
    const found = all.find((one) => one.name === name);
    if (found === undefined) {
      return said(`call: there is no tool ${name}, only ${all.map((one) => one.name).join(', ')}`);
    }
    try {
      return said(`${name}: ${found.answer(argument, { ...dialogue, caller: speaker })}`);
    } catch (error) {
      throw new Error(`tool ${name} with ${argument} failed: ${messageOf(error)}`, { cause: error });
    }
  };
  return {
    respond(dialogue) {
      const { turns } = dialogue;
      const { round } = turns.at(-1)!;
      const messages = turns.slice(turns.length - (round?.length ?? 1));
      return messages.flatMap((turn) => answerTo(turn, dialogue) ?? []);
    },
  };
}

/** JSON, or a text as it stands. */
function parseArgument(argument: string): unknown {
  try {
    return JSON.parse(argument);
  } catch {
    return argument;
  }
}
