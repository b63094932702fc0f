// The embedded model: a Llama-family decoder in TF.js that reads and writes the Hugging Face layout.
export { createPolicy, type LlamaOptions, LlamaPolicy, loadPolicy } from './policy.ts';
