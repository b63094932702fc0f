// The policies of a run by content hash: the frozen base, and the checkpoints that training leaves.
import type { PolicyHash } from '../domain/ids.ts';
import type { LanguageModel } from '../domain/model.ts';
import type { LlamaPolicy } from '../models/llama/index.ts';
import type { RunFolder } from '../store/run-folder.ts';
import { loadChecked, type PolicyHost, type PolicySource } from '../workers/index.ts';

/**
 * Loads policies for one run. Between phases weights travel through checkpoints only, so a resumed run has
 * the very weights of an undisturbed one.
 */
export class PolicyShelf {
  /** Frozen for the whole run: readability is measured under it. */
  readonly base: LlamaPolicy;
  /** Where policies speak and their gradients are computed. */
  readonly host: PolicyHost;
  readonly #run: RunFolder;
  #latest: PolicyHash;

  constructor(base: LlamaPolicy, run: RunFolder, host: PolicyHost) {
    this.base = base;
    this.host = host;
    this.#run = run;
    this.#latest = base.hash;
  }

  /**
   * A policy to generate with, as often as it can be used at once. It is kept until another one than the base is
   * asked for.
   */
  modelsOf(hash: PolicyHash): Promise<readonly LanguageModel[]> {
    if (hash !== this.base.hash) this.#latest = hash;
    this.host.keep([this.base.hash, this.#latest]);
    return this.host.modelsOf(this.sourceOf(hash));
  }

  sourceOf(hash: PolicyHash): PolicySource {
    const { base } = this.#run.manifest;
    return { hash, folder: hash === base.hash ? base.folder : this.#run.checkpointFolder(hash) };
  }

  /** A copy to train, which the caller disposes. Throws `checkpoint.invalid` when it is not what it was. */
  load(hash: PolicyHash): Promise<LlamaPolicy> {
    return loadChecked(this.sourceOf(hash));
  }
}
