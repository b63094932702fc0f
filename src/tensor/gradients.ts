// Gradients of the TF.js operations that the decoder and the losses are made of. TF.js registers its own in modules that
// Node cannot load (dist/register_all_gradients.js); these are the same formulas in the same order, so the same numbers.
import tf from './tfjs.cjs';

type Saved = readonly tf.Tensor[];
/** As an operation that reduces has them, one or several. */
type Axes = tf.NamedAttrMap[string] | undefined;
type Gradient = Omit<tf.GradConfig, 'kernelName' | 'gradFunc'> & {
  /** dy and what was saved → the gradient of each input, by its name. */
  readonly of: (dy: tf.Tensor, saved: Saved, attrs: tf.NamedAttrMap) => Record<string, () => tf.Tensor>;
};

const { getReductionAxes } = tf.broadcast_util;
const { parseAxisParam, sizeFromShape } = tf.util;

/** The gradient of what was broadcast, summed over where it was repeated. */
function reduceTo(shape: number[], dy: tf.Tensor): tf.Tensor {
  const axes = getReductionAxes(shape, dy.shape);
  return tf.reshape(axes.length > 0 ? tf.sum(dy, axes) : dy, shape);
}

/** The shape of x with 1 for each axis that was reduced. */
function shapeWithOnes(x: tf.Tensor, axes: Axes): number[] {
  const reduced = parseAxisParam(axes as number | number[], x.shape);
  return x.shape.map((size, axis) => (reduced.includes(axis) ? 1 : size));
}

/** What was reduced, as often as it was summed. */
const repeat = (dy: tf.Tensor, x: tf.Tensor, axes: Axes) =>
  tf.mul(tf.reshape(dy, shapeWithOnes(x, axes)), tf.ones(x.shape));

const inverseOf = (order: readonly number[]) => order.map((_, axis) => order.indexOf(axis));

/** An operation of one input: d/dx from dy and x. */
const ofInput = (
  compute: (dy: tf.Tensor, x: tf.Tensor, attrs: tf.NamedAttrMap) => tf.Tensor,
  name = 'x',
) => ({
  inputsToSave: [name],
  of: (dy: tf.Tensor, [x]: Saved, attrs: tf.NamedAttrMap) => ({ [name]: () => compute(dy, x!, attrs) }),
});

/** An operation of one input: d/dx from dy and the output. */
const ofOutput = (compute: (dy: tf.Tensor, y: tf.Tensor) => tf.Tensor, name = 'x') => ({
  outputsToSave: [true],
  of: (dy: tf.Tensor, [y]: Saved) => ({ [name]: () => compute(dy, y!) }),
});

/** An operation of two inputs that are broadcast to each other. */
const ofBoth = (
  a: (dy: tf.Tensor, a: tf.Tensor, b: tf.Tensor) => tf.Tensor,
  b: (dy: tf.Tensor, a: tf.Tensor, b: tf.Tensor) => tf.Tensor,
) => ({
  inputsToSave: ['a', 'b'],
  of: (dy: tf.Tensor, [left, right]: Saved) => ({
    a: () => a(dy, left!, right!),
    b: () => b(dy, left!, right!),
  }),
});

/** By the name of the kernel. */
export const gradients: Readonly<Record<string, Gradient>> = {
  Add: ofBoth(
    (dy, a) => reduceTo(a.shape, dy),
    (dy, _, b) => reduceTo(b.shape, dy),
  ),
  Sub: ofBoth(
    (dy, a) => reduceTo(a.shape, dy),
    (dy, _, b) => tf.neg(reduceTo(b.shape, dy)),
  ),
  Multiply: ofBoth(
    (dy, a, b) => reduceTo(a.shape, tf.mul(dy, b)),
    (dy, a, b) => reduceTo(b.shape, tf.mul(dy, a)),
  ),
  RealDiv: ofBoth(
    (dy, a, b) => reduceTo(a.shape, tf.div(dy, b)),
    (dy, a, b) => tf.neg(tf.div(reduceTo(b.shape, tf.mul(dy, a)), tf.square(b))),
  ),
  BatchMatMul: {
    inputsToSave: ['a', 'b'],
    of: (dy, [a, b], { transposeA, transposeB }) => ({
      a: () => (transposeA ? tf.matMul(b!, dy, !!transposeB, true) : tf.matMul(dy, b!, false, !transposeB)),
      b: () => (transposeB ? tf.matMul(dy, a!, true, !!transposeA) : tf.matMul(a!, dy, !transposeA, false)),
    }),
  },
  Cast: { of: (dy) => ({ x: () => tf.clone(dy) }) },
  Concat: {
    saveAllInputs: true,
    of: (dy, saved, { axis }) => {
      const [along] = parseAxisParam(axis as number, saved[0]!.shape);
      const sizes = saved.map(({ shape }) => shape[along!]!);
      // By their place among the inputs, which are a list.
      return Object.fromEntries(tf.split(dy, sizes, along).map((part, i) => [i, () => part]));
    },
  },
  Exp: ofOutput((dy, y) => tf.mul(dy, y)),
  ExpandDims: ofInput((dy, x) => tf.reshape(dy, x.shape), 'input'),
  GatherV2: {
    inputsToSave: ['x', 'indices'],
    of: (dy, [x, indices], { axis: given, batchDims }) => {
      tf.util.assert(batchDims === 0, () => 'gather has no gradient where it has batch dimensions');
      const { shape } = x!;
      const along = parseAxisParam(given as number, shape)[0]!;
      const gathered = shape.with(along, indices!.size);
      const alongFirst = [along, ...[...shape.keys()].filter((axis) => axis !== along)];
      const rowOf = tf.reshape(indices!, [indices!.size]) as tf.Tensor1D;
      const sum = () =>
        tf.unsortedSegmentSum(tf.transpose(tf.reshape(dy, gathered), alongFirst), rowOf, shape[along]!);
      return { x: () => tf.transpose(sum(), inverseOf(alongFirst)), indices: () => indices! };
    },
  },
  Log: ofInput((dy, x) => tf.div(dy, x)),
  Max: {
    inputsToSave: ['x'],
    outputsToSave: [true],
    of: (dy, [x, y], { reductionIndices }) => {
      const shape = shapeWithOnes(x!, reductionIndices);
      const isMax = () => tf.cast(tf.equal(x!, tf.reshape(y!, shape)), 'float32');
      return { x: () => tf.mul(tf.reshape(dy, shape), isMax()) };
    },
  },
  Mean: ofInput((dy, x, { axis }) => {
    const count = sizeFromShape(x.shape) / sizeFromShape(shapeWithOnes(x, axis));
    return tf.div(repeat(dy, x, axis), count);
  }),
  Neg: ofInput((dy) => tf.neg(dy)),
  Reshape: ofInput((dy, x) => tf.reshape(dy, x.shape)),
  Rsqrt: ofInput((dy, x) => tf.neg(tf.div(dy, tf.mul(tf.pow(x, 1.5), 2)))),
  Sigmoid: ofOutput((dy, y) => tf.mul(dy, tf.mul(y, tf.sub(1, y)))),
  Slice: ofInput((dy, x, { begin, size }) => {
    const [from, sizes] = tf.slice_util.parseSliceParams(
      x,
      begin as number[],
      size as number[],
    ) as number[][];
    const around = x.shape.map((whole, axis) => [from![axis]!, whole - from![axis]! - sizes![axis]!]);
    return tf.pad(dy, around as [number, number][]);
  }),
  Softmax: {
    outputsToSave: [true],
    of: (dy, [y], { dim }) => {
      const weighted = tf.mul(dy, y!);
      return { logits: () => tf.sub(weighted, tf.mul(tf.sum(weighted, [dim as number], true), y!)) };
    },
  },
  Softplus: ofInput((dy, x) => tf.mul(dy, tf.sigmoid(x))),
  SplitV: { of: (dy, _, { axis }) => ({ x: () => tf.concat(dy as unknown as tf.Tensor[], axis as number) }) },
  Square: ofInput((dy, x) => tf.mul(dy, tf.mul(x, 2))),
  Sum: ofInput((dy, x, { axis }) => repeat(dy, x, axis)),
  Transpose: {
    of: (dy, _, { perm }) => ({ x: () => tf.transpose(dy, inverseOf(perm as number[])) }),
  },
};

for (const [kernelName, { of, ...saves }] of Object.entries(gradients)) {
  tf.registerGradient({
    kernelName,
    ...saves,
    gradFunc: (dy, saved, attrs) => of(dy as tf.Tensor, saved, attrs),
  });
}
