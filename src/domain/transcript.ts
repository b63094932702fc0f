// Turns, dialogues and what each agent sees of them. A turn stores only what it adds (a node of the tree).
import type { DialogueId, PolicyHash, TaskId, TurnId } from './ids.ts';
import type { ChatMessage } from './model.ts';

/** Who wrote a turn. Only `sampled` turns are trained on. */
export type Provenance = 'sampled' | 'human' | 'recorded';

/** One message of a dialogue, as the speaker sent it. */
export interface Turn {
  readonly id: TurnId;
  /** The turn before it; null for the first. */
  readonly parent: TurnId | null;
  readonly index: number;
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
}

/** A root-to-leaf walk: everything about one dialogue that later phases need. */
export interface Trajectory {
  readonly id: DialogueId;
  readonly taskId: TaskId;
  /** Each role's system text as the agents saw it. */
  readonly views: Readonly<Record<string, string>>;
  /** Each role's system text without the format prompt; equal to `views` where no format was drawn. */
  readonly plainViews: Readonly<Record<string, string>>;
  /** Name of the format prompt drawn for this dialogue, or null. */
  readonly format: string | null;
  readonly turns: readonly Turn[];
  readonly outcome: Outcome;
  readonly failure: string | null;
  /** Null exactly when the outcome is `failed`. */
  readonly verdict: Verdict | null;
}

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
