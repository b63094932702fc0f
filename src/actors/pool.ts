// The generation pool: gathers what all running dialogues ask of their models into batches. A round begins
// exactly when every running dialogue waits for a model, so batches depend on no clock.
import { messageOf, OptimaError } from '../domain/errors.ts';
import type { DialogueId } from '../domain/ids.ts';
import {
  type Generation,
  type GenerationRequest,
  type LanguageModel,
  RequestsRefused,
} from '../domain/model.ts';

export interface GenerationPool {
  /** Adds a running dialogue. Dialogues are ordered as they were registered. */
  register(dialogue: DialogueId): void;
  /** Takes out a dialogue that has ended: the others no longer wait for it. */
  unregister(dialogue: DialogueId): void;
  /**
   * The next message of a registered dialogue, one at a time. Rejects with `model.failed` when the model refuses
   * the request or the call it is part of fails, and with `interrupted` when `signal` aborts. The call itself is
   * aborted once nobody waits for any of its results.
   */
  generate(
    dialogue: DialogueId,
    model: LanguageModel,
    request: GenerationRequest,
    signal: AbortSignal,
  ): Promise<Generation>;
}

/** A dialogue's request, and what is to happen with its result. */
interface Ticket {
  readonly model: LanguageModel;
  readonly request: GenerationRequest;
  settle(result: Generation | OptimaError): void;
  /** Set by the call the ticket is part of. */
  onWithdrawn(): void;
}

/**
 * A pool for any number of models. Each round calls `generate` once per distinct model object, its requests in
 * the order of their dialogues, and hands out all results in that order when the last call has ended: what the
 * dialogues do next does not depend on which model was faster.
 */
export function createGenerationPool(): GenerationPool {
  const running = new Set<DialogueId>();
  const waiting = new Map<DialogueId, Ticket>();

  function playRoundWhenAllWait(): void {
    if (running.size === 0 || waiting.size < running.size) return;
    const round = Array.from(running, (dialogue) => waiting.get(dialogue)!);
    waiting.clear();
    void playRound(round);
  }

  return {
    register: (dialogue) => void running.add(dialogue),
    unregister(dialogue) {
      running.delete(dialogue);
      waiting.delete(dialogue);
      playRoundWhenAllWait();
    },
    generate: (dialogue, model, request, signal) =>
      new Promise((resolve, reject) => {
        const withdrawn = () => new OptimaError('interrupted', `Request ${request.id} was withdrawn.`);
        if (!running.has(dialogue)) throw new Error(`Dialogue ${dialogue} is not registered with the pool.`);
        if (signal.aborted) throw withdrawn();
        const withdraw = () => {
          if (waiting.get(dialogue) === ticket) waiting.delete(dialogue);
          ticket.onWithdrawn();
          reject(withdrawn());
        };
        const ticket: Ticket = {
          model,
          request,
          settle(result) {
            signal.removeEventListener('abort', withdraw);
            if (result instanceof OptimaError) reject(result);
            else resolve(result);
          },
          onWithdrawn: () => {},
        };
        signal.addEventListener('abort', withdraw, { once: true });
        waiting.set(dialogue, ticket);
        playRoundWhenAllWait();
      }),
  };
}

async function playRound(round: readonly Ticket[]): Promise<void> {
  const results = new Map<Ticket, Generation | OptimaError>();
  const play = async (model: LanguageModel) => {
    let batch = round.filter((ticket) => ticket.model === model);
    while (batch.length > 0) {
      const answer = await callModel(model, batch);
      const refused = answer instanceof RequestsRefused ? answer.reasons : null;
      batch.forEach((ticket, row) => {
        const failure = answer instanceof OptimaError ? (refused?.get(ticket.request.id) ?? answer) : null;
        results.set(ticket, failure ?? (answer as readonly Generation[])[row]!);
      });
      // One dialogue's impossible request must not end the others of its round: these are asked for again.
      const others = batch.filter(({ request }) => refused !== null && !refused.has(request.id));
      batch = others.length < batch.length ? others : [];
    }
  };
  await Promise.all([...new Set(round.map((ticket) => ticket.model))].map(play));
  for (const ticket of round) ticket.settle(results.get(ticket)!);
}

/** One call; resolves with its failure, too, and as soon as nobody waits for any of its results. */
async function callModel(
  model: LanguageModel,
  batch: readonly Ticket[],
): Promise<readonly Generation[] | OptimaError> {
  const abandonment = new AbortController();
  const abandoned = new Promise<OptimaError>((resolve) => {
    let wanted = batch.length;
    for (const ticket of batch) {
      ticket.onWithdrawn = () => {
        if (--wanted > 0) return;
        abandonment.abort();
        resolve(new OptimaError('interrupted', `All ${batch.length} requests of a call were withdrawn.`));
      };
    }
  });
  try {
    const requests = batch.map((ticket) => ticket.request);
    const results = await Promise.race([model.generate(requests, { signal: abandonment.signal }), abandoned]);
    if (results instanceof OptimaError || results.length === batch.length) return results;
    return new OptimaError(
      'model.failed',
      `Model ${model.hash} gave ${results.length} messages for ${batch.length} requests.`,
    );
  } catch (error) {
    if (error instanceof OptimaError) return error;
    return new OptimaError('model.failed', `Model ${model.hash} failed: ${messageOf(error)}`, {
      cause: error,
    });
  }
}
