import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { createRunId, dialogueId, taskId, turnId } from '../../src/domain/ids.ts';

test('ids spell out what they name, tasks padded so that they sort', () => {
  assert.is(taskId('train', 12), 'train-00012');
  assert.is(taskId('test', 0), 'test-00000');
  assert.is(taskId('validation', 123456), 'validation-123456');
  const dialogue = dialogueId('iteration-1', taskId('train', 7), 3);
  assert.is(dialogue, 'iteration-1/train-00007/3');
  assert.is(turnId(dialogue, 11), 'iteration-1/train-00007/3#11');
});

test('a run folder is named after scenario, recipe and seed, and no two runs share a name', () => {
  const names = Array.from({ length: 500 }, () => createRunId('two-hop-qa', 'quick', 3));
  for (const name of names) assert.match(name, /^two-hop-qa-quick-s3-[0-9a-km-np-z]{6}$/);
  assert.is(new Set(names).size, names.length);
});

test.run();
