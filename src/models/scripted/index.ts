// A first-class model whose words are written by a function: for tests, `optima check` and benchmarks.
import { messageOf, OptimaError } from '../../domain/errors.ts';
import type { PolicyHash } from '../../domain/ids.ts';
import type {
  CallOptions,
  ChatMessage,
  Generation,
  GenerationRequest,
  LanguageModel,
} from '../../domain/model.ts';
import { hash32 } from '../../domain/rng.ts';

export interface ScriptedModelOptions {
  /** Writes the message for a view. It sees one request at a time, so the order of a batch cannot matter. */
  readonly reply: (request: GenerationRequest) => string | Promise<string>;
  /** Default `scripted`. */
  readonly hash?: string;
  /** Splits a text into tokens, which joined give the text again. Default: words with the space before them. */
  readonly tokenize?: (text: string) => readonly string[];
  /** Log-probability of every token, in nats. Default −1. */
  readonly logprob?: number;
}

/** Ends every message that was not cut short. Other ids are 1 to 65,535. */
export const endOfTurnId = 0;

const words = (text: string): readonly string[] => text.match(/\s*\S+|\s+$/g) ?? [];

/**
 * A language model that says `reply(request)`, cut after `maxTokens`. Token ids are a hash of each token's
 * text, every token has the same log-probability, and `score` agrees with `generate`. Rejects with
 * `model.failed` when `reply` throws and with `interrupted` when the signal has aborted.
 */
export function scriptedModel(options: ScriptedModelOptions): LanguageModel {
  const { reply, hash = 'scripted', tokenize = words, logprob = -1 } = options;
  const tokensOf = (message: ChatMessage) =>
    message.tokenIds?.length ?? tokenize(message.content).length + Number(message.role === 'assistant');

  async function answer(request: GenerationRequest): Promise<Generation> {
    const { messages, sampling } = request;
    let text: string;
    try {
      text = await reply(request);
    } catch (error) {
      throw new OptimaError('model.failed', `Request ${request.id}: ${messageOf(error)}`, { cause: error });
    }
    const tokens = tokenize(text);
    const ids = [...tokens.map((token) => 1 + (hash32(token) % 0xffff)), endOfTurnId];
    const tokenIds = ids.slice(0, sampling.maxTokens);
    const cut = tokenIds.length < ids.length;
    return {
      text: cut ? tokens.slice(0, tokenIds.length).join('') : text,
      tokenIds,
      logprobs: tokenIds.map(() => logprob),
      finish: cut ? 'length' : 'stop',
      promptTokens: messages.reduce((sum, message) => sum + tokensOf(message), 0),
    };
  }

  return {
    hash: hash as PolicyHash,
    async generate(requests, callOptions) {
      refuseAborted(callOptions);
      const generations = await Promise.all(requests.map(answer));
      refuseAborted(callOptions);
      return generations;
    },
    async score(requests, callOptions) {
      refuseAborted(callOptions);
      return requests.map(({ messages, last = messages.length }) =>
        messages
          .filter((message) => message.role === 'assistant')
          .filter((_, index, own) => index >= own.length - last)
          .map((message) => Array.from({ length: tokensOf(message) }, () => logprob)),
      );
    },
  };
}

function refuseAborted({ signal }: CallOptions = {}): void {
  if (signal?.aborted) throw new OptimaError('interrupted', 'The call was aborted.');
}
