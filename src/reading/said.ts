// What was said in a run, searched: the log is read a part after the other, and of it only the lines in which the text stands.
import { setImmediate as nextTick } from 'node:timers/promises';
import { requireWanted } from '../domain/errors.ts';
import type { NodeId, TaskId } from '../domain/ids.ts';
import { writtenOf } from '../domain/transcript.ts';
import type { IndexedLog, RawEvent } from './indexed-log.ts';

/** A message in which a text stands: a turn, or what the environment said after one. */
export interface Saying {
  readonly phase: string;
  /** Root of its tree. */
  readonly tree: NodeId;
  readonly taskId: TaskId;
  /** The turn, or the one that stands for it; of the environment the one after which it spoke. */
  readonly node: NodeId;
  /** Null: the environment. */
  readonly speaker: string | null;
  /** The whole message. */
  readonly text: string;
}

export interface SaidOptions {
  /** By default the whole run. */
  readonly phase?: string | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** The messages of a log in which a text stands, in its order; others get a turn between parts of it. */
export async function* saidIn(
  log: IndexedLog,
  text: string,
  { phase, signal }: SaidOptions,
): AsyncGenerator<Saying> {
  const wanted = text.toLowerCase();
  const { phases } = log.index.data;
  for (const { name, from, to } of phases) {
    if (phase !== undefined && name !== phase) continue;
    requireWanted(signal, `Searching ${log.folder}`);
    for (const raw of log.mentioning(text, from, to ?? undefined)) {
      if (raw === null) {
        await nextTick();
        requireWanted(signal, `Searching ${log.folder}`);
        continue;
      }
      const said = messageOf(log, raw, (one) => one.toLowerCase().includes(wanted));
      const tree = said === null ? undefined : log.index.treeAround(said.node);
      if (said === null || tree === undefined || phases[tree.phase]?.name !== name) continue;
      yield { phase: name, tree: tree.root, taskId: tree.taskId, ...said };
    }
  }
}

/** What an event says, where that has what is wanted. */
function messageOf(
  log: IndexedLog,
  raw: RawEvent,
  isWanted: (text: string) => boolean,
): Pick<Saying, 'node' | 'speaker' | 'text'> | null {
  const { type } = raw.value;
  if (type !== 'turn.taken' && type !== 'turn.merged' && type !== 'observation.given') return null;
  const event = log.parse(raw);
  if (event.type === 'turn.taken') {
    const { id: node, speaker } = event.turn;
    const text = writtenOf(event.turn);
    return isWanted(text) ? { node, speaker, text } : null;
  }
  if (event.type === 'turn.merged') {
    const { into: node, speaker, text } = event;
    return isWanted(text) ? { node, speaker, text } : null;
  }
  if (event.type !== 'observation.given') return null;
  const heard = event.observations.find(({ text }) => isWanted(text));
  return heard === undefined ? null : { node: event.nodeId, speaker: null, text: heard.text };
}
