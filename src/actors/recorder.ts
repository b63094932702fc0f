// The recorder hears every bus and hands each message to the log; the fold turns messages back into trajectories.
import { OptimaError } from '../domain/errors.ts';
import type { DialogueId } from '../domain/ids.ts';
import type { DialogueMessage, MessageOf } from '../domain/messages.ts';
import type { Trajectory, Turn } from '../domain/transcript.ts';
import type { MessageBus } from './bus.ts';

export interface Recorder {
  /** Forwards every message of a bus from now on. */
  record(bus: MessageBus): void;
  /** All that was forwarded, in order. */
  readonly messages: readonly DialogueMessage[];
}

/**
 * Forwards messages to `sink` in the order in which they are sent. When the sink throws, nothing more is
 * forwarded and `onFailure` gets what it threw.
 */
export function createRecorder(
  sink: (message: DialogueMessage) => void,
  onFailure: (error: unknown) => void,
): Recorder {
  const messages: DialogueMessage[] = [];
  let failed = false;
  const forward = (message: DialogueMessage) => {
    if (failed) return;
    try {
      sink(message);
      messages.push(message);
    } catch (error) {
      failed = true;
      onFailure(error);
    }
  };
  return { record: (bus) => void bus.messages$.subscribe(forward), messages };
}

interface DialogueState {
  readonly opened: MessageOf<'dialogue.opened'>;
  readonly turns: Turn[];
  closed: MessageOf<'dialogue.closed'> | null;
  verdict: MessageOf<'verdict.given'> | MessageOf<'verdict.failed'> | null;
}

/**
 * The finished dialogues among the messages, in the order in which they were opened. A dialogue that is opened
 * again starts anew. A verdict that failed makes the outcome `failed`. Throws `run.corrupt` for a message of a
 * dialogue that was never opened.
 */
export function foldDialogues(messages: Iterable<DialogueMessage>): Trajectory[] {
  const dialogues = new Map<DialogueId, DialogueState>();
  for (const message of messages) {
    if (message.type === 'dialogue.opened') {
      dialogues.delete(message.dialogueId);
      dialogues.set(message.dialogueId, { opened: message, turns: [], closed: null, verdict: null });
      continue;
    }
    const dialogue = dialogues.get(message.dialogueId);
    if (dialogue === undefined) {
      throw new OptimaError(
        'run.corrupt',
        `Message ${message.type} of dialogue ${message.dialogueId} comes before its dialogue.opened.`,
      );
    }
    if (message.type === 'turn.taken') dialogue.turns.push(message.turn);
    else if (message.type === 'dialogue.closed') dialogue.closed = message;
    else if (message.type === 'verdict.given' || message.type === 'verdict.failed')
      dialogue.verdict = message;
  }
  return [...dialogues.values()].flatMap(trajectoryOf);
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
