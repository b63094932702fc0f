// Who reads tokens into blocks of keys and values: the heap decoder where the backend is wasm and the
// heads' size a multiple of 8, else the one of tensors.
import { type BlockDecoder, createHeapDecoder } from '../../tensor/index.ts';
import type { Decoder } from './forward.ts';
import { TensorDecoder } from './tensor-decoder.ts';

/** A block decoder over the weights of `decoder`, as they are at each read. */
export function createBlockDecoder(decoder: Decoder): BlockDecoder {
  const { config, weights, adapter, rotary } = decoder;
  const shape = {
    hiddenSize: config.hidden_size,
    feedForwardSize: config.intermediate_size,
    layers: config.num_hidden_layers,
    heads: config.num_attention_heads,
    keyValueHeads: config.num_key_value_heads,
    headSize: config.head_dim,
    vocabSize: config.vocab_size,
    eps: config.rms_norm_eps,
  };
  const angles = (time: number) => rotary.angles(time);
  return createHeapDecoder(shape, weights, angles, adapter) ?? new TensorDecoder(decoder);
}
