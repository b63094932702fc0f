// The interfaces behind which every model stands: one that generates, one that scores, and a policy that does both and
// learns. A model implements what it can.
import { OptimaError } from './errors.ts';
import type { PolicyHash } from './ids.ts';

/**
 * One message of an agent's view. `tokenIds` are present on the agent's own sampled messages: the exact
 * ids, end-of-turn token included, which a model in process must reuse instead of tokenizing `content`.
 */
export interface ChatMessage {
  readonly role: 'system' | 'user' | 'assistant';
  readonly content: string;
  readonly tokenIds?: readonly number[];
}

/** How the next token is drawn. Temperature 0 takes the most likely token (lowest id on a tie). */
export interface Sampling {
  /** Softmax temperature, 0 or more. */
  readonly temperature: number;
  /** Nucleus: the smallest set of tokens with at least this probability; 1 keeps all. */
  readonly topP: number;
  /** Keep only the k most likely tokens; 0 keeps all. */
  readonly topK: number;
  /** Cap on the message's tokens, the end-of-turn token included. */
  readonly maxTokens: number;
}

export interface GenerationRequest {
  /** Names the request in errors and logs. */
  readonly id: string;
  readonly messages: readonly ChatMessage[];
  readonly sampling: Sampling;
  /** Unsigned 32-bit seed of this request alone. */
  readonly seed: number;
}

export interface Generation {
  readonly text: string;
  /** The sampled ids, the end-of-turn token last when `finish` is `stop`. Empty for models without tokens. */
  readonly tokenIds: readonly number[];
  /**
   * Log-probability (nats) of each id under the model at temperature 1, before top-p and top-k and among all tokens, those too
   * that are never drawn: what `score` says of it.
   */
  readonly logprobs: readonly number[];
  /** `stop`: the model ended its turn; `length`: it hit `maxTokens` (or the context's end). */
  readonly finish: 'stop' | 'length';
  /** Tokens the model had to read before the first new one. */
  readonly promptTokens: number;
}

export interface ScoreRequest {
  readonly id: string;
  /** A view whose assistant messages are scored. */
  readonly messages: readonly ChatMessage[];
  /** Only so many of them, the last ones; by default all. */
  readonly last?: number;
}

/** Log-probabilities (nats) of the tokens of each assistant message that is scored, in order, end-of-turn token included. */
export type ScoreResult = readonly (readonly number[])[];

export interface CallOptions {
  readonly signal?: AbortSignal;
}

/**
 * Some requests of a call cannot be answered (a prompt that fills the context, say), and nothing was done for the
 * others yet: whoever called may ask again without these.
 */
export class RequestsRefused extends OptimaError {
  /** Why, by the request's id. */
  readonly reasons: ReadonlyMap<string, OptimaError>;

  /** `reasons` must not be empty. */
  constructor(reasons: ReadonlyMap<string, OptimaError>) {
    const [first] = [...reasons.values()];
    super(first!.code, first!.message, { hint: first!.hint });
    this.reasons = reasons;
  }
}

/** What each request becomes; throws `RequestsRefused` with all that cannot be taken, of which `take` throws an `OptimaError`. */
export function takeAll<Request extends { readonly id: string }, Taken>(
  requests: readonly Request[],
  take: (request: Request) => Taken,
): Taken[] {
  const refused = new Map<string, OptimaError>();
  const taken = requests.flatMap((request) => {
    try {
      return [take(request)];
    } catch (error) {
      if (!(error instanceof OptimaError)) throw error;
      refused.set(request.id, error);
      return [];
    }
  });
  if (refused.size > 0) throw new RequestsRefused(refused);
  return taken;
}

/**
 * A model that can take part in a dialogue. Calls are batched: results come in the order of the requests.
 * The smallest implementation answers every request with a fixed text:
 *
 * ```ts
 * const parrot: GenerativeModel = {
 *   hash: 'parrot' as PolicyHash,
 *   generate: async (requests) =>
 *     requests.map(() => ({ text: 'hm', tokenIds: [], logprobs: [], finish: 'stop', promptTokens: 0 })),
 * };
 * ```
 *
 * A call rejects with `OptimaError('interrupted')` when `signal` aborts and with `RequestsRefused`, before any work is done,
 * when requests cannot be answered: their dialogues fail. Whatever else it rejects with is a fault of the machine, and ends
 * all dialogues.
 */
export interface GenerativeModel {
  readonly hash: PolicyHash;
  generate(requests: readonly GenerationRequest[], options?: CallOptions): Promise<readonly Generation[]>;
  /**
   * The same model with a memory of its own: calls of a session may reuse what earlier ones have read, and their
   * results follow from the session's calls alone. A session ends with any change of the weights.
   */
  openSession?(options?: SessionOptions): GenerativeSession;
}

/** How a session is opened. */
export interface SessionOptions {
  /** Most bytes of what it remembers; 0: nothing. What was used longest ago is forgotten first. Default: the model's own. */
  readonly memoryBytes?: number | undefined;
}

/** What a session's calls came to so far. */
export interface SessionStatistics {
  /** Tokens that went through the model. */
  readonly computed: number;
  /** Tokens that were remembered. */
  readonly reused: number;
  /** Steps of decoding, requests that took part in all of them, and how many on the mean in equal parts of them, in order. */
  readonly fill: { readonly steps: number; readonly rows: number; readonly parts: readonly number[] };
}

/** A model with a memory. */
export interface GenerativeSession extends GenerativeModel {
  /** What its calls came to; null where that is not known. */
  measure?(): Promise<SessionStatistics | null>;
  /** Frees the memory; the session is not used again, and a call under way is interrupted. */
  close(): void;
}

/** A model that says how likely given texts are. Calls reject as those of a `GenerativeModel` do. */
export interface ScoringModel {
  readonly hash: PolicyHash;
  score(requests: readonly ScoreRequest[], options?: CallOptions): Promise<readonly ScoreResult[]>;
}

/** A model that does both. */
export interface LanguageModel extends GenerativeModel, ScoringModel {
  openSession?(options?: SessionOptions): ModelSession;
}

/** A model that does both, with a memory. */
export interface ModelSession extends LanguageModel {
  /** As of a `GenerativeSession`. */
  measure?(): Promise<SessionStatistics | null>;
  /** As of a `GenerativeSession`. */
  close(): void;
}

/** One call in a session of its own. */
export async function inOwnSession<Session extends ModelSession, Result>(
  model: { openSession(): Session },
  use: (session: Session) => Promise<Result>,
): Promise<Result> {
  const session = model.openSession();
  try {
    return await use(session);
  } finally {
    session.close();
  }
}

/** One training sequence: a view in token space. */
export interface TrainingSequence {
  /** Token ids of the whole view. */
  readonly tokenIds: readonly number[];
  /** Same length: 1 where the token is the agent's own and is learnt, else 0. */
  readonly lossMask: readonly (0 | 1)[];
}

/** A language model whose weights can be trained and saved. */
export interface TrainablePolicy extends LanguageModel {
  /** The view in the very token ids that `generate` reads, with a loss mask over its sampled messages. */
  encode(messages: readonly ChatMessage[]): TrainingSequence;
  /** Writes the weights as a Hugging Face folder; resolves with the hash of what was written. */
  save(folder: string): Promise<PolicyHash>;
  /** Frees the weights. */
  dispose(): void;
}
