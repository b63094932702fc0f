// Ready-made answer parsers: how a message states the team's answer.
import type { AnswerParser } from './types.ts';

/**
 * The text of the last complete `<tag>…</tag>` of a message, trimmed. An empty pair states no answer.
 * `tagged('A')` reads `so it is <A>Rome</A>` as `Rome`.
 */
export function tagged(tag: string): AnswerParser {
  const open = `<${tag}>`;
  const close = `</${tag}>`;
  return {
    parse: (text) => {
      const end = text.lastIndexOf(close);
      if (end < 0) return null;
      const start = text.lastIndexOf(open, end);
      if (start < 0) return null;
      const answer = text.slice(start + open.length, end).trim();
      return answer === '' ? null : answer;
    },
    example: (answer) => `${open}${answer}${close}`,
  };
}
