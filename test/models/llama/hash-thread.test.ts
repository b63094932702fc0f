import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { createHash16 } from '../../../src/domain/hash.ts';
import { createHashThread } from '../../../src/models/llama/hash-thread.ts';

/** As much as is worth a thread. */
const large = 2 ** 26;

test('a thread hashes as this one does, texts and bytes, longer and shorter than what it takes at a time', () => {
  const bytes = Uint8Array.from({ length: 2 ** 24 + 12_345 }, (_, i) => (i * 7) ^ (i >> 9));
  for (const size of [0, large]) {
    const [hash, expected] = [createHashThread(size), createHash16()].map((hash) => {
      hash.update('a policy').update(bytes).update('').update(bytes.subarray(3, 1000));
      for (let i = 0; i < 20; i++) hash.update(`\n${i}`);
      return hash.digest();
    });
    assert.is(hash, expected);
  }
});

test('a thread that is stopped ends, and so does the process', () => {
  createHashThread(large).update('half of it').stop();
});

test.run();
