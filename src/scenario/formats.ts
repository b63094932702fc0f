// Format pools for initialization (docs/method.md §3): ways of writing that an agent can be asked for.
import type { FormatPrompt } from './types.ts';

/** Eleven compact formats. Each prompt is one short line, because every agent of a dialogue reads it. */
export const compactFormats: readonly FormatPrompt[] = [
  { name: 'key-value', prompt: 'Write key: value lines.' },
  { name: 'json', prompt: 'Write JSON.' },
  { name: 'table', prompt: 'Write table rows.' },
  { name: 'list', prompt: 'Write a list.' },
  { name: 'pseudo-code', prompt: 'Write pseudo-code.' },
  { name: 'terse', prompt: 'Write as few words as you can.' },
  { name: 'arrows', prompt: 'Write arrows.' },
  { name: 'triples', prompt: 'Write triples.' },
  { name: 'equations', prompt: 'Write equations.' },
  { name: 'pairs', prompt: 'Write pairs of names.' },
  { name: 'names', prompt: 'Write names alone.' },
];
