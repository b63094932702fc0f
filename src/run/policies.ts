// The policies of a run by content hash: the frozen base, and the checkpoints that training leaves.
import path from 'node:path';
import { OptimaError } from '../domain/errors.ts';
import type { PolicyHash } from '../domain/ids.ts';
import { type LlamaPolicy, loadPolicy } from '../models/llama/index.ts';
import type { RunFolder } from './folder.ts';

/**
 * Loads policies for one run. Between phases weights travel through checkpoints only, so a resumed run has
 * the very weights of an undisturbed one.
 */
export class PolicyShelf {
  /** Frozen for the whole run: readability is measured under it. */
  readonly base: LlamaPolicy;
  readonly #run: RunFolder;
  #latest: LlamaPolicy | null = null;

  constructor(base: LlamaPolicy, run: RunFolder) {
    this.base = base;
    this.#run = run;
  }

  /** A policy to generate with. It stays the shelf's and lives until another one is asked for. */
  async get(hash: PolicyHash): Promise<LlamaPolicy> {
    if (hash === this.base.hash) return this.base;
    if (this.#latest?.hash !== hash) {
      this.#latest?.dispose();
      this.#latest = null;
      this.#latest = await this.load(hash);
    }
    return this.#latest;
  }

  /** A copy to train, which the caller disposes. Throws `checkpoint.invalid` when it is not what it was. */
  async load(hash: PolicyHash): Promise<LlamaPolicy> {
    const { base } = this.#run.manifest;
    const folder = hash === base.hash ? base.folder : this.#run.checkpointFolder(hash);
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
