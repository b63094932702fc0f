// The message bus of one dialogue: what its actors say, each message validated, heard by all in one order.
import { type Observable, Subject } from 'rxjs';
import { OptimaError } from '../domain/errors.ts';
import { type DialogueMessage, parseMessage } from '../domain/messages.ts';

export interface MessageBus {
  /** Every message from the moment of subscription on; completes when the dialogue ends. */
  readonly messages$: Observable<DialogueMessage>;
  /**
   * Sends a message to all subscribers. One published from within a delivery waits until all have heard the
   * one before it. Throws `message.invalid` for a message that does not fit its schema, or comes after
   * `complete`.
   */
  publish(message: DialogueMessage): void;
  /** Ends the dialogue's messages; called by whoever created the bus. */
  complete(): void;
}

/** Gives a message as it is heard; throws `message.invalid` for one that does not fit its schema. */
export type ParseMessage = (message: DialogueMessage) => DialogueMessage;

export function createBus(parse: ParseMessage = parseMessage): MessageBus {
  const subject = new Subject<DialogueMessage>();
  // rxjs delivers a re-entrant `next` before the rest of the subscribers hear the outer one.
  const queue: DialogueMessage[] = [];
  let delivering = false;
  let completed = false;
  return {
    messages$: subject.asObservable(),
    publish(message) {
      if (completed) {
        throw new OptimaError('message.invalid', `Message ${message.type} came after the dialogue's end.`);
      }
      queue.push(parse(message));
      if (delivering) return;
      delivering = true;
      for (let next = queue.shift(); next !== undefined; next = queue.shift()) subject.next(next);
      delivering = false;
    },
    complete() {
      completed = true;
      subject.complete();
    },
  };
}
