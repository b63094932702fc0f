// The decoder's pass on the wasm heap, from token ids to logits, without a tensor for each intermediate result. Spans of
// any length stand one after the other, without padding.
import type { Tensor, TensorInfo } from '@tensorflow/tfjs-core';
import {
  type BlockDecoder,
  blockTokens,
  type DecoderShape,
  type DecoderWeights,
  type LayerAdapter,
  type LayerMatrix,
  type LogitsRow,
  type Matrix,
  type RotaryAngles,
  type Span,
} from '../decoder.ts';
import { isFrozen, readRow } from '../frozen-matrix.ts';
import type { Packing } from '../x86/index.ts';
import { bytes, type Heap, layOut, Scratch, total } from './heap.ts';
import type { HeapKit } from './heap-kit.ts';
import { timesMatrix } from './matrices.ts';
import { layerBytes, type Paging, pagingFor, tokenRow, tokenRowNumbers } from './paged-attention.ts';
import { addToRows } from './rows.ts';
import type { Vectors } from './vectors.ts';

/** Blocks that are taken from the heap at once. */
const slabBlocks = 32;
/** Most logits that are computed at a time. */
const maxLogits = 2 ** 22;

/** A row of logits on the heap, which stays there. */
class HeapLogits implements LogitsRow {
  readonly #heap: Heap;
  readonly #vectors: Vectors;
  readonly #at: number;
  readonly #spare: number;
  readonly #vocab: number;

  /** At address `at`, with as much room at `spare`. */
  constructor(heap: Heap, vectors: Vectors, at: number, spare: number, vocab: number) {
    this.#heap = heap;
    this.#vectors = vectors;
    this.#at = at;
    this.#spare = spare;
    this.#vocab = vocab;
  }

  get values(): Float32Array {
    return this.#heap.floats(this.#at, this.#vocab);
  }

  maximum(): number {
    return this.#vectors.maximum(this.#at, this.#vocab);
  }

  sumExp(shift: number): number {
    return this.#vectors.sumExp(this.#at, shift, this.#vocab);
  }

  exponentials(shift: number, factor: number) {
    const sum = this.#vectors.temperedExp(this.#at, this.#spare, shift, factor, this.#vocab);
    return { weights: this.#heap.floats(this.#spare, this.#vocab), sum };
  }
}

/** Most numbers of all copies together: 512 MiB. */
const maxPacked = 2 ** 27;
/** Rows up to which packing a matrix for each product anew would take a good part of it. */
const mostPackedRows = 128;

/**
 * Copies of matrices in the order in which a product reads them. A step of few rows has little to do beside bringing them
 * into it.
 */
class PackedWeights {
  readonly #heap: Heap;
  readonly #packing: Packing;
  /** A variable that is assigned to gets other data. */
  readonly #copies = new Map<Tensor, { readonly of: object; readonly copy: TensorInfo }>();
  #size = 0;

  constructor(heap: Heap, packing: Packing) {
    this.#heap = heap;
    this.#packing = packing;
  }

  /** Address of the packed copy of a weight [out, in]; null where there is no room for it. */
  of(weight: Tensor): number | null {
    const known = this.#copies.get(weight);
    if (known?.of === weight.dataId) return this.#heap.addressOf(known.copy);
    const [width, inner] = weight.shape as [number, number];
    const size = this.#packing.size(inner, width);
    if (known === undefined && this.#size + size > maxPacked) return null;
    const copy = known?.copy ?? this.#allocate(size);
    if (copy === null) return null;
    const at = this.#heap.addressOf(copy);
    this.#packing.pack(inner, width, this.#heap.addressOf(weight), at);
    if (known === undefined) this.#size += size;
    this.#copies.set(weight, { of: weight.dataId, copy });
    return at;
  }

  /** Null where the heap has no room: a copy is not needed. */
  #allocate(size: number): TensorInfo | null {
    try {
      return this.#heap.allocate([size]);
    } catch {
      return null;
    }
  }

  free(): void {
    for (const { copy } of this.#copies.values()) this.#heap.free(copy);
    this.#copies.clear();
    this.#size = 0;
  }
}

/** Reads on TF.js' wasm heap. Heads must be of a size that `fitsPaging` takes. */
export class HeapDecoder implements BlockDecoder {
  readonly blockBytes: number;
  readonly #kit: HeapKit;
  readonly #shape: DecoderShape;
  readonly #weights: DecoderWeights;
  readonly #adapter: readonly LayerAdapter[];
  readonly #angles: RotaryAngles;
  readonly #paging: Paging;
  readonly #packed: PackedWeights | null;
  /** Blocks lie in slabs, which stay until no block is in use. */
  #slabs: TensorInfo[] = [];
  #free: number[] = [];
  #used = 0;
  /** What a pass works with, and what becomes of its result. */
  readonly #work: Scratch;
  readonly #output: Scratch;
  /** Cosines and sines [time, dh/2] each. */
  readonly #rotation: Scratch;
  #rotationTime = 0;
  /** The highest rank of the adapter. */
  readonly #mostRank: number;
  /** Where the hidden states [n, d] of the last read are. */
  #hidden = 0;

  /** `weights` and `adapter` may be assigned to between two reads; blocks that were read before are worthless then. */
  constructor(
    kit: HeapKit,
    shape: DecoderShape,
    weights: DecoderWeights,
    angles: RotaryAngles,
    adapter: readonly LayerAdapter[] = [],
  ) {
    this.#kit = kit;
    this.#shape = shape;
    this.#weights = weights;
    this.#adapter = adapter;
    this.#angles = angles;
    const terms = adapter.flatMap((layer) => Object.values(layer));
    this.#mostRank = Math.max(0, ...terms.map(({ a }) => a.shape[0]));
    this.#work = new Scratch(kit.heap);
    this.#output = new Scratch(kit.heap);
    this.#rotation = new Scratch(kit.heap);
    this.#packed = kit.machineCode && new PackedWeights(kit.heap, kit.machineCode.packing);
    this.#paging = kit.machineCode?.pagingFor(shape) ?? pagingFor(kit.heap.backend.wasm.asm.memory, shape);
    this.blockBytes = shape.layers * layerBytes(shape);
  }

  allocate(): number {
    if (this.#free.length === 0) {
      const slab = this.#kit.heap.allocate([(slabBlocks * this.blockBytes) / 4]);
      const start = this.#kit.heap.addressOf(slab);
      this.#slabs.push(slab);
      for (let i = slabBlocks - 1; i >= 0; i--) this.#free.push(start + i * this.blockBytes);
    }
    this.#used++;
    const block = this.#free.pop()!;
    // What lies behind a sequence's end is computed with, times 0: it must be finite.
    this.#kit.vectors.fill(block, 0, this.blockBytes / 4);
    return block;
  }

  copy(from: number, to: number): void {
    this.#kit.vectors.copy(from, to, this.blockBytes / 4);
  }

  free(block: number): void {
    if (this.#slabs.length === 0) return; // disposed meanwhile, and the block with it
    this.#free.push(block);
    if (--this.#used === 0) this.#releaseSlabs();
  }

  read(spans: readonly Span[]): void {
    const { vectors, heap } = this.#kit;
    const { hiddenSize: d, feedForwardSize: f, heads, keyValueHeads: kv, headSize: dh, eps } = this.#shape;
    const n = spans.reduce((sum, { ids }) => sum + ids.length, 0);
    const mostBlocks = Math.max(...spans.map(({ blocks }) => blocks.length));
    const at = this.#reserve({
      x: n * d,
      normed: n * Math.max(d, heads * dh),
      q: n * heads * dh,
      k: n * kv * dh,
      v: n * kv * dh,
      gate: n * f,
      up: n * f,
      scores: heads * mostBlocks * blockTokens,
      tables: spans.reduce((sum, { blocks }) => sum + blocks.length, 0),
      tokens: n * tokenRowNumbers,
      low: n * this.#mostRank,
    });
    const rotation = this.#rotationFor(Math.max(...spans.map(({ start, ids }) => start + ids.length)));
    this.#placeTokens(spans, at, rotation);
    const address = (tensor: Tensor) => heap.addressOf(tensor);

    this.#embed(spans, at.x);
    const normHeads = (at: number, norm: Tensor | undefined, count: number) => {
      if (norm !== undefined) vectors.normRows(at, address(norm), at, n * count, dh, eps);
    };
    this.#weights.layers.forEach((layer, index) => {
      const linear = (from: number, name: LayerMatrix, to: number, bias?: Tensor) => {
        this.#linear(n, from, layer[name], to);
        const term = this.#adapter[index]?.[name];
        if (term !== undefined) {
          this.#linear(n, from, term.a, at.low);
          this.#linear(n, at.low, term.b, to, true);
        }
        if (bias !== undefined) addToRows(vectors, address(bias), to, n, bias.shape[0]!);
      };
      vectors.normRows(at.x, address(layer.inputNorm), at.normed, n, d, eps);
      linear(at.normed, 'query', at.q, layer.queryBias);
      linear(at.normed, 'key', at.k, layer.keyBias);
      linear(at.normed, 'value', at.v, layer.valueBias);
      normHeads(at.q, layer.queryNorm, heads);
      normHeads(at.k, layer.keyNorm, kv);
      this.#paging.attendTokens(at.q, at.k, at.v, at.tokens, n, index * layerBytes(this.#shape), at.scores);
      linear(at.q, 'output', at.normed, layer.outputBias);
      vectors.accumulate(at.normed, at.x, n * d);
      vectors.normRows(at.x, address(layer.postNorm), at.normed, n, d, eps);
      linear(at.normed, 'gate', at.gate);
      linear(at.normed, 'up', at.up);
      vectors.swiglu(at.gate, at.up, at.gate, n * f);
      linear(at.gate, 'down', at.normed);
      vectors.accumulate(at.normed, at.x, n * d);
    });
    this.#hidden = at.x;
  }

  logits(rows: readonly number[]): LogitsRow[] {
    const { vocabSize: v } = this.#shape;
    const { heap, vectors } = this.#kit;
    // One row more, for exponentials.
    const start = this.#project(rows, 1);
    const spare = start + bytes(rows.length * v);
    return rows.map((_, i) => new HeapLogits(heap, vectors, start + bytes(i * v), spare, v));
  }

  logprobs(rows: readonly number[], labels: readonly number[]): Float32Array {
    const { vocabSize: v } = this.#shape;
    const { maximum, sumExp } = this.#kit.vectors;
    const results = new Float32Array(rows.length);
    const chunk = Math.max(1, Math.floor(maxLogits / v));
    for (let start = 0; start < rows.length; start += chunk) {
      const part = rows.slice(start, start + chunk);
      const logits = this.#project(part);
      const values = this.#kit.heap.floats(logits, part.length * v);
      for (let i = 0; i < part.length; i++) {
        const max = maximum(logits + bytes(i * v), v);
        const label = values[i * v + labels[start + i]!]!;
        results[start + i] = label - max - Math.log(sumExp(logits + bytes(i * v), max, v));
      }
    }
    return results;
  }

  dispose(): void {
    this.#releaseSlabs();
    this.#used = 0;
    for (const scratch of [this.#work, this.#output, this.#rotation]) scratch.free();
    this.#packed?.free();
    this.#rotationTime = 0;
  }

  /** Address of the logits [rows + spare, vocab] after the given tokens. */
  #project(rows: readonly number[], spare = 0): number {
    const { vectors, heap } = this.#kit;
    const { hiddenSize: d, vocabSize, eps } = this.#shape;
    const m = rows.length;
    const scratch = this.#output.reserve(m * 2 * d + (m + spare) * vocabSize);
    const [chosen, normed, logits] = [scratch, scratch + bytes(m * d), scratch + bytes(2 * m * d)];
    rows.forEach((row, i) => {
      vectors.copy(this.#hidden + bytes(row * d), chosen + bytes(i * d), d);
    });
    vectors.normRows(chosen, heap.addressOf(this.#weights.norm), normed, m, d, eps);
    this.#linear(m, normed, this.#weights.head, logits);
    return logits;
  }

  /** to [m, out] (+)= from [m, in] · weightᵀ */
  #linear(m: number, from: number, weight: Matrix, to: number, adds = false): void {
    const [width, inner] = weight.shape;
    const packed = m > mostPackedRows || isFrozen(weight) ? null : (this.#packed?.of(weight) ?? null);
    if (packed === null) timesMatrix(this.#kit, m, weight, from, to, adds);
    else this.#kit.machineCode!.packing.product(m, width, inner, from, packed, to, adds);
  }

  /** The spans' rows of the embedding table, one after the other from `to` on. */
  #embed(spans: readonly Span[], to: number): void {
    const { embedding } = this.#weights;
    const { heap, vectors } = this.#kit;
    const { hiddenSize: d } = this.#shape;
    let row = to;
    for (const { ids } of spans) {
      for (const id of ids) {
        if (isFrozen(embedding)) readRow(embedding, id, heap.floats(row, d));
        else vectors.copy(heap.addressOf(embedding) + bytes(id * d), row, d);
        row += bytes(d);
      }
    }
  }

  /** The addresses of the named parts, which hold so many numbers each. */
  #reserve<Name extends string>(sizes: Readonly<Record<Name, number>>): Record<Name, number> {
    return layOut(this.#work.reserve(total(sizes)), sizes);
  }

  /** Writes the spans' tables of blocks, and for each of their tokens what `attendTokens` is told of it. */
  #placeTokens(
    spans: readonly Span[],
    at: Readonly<Record<'tables' | 'tokens', number>>,
    rotation: { readonly cos: number; readonly sin: number },
  ): void {
    const half = this.#shape.headSize / 2;
    const { heap } = this.#kit;
    const numbers = spans.reduce((sum, { ids }) => sum + ids.length, 0) * tokenRowNumbers;
    // One view for all: a view of a few numbers takes longer to make than to fill.
    const tokens = heap.ints(at.tokens, numbers);
    let [table, token] = [at.tables, 0];
    for (const { ids, start, blocks } of spans) {
      heap.ints(table, blocks.length).set(blocks);
      for (let position = start; position < start + ids.length; position++) {
        const turned = bytes(position * half);
        const last = Math.floor(position / blockTokens);
        tokens.set(
          tokenRow({
            table,
            blocks: last + 1,
            visible: position + 1,
            cos: rotation.cos + turned,
            sin: rotation.sin + turned,
            block: blocks[last]!,
            slot: position % blockTokens,
          }),
          token,
        );
        token += tokenRowNumbers;
      }
      table += bytes(blocks.length);
    }
  }

  /** Addresses of the cosines and sines for positions up to `time`. */
  #rotationFor(time: number): { readonly cos: number; readonly sin: number } {
    const half = this.#shape.headSize / 2;
    if (this.#rotationTime < time) {
      // Doubling keeps the cost of growing one position at a time linear.
      const longest = Math.max(time, 2 * this.#rotationTime);
      this.#rotationTime = 0; // until the table is there: the heap may be full
      const size = longest * half;
      const { cos, sin } = this.#angles(longest);
      const address = this.#rotation.reserve(2 * size);
      const table = this.#kit.heap.floats(address, 2 * size);
      table.set(cos.subarray(0, size));
      table.set(sin.subarray(0, size), size);
      this.#rotationTime = longest;
    }
    const cos = this.#rotation.reserve(2 * this.#rotationTime * half);
    return { cos, sin: cos + bytes(this.#rotationTime * half) };
  }

  #releaseSlabs(): void {
    for (const slab of this.#slabs) this.#kit.heap.free(slab);
    this.#slabs = [];
    this.#free = [];
  }
}
