import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { createHash16, hash16 } from '../../src/domain/hash.ts';

test('a hash is the first 16 digits of the SHA-256 of a text in UTF-8, or of bytes', () => {
  assert.is(hash16('abc'), 'ba7816bf8f01cfea');
  assert.is(hash16(''), 'e3b0c44298fc1c14');
  assert.is(hash16('ü'), hash16(Uint8Array.of(0xc3, 0xbc)));
});

test('what comes in pieces has the hash of the whole', () => {
  const bytes = new TextEncoder().encode('0c1');
  const pieces = createHash16().update('ab').update(bytes.subarray(1, 2)).update('');
  assert.is(pieces.digest(), hash16('abc'));
});

test.run();
