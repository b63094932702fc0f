// The policies of a run, by hash: the frozen base, and the checkpoints that training leaves.
import type { PolicyHash, TeamPolicy } from '../domain/ids.ts';
import type { LanguageModel } from '../domain/model.ts';
import { type LlamaPolicy, loadPolicy } from '../models/llama/index.ts';
import type { RunFolder } from '../store/run-folder.ts';
import type { Objective } from '../training/objective.ts';
import type { ComputePasses } from '../training/step.ts';
import type { PolicyHost, PolicySource } from '../workers/index.ts';

/**
 * Finds policies for one run. Between phases weights travel through checkpoints only, so a resumed run has
 * the very weights of an undisturbed one.
 */
export class PolicyShelf {
  /** Frozen for the whole run: readability is measured under it. */
  readonly base: LlamaPolicy;
  readonly #run: RunFolder;
  readonly #host: PolicyHost;

  constructor(base: LlamaPolicy, run: RunFolder, host: PolicyHost) {
    this.base = base;
    this.#run = run;
    this.#host = host;
  }

  /** A policy to generate or score with, as often as calls can run side by side. */
  modelsOf(hash: PolicyHash): Promise<readonly LanguageModel[]> {
    return this.#host.modelsOf(this.sourceOf(hash));
  }

  /**
   * A model for each role, as often as cohorts can run side by side. Apart from the base, policies of earlier teams are let
   * go.
   */
  async speakersOf(team: TeamPolicy): Promise<readonly Readonly<Record<string, LanguageModel>>[]> {
    const hashes = [...new Set(Object.values(team))];
    this.#host.keep([this.base.hash, ...hashes]);
    const models = new Map<PolicyHash, readonly LanguageModel[]>();
    for (const hash of hashes) models.set(hash, await this.modelsOf(hash));
    const sideBySide = Math.min(...[...models.values()].map(({ length }) => length));
    return Array.from({ length: sideBySide }, (_, lane) =>
      Object.fromEntries(Object.entries(team).map(([role, hash]) => [role, models.get(hash)![lane]!])),
    );
  }

  sourceOf(hash: PolicyHash): PolicySource {
    return { hash, folder: this.#run.policyFolder(hash) };
  }

  /** A copy to train, which the caller disposes. Throws `checkpoint.invalid` when it is not what it was. */
  load(hash: PolicyHash): Promise<LlamaPolicy> {
    return loadPolicy(this.sourceOf(hash).folder, { hash });
  }

  /** Gradients of a policy in training that started as `start`. */
  gradientsOf<Example>(
    objective: Objective<Example>,
    start: PolicyHash,
    policy: LlamaPolicy,
  ): ComputePasses<Example> {
    return this.#host.gradientsOf(objective, this.sourceOf(start), policy);
  }

  /** Frees the base, and what else the host holds. */
  dispose(): void {
    this.#host.keep([]);
    this.base.dispose();
  }
}
