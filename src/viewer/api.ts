// What the server and the page say to each other: the types of every answer. A static export holds the same answers as files.
import type { EdgeCase, PhaseKind, PhaseOutput } from '../domain/events.ts';
import type { ChatMessage } from '../domain/model.ts';
import type { Observation, Outcome, Provenance } from '../domain/transcript.ts';

/** What went wrong, as the page shows it. */
export interface Failure {
  readonly code: string;
  readonly message: string;
  readonly hint?: string | undefined;
}

/** Figures of a team, as far as the overview needs them. */
export interface Figures {
  readonly taskScore: number;
  /** 95 %. */
  readonly interval: readonly [number, number] | null;
  readonly tokens: number;
  readonly n: number;
  readonly failed: number;
}

/** `stopped`: no process has the run and it is not complete. `unreadable`: `failure` says why. */
export type RunState = 'running' | 'completed' | 'failed' | 'stopped' | 'unreadable';

/** A run as the list shows it. */
export interface RunEntry {
  /** Names it in addresses: the name of its folder, with a number where two have one name. */
  readonly id: string;
  readonly folder: string;
  readonly state: RunState;
  readonly failure: Failure | null;
  readonly scenario: string;
  /** The algorithm, and the preset that it began from. */
  readonly recipe: string;
  readonly preset: string;
  readonly seed: number | null;
  /** ISO 8601; null where the log is empty. */
  readonly startedAt: string | null;
  /** Seconds of work in completed phases. */
  readonly seconds: number;
  /** Whether its log has been read, from which its figures follow, or cannot be. */
  readonly isRead: boolean;
  /** Of the base on the test tasks, and of the policy after each iteration: how it came out. */
  readonly base: Figures | null;
  readonly latest: Figures | null;
  readonly iterations: number;
}

/** What the server was given to do beyond reading. */
export interface Abilities {
  /** Whether a turn can be forked. */
  readonly fork: boolean;
  /** Whether a base model can be asked how likely it finds a text. */
  readonly score: boolean;
}

export interface RunList {
  readonly runs: readonly RunEntry[];
  readonly abilities: Abilities;
}

/** A phase as the overview shows it. */
export interface PhaseView {
  readonly name: string;
  readonly kind: PhaseKind | null;
  readonly startedAt: string;
  /** Null while it is under way, or where it was cut off. */
  readonly endedAt: string | null;
  /** Null as above. */
  readonly events: number | null;
  readonly dialogues: number;
  readonly output: PhaseOutput | null;
}

/** How a team was at one moment of a run. */
export interface CurvePoint extends Figures {
  /** `base`, the iteration, or `trained`. */
  readonly label: string;
  readonly phase: string;
  /** Null where nothing was ranked. */
  readonly reward: number | null;
  /** On tasks that are held out: only these compare with each other. */
  readonly isTest: boolean;
}

/** A step of training, or the mean of several that stand for one. */
export interface StepPoint {
  readonly phase: string;
  readonly step: number;
  readonly loss: number;
  readonly gradNorm: number;
}

/** A run's overview. */
export interface RunAnswer {
  readonly entry: RunEntry;
  /** Events in the log when this was read. */
  readonly events: number;
  readonly command: readonly string[];
  readonly versions: { readonly package: string; readonly node: string; readonly engine: string };
  readonly base: string;
  readonly partners: Readonly<Record<string, string>>;
  readonly judge: string | null;
  readonly recipe: Readonly<Record<string, unknown>>;
  readonly phases: readonly PhaseView[];
  readonly curve: readonly CurvePoint[];
  readonly steps: readonly StepPoint[];
  readonly warnings: readonly string[];
  /** Tokens that were sampled in all completed phases, and by all there were dialogues. */
  readonly sampledTokens: number;
  readonly dialogues: number;
  readonly failedDialogues: number;
}

/** A task within a phase: one tree. */
export interface TaskRow {
  readonly tree: string;
  readonly phase: string;
  readonly taskId: string;
  readonly dialogues: number;
  readonly failed: number;
  /** Of the dialogues that have one; null without any. */
  readonly best: number | null;
  readonly worst: number | null;
  readonly gap: number | null;
  /** What `best`, `worst` and `gap` are of: a phase that is not ranked has task scores alone. */
  readonly of: 'reward' | 'task score';
  /** Means; null where every dialogue failed. */
  readonly taskScore: number | null;
  readonly tokens: number | null;
  /** Of its dialogues, or pairs, those that were trained on. */
  readonly kept: number;
}

/** A task among those that a search found. */
export interface FoundRow extends TaskRow {
  /** Messages of its dialogues in which it stands, and the turn of the first; missing where its id alone has it. */
  readonly said?: { readonly messages: number; readonly first: string } | undefined;
}

export interface TasksAnswer {
  /** The page's rows, of `total`. */
  readonly rows: readonly FoundRow[];
  readonly total: number;
  readonly page: number;
  readonly pageSize: number;
  /** Phases that have trees, with how many. */
  readonly phases: readonly { readonly name: string; readonly trees: number }[];
  /** The phase that the rows are of. */
  readonly phase: string;
}

/** A dialogue as a row. */
export interface DialogueView {
  readonly id: string;
  /** Its last turn; the root where it has none. */
  readonly leaf: string;
  readonly outcome: Outcome | null;
  readonly failure: string | null;
  readonly taskScore: number | null;
  readonly exactMatch: boolean | null;
  readonly turns: number;
  readonly tokens: number;
  readonly reward: number | null;
  readonly terms: { readonly task: number; readonly tokenShare: number; readonly loss: number } | null;
  readonly edgeCases: readonly EdgeCase[];
  /** Whether it was selected; null where nothing was selected of its phase. */
  readonly kept: boolean | null;
  readonly format: string | null;
  /** Number of the fork that it is; null: the run's own. */
  readonly fork: number | null;
}

/** Two siblings of a searched tree, and why they are no pair; null: they are one. */
export interface PairView {
  readonly parent: string;
  readonly better: string;
  readonly worse: string;
  readonly speaker: string;
  /** Of the better one, and how much the worse one's is below it; null where the log does not tell. */
  readonly value: number | null;
  readonly gap: number | null;
  readonly reason: string | null;
}

/** A turn of a tree, its text cut short. */
export interface TreeNode {
  readonly id: string;
  readonly parent: string;
  readonly speaker: string;
  readonly text: string;
  /** Characters of the whole text. */
  readonly length: number;
  readonly tokens: number;
  /** What its roll-outs, or the dialogues through it, were worth; null without a reward. */
  readonly value: number | null;
  readonly visits: number;
  /** Turns that became one with it. */
  readonly merged: number;
  /** Expansions that began here. */
  readonly expansions: number;
  readonly pair: 'better' | 'worse' | 'both' | null;
  /** Whether it is in a row that was trained on. */
  readonly trained: boolean;
  readonly provenance: Provenance;
  /** Number of the fork that it is of; null: the run's own. */
  readonly fork: number | null;
}

export interface TreeAnswer {
  readonly root: string;
  readonly phase: string;
  readonly taskId: string;
  readonly isSearched: boolean;
  /** What each role is told. */
  readonly views: Readonly<Record<string, string>>;
  /** Of the root; null where it was not searched. */
  readonly value: number | null;
  /** Parents before their children. */
  readonly nodes: readonly TreeNode[];
  readonly dialogues: readonly DialogueView[];
  readonly pairs: readonly PairView[];
  /** Why others were no pairs, by how many; null where none have been made. */
  readonly dropped: Readonly<Record<string, number>> | null;
  /** What the log alone does not tell, in words. */
  readonly untold: readonly string[];
}

/** A token of a turn. */
export interface TokenView {
  readonly id: number;
  /** Null where no tokenizer can be asked. */
  readonly text: string | null;
  /** Log-probability under the policy that said it, nats. */
  readonly policy: number | null;
}

/** A training row that a turn is in: a dialogue of which it is a part, or a pair of which it is a side. */
export interface RowView {
  readonly kind: 'dialogue' | 'pair';
  /** The dialogue, or the other side. */
  readonly of: string;
  readonly note: string;
}

/** A turn with all that the run says of it. */
export interface NodeAnswer {
  readonly id: string;
  readonly parent: string;
  readonly root: string;
  readonly phase: string;
  readonly taskId: string;
  readonly fork: number | null;
  readonly speaker: string;
  readonly text: string;
  /** With private notes; null where that is `text`. */
  readonly written: string | null;
  readonly observed: readonly Observation[];
  readonly finish: 'stop' | 'length';
  readonly provenance: Provenance;
  readonly policy: string;
  readonly promptTokens: number;
  readonly seed: number;
  readonly tokens: readonly TokenView[];
  /** From the root down to its parent. */
  readonly path: readonly { readonly id: string; readonly speaker: string; readonly text: string }[];
  readonly siblings: readonly TreeNode[];
  readonly children: readonly TreeNode[];
  /** What was said in its place, and became one with it. */
  readonly merged: readonly { readonly dialogue: string; readonly text: string }[];
  /** What each role had before it when the turn was said. */
  readonly views: Readonly<Record<string, readonly ChatMessage[]>>;
  readonly value: number | null;
  readonly visits: number;
  /** Mean negative log-likelihood under the frozen base, nats per token; null where it was not ranked. */
  readonly baseLoss: number | null;
  readonly dialogues: readonly DialogueView[];
  readonly pairs: readonly PairView[];
  readonly rows: readonly RowView[];
  /** Why it was trained on or not, in sentences. */
  readonly why: readonly string[];
}

/** A turn on the way of a dialogue. */
export interface TurnView {
  readonly id: string;
  readonly speaker: string;
  readonly text: string;
  readonly written: string | null;
  readonly tokens: number;
  readonly provenance: Provenance;
  /** Who hears it beside its speaker; null: all. */
  readonly to: readonly string[] | null;
  /** Who speaks at once; null: it alone. */
  readonly round: readonly string[] | null;
  readonly observed: readonly Observation[];
  /** Whether the dialogue itself said it, and not one from which it goes on. */
  readonly isOwn: boolean;
  /** What was said in its place and became one with it; null: it was said itself. */
  readonly mergedFrom: string | null;
  /** Mean negative log-likelihood under the base, nats per token. */
  readonly baseLoss: number | null;
}

/** A dialogue from its root to its end. */
export interface DialogueAnswer extends DialogueView {
  readonly root: string;
  readonly phase: string;
  readonly taskId: string;
  readonly roles: readonly string[];
  readonly opening: readonly Observation[];
  /** The team's answer; null where none was given, or no verdict. */
  readonly answer: string | null;
  readonly seats: Readonly<Record<string, number>> | null;
  readonly way: readonly TurnView[];
  readonly questions: readonly { readonly prompt: string; readonly reply: string }[];
}

/** A state of a machine. */
export interface ChartState {
  readonly name: string;
  readonly isFirst: boolean;
  readonly isFinal: boolean;
}

/** A way from one state to another, or back to itself. */
export interface ChartEdge {
  readonly from: string;
  readonly to: string;
  readonly event: string;
  readonly guard: string | null;
  readonly actions: readonly string[];
}

/** A statechart as its definition has it. */
export interface Chart {
  readonly id: string;
  readonly states: readonly ChartState[];
  readonly edges: readonly ChartEdge[];
}

/** An actor that a run has, or had, and the state it is in. */
export interface ActorView {
  readonly name: string;
  readonly machine: string;
  readonly state: string;
  readonly note: string;
}

export interface MachinesAnswer {
  readonly charts: readonly Chart[];
  /** Of the run itself; those of a dialogue follow from what was said in it. */
  readonly actors: readonly ActorView[];
}

/** How likely the frozen base finds each token of a turn, nats. */
export interface ScoresAnswer {
  readonly model: string;
  readonly logprobs: readonly number[];
}

/** What a person wants said: in a turn's place, or after it. Without a text the policy speaks again. */
export interface ForkRequest {
  readonly at: 'instead-of' | 'after';
  readonly node: string;
  readonly say?: string;
}

/** A dialogue from where a fork is on. */
export interface Branch {
  readonly dialogue: string;
  readonly turns: readonly {
    readonly id: string;
    readonly speaker: string;
    readonly text: string;
    readonly provenance: Provenance;
  }[];
  readonly outcome: Outcome | null;
  readonly failure: string | null;
  readonly answer: string | null;
  readonly taskScore: number | null;
  readonly tokens: number;
  readonly reward: number | null;
  readonly terms: DialogueView['terms'];
}

export interface ForkAnswer {
  readonly fork: number;
  readonly branch: Branch;
  /** What stands beside it; null where nothing does. */
  readonly beside: Branch | null;
  /** What the turn beside it is worth: the mean of its roll-outs, or its dialogue's reward. */
  readonly besideValue: number | null;
  /** Whether the two can be kept as a pair: something stands beside it, and the team is trained on such turns. */
  readonly keeps: boolean;
}

/** A fork's pair, kept to be trained on. */
export interface KeptAnswer {
  readonly fork: number;
  readonly chosen: string;
  readonly rejected: string;
  readonly value: number;
  readonly gap: number;
}

/** An event as the live page shows it. */
export interface LiveEvent {
  readonly seq: number;
  readonly type: string;
  readonly phase: string | null;
  /** The dialogue or node that it is of. */
  readonly of: string | null;
  readonly speaker: string | null;
  /** A few words of it. */
  readonly text: string;
}

/** Every question that is answered with JSON, by its path. */
export interface Answers {
  readonly '/api/runs': RunList;
  readonly '/api/runs/{run}': RunAnswer;
  readonly '/api/runs/{run}/tasks': TasksAnswer;
  readonly '/api/runs/{run}/trees/{tree}': TreeAnswer;
  readonly '/api/runs/{run}/nodes/{node}': NodeAnswer;
  readonly '/api/runs/{run}/dialogues/{dialogue}': DialogueAnswer;
  readonly '/api/runs/{run}/machines': MachinesAnswer;
  readonly '/api/runs/{run}/nodes/{node}/scores': ScoresAnswer;
}

/** The root of the tree that a node or a dialogue is in. */
export const rootOf = (node: string): string => node.split('.', 1)[0]!;

/** A file name that says an id: letters, digits and hyphens alone, so that no id leads out of its folder. */
const fileNameOf = (id: string): string =>
  id.replaceAll(/[^\w-]/gu, (character) => `~${character.codePointAt(0)!.toString(16)}`);

/** Where a static export has an answer, relative to its page. */
export function staticFile(path: keyof Answers | string, params: Readonly<Record<string, string>>): string {
  const run = `data/${fileNameOf(params.run ?? '')}`;
  if (path === '/api/runs') return 'data/runs.json';
  if (path === '/api/runs/{run}') return `${run}/run.json`;
  if (path === '/api/runs/{run}/tasks') return `${run}/tasks.json`;
  if (path === '/api/runs/{run}/machines') return `${run}/machines.json`;
  const tree = `${run}/${fileNameOf(rootOf(params.tree ?? params.node ?? params.dialogue ?? ''))}`;
  if (path === '/api/runs/{run}/trees/{tree}') return `${tree}.tree.json.gz`;
  // The nodes of a tree are one file, and so are its dialogues: they say much alike.
  return params.node === undefined ? `${tree}.dialogues.json.gz` : `${tree}.nodes.json.gz`;
}
