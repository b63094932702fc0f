// The policies of a run by content hash: the frozen base, and the checkpoints that training leaves.
import path from 'node:path';
import { OptimaError } from '../domain/errors.ts';
import type { PolicyHash } from '../domain/ids.ts';
import type { LanguageModel } from '../domain/model.ts';
import { type LlamaPolicy, loadPolicy } from '../models/llama/index.ts';
import type { RunFolder } from '../store/run-folder.ts';
import type { PolicySource, Workers } from '../workers/index.ts';

/**
 * Loads policies for one run. Between phases weights travel through checkpoints only, so a resumed run has
 * the very weights of an undisturbed one.
 */
export class PolicyShelf {
  /** Frozen for the whole run: readability is measured under it. */
  readonly base: LlamaPolicy;
  readonly #run: RunFolder;
  readonly #workers: Workers | null;
  #latest: LlamaPolicy | null = null;

  constructor(base: LlamaPolicy, run: RunFolder, workers: Workers | null) {
    this.base = base;
    this.#run = run;
    this.#workers = workers;
  }

  /**
   * A policy to generate with, as often as it can be used at once. It stays the shelf's and lives until another one is
   * asked for.
   */
  async modelsOf(hash: PolicyHash): Promise<readonly LanguageModel[]> {
    if (this.#workers !== null) return this.#workers.modelsOf(this.sourceOf(hash));
    if (hash === this.base.hash) return [this.base];
    if (this.#latest?.hash !== hash) {
      this.#latest?.dispose();
      this.#latest = null;
      this.#latest = await this.load(hash);
    }
    return [this.#latest];
  }

  sourceOf(hash: PolicyHash): PolicySource {
    const { base } = this.#run.manifest;
    return { hash, folder: hash === base.hash ? base.folder : this.#run.checkpointFolder(hash) };
  }

  /** A copy to train, which the caller disposes. Throws `checkpoint.invalid` when it is not what it was. */
  async load(hash: PolicyHash): Promise<LlamaPolicy> {
    const { folder } = this.sourceOf(hash);
    const policy = await loadPolicy(folder);
    if (policy.hash === hash) return policy;
    policy.dispose();
    throw new OptimaError(
      'checkpoint.invalid',
      `${path.relative('', folder)}: its weights have the hash ${policy.hash}, not ${hash}.`,
      { hint: 'The files were changed since the run wrote them.' },
    );
  }

  dispose(): void {
    this.#latest?.dispose();
    this.base.dispose();
  }
}
