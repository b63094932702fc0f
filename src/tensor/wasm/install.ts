// Puts our kernels into TF.js' registry for the wasm backend: replacements of its own, and the fused ones.
import { OptimaError } from '../../domain/errors.ts';
import type { Blas } from '../blas.ts';
import type {
  BlockDecoder,
  DecoderShape,
  DecoderWeights,
  LayerAdapter,
  LayerWeights,
  RotaryAngles,
} from '../decoder.ts';
import type { FrozenMatrix } from '../frozen-matrix.ts';
import type { AdamWStep, FactorName, FrozenLayer, LayerShape } from '../ops.ts';
import tf from '../tfjs.cjs';
import { checkMachinePaging, warnOfMachineCode } from '../x86/check.ts';
import type { MachineCode } from '../x86/index.ts';
import { adamW } from './adamw.ts';
import type { WasmMemory } from './assembler.ts';
import { causalAttention, causalAttentionGrad } from './causal-attention.ts';
import { decoderLayer, decoderLayerGrad } from './decoder-layer.ts';
import { Heap, Scratch, type WasmBackend } from './heap.ts';
import { HeapDecoder } from './heap-decoder.ts';
import type { HeapKit } from './heap-kit.ts';
import { frozenLinear, frozenLinearGrad } from './matrices.ts';
import { fitsPaging, pagingFor } from './paged-attention.ts';
import { batchMatMul, blasProduct, type Product, tiledProduct } from './product.ts';
import { rmsNorm, rmsNormGrad } from './rms-norm.ts';
import { gatherRows, unsortedSegmentSum } from './rows.ts';
import { assembleStrided, type Strided } from './strided.ts';
import { swiglu, swigluGrad } from './swiglu.ts';
import { assembleTiles } from './tiles.ts';
import { tokenNll, tokenNllGrad } from './token-nll.ts';
import { assembleVectors, type Vectors } from './vectors.ts';

/** Every input and attribute by name; a kernel reads those that its operation passes. */
type Inputs = Record<
  | ('a' | 'b' | 'x' | 'dy' | 'weight' | 'segmentIds' | 'gate' | 'up' | 'cos' | 'sin')
  | ('mean' | 'square' | 'indices' | 'q' | 'k' | 'v' | 'weights' | 'logits' | 'labels' | 'nll' | 'kept')
  | keyof LayerWeights,
  tf.TensorInfo
> &
  Partial<Record<FactorName, tf.TensorInfo>>;
interface Attributes extends AdamWStep, LayerShape {
  readonly transposeA: boolean;
  readonly transposeB: boolean;
  readonly axis: number;
  readonly batchDims: number;
  readonly numSegments: number;
  readonly frozen: FrozenLayer;
  readonly w: FrozenMatrix;
}
type Kernel = (inputs: Inputs, attributes: Attributes) => tf.TensorInfo | tf.TensorInfo[];

let kit: HeapKit | null = null;
let blasInUse: Blas | null = null;

/** The wasm heap; null where that is not the backend. */
export const currentHeap = (): Heap | null => (kit !== null && tf.getBackend() === 'wasm' ? kit.heap : null);

/** What runs in machine code; null where the backend is another, or has none. */
export const currentMachineCode = (): MachineCode | null =>
  kit !== null && tf.getBackend() === 'wasm' ? kit.machineCode : null;

/** Whether matrices can be frozen here: nothing but our machine code reads them, and where there is a BLAS, that is faster. */
export const canFreeze = (): boolean => currentMachineCode() !== null && blasInUse === null;

/**
 * A decoder that reads on the wasm heap itself; null where that is not the backend, or the heads' size no multiple of 8. The
 * first for heads of its shape tries the machine code for them: where that is wrong, decoders made from then on go without
 * any, though `Engine` still says what was found at the start.
 */
export function createHeapDecoder(
  shape: DecoderShape,
  weights: DecoderWeights,
  angles: RotaryAngles,
  adapter?: readonly LayerAdapter[],
): BlockDecoder | null {
  if (kit === null || tf.getBackend() !== 'wasm' || !fitsPaging(shape.headSize)) return null;
  if (kit.machineCode !== null) {
    const { heap, machineCode } = kit;
    try {
      const machine = machineCode.pagingFor(shape);
      if (machine !== null) {
        checkMachinePaging(heap, shape, machine, pagingFor(heap.backend.wasm.asm.memory, shape));
      }
    } catch (error) {
      if (error instanceof OptimaError) throw error; // the heap is full
      warnOfMachineCode(error);
      installWasmKernels({ blas: blasInUse, machineCode: null });
    }
  }
  return new HeapDecoder(kit, shape, weights, angles, adapter);
}

/** TF.js' own kernels, as they were before ours took their names. */
const originals = new Map<string, tf.KernelConfig>();

function stock(heap: Heap, kernelName: string, inputs: Inputs, attributes: Attributes) {
  const attrs = attributes as unknown as tf.NamedAttrMap;
  return originals.get(kernelName)!.kernelFunc({ inputs, attrs, backend: heap.backend });
}

/** The backend's heap. */
export const wasmHeap = (): Heap => new Heap(tf.backend() as unknown as WasmBackend);

/** The kernels' inner loops in WebAssembly. */
interface WasmLoops {
  readonly vectors: Vectors;
  readonly strided: Strided;
  readonly product: Product;
}

/** What has been compiled, by memory. */
const compiled = new WeakMap<WasmMemory, WasmLoops>();

/** The inner loops over the heap, compiled once. */
export function wasmLoops(heap: Heap): WasmLoops {
  const { memory } = heap.backend.wasm.asm;
  const loops = compiled.get(memory) ?? {
    vectors: assembleVectors(memory),
    strided: assembleStrided(memory),
    product: tiledProduct(heap, assembleTiles(memory)),
  };
  compiled.set(memory, loops);
  return loops;
}

/**
 * Registers the kernels on the wasm backend, which must be the active one, with inner loops in `machineCode` where there
 * is one, and matrix products through `blas`, else in machine code, else through our tiles in WebAssembly. May be called
 * again with others.
 */
export function installWasmKernels({
  blas,
  machineCode,
}: {
  readonly blas: Blas | null;
  readonly machineCode: MachineCode | null;
}): void {
  const heap = wasmHeap();
  const loops = wasmLoops(heap);
  const vectors: Vectors = { ...loops.vectors, ...machineCode?.vectors };
  const product =
    blas === null ? (machineCode?.product ?? loops.product) : blasProduct(heap, blas, loops.product);
  // Frozen matrices are read by nothing else, so that they stay when other machine code is given up.
  const frozen = machineCode?.frozen ?? kit?.frozen ?? null;
  const heapKit = { heap, vectors, strided: loops.strided, product, machineCode, frozen };
  [kit, blasInUse] = [heapKit, blas];
  const layerScratch = new Scratch(heap);
  const kernels: Record<string, Kernel> = {
    BatchMatMul: ({ a, b }, { transposeA, transposeB }) =>
      batchMatMul(heap, product, a, b, transposeA, transposeB),
    // TF.js' own copies, and it runs for every tensor that a gradient keeps.
    Identity: ({ x }) => heap.share(x),
    GatherV2: (inputs, attributes) =>
      attributes.axis === 0 && attributes.batchDims === 0 && inputs.x.dtype !== 'bool'
        ? gatherRows(heap, vectors, inputs.x, inputs.indices)
        : stock(heap, 'GatherV2', inputs, attributes),
    UnsortedSegmentSum: ({ x, segmentIds }, { numSegments }) =>
      unsortedSegmentSum(heap, vectors, x, segmentIds, numSegments),
    RmsNorm: ({ x, weight }, { eps }) => rmsNorm(heap, vectors, x, weight, eps),
    RmsNormGrad: ({ dy, x, weight }, { eps }) => rmsNormGrad(heap, vectors, dy, x, weight, eps),
    Swiglu: ({ gate, up }) => swiglu(heap, vectors, gate, up),
    SwigluGrad: ({ dy, gate, up }) => swigluGrad(heap, vectors, dy, gate, up),
    CausalAttention: (inputs, shape) => causalAttention(heapKit, inputs, shape),
    CausalAttentionGrad: (inputs, shape) => causalAttentionGrad(heapKit, inputs, shape),
    DecoderLayer: (inputs, { frozen, ...shape }) =>
      decoderLayer(heapKit, layerScratch, { ...inputs, ...frozen }, shape),
    DecoderLayerGrad: (inputs, { frozen, ...shape }) =>
      decoderLayerGrad(heapKit, layerScratch, { ...inputs, ...frozen }, shape),
    FrozenLinear: ({ x }, { w }) => frozenLinear(heapKit, x, w),
    FrozenLinearGrad: ({ dy }, { w }) => frozenLinearGrad(heapKit, dy, w),
    AdamW: ({ x, dy, mean, square }, step) => adamW(heap, vectors, x, dy, mean, square, step),
    TokenNll: ({ logits, labels }) => tokenNll(heap, vectors, logits, labels),
    TokenNllGrad: ({ dy, logits, labels, nll }) => tokenNllGrad(heap, vectors, dy, logits, labels, nll),
  };
  for (const [kernelName, run] of Object.entries(kernels)) {
    const present = tf.getKernel(kernelName, 'wasm');
    if (present) {
      if (!originals.has(kernelName)) originals.set(kernelName, present);
      tf.unregisterKernel(kernelName, 'wasm');
    }
    tf.registerKernel({
      kernelName,
      backendName: 'wasm',
      kernelFunc: ({ inputs, attrs }) => run(inputs as Inputs, attrs as unknown as Attributes),
    });
  }
}
