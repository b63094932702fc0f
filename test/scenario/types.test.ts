import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { formattedRoles, systemText } from '../../src/scenario/index.ts';
import { messageCap } from '../../src/scenario/types.ts';
import { wordPairs } from '../support/scenarios.ts';

const terse = { name: 'terse', prompt: 'Be terse.' };
const task = { left: 'oak', right: 'elm' };

test('a system text is the view of its own role, with the format prompt on a line of its own', () => {
  const scenario = wordPairs();
  assert.is(systemText(scenario, 'alice', task, null), 'word: oak');
  assert.is(systemText(scenario, 'bob', task, null), 'word: elm');
  assert.is(systemText(scenario, 'bob', task, terse), 'word: elm\nBe terse.');
});

test('a role that is not formatted never gets a format prompt', () => {
  const { roles } = wordPairs();
  const scenario = wordPairs({
    roles: { alice: { ...roles.alice!, formatted: false }, bob: { ...roles.bob!, formatted: true } },
  });
  assert.equal(formattedRoles(scenario), ['bob']);
  assert.equal(formattedRoles(wordPairs()), ['alice', 'bob']);
  assert.is(systemText(scenario, 'alice', task, terse), 'word: oak');
  assert.is(systemText(scenario, 'bob', task, terse), 'word: elm\nBe terse.');
});

test("the cap on a message is the one that is asked for, else the scenario's, else 96 tokens", () => {
  const capped = wordPairs({ maxMessageTokens: 30 });
  assert.equal([messageCap(capped, 7), messageCap(capped, null), messageCap(wordPairs(), null)], [7, 30, 96]);
});

test.run();
