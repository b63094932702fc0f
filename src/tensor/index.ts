// The one door to TF.js: the engine's choice, and the decoder's operations. Nothing else imports TF.js itself.
export * as tf from '@tensorflow/tfjs';
export {
  type BackendName,
  backendNames,
  type Engine,
  type EngineOptions,
  heapBytes,
  startEngine,
} from './engine.ts';
export { attention, decodeAttention, embed, linear, rmsNorm, rotary, swiglu, tokenNll } from './ops.ts';
