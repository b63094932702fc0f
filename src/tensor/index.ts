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
  type Matrix,
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
export {
  bytesPerNumber,
  type FrozenFormat,
  type FrozenMatrix,
  frozenBytes,
  isFrozen,
  readRow,
  readRows,
} from './frozen-matrix.ts';
export { GrowingMatrix } from './growing-matrix.ts';
export {
  addTo,
  computeNumbers,
  growVariable,
  overwrite,
  readInto,
  sumOfSquares,
  widen,
} from './host-arrays.ts';
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
export { canFreeze, createHeapDecoder } from './wasm/install.ts';
