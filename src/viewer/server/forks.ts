// A tree with its forks in it: what `forks.jsonl` has, as if the reader had read it with the run.
import { type Turn, underFormat, viewOf } from '../../domain/transcript.ts';
import type { DialogueSummary, NodeReading, TreeReading, TurnReading } from '../../reading/index.ts';
import { type ForkLog, forkOf, type LoggedFork } from '../../store/fork-log.ts';

/** The forks of a tree, in the order in which they were made: what one goes on from comes before it. */
const forksOf = ({ root }: TreeReading, { forks }: ForkLog): LoggedFork[] =>
  [...forks.values()]
    .filter(({ begun }) => begun.tree === root)
    .sort((one, other) => one.begun.fork - other.begun.fork);

/** The tree with the turns and dialogues of its forks. */
export function withForks(tree: TreeReading, log: ForkLog): TreeReading {
  const forks = forksOf(tree, log);
  if (forks.length === 0) return tree;
  const turns = new Map<string, TurnReading>(tree.turns.map((turn) => [turn.id, turn]));
  const children = [...tree.children];
  for (const fork of forks) {
    for (const turn of fork.turns) {
      turns.set(turn.id, forkedTurn(turn, fork));
      const parent = turns.get(turn.parent);
      if (parent === undefined) children.push(turn.id);
      else turns.set(parent.id, { ...parent, children: [...parent.children, turn.id] });
    }
  }
  return {
    ...tree,
    children,
    turns: [...turns.values()],
    dialogues: [...tree.dialogues, ...forks.map((fork) => forkedDialogue(fork))],
    ranked: [...tree.ranked, ...forks.map(({ ranked }) => ranked)],
  };
}

const forkedTurn = (turn: Turn, { begun, ranked }: LoggedFork): TurnReading => ({
  ...turn,
  children: [],
  dialogues: [begun.dialogueId],
  merged: [],
  expansions: [],
  worth: { value: ranked.reward, visits: 1, seats: null, isFiltered: false },
});

function forkedDialogue({ begun, closed, verdict, ranked, format, turns }: LoggedFork): DialogueSummary {
  const { dialogueId: id, tree, taskId, phase } = begun;
  const given = verdict?.type === 'verdict.given' ? verdict : null;
  return {
    ...{ id, tree, taskId, phase, format, tokens: ranked.tokens, reward: ranked.reward, terms: ranked.terms },
    outcome: verdict?.type === 'verdict.failed' ? 'failed' : closed.outcome,
    failure: ranked.failure,
    taskScore: given?.taskScore ?? null,
    exactMatch: given?.exactMatch ?? null,
    turns: ranked.turnLosses.length || turns.length,
    eligible: null,
    kept: null,
  };
}

/** A turn of a tree, the run's or a fork's, as the reader gives one; null where the tree has none of this id. */
export function nodeIn(tree: TreeReading, id: string): NodeReading | null {
  const byId = new Map<string, TurnReading>(tree.turns.map((turn) => [turn.id, turn]));
  const turn = byId.get(id);
  if (turn === undefined) return null;
  const path: Turn[] = [];
  for (let before = byId.get(turn.parent); before !== undefined; before = byId.get(before.parent))
    path.unshift(before);
  const dialogues = tree.dialogues.filter((dialogue) => turn.dialogues.includes(dialogue.id));
  // The first dialogue through it is the one that said it.
  const prompt = tree.formats.find(({ format }) => format === dialogues[0]?.format);
  const views = Object.entries(tree.deal?.views ?? {}).map(([role, view]) => {
    const told = prompt?.roles.includes(role) ? underFormat(view, prompt.prompt) : view;
    return [role, viewOf(role, { ...tree.deal, views: { [role]: told } }, path)];
  });
  const ranked = tree.ranked.find(
    ({ dialogueId, reward }) => reward !== null && turn.dialogues.includes(dialogueId),
  );
  const pairs = tree.pairs?.compared.filter(({ better, worse }) => better === id || worse === id) ?? [];
  return {
    ...{ turn, path, dialogues, pairs, views: Object.fromEntries(views) },
    format: dialogues[0]?.format ?? null,
    loss: ranked?.turnLosses[path.length] ?? null,
    trainedIn: {
      dialogues: dialogues.flatMap((dialogue) => (dialogue.kept === true ? [dialogue.id] : [])),
      pairs: pairs.filter(({ reason }) => reason === null).length,
    },
  };
}

/** Whether a turn or a dialogue is a fork's. */
export const isForked = (id: string): boolean => forkOf(id as Turn['id']) !== null;
