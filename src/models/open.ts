// Opens what `--model` names. Today that is a checkpoint folder, which can do all that a model can; a server will generate
// and score.
import path from 'node:path';
import type { GenerativeModel, ScoringModel } from '../domain/model.ts';
import { type LlamaPolicy, loadPolicy } from './llama/index.ts';

/** A model by what it can do; null for what it cannot. */
export interface OpenedModel {
  readonly generates: GenerativeModel;
  readonly scores: ScoringModel | null;
  /** The weights, to be trained or to compute elsewhere. */
  readonly trains: { readonly policy: LlamaPolicy; readonly folder: string } | null;
  dispose(): void;
}

/** Rejects with `checkpoint.missing`, `checkpoint.invalid` or `tokenizer.mismatch`. */
export async function openModel(model: string): Promise<OpenedModel> {
  const folder = path.resolve(model);
  const policy = await loadPolicy(model);
  return { generates: policy, scores: policy, trains: { policy, folder }, dispose: () => policy.dispose() };
}
