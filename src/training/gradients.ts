// Gradients of a loss that is the sum of several passes' losses; each pass's tensors are freed before the next.
import { addTo, readInto, tf } from '../tensor/index.ts';
import type { Gradients } from './adamw.ts';
import type { Figures, PassShare } from './objective.ts';

/** A pass's share of a batch's loss and figures, and the loss's gradient by the names of the parameters. */
export interface PassGradients {
  readonly loss: number;
  readonly figures: Figures;
  readonly gradients: Gradients;
}

/**
 * Computes a pass and its gradient, synchronously; a parameter it does not use has none. The gradients are written to
 * the arrays that `arrayFor` gives, each of its parameter's size. Leaves no tensor behind.
 */
export function computeGradients(
  parameters: ReadonlyMap<string, tf.Variable>,
  computePass: () => PassShare,
  arrayFor: (name: string, size: number) => Float32Array = (_, size) => new Float32Array(size),
): PassGradients {
  const figures: Record<string, number> = {};
  const gradients = new Map<string, Float32Array>();
  const computeLoss = () => {
    const share = computePass();
    // Here, as of all that a pass makes variableGrads lets only the loss live.
    for (const [name, figure] of Object.entries(share.figures)) figures[name] = figure.dataSync()[0]!;
    return share.loss;
  };
  const loss = tf.tidy(() => {
    const { value, grads } = tf.variableGrads(computeLoss, [...parameters.values()]);
    for (const [name, { name: own }] of parameters) {
      const gradient = grads[own];
      if (gradient === undefined) continue;
      const array = arrayFor(name, gradient.size);
      readInto(gradient, array);
      gradients.set(name, array);
    }
    return value.dataSync()[0]!;
  });
  return { loss, figures, gradients };
}

/** Where in one array for all parameters each one's numbers stand. */
export class ParameterLayout {
  /** Numbers of all parameters. */
  readonly size: number;
  readonly #places = new Map<string, { readonly start: number; readonly end: number }>();

  constructor(parameters: ReadonlyMap<string, tf.Variable>) {
    let start = 0;
    for (const [name, { size }] of parameters) {
      this.#places.set(name, { start, end: start + size });
      start += size;
    }
    this.size = start;
  }

  /** The part of `all` that belongs to a parameter. */
  partOf<Buffer extends ArrayBufferLike>(all: Float32Array<Buffer>, name: string): Float32Array<Buffer> {
    const { start, end } = this.#places.get(name)!;
    return all.subarray(start, end);
  }
}

/**
 * Adds passes up in their order, whichever is done first, so that the sum does not depend on who computed them when.
 * Each is added as soon as those before it have been, while others are still computed. Takes the arrays over.
 */
export class PassSum {
  readonly #gradients = new Map<string, Float32Array>();
  readonly #early = new Map<number, { readonly pass: PassGradients; readonly release: () => void }>();
  readonly #figures: Record<string, number> = {};
  #loss = 0;
  #next = 0;

  /** Takes the result of pass `index`. `release` is called once its arrays are not needed any more, unless they are kept. */
  add(index: number, pass: PassGradients, release = () => {}): void {
    this.#early.set(index, { pass, release });
    for (let ready = this.#early.get(this.#next); ready; ready = this.#early.get(this.#next)) {
      this.#early.delete(this.#next++);
      this.#loss += ready.pass.loss;
      for (const [name, figure] of Object.entries(ready.pass.figures)) {
        this.#figures[name] = (this.#figures[name] ?? 0) + figure;
      }
      let kept = false;
      for (const [name, values] of ready.pass.gradients) {
        const sum = this.#gradients.get(name);
        if (sum !== undefined) addTo(sum, values);
        else this.#gradients.set(name, values);
        kept ||= sum === undefined;
      }
      if (!kept) ready.release();
    }
  }

  /** The sum of all that was added. */
  get total(): PassGradients {
    return { loss: this.#loss, figures: this.#figures, gradients: this.#gradients };
  }
}
