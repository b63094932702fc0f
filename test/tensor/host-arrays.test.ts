// Numbers between tensors and arrays, on the heap and without it.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { overwrite, readInto, startEngine, tf } from '../../src/tensor/index.ts';

await startEngine({ backend: 'wasm' });

for (const backend of ['wasm', 'cpu']) {
  test(`${backend}: a tensor's numbers are read into an array, shared or not`, async () => {
    await tf.setBackend(backend);
    tf.tidy(() => {
      const tensor = tf.tensor2d([1, 2, 3, 4, 5, 6], [2, 3]);
      for (const buffer of [new ArrayBuffer(40), new SharedArrayBuffer(40)]) {
        const all = new Float32Array(buffer).fill(-1);
        readInto(tensor, all.subarray(2, 8));
        assert.equal([...all], [-1, -1, 1, 2, 3, 4, 5, 6, -1, -1]);
      }
    });
  });

  test(`${backend}: a variable that is overwritten has the numbers of that moment, and leaves no tensor behind`, async () => {
    await tf.setBackend(backend);
    const variable = tf.variable(tf.tensor1d([1, 2]));
    const before = tf.memory().numTensors;
    const values = Float32Array.of(3, 4);
    overwrite(variable, values);
    values.fill(9);
    assert.equal([...variable.dataSync()], [3, 4]);
    assert.is(tf.memory().numTensors, before);
    variable.dispose();
  });
}

test.run();
