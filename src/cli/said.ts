// `optima show <run> --said <text>`: the messages of a run in which a text stands.
import { OptimaError } from '../domain/errors.ts';
import type { RunReader } from '../reading/index.ts';
import { counted, line, type Output } from './output.ts';
import { notInRun, shortened, widthOf } from './reader.ts';

/** Characters before what was searched for. */
const before = 30;

/** Says each message as it is found, and how many there are. Rejects with `usage` for no text, or a phase that is not there. */
export async function showSaid(
  reader: RunReader,
  text: string,
  phase: string | undefined,
  output: Output,
  signal: AbortSignal,
): Promise<void> {
  if (text.trim() === '') throw new OptimaError('usage', '--said: what? Give a part of what was said.');
  if (phase !== undefined && reader.phases().every(({ name }) => name !== phase))
    throw notInRun(reader, 'phase', phase);
  const trees = new Set<string>();
  let messages = 0;
  for await (const { speaker, node, text: whole, ...rest } of reader.said(text, { phase, signal })) {
    messages++;
    trees.add(rest.tree);
    output.emit({ event: 'said', ...rest, node, speaker, text: whole });
    const who = `${line(node)} ${line(speaker ?? 'environment')}: `;
    output.say(`${who}${line(excerptOf(whole, text, Math.max(40, widthOf() - who.length)))}`);
  }
  output.emit({ event: 'summary', messages, trees: trees.size });
  output.say(
    messages === 0
      ? 'Nobody said that.'
      : `${counted(messages, 'message')} in ${counted(trees.size, 'tree')}`,
  );
}

/** A message around what was searched for, on one line of so many characters. */
function excerptOf(whole: string, text: string, most: number): string {
  const at = whole.toLowerCase().indexOf(text.toLowerCase());
  return shortened(at <= before ? whole : `…${whole.slice(at - before)}`, most);
}
