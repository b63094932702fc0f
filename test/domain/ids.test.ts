import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { childId, createRunId, rootId, taskId } from '../../src/domain/ids.ts';

test('ids spell out what they name, tasks padded so that they sort', () => {
  assert.is(taskId('train', 12), 'train-00012');
  assert.is(taskId('test', 0), 'test-00000');
  assert.is(taskId('validation', 123456), 'validation-123456');
});

test('the id of a node is the way to it from the root of its tree', () => {
  const root = rootId('isft-1/generate', taskId('train', 7));
  assert.is(root, 'isft-1/generate/train-00007');
  const first = childId(root, 3);
  assert.is(first, 'isft-1/generate/train-00007.3');
  assert.is(childId(childId(first, 0), 11), 'isft-1/generate/train-00007.3.0.11');
});

test('a run folder is named after scenario, recipe and seed, and no two runs share a name', () => {
  const names = Array.from({ length: 500 }, () => createRunId('two-hop-qa', 'quick', 3));
  for (const name of names) assert.match(name, /^two-hop-qa-quick-s3-[0-9a-km-np-z]{6}$/);
  assert.is(new Set(names).size, names.length);
});

test.run();
