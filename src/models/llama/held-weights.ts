// A policy's weights as they are held: variables of the engine, which can be trained, and matrices that are frozen outside it.
import type { PolicyHash } from '../../domain/ids.ts';
import { type FrozenMatrix, isFrozen, readRows, tf } from '../../tensor/index.ts';
import type { NamedArray } from './weights.ts';

export type Weight = tf.Variable | FrozenMatrix;

/** Weights by Hugging Face name in the order of the forward pass, and the name of a policy of them. */
export interface HeldWeights {
  readonly held: ReadonlyMap<string, Weight>;
  readonly hash: PolicyHash;
}

/** Frozen weights as plain data: in another thread that gets it in a message, matrices are the same memory. */
export interface SharedWeights {
  readonly hash: PolicyHash;
  /** What of `hash` is not the weights', hashed: the architecture and what `frameOf` names. */
  readonly frameHash: string;
  readonly weights: ReadonlyMap<string, FrozenMatrix | NamedArray>;
}

/** The numbers of weights, each as of when it is read: no second copy of all is in memory. */
export const numbersOf = (weights: ReadonlyMap<string, tf.Tensor | FrozenMatrix>): Map<string, NamedArray> =>
  new Map(
    [...weights].map(([name, weight]) => [
      name,
      {
        shape: weight.shape,
        get values() {
          return isFrozen(weight) ? readRows(weight) : weight.dataSync<'float32'>();
        },
      },
    ]),
  );

const createVariable = ({ shape, values }: NamedArray): tf.Variable =>
  tf.tidy(() => tf.variable(tf.tensor(values, [...shape], 'float32')));

export const createVariables = (arrays: ReadonlyMap<string, NamedArray>): Map<string, tf.Variable> =>
  new Map([...arrays].map(([name, array]) => [name, createVariable(array)]));

/** Those that are variables. */
export const variablesOf = (weights: ReadonlyMap<string, Weight>): Map<string, tf.Variable> =>
  new Map([...weights].flatMap(([name, weight]) => (isFrozen(weight) ? [] : [[name, weight] as const])));

/** Weights for other threads, of a policy with so hashed a frame; null where none is frozen. */
export function shareWeights({ held, hash }: HeldWeights, frameHash: string): SharedWeights | null {
  if (![...held.values()].some(isFrozen)) return null;
  const arrays = numbersOf(held);
  const weights = new Map<string, FrozenMatrix | NamedArray>();
  for (const [name, weight] of held) {
    if (isFrozen(weight)) weights.set(name, weight);
    else {
      const { shape, values } = arrays.get(name)!;
      weights.set(name, { shape, values });
    }
  }
  return { hash, frameHash, weights };
}

/** What another thread shares. */
export const takeShared = ({ weights, hash }: SharedWeights): HeldWeights => ({
  hash,
  held: new Map(
    [...weights].map(([name, weight]) => [name, isFrozen(weight) ? weight : createVariable(weight)]),
  ),
});
