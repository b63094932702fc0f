// The one door to TF.js: the engine's choice, and the decoder's operations. Nothing else imports TF.js itself.

export {
  type BlockDecoder,
  blockTokens,
  type DecoderWeights,
  type LayerAdapter,
  type LayerMatrix,
  type LayerWeights,
  type LogitsRow,
  type LowRank,
  layerMatrices,
  type OptionalLayerPart,
  plainLogits,
  type Span,
} from './decoder.ts';
export {
  type Engine,
  type EngineOptions,
  heapBytes,
  heapRoom,
  startEngine,
} from './engine.ts';
export { addTo, growVariable, overwrite, readInto, sumOfSquares } from './host-arrays.ts';
export {
  adamWStep,
  attention,
  causalAttention,
  embed,
  fusedLayer,
  linear,
  maskedScore,
  rmsNorm,
  rotary,
  swiglu,
  type TreeLayout,
  tokenNll,
} from './ops.ts';
export { default as tf } from './tfjs.cjs';
export { createHeapDecoder } from './wasm/install.ts';
