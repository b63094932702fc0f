// Worker threads that generate, score and compute gradients beside the main thread.
export type { PolicySource } from './protocol.ts';
export { Workers } from './workers.ts';
