// The Llama-family decoder: policies in process, and the checkpoints and adapters they are loaded from.
export { type Adapter, emptyAdapter, freshAdapter } from './adapter.ts';
export { requireApart } from './adapter-files.ts';
export { createPolicy, hashOfFolder, type LoadOptions, loadPolicy } from './load.ts';
export { type LlamaOptions, LlamaPolicy } from './policy.ts';
