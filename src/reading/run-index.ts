// What can be looked up of a run's log without reading it: where each phase, cohort, tree and dialogue lies, and what
// became of every dialogue, as columns. Folded a line at a time, from any line on: it grows with the log.
import { messageOf, OptimaError } from '../domain/errors.ts';
import type { PhaseOutput, RunEvent } from '../domain/events.ts';
import type { DialogueId, NodeId, TaskId, TeamPolicy } from '../domain/ids.ts';
import type { MessageOf } from '../domain/messages.ts';
import { checkBytes, emptyLog, type LogEnd } from '../store/event-log.ts';

/** Events from one mark to the next: what is read, at most, before the first event that is asked for. */
export const marked = 256;

/** A phase, as far as the log has it. */
export interface IndexedPhase {
  readonly name: string;
  /** Number of its first event. */
  readonly from: number;
  /** Number after its last one; null while it runs. */
  to: number | null;
  readonly startedAt: string;
  endedAt: string | null;
  output: PhaseOutput | null;
  /** Dialogues that it has opened. */
  dialogues: number;
  /** Whether the choice of which of its dialogues are trained on has been made. */
  chosen: boolean;
}

/** A tree: the cohorts that hold its dialogues, by their places among all, and what was chosen of it. */
export interface IndexedTree {
  readonly root: NodeId;
  readonly taskId: TaskId;
  /** Place of its phase. */
  readonly phase: number;
  readonly cohorts: number[];
  /** Its dialogues, by their rows. */
  readonly rows: number[];
  /** Number of its `pairs.made`; null: there is none. */
  pairs: number | null;
  pairsKept: number;
}

/** Outcomes by their number in the column: none yet, then as the log names them. */
export const outcomes = [null, 'agreed', 'turn-cap', 'failed'] as const;

/** What the columns hold, a row for each dialogue in the order in which they were opened; NaN stands for null. */
const newColumns = (rows: number) => ({
  tree: new Uint32Array(rows),
  /** Of `formats`, from 1; 0: none. */
  format: new Uint32Array(rows),
  outcome: new Uint8Array(rows),
  /** Of `failures`, from 1; 0: none. */
  failure: new Uint32Array(rows),
  taskScore: new Float64Array(rows),
  exactMatch: new Uint8Array(rows),
  tokens: new Uint32Array(rows),
  turns: new Uint32Array(rows),
  /** Number of its `trajectory.ranked`; 0: there is none. */
  ranked: new Uint32Array(rows),
  reward: new Float64Array(rows),
  task: new Float64Array(rows),
  tokenShare: new Float64Array(rows),
  loss: new Float64Array(rows),
  eligible: new Uint8Array(rows),
  kept: new Uint8Array(rows),
});
export type Columns = ReturnType<typeof newColumns>;
export const columnNames = Object.keys(newColumns(0)) as readonly (keyof Columns)[];

/** Most characters of a failure that the index keeps; the log has all. */
const failureLength = 200;
/** What of a log is read for its ids alone, or not at all. */
const skipped = /^\{"type":"(turn\.requested|observation\.given|judge\.asked|step\.trained)"/;
/** How a turn's line begins and where its ids are, as this program writes it: most of a log is turns, and of them only this counts. */
const taken =
  /^\{"type":"turn\.taken","dialogueId":"([^"\\]+)","turn":\{"id":"([^"\\]+)","parent":"([^"\\]+)","speaker":/;
const idsBegin = Buffer.from('"tokenIds":[');
const [comma, bracket] = Buffer.from(',]') as unknown as [number, number];
/** Bytes in which an event's type and a turn's ids have room, mostly. */
const beginRoom = 256;

/** How far a dialogue has come at a turn: from the root on, in tokens and turns. */
export interface Place {
  readonly tokens: number;
  readonly turns: number;
}

/** What an index consists of; plain data, which `index-file.ts` writes and reads. */
export interface IndexData {
  end: LogEnd & { readonly bytes: number };
  /** Byte at which every `marked`-th event begins. */
  markBytes: number[];
  /** Sum of the event before each of these. */
  markSums: string[];
  phases: IndexedPhase[];
  /** Number of the first event of each cohort, and of the one behind its last: 0 while it is held. */
  cohortFrom: number[];
  cohortTo: number[];
  trees: IndexedTree[];
  /** Id of each dialogue, behind the root of its tree. */
  suffixes: string[];
  rows: number;
  columns: Columns;
  formats: string[];
  failures: string[];
  /** Numbers of the events that dealt a task, or a format. */
  tasks: Map<string, number>;
  formatDeals: Map<string, number>;
  /** How far the turns of the cohort under way have come. */
  places: Map<NodeId, Place>;
  policy: TeamPolicy | null;
}

export const emptyIndex = (): IndexData => ({
  end: { ...emptyLog, bytes: 0 },
  markBytes: [],
  markSums: [],
  phases: [],
  cohortFrom: [],
  cohortTo: [],
  trees: [],
  suffixes: [],
  rows: 0,
  columns: newColumns(64),
  formats: [],
  failures: [],
  tasks: new Map(),
  formatDeals: new Map(),
  places: new Map(),
  policy: null,
});

/** How far a tree's dialogues had come at a node that an earlier cohort said; null where it said none such. */
export type PlaceBefore = (tree: IndexedTree, node: NodeId) => Place | null;

export class RunIndex {
  readonly data: IndexData;
  readonly #placeBefore: PlaceBefore;
  /** Rows of the dialogues of the cohort under way. */
  readonly #held = new Map<string, number>();
  readonly #treeAt = new Map<string, number>();
  readonly #formatAt = new Map<string, number>();
  readonly #failureAt = new Map<string, number>();

  constructor(data: IndexData = emptyIndex(), placeBefore: PlaceBefore = () => null) {
    this.data = data;
    this.#placeBefore = placeBefore;
    for (const [place, { root }] of data.trees.entries()) this.#treeAt.set(root, place);
    for (const [place, format] of data.formats.entries()) this.#formatAt.set(format, place);
    for (const [place, failure] of data.failures.entries()) this.#failureAt.set(failure, place);
  }

  /** Takes in the line behind the last one, whose bytes it may change. Throws `run.corrupt` where it is not an event of this log. */
  add(line: Buffer, file: string): void {
    const { data } = this;
    const { events, sum, bytes: before } = data.end;
    try {
      const { body, at, end } = checkBytes(line, data.end);
      if (data.policy !== null) throw new Error("events follow the run's end");
      if (events % marked === 0) {
        data.markBytes.push(before);
        data.markSums.push(sum);
      }
      const begin = body.toString('utf8', 0, beginRoom);
      if (!skipped.test(begin) && !this.#tookTurn(begin, body)) {
        this.#fold(JSON.parse(body.toString('utf8')), events, at);
      }
      data.end = { ...end, bytes: before + line.length + 1 };
    } catch (error) {
      throw notAnEvent(file, events, error);
    }
  }

  /** The tree of a root; undefined where there is none. */
  treeOf(root: string): IndexedTree | undefined {
    const place = this.#treeAt.get(root);
    return place === undefined ? undefined : this.data.trees[place];
  }

  /** The tree in which a node stands, by the way to it. */
  treeAround(node: string): IndexedTree | undefined {
    for (let root = node; root !== ''; root = root.slice(0, Math.max(0, root.lastIndexOf('.')))) {
      const tree = this.treeOf(root);
      if (tree !== undefined) return tree;
    }
    return undefined;
  }

  /** The row of a dialogue; undefined where there is none. */
  rowOf(id: string): number | undefined {
    const tree = this.treeAround(id);
    const suffix = tree === undefined ? '' : id.slice(tree.root.length);
    const within = tree?.rows.find((row) => this.data.suffixes[row] === suffix);
    if (within !== undefined) return within;
    // Ids begin with their tree's root; a log that others wrote may have it otherwise.
    const stray = this.data.suffixes.indexOf(`!${id}`);
    return stray < 0 ? undefined : stray;
  }

  idOf(row: number): DialogueId {
    const suffix = this.data.suffixes[row]!;
    if (suffix.startsWith('!')) return suffix.slice(1) as DialogueId;
    return `${this.data.trees[this.data.columns.tree[row]!]!.root}${suffix}` as DialogueId;
  }

  #fold(event: RunEvent, number: number, at: string): void {
    const { data } = this;
    const { columns } = data;
    switch (event.type) {
      case 'phase.started':
        this.#beginPhase(event.phase, number, at);
        break;
      case 'phase.completed': {
        const phase = data.phases.at(-1);
        if (phase?.name !== event.phase) throw new Error(`phase ${event.phase} ends, but has not begun`);
        Object.assign(phase, { to: number + 1, endedAt: at, output: event.output });
        this.#endCohort(number);
        break;
      }
      case 'task.dealt':
        this.#beginCohort(number);
        if (!data.tasks.has(event.taskId)) data.tasks.set(event.taskId, number);
        break;
      case 'format.dealt':
        this.#beginCohort(number);
        if (!data.formatDeals.has(event.format)) data.formatDeals.set(event.format, number);
        break;
      case 'dialogue.opened':
        this.#open(event, number, at);
        break;
      case 'turn.taken': {
        const { id, parent, tokenIds } = event.turn;
        this.#speak(event.dialogueId, id, parent, tokenIds.length);
        break;
      }
      case 'turn.merged':
        this.#moveTo(event.dialogueId, event.into, this.#placeOf(event.into, event.dialogueId));
        break;
      case 'dialogue.closed': {
        const row = this.#rowOf(event.dialogueId);
        columns.outcome[row] = outcomes.indexOf(event.outcome);
        columns.failure[row] = this.#failure(event.failure);
        break;
      }
      case 'verdict.given': {
        const row = this.#rowOf(event.dialogueId);
        columns.taskScore[row] = event.taskScore;
        columns.exactMatch[row] = Number(event.exactMatch);
        break;
      }
      case 'verdict.failed': {
        const row = this.#rowOf(event.dialogueId);
        columns.outcome[row] = outcomes.indexOf('failed');
        columns.failure[row] = this.#failure(event.reason);
        break;
      }
      case 'cohort.completed':
        this.#endCohort(number + 1);
        break;
      case 'trajectory.ranked': {
        const row = this.#rowOf(event.dialogueId);
        const { reward, terms, eligible } = event;
        columns.ranked[row] = number;
        columns.reward[row] = reward ?? Number.NaN;
        columns.task[row] = terms?.task ?? Number.NaN;
        columns.tokenShare[row] = terms?.tokenShare ?? Number.NaN;
        columns.loss[row] = terms?.loss ?? Number.NaN;
        columns.eligible[row] = Number(eligible);
        break;
      }
      case 'selection.made': {
        const iteration = event.phase.slice(0, event.phase.lastIndexOf('/') + 1);
        for (const phase of data.phases) {
          if (iteration !== '' && phase.name === `${iteration}generate`) phase.chosen = true;
        }
        for (const { dialogueId } of event.kept) {
          const row = this.#rowOf(dialogueId);
          columns.kept[row] = 1;
          data.phases[data.trees[columns.tree[row]!]!.phase]!.chosen = true;
        }
        break;
      }
      case 'pairs.made': {
        const tree = this.treeOf(event.tree);
        if (tree === undefined) throw new Error(`there is no tree ${event.tree}`);
        tree.pairs = number;
        tree.pairsKept = event.pairs.length;
        break;
      }
      case 'run.completed':
        data.policy = event.policy;
        break;
      default:
    }
  }

  #beginPhase(name: string, number: number, startedAt: string): void {
    this.#endCohort(number);
    const begun = { to: null, endedAt: null, output: null, dialogues: 0, chosen: false };
    this.data.phases.push({ name, from: number, startedAt, ...begun });
  }

  /** A cohort begins with the first thing that is dealt or opened in it. */
  #beginCohort(number: number): void {
    const { cohortFrom, cohortTo } = this.data;
    if (cohortTo.at(-1) === 0) return;
    cohortFrom.push(number);
    cohortTo.push(0);
  }

  #endCohort(to: number): void {
    const { cohortTo, places } = this.data;
    if (cohortTo.at(-1) === 0) cohortTo[cohortTo.length - 1] = to;
    places.clear();
    this.#held.clear();
  }

  #open(event: MessageOf<'dialogue.opened'>, number: number, at: string): void {
    const { data } = this;
    const { dialogueId: id, taskId, tree: root, parent, format } = event;
    this.#beginCohort(number);
    // The folder that `holdDialogue` is given knows no phases.
    if (data.phases.length === 0) this.#beginPhase(root.slice(0, -taskId.length - 1), number, at);
    const phase = data.phases.length - 1;
    let place = this.#treeAt.get(root);
    if (place === undefined) {
      place = data.trees.push({ root, taskId, phase, cohorts: [], rows: [], pairs: null, pairsKept: 0 }) - 1;
      this.#treeAt.set(root, place);
    }
    const tree = data.trees[place]!;
    const cohort = data.cohortFrom.length - 1;
    if (tree.cohorts.at(-1) !== cohort) tree.cohorts.push(cohort);
    const row = data.rows++;
    if (row === data.columns.tree.length) data.columns = grown(data.columns, 2 * row);
    tree.rows.push(row);
    this.#held.set(id, row);
    const own = id.startsWith(root) ? id.slice(root.length) : '!';
    data.suffixes.push(own.startsWith('!') ? `!${id}` : own);
    data.phases[phase]!.dialogues++;
    const { columns } = data;
    columns.tree[row] = place;
    columns.format[row] = format === null ? 0 : 1 + numberOf(format, data.formats, this.#formatAt);
    for (const name of ['taskScore', 'reward', 'task', 'tokenShare', 'loss'] as const)
      columns[name][row] = Number.NaN;
    const { tokens, turns } = parent === null ? { tokens: 0, turns: 0 } : this.#placeOf(parent, id);
    columns.tokens[row] = tokens;
    columns.turns[row] = turns;
  }

  /** Takes in a turn by what its text has where this program wrote it; false where it is another event or written otherwise. */
  #tookTurn(begin: string, body: Buffer): boolean {
    const [, dialogue, id, parent] = taken.exec(begin) ?? [];
    // Within a text, a quotation mark has a backslash before it.
    const from = dialogue === undefined ? -1 : body.indexOf(idsBegin);
    if (from < 0) return false;
    const first = from + idsBegin.length;
    let tokens = body[first] === bracket ? 0 : 1;
    for (let at = first; at < body.length && body[at] !== bracket; at++) if (body[at] === comma) tokens++;
    this.#speak(dialogue as DialogueId, id as NodeId, parent as NodeId, tokens);
    return true;
  }

  #speak(dialogue: DialogueId, id: NodeId, parent: NodeId, count: number): void {
    const { tokens, turns } = this.#placeOf(parent, dialogue);
    this.#moveTo(dialogue, id, { tokens: tokens + count, turns: turns + 1 });
  }

  #moveTo(dialogue: DialogueId, node: NodeId, place: Place): void {
    const { columns, places } = this.data;
    const row = this.#rowOf(dialogue);
    places.set(node, place);
    columns.tokens[row] = place.tokens;
    columns.turns[row] = place.turns;
  }

  #placeOf(node: NodeId, dialogue: DialogueId): Place {
    const { trees, columns, places } = this.data;
    const tree = trees[columns.tree[this.#rowOf(dialogue)]!]!;
    if (tree.root === node) return { tokens: 0, turns: 0 };
    const place = places.get(node) ?? this.#placeBefore(tree, node);
    if (place === null) throw new Error(`there is no turn ${node}`);
    return place;
  }

  #rowOf(dialogue: DialogueId): number {
    const row = this.#held.get(dialogue) ?? this.rowOf(dialogue);
    if (row === undefined) throw new Error(`dialogue ${dialogue} was not opened`);
    return row;
  }

  #failure(reason: string | null): number {
    if (reason === null) return 0;
    const short = reason.length > failureLength ? `${reason.slice(0, failureLength)}…` : reason;
    return 1 + numberOf(short, this.data.failures, this.#failureAt);
  }
}

function numberOf(text: string, known: string[], places: Map<string, number>): number {
  const place = places.get(text) ?? known.push(text) - 1;
  places.set(text, place);
  return place;
}

/** The columns with room for so many rows. */
export function grown(columns: Columns, rows: number): Columns {
  const larger = newColumns(rows);
  for (const name of columnNames) larger[name].set(columns[name]);
  return larger;
}

/** The error for a line of a log, by its event's number. */
export const notAnEvent = (file: string, number: number, error: unknown): OptimaError =>
  error instanceof OptimaError && error.code !== 'message.invalid'
    ? error
    : new OptimaError(
        'run.corrupt',
        `${file}:${number + 1}: not an event of this log: ${messageOf(error).replace(/\.$/, '')}.`,
        { hint: 'The file was changed or damaged; restore it or start a new run.' },
      );
