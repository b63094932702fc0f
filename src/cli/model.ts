// Starts the tensor engine and loads the checkpoint a command asks for.

import type { LlamaPolicy } from '../models/llama/index.ts';
import type { Engine } from '../tensor/index.ts';
import { type Backend, defaultModel } from './options.ts';
import type { Output } from './output.ts';

export interface ModelOptions {
  readonly backend?: Backend;
  readonly model?: string;
}

/** Starts the engine and says in one line which it is; TF.js is loaded here and not before. */
export async function openEngine({ backend }: ModelOptions, output: Output): Promise<Engine> {
  const { startEngine } = await import('../tensor/index.ts');
  const engine = await startEngine({ backend });
  output.say(`engine: ${engine.description}`);
  output.emit({
    event: 'engine',
    backend: engine.backend,
    blas: engine.blas,
    description: engine.description,
  });
  return engine;
}

/** Loads the checkpoint; rejects with `checkpoint.missing`, `checkpoint.invalid` or `tokenizer.mismatch`. */
export async function openModel({ model = defaultModel }: ModelOptions): Promise<LlamaPolicy> {
  const { loadPolicy } = await import('../models/llama/index.ts');
  return loadPolicy(model);
}
