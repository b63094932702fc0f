// What the main thread and its workers say to each other. Everything is plain data: structured clones cross over.
import { type ErrorCode, messageOf, OptimaError } from '../domain/errors.ts';
import type { PolicyHash } from '../domain/ids.ts';
import type { LoraConfig } from '../domain/lora.ts';
import {
  type GenerationRequest,
  RequestsRefused,
  type ScoreRequest,
  type SessionOptions,
} from '../domain/model.ts';
import type { SharedWeights } from '../models/llama/held-weights.ts';
import type { EngineOptions } from '../tensor/index.ts';
import type { Figures, ObjectiveSpec } from '../training/objective.ts';
import type { PolicySource } from './host.ts';

/** Numbers that several threads see. */
export type SharedNumbers = Float32Array<SharedArrayBuffer>;

/** What changes from step to step. */
export interface TraineeWeights {
  /** All that is trained, one after the other in the order of the policy's parameters. */
  readonly values: SharedNumbers;
  /** Names this training and step: a worker copies the weights when it has others. */
  readonly version: string;
}

/** A session of a policy, which a worker opens with the first command that names it. */
export interface SessionSource {
  readonly policy: PolicySource;
  readonly session: number;
  readonly options?: SessionOptions | undefined;
}

export type Command =
  | (SessionSource & { readonly type: 'generate'; readonly requests: readonly GenerationRequest[] })
  | (SessionSource & { readonly type: 'score'; readonly requests: readonly ScoreRequest[] })
  | (SessionSource & { readonly type: 'measure' })
  | { readonly type: 'close'; readonly session: number }
  | { readonly type: 'keep'; readonly hashes: readonly PolicyHash[] }
  | {
      readonly type: 'gradients';
      /** The checkpoint that training starts from; where an adapter is trained, of what it adapts. */
      readonly policy: PolicySource;
      /** The kind of that adapter; null: all weights are trained. */
      readonly lora: LoraConfig | null;
      readonly weights: TraineeWeights;
      readonly objective: ObjectiveSpec;
      /** Examples of the objective. */
      readonly pass: readonly unknown[];
      /** Of the whole batch (`Objective.countTerms`). */
      readonly terms: number;
      /** Of chance in the pass; undefined: there is none. */
      readonly seed: string | undefined;
      /** Where the gradients go, in the same order as the weights. */
      readonly gradients: SharedNumbers;
    };

/** What becomes of a pass, beside its gradients. */
export interface PassResult {
  readonly loss: number;
  readonly figures: Figures;
  /** The parameters that have a gradient. */
  readonly names: readonly string[];
}

/** To a worker: a command, or the wish to stop one; and before a command that needs them, weights that it shares. */
export type ToWorker =
  | { readonly shared: SharedWeights }
  | { readonly id: number; readonly command: Command }
  | { readonly id: number; readonly abort: true };

/** From a worker: first that it is ready, then an answer to each command. */
export type FromWorker =
  | { readonly ready: true; readonly engine: string }
  | { readonly failed: PlainError }
  | { readonly id: number; readonly result: unknown }
  | { readonly id: number; readonly error: PlainError };

export interface WorkerSetting {
  readonly engine: EngineOptions;
}

/** An error as plain data. */
export interface PlainError {
  /** Null for an error that is not ours. */
  readonly code: ErrorCode | null;
  readonly message: string;
  readonly hint: string | undefined;
  /** Of `RequestsRefused`. */
  readonly reasons?: ReadonlyMap<string, PlainError>;
}

export function toPlain(error: unknown): PlainError {
  if (!(error instanceof OptimaError)) return { code: null, message: messageOf(error), hint: undefined };
  const { code, message, hint } = error;
  if (!(error instanceof RequestsRefused)) return { code, message, hint };
  return { code, message, hint, reasons: new Map([...error.reasons].map(([id, why]) => [id, toPlain(why)])) };
}

export function fromPlain({ code, message, hint, reasons }: PlainError): Error {
  if (reasons !== undefined) {
    return new RequestsRefused(new Map([...reasons].map(([id, why]) => [id, fromPlain(why) as OptimaError])));
  }
  return code === null ? new Error(message) : new OptimaError(code, message, { hint });
}
