// The recorder hears every bus, hands each message to the log, and folds what it heard: conversations under way, from
// which agents speak and the judge scores, and trajectories when they have ended. The same fold reads a log.
import { OptimaError } from '../domain/errors.ts';
import type { DialogueId } from '../domain/ids.ts';
import type { DialogueMessage, MessageOf } from '../domain/messages.ts';
import type { ChatMessage } from '../domain/model.ts';
import { type Trajectory, type Turn, viewOf } from '../domain/transcript.ts';
import type { MessageBus } from './bus.ts';

interface DialogueState {
  readonly opened: MessageOf<'dialogue.opened'>;
  readonly turns: Turn[];
  closed: MessageOf<'dialogue.closed'> | null;
  verdict: MessageOf<'verdict.given'> | MessageOf<'verdict.failed'> | null;
}

/** Dialogues, as far as their messages have been heard. */
export class Dialogues {
  readonly #states = new Map<DialogueId, DialogueState>();

  /**
   * Takes in the next message. A dialogue that is opened again starts anew, behind those opened before. Throws
   * `run.corrupt` for a message of a dialogue that was never opened.
   */
  hear(message: DialogueMessage): void {
    if (message.type === 'dialogue.opened') {
      this.#states.delete(message.dialogueId);
      this.#states.set(message.dialogueId, { opened: message, turns: [], closed: null, verdict: null });
      return;
    }
    const state = this.#states.get(message.dialogueId);
    if (state === undefined) {
      throw new OptimaError(
        'run.corrupt',
        `Message ${message.type} of dialogue ${message.dialogueId} comes before its dialogue.opened.`,
      );
    }
    if (message.type === 'turn.taken') state.turns.push(message.turn);
    else if (message.type === 'dialogue.closed') state.closed = message;
    else if (message.type === 'verdict.given' || message.type === 'verdict.failed') state.verdict = message;
  }

  /** The turns of an opened dialogue so far. */
  turnsOf(dialogue: DialogueId): readonly Turn[] {
    return this.#states.get(dialogue)!.turns;
  }

  /** The conversation of an opened dialogue so far, as one of its roles sees it. */
  viewOf(dialogue: DialogueId, role: string): ChatMessage[] {
    const { opened, turns } = this.#states.get(dialogue)!;
    return viewOf(role, opened.views[role]!, turns);
  }

  /** The finished dialogues, in the order in which they were opened. A verdict that failed makes the outcome `failed`. */
  trajectories(): Trajectory[] {
    return [...this.#states.values()].flatMap(trajectoryOf);
  }
}

/** The finished dialogues among the messages, as `Dialogues` folds them. */
export function foldDialogues(messages: Iterable<DialogueMessage>): Trajectory[] {
  const dialogues = new Dialogues();
  for (const message of messages) dialogues.hear(message);
  return dialogues.trajectories();
}

export interface Recorder {
  /** Hears every message of a bus from now on. */
  record(bus: MessageBus): void;
  /** All dialogues that were recorded. */
  readonly dialogues: Dialogues;
}

/**
 * Hands messages to `sink` in the order in which they are sent, and then folds them. When either throws, nothing more
 * is recorded and `onFailure` gets what was thrown.
 */
export function createRecorder(
  sink: (message: DialogueMessage) => void,
  onFailure: (error: unknown) => void,
): Recorder {
  const dialogues = new Dialogues();
  let failed = false;
  const hear = (message: DialogueMessage) => {
    if (failed) return;
    try {
      sink(message);
      dialogues.hear(message);
    } catch (error) {
      failed = true;
      onFailure(error);
    }
  };
  return { record: (bus) => void bus.messages$.subscribe(hear), dialogues };
}

/** The trajectory of a finished dialogue; nothing for one under way. */
function trajectoryOf({ opened, turns, closed, verdict }: DialogueState): Trajectory[] {
  if (closed === null || (closed.outcome !== 'failed' && verdict === null)) return [];
  const { dialogueId: id, taskId, views, plainViews, format } = opened;
  const common = { id, taskId, views, plainViews, format, turns };
  if (verdict?.type !== 'verdict.given') {
    const failure = verdict === null ? closed.failure : verdict.reason;
    return [{ ...common, outcome: 'failed', failure, verdict: null }];
  }
  const { taskScore, exactMatch, answer } = verdict;
  return [{ ...common, outcome: closed.outcome, failure: null, verdict: { taskScore, exactMatch, answer } }];
}
