// The fold from messages to conversation trees, one for each task that a phase talks about. Live dialogues and a log
// are read by the same fold.
import { OptimaError } from './errors.ts';
import { isDialogueMessage, type RunEvent } from './events.ts';
import type { DialogueId, NodeId, TaskId } from './ids.ts';
import type { DialogueMessage, MessageOf } from './messages.ts';
import type { ChatMessage } from './model.ts';
import { type Deal, type Trajectory, type Turn, underFormat, viewOf } from './transcript.ts';

/** A dialogue as far as its messages have been heard: a walk down from where it was opened. */
export interface DialogueRecord {
  readonly id: DialogueId;
  readonly format: string | null;
  /** Its last turn; where it was opened while it has none of its own. */
  readonly leaf: NodeId;
  readonly closed: MessageOf<'dialogue.closed'> | null;
  readonly verdict: MessageOf<'verdict.given'> | MessageOf<'verdict.failed'> | null;
}

/** The turns of a task's dialogues, those they share once. It grows as messages are heard. */
export interface ConversationTree {
  readonly root: NodeId;
  readonly taskId: TaskId;
  readonly turns: Readonly<Record<NodeId, Turn>>;
  /** In the order in which they were opened. */
  readonly dialogues: Readonly<Record<DialogueId, DialogueRecord>>;
}

/** A tree as its forest has it. */
interface GrowingTree extends ConversationTree {
  readonly turns: Record<NodeId, Turn>;
  readonly dialogues: Record<DialogueId, { -readonly [Key in keyof DialogueRecord]: DialogueRecord[Key] }>;
}

/** A message of one dialogue. */
type OfDialogue = Extract<DialogueMessage, { dialogueId: DialogueId }>;
/** A message that changes a tree. */
type TreeMessage = Exclude<OfDialogue, { type: 'turn.failed' | 'judge.asked' }>;

/** Whether a node is its root, or one of its turns. */
const isThere = ({ root, turns }: ConversationTree, node: NodeId): boolean =>
  node === root || Object.hasOwn(turns, node);

const misfit = ({ type, dialogueId }: TreeMessage, problem: string): OptimaError =>
  new OptimaError('run.corrupt', `Message ${type} of dialogue ${dialogueId} ${problem}.`);

/**
 * Adds to a tree what a message says. Throws `run.corrupt` for a message that does not fit, and adds nothing then: of a dialogue
 * that is not open, below a node that is not there, or a node that is there already.
 */
export function growTree(tree: GrowingTree, message: TreeMessage): void {
  const { type, dialogueId: id } = message;
  if (type === 'dialogue.opened') {
    const { format } = message;
    const parent = message.parent ?? tree.root;
    if (Object.hasOwn(tree.dialogues, id)) throw misfit(message, 'comes a second time');
    if (!isThere(tree, parent)) throw misfit(message, `opens it below ${parent}, which is not there`);
    tree.dialogues[id] = { id, format, leaf: parent, closed: null, verdict: null };
    return;
  }
  const dialogue = tree.dialogues[id];
  if (dialogue === undefined) throw misfit(message, 'comes before its dialogue.opened');
  const isVerdict = type === 'verdict.given' || type === 'verdict.failed';
  if (isVerdict ? dialogue.verdict !== null : dialogue.closed !== null)
    throw misfit(message, 'comes after its end');
  if (type === 'turn.taken') {
    const { turn } = message;
    if (turn.parent !== dialogue.leaf)
      throw misfit(message, `is a turn below ${turn.parent}, not ${dialogue.leaf}`);
    if (isThere(tree, turn.id)) throw misfit(message, `is a turn ${turn.id}, which is there already`);
    tree.turns[turn.id] = turn;
    dialogue.leaf = turn.id;
  } else if (type === 'turn.merged') {
    const stored = tree.turns[message.into];
    if (stored?.parent !== dialogue.leaf)
      throw misfit(message, `goes on from ${message.into}, not below ${dialogue.leaf}`);
    dialogue.leaf = message.into;
  } else if (type === 'observation.given') {
    const turn = tree.turns[message.nodeId];
    if (message.nodeId !== dialogue.leaf || turn === undefined)
      throw misfit(message, `follows ${message.nodeId}, not its last turn ${dialogue.leaf}`);
    if (turn.observed !== undefined) throw misfit(message, `follows ${turn.id}, which one follows already`);
    // The message keeps the turn as it was said; nobody writes to this one either.
    tree.turns[turn.id] = Object.freeze({ ...turn, observed: message.observations });
  } else if (type === 'dialogue.closed') dialogue.closed = message;
  else dialogue.verdict = message;
}

/** The turns from the root of a tree to one of its nodes. */
export function pathTo(tree: ConversationTree, node: NodeId): Turn[] {
  const path: Turn[] = [];
  for (let turn = tree.turns[node]; turn !== undefined; turn = tree.turns[turn.parent]) path.push(turn);
  return path.reverse();
}

/** What a message deals. */
export const dealIn = ({ views, opening }: MessageOf<'task.dealt'>): Deal => ({
  views,
  ...(opening !== undefined && { opening }),
});

/** What was said before the first message that a forest hears, or is forgotten; null or nothing where it is not known. */
export interface Earlier {
  dealOf(task: TaskId): Deal | null;
  format(name: string): MessageOf<'format.dealt'> | null;
  /** The turns of the dialogue's tree before it was opened. */
  turnsBefore(opened: MessageOf<'dialogue.opened'>): readonly Turn[];
}

const nothing: Earlier = { dealOf: () => null, format: () => null, turnsBefore: () => [] };

/** The trees of the messages heard so far. */
export class Forest {
  readonly #trees = new Map<NodeId, GrowingTree>();
  readonly #treeOf = new Map<DialogueId, NodeId>();
  readonly #deals = new Map<TaskId, Deal>();
  readonly #formats = new Map<string, MessageOf<'format.dealt'>>();
  readonly #earlier: Earlier;

  constructor(earlier: Earlier = nothing) {
    this.#earlier = earlier;
  }

  /** Takes in the next message. Throws `run.corrupt` as `growTree` does. */
  hear(message: DialogueMessage): void {
    if (message.type === 'task.dealt') {
      this.#deals.set(message.taskId, dealIn(message));
    } else if (message.type === 'format.dealt') {
      this.#formats.set(message.format, message);
    } else if (message.type !== 'turn.requested') {
      if (message.type === 'dialogue.opened' && !this.#treeOf.has(message.dialogueId)) this.#open(message);
      const tree = this.#treeOfMessage(message);
      if (message.type === 'turn.failed' || message.type === 'judge.asked') return;
      growTree(tree, message);
    }
  }

  #open(opened: MessageOf<'dialogue.opened'>): void {
    const { tree, parent, taskId, dialogueId } = opened;
    const isKnown = parent === null || Object.hasOwn(this.#trees.get(tree)?.turns ?? {}, parent);
    this.plant(tree, taskId, isKnown ? [] : this.#earlier.turnsBefore(opened));
    this.#treeOf.set(dialogueId, tree);
  }

  /** Makes a tree known that has these turns, the first below its root, beside those that it has already. */
  plant(root: NodeId, taskId: TaskId, turns: readonly Turn[]): void {
    if (turns.length === 0 && this.#trees.has(root)) return;
    const known = this.#trees.get(root) ?? { root, taskId, turns: {}, dialogues: {} };
    const added = Object.fromEntries(turns.map((turn) => [turn.id, turn]));
    this.#trees.set(root, { ...known, turns: { ...added, ...known.turns } });
  }

  /** The tree of an opened dialogue. */
  treeOf(dialogue: DialogueId): ConversationTree {
    return this.#trees.get(this.#treeOf.get(dialogue)!)!;
  }

  /** The node that an opened dialogue has come to. */
  leafOf(dialogue: DialogueId): NodeId {
    return this.treeOf(dialogue).dialogues[dialogue]!.leaf;
  }

  /** A turn of an opened dialogue's tree. */
  turnOf(dialogue: DialogueId, node: NodeId): Turn {
    return this.treeOf(dialogue).turns[node]!;
  }

  /** The turns of an opened dialogue so far, from the root on. */
  turnsOf(dialogue: DialogueId): readonly Turn[] {
    return pathTo(this.treeOf(dialogue), this.leafOf(dialogue));
  }

  /** The conversation of an opened dialogue so far, as one of its roles sees it, its format prompt included. */
  viewOf(dialogue: DialogueId, role: string): ChatMessage[] {
    const { taskId, dialogues } = this.treeOf(dialogue);
    const { views, ...deal } = this.dealOf(taskId);
    const { format } = dialogues[dialogue]!;
    const system = format === null ? views[role]! : this.#underFormat(format, role, views[role]!);
    return viewOf(role, { ...deal, views: { [role]: system } }, this.turnsOf(dialogue));
  }

  /** The finished dialogues, tree by tree in the order in which they were opened. */
  trajectories(): Trajectory[] {
    return [...this.#trees.values()].flatMap((tree) =>
      Object.values(tree.dialogues).flatMap((dialogue) => this.#trajectoryOf(tree, dialogue) ?? []),
    );
  }

  /** What each role of an opened dialogue is told, its format prompt aside. */
  viewsIn(dialogue: DialogueId): Deal['views'] {
    return this.dealOf(this.treeOf(dialogue).taskId).views;
  }

  /** What is said of a task before its first turn; throws `run.corrupt` where nothing says it. */
  dealOf(task: TaskId): Deal {
    const deal = this.#deals.get(task) ?? this.#earlier.dealOf(task);
    if (deal !== null) return deal;
    throw new OptimaError('run.corrupt', `No task.dealt says what the roles were told of ${task}.`);
  }

  /** The trees, in the order in which they came to be known. */
  trees(): readonly ConversationTree[] {
    return [...this.#trees.values()];
  }

  /** An opened dialogue, once it is finished; null before. */
  trajectoryOf(dialogue: DialogueId): Trajectory | null {
    const tree = this.treeOf(dialogue);
    return this.#trajectoryOf(tree, tree.dialogues[dialogue]!);
  }

  /**
   * Takes in the next event of a phase and gives the dialogues that it completes, a cohort's at a time; their trees and deals
   * are then forgotten, so that a phase of any length is read in the memory of a cohort.
   */
  take(event: RunEvent): Trajectory[] {
    if (isDialogueMessage(event)) this.hear(event);
    if (event.type !== 'cohort.completed') return [];
    const finished = this.trajectories();
    for (const known of [this.#trees, this.#treeOf, this.#deals]) known.clear();
    return finished;
  }

  #treeOfMessage({ type, dialogueId }: OfDialogue): GrowingTree {
    const root = this.#treeOf.get(dialogueId);
    if (root !== undefined) return this.#trees.get(root)!;
    throw new OptimaError(
      'run.corrupt',
      `Message ${type} of dialogue ${dialogueId} comes before its dialogue.opened.`,
    );
  }

  #underFormat(name: string, role: string, view: string): string {
    const format = this.#formats.get(name) ?? this.#earlier.format(name);
    if (format === null) throw new OptimaError('run.corrupt', `No format.dealt says what format ${name} is.`);
    return format.roles.includes(role) ? underFormat(view, format.prompt) : view;
  }

  /** Null while the dialogue is under way. A verdict that failed makes the outcome `failed`. */
  #trajectoryOf(
    tree: ConversationTree,
    { id, format, leaf, closed, verdict }: DialogueRecord,
  ): Trajectory | null {
    if (closed === null || (closed.outcome !== 'failed' && verdict === null)) return null;
    const common = { id, taskId: tree.taskId, format, turns: pathTo(tree, leaf) };
    if (verdict?.type !== 'verdict.given') {
      const failure = verdict === null ? closed.failure : verdict.reason;
      // Where dealing the views failed there are none.
      const deal = this.#deals.get(tree.taskId) ?? this.#earlier.dealOf(tree.taskId) ?? { views: {} };
      const { refusedBy } = closed;
      return {
        ...{ ...common, ...deal, outcome: 'failed', failure, verdict: null },
        ...(refusedBy !== undefined && { refusedBy }),
      };
    }
    const { taskScore, exactMatch, answer, seats } = verdict;
    const given = { taskScore, exactMatch, answer, ...(seats && { seats }) };
    return { ...common, ...this.dealOf(tree.taskId), outcome: closed.outcome, failure: null, verdict: given };
  }
}

/** An event that names its dialogue. */
export type EventOfDialogue = Extract<RunEvent, { dialogueId: DialogueId }>;

/** A tree as a log tells it. */
export interface LoggedTree {
  readonly conversation: ConversationTree;
  /** What the log says of its dialogues, in order: their messages, and their rewards where the phase values them. */
  readonly events: readonly EventOfDialogue[];
  /** What its roles were told; throws as `Forest.dealOf` does. */
  dealOf(): Deal;
}

/** The trees of a phase's events, one after the other: those of a cohort when it is completed. `forestOf` gives an empty forest. */
export function* treesIn(events: Iterable<RunEvent>, forestOf: () => Forest): Generator<LoggedTree> {
  let forest = forestOf();
  let own = new Map<NodeId, EventOfDialogue[]>();
  for (const event of events) {
    if (isDialogueMessage(event)) forest.hear(event);
    if ('dialogueId' in event) {
      const { root } = forest.treeOf(event.dialogueId);
      const told = own.get(root);
      if (told === undefined) own.set(root, [event]);
      else told.push(event);
    }
    if (event.type !== 'cohort.completed') continue;
    const known = forest;
    for (const conversation of known.trees()) {
      const { root, taskId } = conversation;
      yield { conversation, events: own.get(root) ?? [], dealOf: () => known.dealOf(taskId) };
    }
    [forest, own] = [forestOf(), new Map()];
  }
}
