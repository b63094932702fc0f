// Turns, dialogues and what each agent sees of them.
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
  readonly text: string;
  readonly tokenIds: readonly number[];
  /** Nats, one for each token id. */
  readonly logprobs: readonly number[];
  readonly finish: 'stop' | 'length';
  readonly policyHash: PolicyHash;
  readonly seed: number;
  readonly provenance: Provenance;
  /** Tokens the speaker had to read to write this turn. */
  readonly promptTokens: number;
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
export interface Trajectory {
  readonly id: DialogueId;
  readonly taskId: TaskId;
  /** Each role's system text without the format prompt. */
  readonly views: Readonly<Record<string, string>>;
  /** Name of the format prompt drawn for this dialogue, or null. */
  readonly format: string | null;
  readonly turns: readonly Turn[];
  readonly outcome: Outcome;
  readonly failure: string | null;
  /** Null exactly when the outcome is `failed`. */
  readonly verdict: Verdict | null;
}

/** A role's system text under a format prompt: the prompt is a line of its own. */
export const underFormat = (view: string, prompt: string): string => `${view}\n${prompt}`;

/**
 * The conversation as `role` sees it: its system text, its own turns as `assistant` (with their exact
 * token ids), everybody else's as `user`.
 */
export function viewOf(role: string, systemText: string, turns: readonly Turn[]): ChatMessage[] {
  const messages: ChatMessage[] = [{ role: 'system', content: systemText }];
  for (const turn of turns) {
    if (turn.speaker === role) {
      messages.push(
        turn.tokenIds.length > 0
          ? { role: 'assistant', content: turn.text, tokenIds: turn.tokenIds }
          : { role: 'assistant', content: turn.text },
      );
    } else {
      messages.push({ role: 'user', content: turn.text });
    }
  }
  return messages;
}

/** Tokens of the messages alone, in tokens; system prompts and re-read context do not count (docs/method.md §2). */
export function messageTokens(turns: readonly Turn[]): number {
  return turns.reduce((sum, turn) => sum + turn.tokenIds.length, 0);
}
