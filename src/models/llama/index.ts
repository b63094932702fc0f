// The Llama-family decoder: policies in process, and the checkpoints and adapters they are loaded from.
export { type Adapter, emptyAdapter, freshAdapter } from './adapter.ts';
export { createPolicy, loadPolicy } from './load.ts';
export { type LlamaOptions, LlamaPolicy } from './policy.ts';
