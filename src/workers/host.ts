// Where the policies of a run are held and computed with: in worker threads, or on this one.
import type { PolicyHash } from '../domain/ids.ts';
import { inOwnSession, type LanguageModel, type ModelSession, type SessionOptions } from '../domain/model.ts';
import type { SharedWeights } from '../models/llama/held-weights.ts';
import type { LlamaPolicy } from '../models/llama/index.ts';
import type { Objective } from '../training/objective.ts';
import type { DifferentiablePolicy } from '../training/policy.ts';
import type { ComputePasses } from '../training/step.ts';

/** Where a policy is found. */
export interface PolicySource {
  readonly folder: string;
  /** What the weights must be. */
  readonly hash: PolicyHash;
  /** Of an adapter: whose weights it reads. Default: a copy of its own, from where it says that they are. */
  readonly base?: PolicySource;
  /** The weights themselves, where they are frozen; nothing is read then but what else the folder has. */
  readonly shared?: SharedWeights;
}

/** Where a policy is found that was opened from a folder. */
export function sourceOfPolicy(policy: LlamaPolicy, folder: string): PolicySource {
  const { hash, lora, shared, base } = policy;
  if (lora === null) return { folder, hash, ...(shared !== null && { shared }) };
  return { folder, hash, ...(base.folder !== null && { base: sourceOfPolicy(base, base.folder) }) };
}

/** A source in which a policy is found where it is known to be. */
export function withKnown(source: PolicySource, known: PolicySource): PolicySource {
  if (source.hash === known.hash) return known;
  return source.base === undefined ? source : { ...source, base: withKnown(source.base, known) };
}

/** Computes with policies, whose results are the same wherever that is. Whoever made it stops it. */
export interface PolicyHost {
  /**
   * The policy, as often as calls can run side by side; all give the same results. What cannot be loaded, or has
   * another hash (`checkpoint.invalid`), is an error here or in the first call.
   */
  modelsOf(source: PolicySource): Promise<readonly LanguageModel[]>;
  /**
   * Computes gradients of a policy in training, which started from `source`; where an adapter is trained, that is what it
   * adapts. What comes out follows from the passes and their seed alone, and is valid until the next call.
   */
  gradientsOf<Example>(
    objective: Objective<Example>,
    source: PolicySource,
    policy: DifferentiablePolicy,
  ): ComputePasses<Example>;
  /**
   * From now on only these are needed: any other policy is freed as soon as no session of it is open and no
   * call under way. One that is asked for all the same is loaded again, and freed after its use. Without this, all
   * are kept.
   */
  keep(hashes: readonly PolicyHash[]): void;
  /** Ends everything, and frees what it loaded. */
  stop(): Promise<void>;
}

/** A model that is known by its sessions: a call of its own is one. */
export function modelOf(
  hash: PolicyHash,
  openSession: (options?: SessionOptions) => ModelSession,
): LanguageModel {
  return {
    hash,
    openSession,
    generate: (requests, options) =>
      inOwnSession({ openSession }, (session) => session.generate(requests, options)),
    score: (requests, options) =>
      inOwnSession({ openSession }, (session) => session.score(requests, options)),
  };
}
