// A run as its log has it, for whoever reads it: what happened in its phases, its dialogues, its trees. Read-only, whoever
// writes the run meanwhile; what is asked for is found through an index beside the log, so that it is one seek in a long one.
import fs from 'node:fs';
import { setImmediate as nextTick } from 'node:timers/promises';
import { dealIn, type EventOfDialogue, Forest, pathTo } from '../domain/conversation-tree.ts';
import { OptimaError, requireWanted } from '../domain/errors.ts';
import {
  isDialogueMessage,
  type PhaseKind,
  type PhaseOutputOf,
  type RunEvent,
  type RunEventOf,
} from '../domain/events.ts';
import type { NodeId, TeamPolicy } from '../domain/ids.ts';
import type { MessageOf } from '../domain/messages.ts';
import { messageTokens, type Outcome, type Trajectory, type Turn } from '../domain/transcript.ts';
import { type Recipe, recipeSchema } from '../recipe/schema.ts';
import type { LoggedLine } from '../store/event-log.ts';
import { requireWithin } from '../store/files.ts';
import { ForkLog, forksPath, type LoggedFork } from '../store/fork-log.ts';
import { logPath } from '../store/log-file.ts';
import { type Manifest, manifestPath, notThisLog, readManifest } from '../store/manifest.ts';
import { type PhaseName, requireKind } from '../store/run-folder.ts';
import { comparisonOf, type Scale, scaleFrom, searchOf } from './comparison.ts';
import { IndexedLog, indexPath } from './indexed-log.ts';
import { type IndexData, type IndexedTree, outcomes, type PlaceBefore } from './run-index.ts';
import { type SaidOptions, type Saying, saidIn } from './said.ts';
import {
  type DialogueSummary,
  kindOf,
  type PhaseSummary,
  phaseSummaryOf,
  summaryOf,
  type TreeSummary,
  treeSummaryOf,
} from './summaries.ts';
import {
  type NodeReading,
  nodeReading,
  type ReadTree,
  type TreeReading,
  treeReading,
} from './tree-reading.ts';

/** What dialogues have in common that are asked for. */
export interface DialogueFilter {
  readonly phase?: string | undefined;
  readonly taskId?: string | undefined;
  /** Root of their tree. */
  readonly tree?: string | undefined;
  /** Null: those that are held. */
  readonly outcome?: Outcome | null | undefined;
}

type Ranked = RunEventOf<'trajectory.ranked'>;

/** A dialogue: a `Trajectory`, but that it may be under way. */
export interface DialogueReading extends Omit<Trajectory, 'outcome'> {
  readonly outcome: Outcome | null;
  readonly summary: DialogueSummary;
  /** Its reward, and the loss of each turn under the base; null where it has not been ranked. */
  readonly ranked: Ranked | null;
  /** What its metric asked the judge model. */
  readonly questions: readonly MessageOf<'judge.asked'>[];
}

/** A fork: its own events, and all its turns, those included that it goes on from. */
export type ForkReading = LoggedFork;

/** Bytes that are taken in at once where others wait. */
const partBytes = 8 << 20;
/** Most trees that are searched again to find on which scale a phase's values were paired. */
const mostForScale = 32;

export class RunReader {
  readonly folder: string;
  readonly #log: IndexedLog;
  #manifest: Manifest | null;
  /** The manifest's; undefined until it is asked for. */
  #recipe: Recipe | null | undefined;
  #last: { readonly tree: IndexedTree; readonly events: number; readonly read: ReadTree } | null = null;
  readonly #scales = new Map<string, Scale>();
  /** The first event of each training that was asked about, by where that begins; every turn of a page asks. */
  readonly #firsts = new Map<number, RunEvent>();

  private constructor(folder: string, afresh = false) {
    this.folder = folder;
    this.#manifest = manifestIn(folder);
    const placeBefore: PlaceBefore = (tree, node) => {
      const turns = pathTo(this.#read(tree).conversation, node);
      return turns.length === 0 ? null : { tokens: messageTokens(turns), turns: turns.length };
    };
    this.#log = new IndexedLog(folder, placeBefore, afresh);
  }

  /**
   * Opens a run to read it, whoever writes it, and reads what of its log is not in its index. Nothing of the run is changed, but
   * that the index is written where it can be. A folder with a log alone, as `holdDialogue` leaves it, has no manifest. Throws
   * `run.missing`, `run.version` for a run of another format, `run.corrupt` with the line that is not an event of the log, or
   * `io.read`.
   */
  static open(folder: string): RunReader {
    const reader = new RunReader(folder);
    try {
      reader.refresh();
      return reader;
    } catch (error) {
      reader.close();
      throw error;
    }
  }

  /**
   * The index of a run as it is made of its log, as far as so many bytes: nothing is read of the one in its file, and nothing
   * written. Throws as `open` does.
   */
  static indexAnew(folder: string, bytes: number): IndexData {
    const reader = new RunReader(folder, true);
    try {
      reader.#takeIn(bytes);
      return reader.#data;
    } finally {
      reader.close();
    }
  }

  /** As `open`, a part after the other, so that others get a turn; `onProgress` hears how many bytes are left. */
  static async openInParts(
    folder: string,
    { onProgress, signal }: { onProgress?: (left: number) => void; signal?: AbortSignal | undefined } = {},
  ): Promise<RunReader> {
    const reader = new RunReader(folder);
    try {
      for (let left = reader.#takeIn(partBytes); left > 0; left = reader.#takeIn(partBytes)) {
        onProgress?.(left);
        await nextTick();
        requireWanted(signal, `Reading ${folder}`);
      }
      return reader;
    } catch (error) {
      reader.close();
      throw error;
    }
  }

  /**
   * Takes in what the log has gained, and says whether that is anything. A last line without its end is left for the next time.
   * Throws as `open` does, and `run.corrupt` where the log was cut or replaced: then the run is to be opened again.
   */
  refresh(): boolean {
    const { events } = this.#log.end;
    this.#takeIn(Number.POSITIVE_INFINITY);
    return this.#log.end.events > events;
  }

  /** What began the run and how far it is; null in a folder that holds a log alone. */
  get manifest(): Manifest | null {
    return this.#manifest;
  }

  /** The run's recipe; null without a manifest, or where this version knows no such recipe. */
  get recipe(): Recipe | null {
    if (this.#recipe === undefined)
      this.#recipe = recipeSchema.safeParse(this.#manifest?.recipe).data ?? null;
    return this.#recipe;
  }

  /** Where the log is. */
  get log(): string {
    return this.#log.file;
  }

  /** Events in the log, and their bytes, as far as it was read. */
  get size(): { readonly events: number; readonly bytes: number } {
    const { events, bytes } = this.#log.end;
    return { events, bytes };
  }

  /** What the run ended with; null while it has not. */
  get policy(): TeamPolicy | null {
    return this.#data.policy;
  }

  /** Why the index that was found was made anew; null where it was used, or there was none. */
  get indexProblem(): string | null {
    return this.#log.problem;
  }

  close(): void {
    this.#log.close();
  }

  phases(): readonly PhaseSummary[] {
    return this.#data.phases.map(phaseSummaryOf);
  }

  /** What a phase handed on; null while it is not completed. Throws `run.corrupt` where it was of another kind. */
  outputOf<Kind extends PhaseKind>({ name, kind }: PhaseName<Kind>): PhaseOutputOf<Kind> | null {
    const to = this.#data.phases.find((phase) => phase.name === name)?.to ?? null;
    const [event] = to === null ? [] : this.events(to - 1, to);
    if (event?.type !== 'phase.completed') return null;
    return requireKind(event.output, { name, kind }, this.#log.file);
  }

  /** What dealt the task or the format first that an event deals; undefined where none was dealt, and for other events. */
  dealtBefore(event: RunEvent): RunEvent | undefined {
    const { tasks, formatDeals } = this.#data;
    if (event.type === 'task.dealt') return this.#eventAt(tasks.get(event.taskId));
    return event.type === 'format.dealt' ? this.#eventAt(formatDeals.get(event.format)) : undefined;
  }

  /** The pairs of forks that training phases took, which each notes as its first event. */
  forksTaken(): RunEventOf<'forks.taken'>[] {
    return this.#data.phases.flatMap((phase) => {
      if (kindOf(phase) !== 'train') return [];
      const known = this.#firsts.get(phase.from) ?? this.#eventAt(phase.from + 1);
      if (known !== undefined) this.#firsts.set(phase.from, known);
      return known?.type === 'forks.taken' ? [known] : [];
    });
  }

  /** What became of the dialogues, in the order in which they were opened. */
  *dialogues({ phase, taskId, tree, outcome }: DialogueFilter = {}): Generator<DialogueSummary> {
    const within = tree === undefined ? null : (this.#index.treeOf(tree)?.rows ?? []);
    const { trees, phases, columns, rows } = this.#data;
    for (let place = 0; place < (within?.length ?? rows); place++) {
      const row = within?.[place] ?? place;
      const own = trees[columns.tree[row]!]!;
      if (phase !== undefined && phases[own.phase]!.name !== phase) continue;
      if (taskId !== undefined && own.taskId !== taskId) continue;
      if (outcome !== undefined && outcomes[columns.outcome[row]!] !== outcome) continue;
      yield summaryOf(this.#index, row);
    }
  }

  /** What became of the tasks, phase by phase. */
  *trees({ phase, taskId }: Pick<DialogueFilter, 'phase' | 'taskId'> = {}): Generator<TreeSummary> {
    const { trees, phases } = this.#data;
    for (const tree of trees) {
      if (phase !== undefined && phases[tree.phase]!.name !== phase) continue;
      if (taskId !== undefined && tree.taskId !== taskId) continue;
      yield treeSummaryOf(this.#index, tree);
    }
  }

  /** A dialogue; null where there is none of this id. */
  dialogue(id: string): DialogueReading | null {
    const row = this.#index.rowOf(id);
    if (row === undefined) return null;
    const read = this.#read(this.#data.trees[this.#data.columns.tree[row]!]!);
    return this.#dialogueReading(row, read, this.#ranked([row]));
  }

  /** What the log says of a tree, and its dialogues in the order in which they were opened; null where there is none. */
  conversation(root: string): (ReadTree & { readonly dialogues: readonly DialogueReading[] }) | null {
    const tree = this.#index.treeOf(root);
    if (tree === undefined) return null;
    const read = this.#read(tree);
    const ranked = this.#ranked(tree.rows);
    return { ...read, dialogues: tree.rows.map((row) => this.#dialogueReading(row, read, ranked)) };
  }

  #dialogueReading(row: number, tree: ReadTree, ranked: readonly Ranked[]): DialogueReading {
    const own = this.#index.idOf(row);
    const { forest, conversation, events } = tree;
    const { format, leaf, closed } = conversation.dialogues[own]!;
    const turns = pathTo(conversation, leaf);
    const trajectory = forest.trajectoryOf(own) ?? {
      ...{ id: own, taskId: conversation.taskId, format, turns, ...(tree.deal ?? { views: {} }) },
      ...{ outcome: closed?.outcome ?? null, failure: null, verdict: null },
    };
    return {
      ...trajectory,
      summary: summaryOf(this.#index, row),
      ranked: ranked.find(({ dialogueId }) => dialogueId === own) ?? null,
      questions: events.flatMap((event) =>
        event.type === 'judge.asked' && event.dialogueId === own ? [event] : [],
      ),
    };
  }

  /** A tree: all its turns, in a search what they are worth, and which of them were paired and why others were not; null where there is none. */
  tree(root: string): TreeReading | null {
    const tree = this.#index.treeOf(root);
    return tree === undefined ? null : this.#treeReading(tree).reading;
  }

  /** A turn: what each role had heard when it was said, and what came of it; null where there is none of this id. */
  node(id: string): NodeReading | null {
    const tree = this.#index.treeAround(id);
    if (tree === undefined || tree.root === id) return null;
    const { read, reading } = this.#treeReading(tree);
    return nodeReading(id as NodeId, read, reading);
  }

  /** The forks of the run, or of one of its trees, as far as they are over, each with all its turns from the root on. */
  forks(tree?: string): ForkReading[] {
    requireWithin(this.folder, forksPath(this.folder));
    const forks = [...ForkLog.read(this.folder).forks.values()];
    const said = new Map(forks.flatMap(({ turns }) => turns).map((turn) => [turn.id, turn]));
    const read = new Map<string, ReadTree>();
    const before = (root: string, node: NodeId): Turn[] => {
      const own = this.#index.treeOf(root);
      if (own === undefined || node === own.root) return [];
      const known = read.get(root) ?? this.#read(own);
      read.set(root, known);
      return pathTo(known.conversation, node);
    };
    return forks
      .filter(({ begun }) => tree === undefined || begun.tree === tree)
      .map((fork) => {
        const turns: Turn[] = [];
        const { dialogueId } = fork.begun;
        let at = fork.turns[0]?.parent ?? (dialogueId.slice(0, dialogueId.lastIndexOf('.')) as NodeId);
        // A fork of a fork goes on from what that one said.
        for (let turn = said.get(at); turn !== undefined; turn = said.get(at)) {
          turns.unshift(turn);
          at = turn.parent;
        }
        return { ...fork, turns: [...before(fork.begun.tree, at), ...turns, ...fork.turns] };
      });
  }

  /**
   * The messages in which a text stands, in the order of the log, whatever the case of a to z; of forks none. Others get a turn
   * meanwhile. Throws `run.corrupt` where such a message is not what was indexed; rejects with `interrupted` on abort.
   */
  said(text: string, options: SaidOptions = {}): AsyncGenerator<Saying> {
    return saidIn(this.#log, text, options);
  }

  /**
   * The cohorts of a phase, each with its number in it, the number of its first event and that after its last, null while it is held;
   * where `holds` is given, those with a tree for which it holds.
   */
  cohorts(
    phase: string,
    holds?: (tree: IndexedTree) => boolean,
  ): { readonly cohort: number; readonly from: number; readonly to: number | null }[] {
    const { phases, trees, cohortFrom, cohortTo } = this.#data;
    const place = phases.findIndex(({ name }) => name === phase);
    if (place < 0) return [];
    const { from: first, to: end } = phases[place]!;
    const wanted =
      holds && new Set(trees.flatMap((tree) => (tree.phase === place && holds(tree) ? tree.cohorts : [])));
    const before = cohortFrom.findIndex((from) => from >= first);
    return cohortFrom.flatMap((from, at) => {
      const isIn = from >= first && (end === null || from < end) && (wanted?.has(at) ?? true);
      return isIn ? [{ cohort: at - before, from, to: cohortTo[at]! || null }] : [];
    });
  }

  /** Checks the sum of every event; throws `run.corrupt` with the line that does not have its own. */
  check(): void {
    this.#log.check();
  }

  /** The events numbered `from` (inclusive) to `to` (exclusive) as their lines have them, checked against their sums. */
  lines(from: number, to?: number): Generator<LoggedLine> {
    return this.#log.lines(from, to);
  }

  /** The events numbered `from` (inclusive) to `to` (exclusive), validated. */
  events(from: number, to?: number): Generator<RunEvent> {
    return this.#log.events(from, to);
  }

  get #index() {
    return this.#log.index;
  }

  get #data() {
    return this.#log.index.data;
  }

  /** Bytes that are left. */
  #takeIn(mostBytes: number): number {
    const manifest = manifestIn(this.folder);
    const left = this.#log.refresh(mostBytes);
    if (left === 0 && manifest !== null && !this.#log.holds(manifest.log)) {
      throw notThisLog(this.#log.file, manifest);
    }
    this.#manifest = manifest;
    this.#recipe = undefined;
    return left;
  }

  /** How the dialogues of a tree were ranked, as far as they were: by their rows, next to each other in the log. */
  #ranked(rows: readonly number[]): Ranked[] {
    const numbers = rows.map((row) => this.#data.columns.ranked[row]!).filter((number) => number > 0);
    const wanted = new Set(numbers);
    const ranked: Ranked[] = [];
    if (numbers.length === 0) return ranked;
    for (const raw of this.#log.raw(Math.min(...numbers), Math.max(...numbers) + 1)) {
      const event = wanted.has(raw.number) ? this.#log.parse(raw) : null;
      if (event?.type === 'trajectory.ranked') ranked.push(event);
    }
    return ranked;
  }

  #eventAt(number: number | undefined): RunEvent | undefined {
    return number === undefined ? undefined : this.#log.events(number, number + 1).next().value;
  }

  /** What the log says of a tree. One tree is asked about several times, mostly: the last one is kept until the log grows. */
  #read(tree: IndexedTree): ReadTree {
    const { events } = this.#log.end;
    if (this.#last?.tree !== tree || this.#last.events !== events)
      this.#last = { tree, events, read: this.#readLog(tree) };
    return this.#last.read;
  }

  /** Reads its cohorts, and of these what concerns it. */
  #readLog(tree: IndexedTree): ReadTree {
    const { cohortFrom, cohortTo, tasks, formatDeals } = this.#data;
    const dealt = this.#eventAt(tasks.get(tree.taskId));
    const deal = dealt?.type === 'task.dealt' ? dealIn(dealt) : null;
    const formats = new Map<string, MessageOf<'format.dealt'>>();
    const forest = new Forest({
      dealOf: (task) => (task === tree.taskId ? deal : null),
      format: (name) => {
        const event = this.#eventAt(formatDeals.get(name));
        return event?.type === 'format.dealt' ? event : null;
      },
      turnsBefore: () => [],
    });
    const ids = new Set(tree.rows.map((row) => this.#index.idOf(row) as string));
    const named = [...ids].every((id) => id.startsWith(tree.root))
      ? JSON.stringify(tree.root).slice(1, -1)
      : '';
    const events: EventOfDialogue[] = [];
    for (const cohort of tree.cohorts) {
      for (const raw of this.#log.raw(cohortFrom[cohort]!, cohortTo[cohort]! || undefined, named)) {
        if (!ids.has(raw.value.dialogueId as string)) continue;
        const event = this.#log.parse(raw) as EventOfDialogue;
        if (isDialogueMessage(event)) forest.hear(event);
        events.push(event);
      }
    }
    for (const name of new Set(tree.rows.map((row) => summaryOf(this.#index, row).format))) {
      const format = name === null ? undefined : this.#eventAt(formatDeals.get(name));
      if (format?.type === 'format.dealt') formats.set(format.format, format);
    }
    const [conversation] = forest.trees();
    if (conversation?.root !== tree.root) {
      throw new OptimaError(
        'run.corrupt',
        `${this.#log.file}: tree ${tree.root} is not where its index has it.`,
        {
          hint: `Delete ${indexPath(this.folder)}: it is made anew.`,
        },
      );
    }
    return { forest, conversation, events, deal, formats };
  }

  #treeReading(tree: IndexedTree): { readonly read: ReadTree; readonly reading: TreeReading } {
    const { recipe } = this;
    const read = this.#read(tree);
    const phase = this.#data.phases[tree.phase]!;
    const isSearched = recipe !== null && 'search' in recipe && kindOf(phase) === 'search';
    const search = isSearched ? searchOf(read, recipe) : null;
    const ranked = this.#ranked(tree.rows);
    const parts = {
      ...{
        phase: phase.name,
        dialogues: tree.rows.map((row) => summaryOf(this.#index, row)),
        ranked,
        search,
      },
      rolloutsPerExpansion: isSearched ? recipe.search.rolloutsPerExpansion : 1,
      pairs:
        search === null || recipe === null
          ? null
          : comparisonOf(read.conversation, {
              ...{ search, ranked, recipe, made: this.#madeOf(tree), scale: this.#scaleOf(tree, recipe) },
            }),
    };
    return { read, reading: treeReading(read, parts) };
  }

  #madeOf({ pairs }: IndexedTree): RunEventOf<'pairs.made'> | null {
    if (pairs === null) return null;
    const [event] = this.#log.events(pairs, pairs + 1);
    return event as RunEventOf<'pairs.made'>;
  }

  /** On which scale the values of a search phase were paired, from what was kept of it. */
  #scaleOf({ phase }: IndexedTree, recipe: Recipe): Scale {
    const { name } = this.#data.phases[phase]!;
    const known = this.#scales.get(name);
    if (known !== undefined) return known;
    const paired = this.#data.trees.filter((tree) => tree.phase === phase && tree.pairsKept > 0);
    const scale = scaleFrom(recipe, this.#paired(paired.slice(0, mostForScale), recipe));
    // While none are paired yet there may come more.
    if (paired.length > 0) this.#scales.set(name, scale);
    return scale;
  }

  *#paired(trees: readonly IndexedTree[], recipe: Recipe) {
    for (const tree of trees) {
      const read = this.#read(tree);
      yield { conversation: read.conversation, search: searchOf(read, recipe), made: this.#madeOf(tree) };
    }
  }
}

/** The manifest of a run's folder; null where there is a log alone. */
function manifestIn(folder: string): Manifest | null {
  const file = manifestPath(folder);
  if (!fs.existsSync(file) && fs.existsSync(logPath(folder))) return null;
  requireWithin(folder, file);
  return readManifest(folder);
}
