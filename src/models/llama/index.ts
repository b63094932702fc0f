// The Llama-family decoder: policies in process, and the checkpoints and adapters they are loaded from.
export { type Adapter, freshAdapter } from './adapter.ts';
export { isAdapterFolder, modelFolderOf } from './adapter-files.ts';
export { createPolicy, loadPolicy } from './load.ts';
export { type LlamaOptions, LlamaPolicy } from './policy.ts';
