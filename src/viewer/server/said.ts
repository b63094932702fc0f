// Which tasks of a phase have what is searched for in what was said: searched once for each text, whoever asks for which page of it.
import type { RunReader } from '../../reading/index.ts';

/** What was found in a tree. */
export interface Found {
  readonly messages: number;
  /** The turn that said it first, or after which the environment did. */
  readonly first: string;
}

type FoundByTree = ReadonlyMap<string, Found>;

/** Searches whose results are kept, for each reader. */
const mostKept = 8;
const kept = new WeakMap<RunReader, Map<string, Promise<FoundByTree>>>();

/** What was found in the trees of a phase, by their roots. Rejects as `RunReader.said` does. */
export function foundIn(reader: RunReader, phase: string, text: string): Promise<FoundByTree> {
  const searches = kept.get(reader) ?? new Map<string, Promise<FoundByTree>>();
  kept.set(reader, searches);
  const key = JSON.stringify([reader.size.events, phase, text]);
  const found = searches.get(key) ?? search(reader, phase, text);
  searches.delete(key);
  searches.set(key, found);
  found.catch(() => searches.delete(key));
  for (const oldest of searches.keys()) {
    if (searches.size <= mostKept) break;
    searches.delete(oldest);
  }
  return found;
}

async function search(reader: RunReader, phase: string, text: string): Promise<FoundByTree> {
  const found = new Map<string, Found>();
  for await (const { tree, node } of reader.said(text, { phase })) {
    const { messages, first } = found.get(tree) ?? { messages: 0, first: node };
    found.set(tree, { messages: messages + 1, first });
  }
  return found;
}
