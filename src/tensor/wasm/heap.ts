// The wasm backend's memory as our kernels see it: where a tensor lies, and how a new one is made.
import type { DataType, TensorInfo } from '@tensorflow/tfjs-core';
import { OptimaError } from '../../domain/errors.ts';
import type { WasmMemory } from './assembler.ts';

/** What the kernels use of TF.js' `BackendWasm`; its own types leave out the heap and the tensor table. */
export interface WasmBackend {
  readonly wasm: {
    /** Replaced whenever the heap grows. */
    readonly HEAPU8: Uint8Array<ArrayBuffer>;
    readonly asm: { readonly memory: WasmMemory };
  };
  readonly dataIdMap: { get(dataId: object): { readonly memoryOffset: number } };
  incRef(dataId: object): void;
  makeOutput(shape: number[], dtype: DataType): TensorInfo;
  disposeData(dataId: object): boolean;
}

/** Bytes of `count` numbers. */
export const bytes = (count: number): number => 4 * count;

/** Tensors on the heap. Addresses are in bytes from its start and stay valid while the tensor lives. */
export class Heap {
  readonly backend: WasmBackend;

  constructor(backend: WasmBackend) {
    this.backend = backend;
  }

  /** The heap's buffer. It dies when the heap grows, which any allocation or call into TF.js may cause. */
  get buffer(): ArrayBuffer {
    return this.backend.wasm.HEAPU8.buffer;
  }

  addressOf(tensor: TensorInfo): number {
    return this.backend.dataIdMap.get(tensor.dataId).memoryOffset;
  }

  /** A view of `length` numbers; as short-lived as `buffer`. */
  floats(address: number, length: number): Float32Array {
    return new Float32Array(this.buffer, address, length);
  }

  /** A view of `length` integers; as short-lived as `buffer`. */
  ints(address: number, length: number): Int32Array {
    return new Int32Array(this.buffer, address, length);
  }

  /** A tensor with undefined content. Throws `model.failed` when the heap is full. */
  allocate(shape: readonly number[], dtype: DataType = 'float32'): TensorInfo {
    const tensor = this.backend.makeOutput([...shape], dtype);
    if (this.addressOf(tensor) === 0 && !shape.includes(0)) {
      this.free(tensor);
      throw new OptimaError('model.failed', `The wasm heap has no room for a tensor [${shape.join(', ')}].`, {
        hint: 'Use a smaller batch or shorter sequences.',
      });
    }
    return tensor;
  }

  free(tensor: TensorInfo): void {
    this.backend.disposeData(tensor.dataId);
  }

  /** The same data as another tensor, counted once more. */
  share(tensor: TensorInfo): TensorInfo {
    this.backend.incRef(tensor.dataId);
    return { dataId: tensor.dataId, shape: tensor.shape, dtype: tensor.dtype };
  }
}

/** A piece of the heap that grows and is used again and again: fresh memory is slow at first touch. */
export class Scratch {
  readonly #heap: Heap;
  #tensor: TensorInfo | null = null;

  constructor(heap: Heap) {
    this.#heap = heap;
  }

  /** Address of `count` numbers with undefined content; the piece before is gone. */
  reserve(count: number): number {
    if (this.#tensor === null || this.#tensor.shape[0]! < count) {
      this.free();
      this.#tensor = this.#heap.allocate([count]);
    }
    return this.#heap.addressOf(this.#tensor);
  }

  free(): void {
    if (this.#tensor !== null) this.#heap.free(this.#tensor);
    this.#tensor = null;
  }
}

/** How many numbers the parts have together. */
export const total = (sizes: Readonly<Record<string, number>>): number =>
  Object.values(sizes).reduce((sum, size) => sum + size, 0);

/** Addresses of parts of so many numbers that lie one behind the other from `start` on. */
export function layOut<Name extends string>(
  start: number,
  sizes: Readonly<Record<Name, number>>,
): Record<Name, number> {
  let next = start;
  const addresses: Record<string, number> = {};
  for (const [name, size] of Object.entries<number>(sizes)) {
    addresses[name] = next;
    next += bytes(size);
  }
  return addresses as Record<Name, number>;
}
