import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { compactFormats } from '../../src/scenario/index.ts';

test('the compact formats have names of their own and prompts of one line', () => {
  assert.is(compactFormats.length, 11);
  assert.is(new Set(compactFormats.map(({ name }) => name)).size, 11);
  assert.is(new Set(compactFormats.map(({ prompt }) => prompt)).size, 11);
  for (const { prompt } of compactFormats) assert.match(prompt, /^Write [^\n]+\.$/);
});

test.run();
