// The generation pool: gathers what all running dialogues ask of their models into batches. A round begins
// exactly when every running dialogue waits for a model, so batches depend on no clock.
import { messageOf, OptimaError } from '../domain/errors.ts';
import type { DialogueId } from '../domain/ids.ts';
import {
  type Generation,
  type GenerationRequest,
  type GenerativeModel,
  RequestsRefused,
} from '../domain/model.ts';

export interface GenerationPool {
  /** Adds a running dialogue. Dialogues are ordered as they were registered. */
  register(dialogue: DialogueId): void;
  /**
   * Takes out a dialogue that has ended: the others no longer wait for it. What it still waits for is not answered any
   * more, and a call is aborted once nobody waits for any of its results.
   */
  unregister(dialogue: DialogueId): void;
  /** Takes out all dialogues at once. */
  close(): void;
  /**
   * Asks for the next message of a registered dialogue, one at a time. `answer` gets it, or why the model refuses the
   * request. Where the call it is part of fails or takes too long nobody is answered: that concerns no one dialogue.
   */
  ask(dialogue: DialogueId, model: GenerativeModel, request: GenerationRequest, answer: Answer): void;
}

/** Takes the result of a request, or why it was refused, once; never while the request is made. */
export type Answer = (result: Generation | OptimaError) => void;

/** A request, and who waits for its result. */
export class Ticket {
  readonly model: GenerativeModel;
  readonly request: GenerationRequest;
  /** Set by the call that the ticket is part of. */
  onWithdrawn: (() => void) | null = null;
  #answer: Answer | null;

  constructor(model: GenerativeModel, request: GenerationRequest, answer: Answer) {
    this.model = model;
    this.request = request;
    this.#answer = answer;
  }

  /** Whether nobody waits any more. */
  get settled(): boolean {
    return this.#answer === null;
  }

  settle(result: Generation | OptimaError): void {
    const answer = this.#answer;
    this.#answer = null;
    answer?.(result);
  }

  withdraw(): void {
    if (this.settled) return;
    this.#answer = null;
    this.onWithdrawn?.();
  }
}

/**
 * A pool for any number of models. Each round calls `generate` once per distinct model object, its requests in
 * the order of their dialogues, and hands out all results in that order when the last call has ended: what the
 * dialogues do next does not depend on which model was faster. A call that takes longer than `timeoutMs` (below 2^31)
 * is aborted. `onFailure` hears what `playRound` rejects with.
 */
export function createGenerationPool(timeoutMs: number, onFailure: (error: unknown) => void): GenerationPool {
  /** What each running dialogue last asked for; null before its first request. */
  const running = new Map<DialogueId, Ticket | null>();
  const waiting = new Set<DialogueId>();

  function playRoundWhenAllWait(): void {
    if (running.size === 0 || waiting.size < running.size) return;
    waiting.clear();
    playRound([...running.values()] as Ticket[], timeoutMs).catch(onFailure);
  }

  return {
    register: (dialogue) => void running.set(dialogue, null),
    unregister(dialogue) {
      running.get(dialogue)?.withdraw();
      running.delete(dialogue);
      waiting.delete(dialogue);
      playRoundWhenAllWait();
    },
    close() {
      for (const ticket of running.values()) ticket?.withdraw();
      running.clear();
      waiting.clear();
    },
    ask(dialogue, model, request, answer) {
      if (!running.has(dialogue)) throw new Error(`Dialogue ${dialogue} is not registered with the pool.`);
      running.set(dialogue, new Ticket(model, request, answer));
      waiting.add(dialogue);
      playRoundWhenAllWait();
    },
  };
}

/**
 * Calls each model once for what its tickets ask, and settles them in their order when all calls have ended. Rejects as soon
 * as a call fails, with `model.failed` or the model's own error, and settles none then.
 */
export async function playRound(round: readonly Ticket[], timeoutMs: number): Promise<void> {
  const results = new Map<Ticket, Generation | OptimaError>();
  const play = async (model: GenerativeModel) => {
    let batch = round.filter((ticket) => ticket.model === model);
    while (batch.length > 0) {
      const answer = await callModel(model, batch, timeoutMs);
      if (answer === null) return;
      const refused = answer instanceof RequestsRefused ? answer.reasons : null;
      batch.forEach((ticket, row) => {
        const result =
          refused === null ? (answer as readonly Generation[])[row] : refused.get(ticket.request.id);
        if (result !== undefined) results.set(ticket, result);
      });
      // One dialogue's impossible request must not end the others of its round: these are asked for again.
      batch = batch.filter((ticket) => !results.has(ticket) && !ticket.settled);
    }
  };
  await Promise.all([...new Set(round.map((ticket) => ticket.model))].map(play));
  for (const ticket of round) ticket.settle(results.get(ticket)!);
}

/** One call; resolves with which of its requests are refused, too, and with null as soon as nobody waits for any of its results. */
async function callModel(
  model: GenerativeModel,
  batch: readonly Ticket[],
  timeoutMs: number,
): Promise<readonly Generation[] | RequestsRefused | null> {
  const failure = (what: string, cause?: unknown) =>
    new OptimaError('model.failed', `Model ${model.hash} ${what}`, { cause });
  const abandonment = new AbortController();
  let timer: NodeJS.Timeout | undefined;
  const abandoned = new Promise<null>((resolve, reject) => {
    timer = setTimeout(() => {
      // First, as a model may reject while it hears the abort.
      reject(failure(`gave no message within ${timeoutMs} ms.`));
      abandonment.abort();
    }, timeoutMs);
    let wanted = batch.length;
    const withdrawn = () => {
      if (--wanted > 0) return;
      resolve(null);
      abandonment.abort();
    };
    for (const ticket of batch) ticket.onWithdrawn = withdrawn;
  });
  try {
    const requests = batch.map((ticket) => ticket.request);
    const results = await Promise.race([model.generate(requests, { signal: abandonment.signal }), abandoned]);
    if (results === null) return null;
    if (results.length !== batch.length)
      throw failure(`gave ${results.length} messages for ${batch.length} requests.`);
    const row = results.findIndex((result) => typeof result !== 'object' || result === null);
    if (row >= 0) throw failure(`gave ${results[row]} for request ${requests[row]!.id}.`);
    return results;
  } catch (error) {
    // Refusing what nobody asked is no answer.
    if (error instanceof RequestsRefused && batch.some(({ request }) => error.reasons.has(request.id)))
      return error;
    if (error instanceof OptimaError) throw error;
    throw failure(`failed: ${messageOf(error)}`, error);
  } finally {
    clearTimeout(timer);
  }
}
