// Turns, what the environment says between them, dialogues, and what each agent sees of them.
import type { DialogueId, NodeId, PolicyHash, TaskId } from './ids.ts';
import type { ChatMessage } from './model.ts';

/** Who wrote a turn. Only `sampled` turns are trained on. */
export type Provenance = 'sampled' | 'human' | 'recorded';

/** One message, as its speaker sent it: a node of a conversation tree, which stores only what it adds. */
export interface Turn {
  readonly id: NodeId;
  /** The turn that it answers; the tree's root for the first. */
  readonly parent: NodeId;
  readonly speaker: string;
  /** As those who heard it read it. */
  readonly text: string;
  readonly tokenIds: readonly number[];
  /** Nats, one for each token id; none of what a person wrote. */
  readonly logprobs: readonly number[];
  readonly finish: 'stop' | 'length';
  readonly policyHash: PolicyHash;
  readonly seed: number;
  readonly provenance: Provenance;
  /** Tokens the speaker had to read to write this turn. */
  readonly promptTokens: number;
  /** What its speaker wrote, its private notes included; absent where that is `text`. */
  readonly written?: string;
  /** What the others call its speaker, before the text; absent: they read the text alone. */
  readonly name?: string;
  /** Who hears it beside its speaker; absent: all. */
  readonly to?: readonly string[];
  /** The roles that spoke at once, in the order of their turns, none of which hears another before it has spoken; absent: one spoke. */
  readonly round?: readonly string[];
  /** What the environment said when it had been heard; absent: nothing. The fold puts it here, no message holds it. */
  readonly observed?: readonly Observation[];
}

/** What the environment says: no node of a tree, spoken by no policy and never trained on. */
export interface Observation {
  readonly text: string;
  /** Who hears it; absent: all. */
  readonly to?: readonly string[];
}

/** What is said before the first turn: it follows from the task alone. */
export interface Deal {
  /** Each role's system text without the format prompt. */
  readonly views: Readonly<Record<string, string>>;
  /** What the environment opened with; absent: nothing. */
  readonly opening?: readonly Observation[];
}

/** How a dialogue ended. `failed` carries its reason in the trajectory's `failure`. */
export type Outcome = 'agreed' | 'turn-cap' | 'failed';

/** What the environment and the judge say of a finished dialogue. */
export interface Verdict {
  /** Task score in [0, 1]: F1, exact match … */
  readonly taskScore: number;
  readonly exactMatch: boolean;
  /** The team's final answer, or null when no answer parsed. */
  readonly answer: string | null;
  /** What each role got out of the dialogue, in [0, 1]; absent where the metric scores the team alone. */
  readonly seats?: Readonly<Record<string, number>>;
}

/** A walk from the root of a task's tree to a leaf: everything about one dialogue that later phases need. */
export interface Trajectory extends Deal {
  readonly id: DialogueId;
  readonly taskId: TaskId;
  /** Name of the format prompt drawn for this dialogue, or null. */
  readonly format: string | null;
  readonly turns: readonly Turn[];
  readonly outcome: Outcome;
  readonly failure: string | null;
  /** The role whose model refused to speak, where that is the failure. */
  readonly refusedBy?: string;
  /** Null exactly when the outcome is `failed`. */
  readonly verdict: Verdict | null;
}

/** A role's system text under a format prompt: the prompt is a line of its own. */
export const underFormat = (view: string, prompt: string): string => `${view}\n${prompt}`;

/** What its speaker wrote, private notes included. */
export const writtenOf = ({ text, written }: Pick<Turn, 'text' | 'written'>): string => written ?? text;

/** Whether the round of a turn goes on after it: others of it have not spoken yet. */
export const isMidRound = ({ speaker, round }: Pick<Turn, 'speaker' | 'round'>): boolean =>
  round !== undefined && round.at(-1) !== speaker;

/** Turns as they were taken: one after the other, or several at once, of which the last round may not be over. */
function roundsOf(turns: readonly Turn[]): Turn[][] {
  const rounds: Turn[][] = [];
  for (const turn of turns) {
    if (turn.round !== undefined && turn.round[0] !== turn.speaker) rounds.at(-1)!.push(turn);
    else rounds.push([turn]);
  }
  return rounds;
}

/**
 * The conversation as `role` sees it: its system text, its own turns as `assistant` (with their exact token ids), and as
 * `user` what it heard, of everybody else and of the environment. Of a round in which several speak at once its own turn
 * comes first; before it has spoken it hears nothing of that round. Where speakers have names, and around what the
 * environment says, all that it heard since its last turn is one message: many chat templates take no two of a kind in a row.
 */
export function viewOf(role: string, { views, opening = [] }: Deal, turns: readonly Turn[]): ChatMessage[] {
  const messages: ChatMessage[] = [{ role: 'system', content: views[role]! }];
  let joinsNext = false;
  const hear = (content: string, joins: boolean) => {
    const last = messages.at(-1)!;
    if (last.role === 'user' && (joins || joinsNext)) {
      messages[messages.length - 1] = { role: 'user', content: `${last.content}\n${content}` };
    } else messages.push({ role: 'user', content });
    joinsNext = joins;
  };
  const reaches = ({ to }: Pick<Turn, 'to'>) => to === undefined || to.includes(role);
  const observe = (observations: readonly Observation[]) => {
    for (const observation of observations) if (reaches(observation)) hear(observation.text, true);
  };
  observe(opening);
  for (const round of roundsOf(turns)) {
    const own = round.find(({ speaker }) => speaker === role);
    const last = round.at(-1)!;
    if (own !== undefined) messages.push(ownMessage(own));
    else if (isMidRound(last) && last.round!.includes(role)) break;
    for (const turn of round) {
      if (turn === own || !reaches(turn)) continue;
      const { name, text } = turn;
      hear(name === undefined ? text : `${name}: ${text}`, name !== undefined);
    }
    observe(last.observed ?? []);
  }
  return messages;
}

function ownMessage(turn: Turn): ChatMessage {
  const { tokenIds } = turn;
  return tokenIds.length > 0
    ? { role: 'assistant', content: writtenOf(turn), tokenIds }
    : { role: 'assistant', content: writtenOf(turn) };
}

/** Tokens of the messages alone, in tokens; system prompts and re-read context do not count (docs/method.md §2). */
export function messageTokens(turns: readonly Turn[]): number {
  return turns.reduce((sum, turn) => sum + turn.tokenIds.length, 0);
}
