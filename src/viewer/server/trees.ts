// Trees, turns and dialogues as the page shows them: what the reader gives, cut to what is looked at, forks among them.

import type { ChatMessage } from '../../domain/model.ts';
import { messageTokens, type Turn, viewOf } from '../../domain/transcript.ts';
import type {
  ComparedTurns,
  DialogueReading,
  DialogueSummary,
  NodeReading,
  RunReader,
  TreeReading,
  TurnReading,
} from '../../reading/index.ts';
import { ForkLog, forkOf } from '../../store/fork-log.ts';
import {
  type DialogueAnswer,
  type DialogueView,
  type NodeAnswer,
  type PairView,
  rootOf,
  type TreeAnswer,
  type TreeNode,
  type TurnView,
} from '../api.ts';
import { isForked, nodeIn, withForks } from './forks.ts';
import { HttpError } from './router.ts';
import { whyDialogue, whyPair } from './why.ts';

/** Characters of a turn's text that a tree shows. */
const nodeCharacters = 240;
/** The text of each token; null where no tokenizer can be asked. */
export type Pieces = ((ids: readonly number[]) => readonly string[]) | null;

const missing = (what: string, id: string) =>
  new HttpError(404, 'run.missing', `This run has no ${what} ${JSON.stringify(id)}.`);

/** A tree and its forks. Throws HttpError 404. */
function treeOf(reader: RunReader, root: string): TreeReading {
  const tree = reader.tree(root);
  if (tree === null) throw missing('tree', root);
  return withForks(tree, ForkLog.read(reader.folder));
}

export const treeAnswer = (reader: RunReader, root: string): TreeAnswer => treeView(treeOf(reader, root));

function treeView(tree: TreeReading): TreeAnswer {
  const { root, phase, taskId, deal, turns, dialogues, pairs } = tree;
  return {
    ...{ root, phase, taskId, isSearched: pairs !== null, views: deal?.views ?? {} },
    value: tree.worth?.value ?? null,
    nodes: turns.map((turn) => treeNode(turn, tree)),
    dialogues: dialogues.map((dialogue) => dialogueView(dialogue, tree)),
    pairs: (pairs?.compared ?? []).map(pairView),
    dropped: pairs?.dropped ?? null,
    untold: pairs?.untold ?? [],
  };
}

function treeNode(turn: TurnReading, tree: TreeReading): TreeNode {
  const { id, parent, speaker, text, tokenIds, provenance, merged, expansions } = turn;
  const { value, visits } = worthOf(turn, tree);
  const kept = tree.pairs?.compared.filter(({ reason }) => reason === null) ?? [];
  const isBetter = kept.some(({ better }) => better === id);
  const isWorse = kept.some(({ worse }) => worse === id);
  const through = new Set<string>(turn.dialogues);
  const isSelected = tree.dialogues.some((dialogue) => dialogue.kept === true && through.has(dialogue.id));
  return {
    ...{ id, parent, speaker, provenance, value, visits, fork: forkOf(id) },
    text: text.slice(0, nodeCharacters),
    length: text.length,
    tokens: tokenIds.length,
    merged: merged.length,
    expansions: expansions.length,
    pair: isBetter && isWorse ? 'both' : isBetter ? 'better' : isWorse ? 'worse' : null,
    trained: isBetter || isWorse || isSelected,
  };
}

/** What a turn is worth: as the search has it, else the mean reward, or task score, of the dialogues through it. */
function worthOf({ worth, dialogues }: TurnReading, tree: TreeReading): Pick<TreeNode, 'value' | 'visits'> {
  if (worth !== null) return { value: worth.value, visits: worth.visits };
  const through = new Set<string>(dialogues);
  const values = tree.dialogues
    .filter(({ id }) => through.has(id))
    .flatMap(({ reward, taskScore }) => reward ?? taskScore ?? []);
  const value = values.length === 0 ? null : values.reduce((sum, each) => sum + each, 0) / values.length;
  return { value, visits: dialogues.length };
}

function dialogueView(dialogue: DialogueSummary, { ranked, turns, root }: TreeReading): DialogueView {
  const { id, outcome, failure, taskScore, exactMatch, tokens, reward, terms, kept, format } = dialogue;
  const edgeCases = ranked.find(({ dialogueId }) => dialogueId === id)?.edgeCases ?? [];
  const leaf = turns.findLast((turn) => turn.dialogues.includes(id))?.id ?? root;
  return {
    ...{ id, leaf, outcome, failure, taskScore, exactMatch, tokens, reward, terms, kept, format, edgeCases },
    ...{ turns: dialogue.turns, fork: forkOf(id) },
  };
}

const pairView = ({ parent, better, worse, speaker, value, gap, reason }: ComparedTurns): PairView => ({
  ...{ parent, better, worse, speaker, value, gap, reason },
});

/** A turn, of the run or of a fork, and its tree. Throws HttpError 404. */
function nodeOf(reader: RunReader, id: string): { readonly node: NodeReading; readonly tree: TreeReading } {
  const tree = treeOf(reader, rootOf(id));
  const node = nodeIn(tree, id);
  if (node === null) throw missing('turn', id);
  return { node, tree };
}

/** A turn with all that the run says of it. */
export function nodeAnswer(reader: RunReader, id: string, pieces: Pieces): NodeAnswer {
  const { node, tree } = nodeOf(reader, id);
  return nodeView(node, tree, reader, pieces);
}

/** What the base is asked about a turn: its speaker's plain view, as in training, and the turn; null: it has no tokens. */
export function viewToScore(reader: RunReader, id: string): readonly ChatMessage[] | null {
  const { node, tree } = nodeOf(reader, id);
  const { turn, path } = node;
  if (turn.tokenIds.length === 0 || tree.deal === null) return null;
  return viewOf(turn.speaker, tree.deal, [...path, turn]);
}

function nodeView(node: NodeReading, tree: TreeReading, reader: RunReader, pieces: Pieces): NodeAnswer {
  const { turn, path, views, loss, pairs, dialogues } = node;
  const { id, parent, speaker, text, written = null, observed = [], finish, provenance, seed } = turn;
  const own = tree.turns.find((other) => other.id === id)!;
  const beside = tree.turns.filter((other) => other.parent === parent && other.id !== id);
  const texts = pieces?.(turn.tokenIds) ?? null;
  const passing = dialogues.map((dialogue) => dialogueView(dialogue, tree));
  return {
    ...{ id, parent, root: tree.root, phase: tree.phase, taskId: tree.taskId, fork: forkOf(id) },
    ...{ speaker, text, written, observed, finish, provenance, seed },
    policy: turn.policyHash,
    promptTokens: turn.promptTokens,
    tokens: turn.tokenIds.map((token, index) => ({
      id: token,
      text: texts?.[index] ?? null,
      policy: turn.logprobs[index] ?? null,
    })),
    path: path.map((before) => ({
      id: before.id,
      speaker: before.speaker,
      text: before.text.slice(0, nodeCharacters),
    })),
    siblings: beside.map((other) => treeNode(other, tree)),
    children: own.children.map((child) => treeNode(tree.turns.find((other) => other.id === child)!, tree)),
    merged: turn.merged.map((merged) => ({ dialogue: merged.dialogueId, text: merged.text })),
    ...{ views, ...worthOf(own, tree), baseLoss: loss, dialogues: passing },
    pairs: pairs.map(pairView),
    rows: [
      ...dialogues
        .filter(({ kept }) => kept === true)
        .map((dialogue) => ({
          kind: 'dialogue' as const,
          of: dialogue.id,
          note: `in the sequence of ${speaker}’s turns`,
        })),
      ...pairs
        .filter(({ reason }) => reason === null)
        .map(({ better, worse }) => ({
          kind: 'pair' as const,
          of: better === id ? worse : better,
          note: better === id ? 'as the better one' : 'as the worse one',
        })),
      ...reader.forksTaken().flatMap((taken) =>
        taken.pairs
          .filter(({ chosen, rejected, from }) => from === undefined && (id === chosen || id === rejected))
          .map(({ fork, chosen, rejected }) => ({
            kind: 'pair' as const,
            of: chosen === id ? rejected : chosen,
            note: `${chosen === id ? 'as the better one' : 'as the worse one'}, kept with fork ${fork}, in ${taken.phase}`,
          })),
      ),
    ],
    why: [
      ...pairs.map((pair) => whyPair(pair, id, reader.recipe)),
      ...passing.flatMap((dialogue) => whyDialogue(dialogue, tree, reader.recipe)),
    ],
  };
}

/** A dialogue from its root to its end, with what was said but became one with another turn. Throws HttpError 404. */
export function dialogueAnswer(reader: RunReader, id: string): DialogueAnswer {
  const tree = treeOf(reader, rootOf(id));
  if (isForked(id)) return forkedView(reader, id, tree);
  const found = reader.dialogue(id);
  if (found === null) throw missing('dialogue', id);
  return heldView(found, tree);
}

function heldView(
  { id, summary, turns, ranked, questions, verdict, opening = [], views }: DialogueReading,
  tree: TreeReading,
): DialogueAnswer {
  const mergedInto = new Map(
    tree.turns.flatMap((turn) =>
      turn.merged
        .filter(({ dialogueId }) => dialogueId === id)
        .map((merged) => [turn.id as string, merged] as const),
    ),
  );
  const from = turns.findIndex((turn) => turn.id === id || mergedInto.get(turn.id)?.nodeId === id);
  return {
    ...dialogueView(summary, tree),
    ...{ root: summary.tree, phase: summary.phase, taskId: summary.taskId, opening },
    answer: verdict?.answer ?? null,
    seats: verdict?.seats ?? null,
    roles: Object.keys(views),
    way: turns.map((turn, index) =>
      turnView(turn, {
        isOwn: from >= 0 && index >= from,
        mergedFrom: mergedInto.get(turn.id)?.text ?? null,
        baseLoss: ranked?.turnLosses[index] ?? null,
      }),
    ),
    questions: questions.map(({ prompt, reply }) => ({ prompt, reply })),
  };
}

const turnView = (turn: Turn, more: Pick<TurnView, 'isOwn' | 'mergedFrom' | 'baseLoss'>): TurnView => ({
  id: turn.id,
  speaker: turn.speaker,
  text: turn.text,
  written: turn.written ?? null,
  tokens: turn.tokenIds.length,
  provenance: turn.provenance,
  to: turn.to ?? null,
  round: turn.round ?? null,
  observed: turn.observed ?? [],
  ...more,
});

function forkedView(reader: RunReader, id: string, tree: TreeReading): DialogueAnswer {
  const log = ForkLog.read(reader.folder);
  const fork = [...log.forks.values()].find(({ begun }) => begun.dialogueId === id);
  if (fork === undefined) throw missing('dialogue', id);
  const { begun, verdict, ranked, turns } = fork;
  const first = turns[0] === undefined ? null : nodeIn(tree, turns[0].id);
  const path = first?.path ?? [];
  const given = verdict?.type === 'verdict.given' ? verdict : null;
  const way = [...path, ...turns];
  return {
    ...dialogueView(tree.dialogues.find((dialogue) => dialogue.id === id)!, tree),
    ...{ root: begun.tree, phase: begun.phase, taskId: begun.taskId, opening: tree.deal?.opening ?? [] },
    ...{ answer: given?.answer ?? null, seats: given?.seats ?? null, questions: [] },
    tokens: messageTokens(way),
    turns: way.length,
    roles: Object.keys(tree.deal?.views ?? {}),
    way: way.map((turn, index) =>
      turnView(turn, {
        isOwn: index >= path.length,
        mergedFrom: null,
        baseLoss: ranked.turnLosses[index] ?? null,
      }),
    ),
  };
}

/** All that a static copy has of a tree: itself, its turns and its dialogues by their ids. */
export function treeParts(reader: RunReader, root: string, pieces: Pieces) {
  const tree = treeOf(reader, root);
  const nodes = tree.turns.map(({ id }) => [id, nodeView(nodeIn(tree, id)!, tree, reader, pieces)]);
  const held = (reader.conversation(root)?.dialogues ?? []).map((dialogue) => [
    dialogue.id,
    heldView(dialogue, tree),
  ]);
  const forked = tree.dialogues
    .filter(({ id }) => isForked(id))
    .map(({ id }) => [id, forkedView(reader, id, tree)]);
  return {
    tree: treeView(tree),
    nodes: Object.fromEntries(nodes) as Readonly<Record<string, NodeAnswer>>,
    dialogues: Object.fromEntries([...held, ...forked]) as Readonly<Record<string, DialogueAnswer>>,
  };
}
