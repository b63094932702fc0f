// A tree, and a turn in it, as a log tells them: what was said, what it came to, and what was chosen of it.
import {
  type ConversationTree,
  type EventOfDialogue,
  type Forest,
  pathTo,
} from '../domain/conversation-tree.ts';
import type { RunEventOf } from '../domain/events.ts';
import type { DialogueId, NodeId, TaskId } from '../domain/ids.ts';
import type { MessageOf } from '../domain/messages.ts';
import type { ChatMessage } from '../domain/model.ts';
import { type Deal, type Turn, underFormat, viewOf } from '../domain/transcript.ts';
import type { SearchNode, SearchTree } from '../search/index.ts';
import type { ComparedTurns, Comparison } from './comparison.ts';
import type { DialogueSummary } from './summaries.ts';

/** What the log says of a tree. */
export interface ReadTree {
  readonly forest: Forest;
  readonly conversation: ConversationTree;
  readonly events: readonly EventOfDialogue[];
  /** Null where dealing it failed. */
  readonly deal: Deal | null;
  /** The format prompts of its dialogues, by name. */
  readonly formats: ReadonlyMap<string, MessageOf<'format.dealt'>>;
}

/** What a search made of a node. */
export interface Worth {
  /** Dialogues through it that have ended, the failed ones included. */
  readonly visits: number;
  /** Null while none of them has a reward. */
  readonly value: number | null;
  /** To each role, where seats have rewards of their own. */
  readonly seats: Readonly<Record<string, number>> | null;
  /** Whether it was a candidate for an expansion and too near to a node expanded before. */
  readonly isFiltered: boolean;
}

/** A turn that became one with a sibling: said, but not kept. */
export type MergedTurn = Pick<
  MessageOf<'turn.merged'>,
  'dialogueId' | 'nodeId' | 'speaker' | 'text' | 'tokenIds'
>;

export interface TurnReading extends Turn {
  /** The turns that answer it, in the order in which they were placed. */
  readonly children: readonly NodeId[];
  /** The dialogues that pass it. */
  readonly dialogues: readonly DialogueId[];
  readonly merged: readonly MergedTurn[];
  /** Numbers of the expansions that began here, from 0. */
  readonly expansions: readonly number[];
  /** Null where the tree was not searched. */
  readonly worth: Worth | null;
}

export interface TreeReading {
  readonly root: NodeId;
  readonly taskId: TaskId;
  readonly phase: string;
  /** What the roles were told, format prompts aside; null where dealing it failed. */
  readonly deal: Deal | null;
  /** The format prompts of its dialogues. */
  readonly formats: readonly Pick<MessageOf<'format.dealt'>, 'format' | 'prompt' | 'roles'>[];
  /** In the order in which they were said: parents before their children. */
  readonly turns: readonly TurnReading[];
  /** The turns that open a dialogue. */
  readonly children: readonly NodeId[];
  /** Numbers of the expansions that began at the root. */
  readonly expansions: readonly number[];
  readonly worth: Worth | null;
  readonly dialogues: readonly DialogueSummary[];
  readonly ranked: readonly RunEventOf<'trajectory.ranked'>[];
  /** Which siblings are pairs and why the others are not; null where the tree was not searched. */
  readonly pairs: Comparison | null;
}

/** A turn, what was heard when it was said, and what came of it. */
export interface NodeReading {
  readonly turn: TurnReading;
  /** The turns before it, from the root on. */
  readonly path: readonly Turn[];
  /** What each role had heard when it was said: its speaker's is what its model read. */
  readonly views: Readonly<Record<string, readonly ChatMessage[]>>;
  /** The format prompt of the dialogue that said it. */
  readonly format: string | null;
  /** Mean negative log-likelihood of its tokens under the base, nats; null where no dialogue through it is ranked. */
  readonly loss: number | null;
  readonly dialogues: readonly DialogueSummary[];
  /** The siblings that it is compared with. */
  readonly pairs: readonly ComparedTurns[];
  /** Selected dialogues through it, and pairs that it is in: what it was trained in. */
  readonly trainedIn: { readonly dialogues: readonly DialogueId[]; readonly pairs: number };
}

export interface TreeParts extends Pick<TreeReading, 'phase' | 'dialogues' | 'ranked' | 'pairs'> {
  /** What searching made of it; null where it was not searched. */
  readonly search: SearchTree | null;
  readonly rolloutsPerExpansion: number;
}

export function treeReading(
  { conversation, events, deal, formats }: ReadTree,
  { search, rolloutsPerExpansion, ...parts }: TreeParts,
): TreeReading {
  const { root, taskId, turns } = conversation;
  const merged = new Map<NodeId, MergedTurn[]>();
  const expanded = new Map<NodeId, Set<number>>();
  let opened = 0;
  for (const event of events) {
    if (event.type === 'turn.merged') {
      const { into, dialogueId, nodeId, speaker, text, tokenIds } = event;
      add(merged, into, { dialogueId, nodeId, speaker, text, tokenIds });
    } else if (event.type === 'dialogue.opened') {
      const node = event.parent ?? root;
      const own = expanded.get(node) ?? new Set();
      expanded.set(node, own.add(Math.floor(opened++ / rolloutsPerExpansion)));
    }
  }
  const children = new Map<NodeId, NodeId[]>();
  for (const { id, parent } of Object.values(turns)) add(children, parent, id);
  const passing = new Map<NodeId, DialogueId[]>();
  for (const { id, leaf } of Object.values(conversation.dialogues)) {
    for (const turn of pathTo(conversation, leaf)) add(passing, turn.id, id);
  }
  const expansionsAt = (node: NodeId) => (search === null ? [] : [...(expanded.get(node) ?? [])]);
  const worthOf = (node: NodeId) => worthIn(search?.nodes.get(node));
  return {
    ...{ root, taskId, deal, ...parts },
    formats: [...formats.values()].map(({ format, prompt, roles }) => ({ format, prompt, roles })),
    turns: Object.values(turns).map((turn) => ({
      ...turn,
      children: children.get(turn.id) ?? [],
      dialogues: passing.get(turn.id) ?? [],
      merged: merged.get(turn.id) ?? [],
      expansions: expansionsAt(turn.id),
      worth: worthOf(turn.id),
    })),
    children: children.get(root) ?? [],
    expansions: expansionsAt(root),
    worth: worthOf(root),
  };
}

function worthIn(node: SearchNode | undefined): Worth | null {
  if (node === undefined) return null;
  const { visits, value, seats = null, isFiltered } = node;
  return { visits, value, seats, isFiltered };
}

function add<Key, Value>(lists: Map<Key, Value[]>, key: Key, value: Value): void {
  const list = lists.get(key);
  if (list === undefined) lists.set(key, [value]);
  else list.push(value);
}

/** A turn of a tree; null where it has none of this id. */
export function nodeReading(id: NodeId, read: ReadTree, tree: TreeReading): NodeReading | null {
  const turn = tree.turns.find((one) => one.id === id);
  if (turn === undefined) return null;
  const { conversation, deal, formats, events } = read;
  const before = pathTo(conversation, turn.parent);
  const saying = events.find((event) => event.type === 'turn.taken' && event.turn.id === id)!;
  const { format } = conversation.dialogues[saying.dialogueId]!;
  const prompt = format === null ? undefined : formats.get(format);
  const views = Object.fromEntries(
    Object.entries(deal?.views ?? {}).map(([role, view]) => {
      const told = prompt?.roles.includes(role) ? underFormat(view, prompt.prompt) : view;
      return [role, viewOf(role, { ...deal, views: { [role]: told } }, before)];
    }),
  );
  const through = new Set<string>(turn.dialogues);
  const place = before.length;
  const ranked = tree.ranked.find(({ dialogueId, reward }) => reward !== null && through.has(dialogueId));
  const dialogues = tree.dialogues.filter(({ id: dialogue }) => through.has(dialogue));
  const pairs = tree.pairs?.compared.filter(({ better, worse }) => better === id || worse === id) ?? [];
  return {
    ...{ turn, path: before, views, format, dialogues, pairs },
    loss: ranked?.turnLosses[place] ?? null,
    trainedIn: {
      dialogues: dialogues.flatMap(({ id: dialogue, kept }) => (kept === true ? [dialogue] : [])),
      pairs: pairs.filter(({ reason }) => reason === null).length,
    },
  };
}
