// The policies of a run, by hash: the frozen base, and the checkpoints that training leaves.
import type { PolicyHash, TeamPolicy } from '../domain/ids.ts';
import type { LoraConfig } from '../domain/lora.ts';
import type { GenerativeModel, LanguageModel } from '../domain/model.ts';
import type { Rng } from '../domain/rng.ts';
import { freshAdapter, type LlamaPolicy, loadPolicy } from '../models/llama/index.ts';
import type { RunFolder } from '../store/run-folder.ts';
import type { Objective } from '../training/objective.ts';
import type { ComputePasses } from '../training/step.ts';
import { type PolicyHost, type PolicySource, sourceOfPolicy, withKnown } from '../workers/host.ts';
import { type FrozenModel, lanesOf, modelsFrom } from './frozen.ts';
import { sourceIn } from './locate.ts';

/**
 * Finds policies for one run. Between phases weights travel through checkpoints only, so a resumed run has
 * the very weights of an undisturbed one.
 */
export class PolicyShelf {
  /** Frozen for the whole run: readability is measured under it. */
  readonly base: LlamaPolicy;
  readonly #run: RunFolder;
  readonly #host: PolicyHost;
  readonly #frozen: ReadonlyMap<PolicyHash, FrozenModel>;

  /** Of the `frozen` none is ever trained: partners of the roles that are, the judge. */
  constructor(base: LlamaPolicy, run: RunFolder, host: PolicyHost, frozen: readonly FrozenModel[] = []) {
    this.base = base;
    this.#run = run;
    this.#host = host;
    this.#frozen = new Map(frozen.map((model) => [model.hash, model]));
  }

  /** A policy to generate or score with, as often as calls can run side by side. */
  modelsOf(hash: PolicyHash): Promise<readonly LanguageModel[]> {
    return this.#host.modelsOf(this.sourceOf(hash));
  }

  /** A policy or frozen model to generate with, as often as calls can run side by side. */
  generatorsOf(hash: PolicyHash): Promise<readonly GenerativeModel[]> {
    return modelsFrom(this.#frozen.get(hash) ?? this.sourceOf(hash), this.#host);
  }

  /**
   * A model for each role, as often as cohorts can run side by side. Apart from the base and the frozen, policies of earlier
   * teams are let go.
   */
  async speakersOf(team: TeamPolicy): Promise<readonly Readonly<Record<string, GenerativeModel>>[]> {
    const hashes = [...new Set(Object.values(team))];
    this.#host.keep([this.base.hash, ...this.#frozen.keys(), ...hashes]);
    const models = new Map<PolicyHash, readonly GenerativeModel[]>();
    for (const hash of hashes) models.set(hash, await this.generatorsOf(hash));
    return lanesOf(Object.fromEntries(Object.entries(team).map(([role, hash]) => [role, models.get(hash)!])));
  }

  sourceOf(hash: PolicyHash): PolicySource {
    const { folder } = this.#run.manifest.base;
    return withKnown(sourceIn(this.#run, hash), sourceOfPolicy(this.base, folder));
  }

  /** Reads checkpoints of the run; throws as `load` does for one that is not what it was. */
  async requireAll(hashes: Iterable<PolicyHash>): Promise<void> {
    for (const hash of new Set(hashes)) (await this.load(hash)).dispose();
  }

  /**
   * A copy to train, which the caller disposes: where an adapter is to be `trained`, of that alone, over the weights of the base;
   * a new one if the policy has none. Throws `checkpoint.invalid` when it is not what it was.
   */
  async load(
    hash: PolicyHash,
    trained?: { readonly lora: LoraConfig; readonly rng: Rng },
  ): Promise<LlamaPolicy> {
    const whole = this.base.base;
    if (trained !== undefined && hash === whole.hash) {
      return whole.withAdapter(freshAdapter(whole.config, trained.lora, trained.rng));
    }
    const training = trained && { dropout: trained.lora.dropout, recompute: trained.lora.recompute ?? false };
    return loadPolicy(this.sourceOf(hash).folder, { hash, base: this.base, training });
  }

  /** Gradients of a policy in training that started as `start`. */
  gradientsOf<Example>(
    objective: Objective<Example>,
    start: PolicyHash,
    policy: LlamaPolicy,
  ): ComputePasses<Example> {
    const source = this.sourceOf(policy.lora === null ? start : this.base.hash);
    return this.#host.gradientsOf(objective, source, policy);
  }

  /** Frees the base, and what else the host holds. */
  dispose(): void {
    this.#host.keep([]);
    this.base.dispose();
  }
}
