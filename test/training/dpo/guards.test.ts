import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { guardTraining } from '../../../src/training/dpo/guards.ts';

const fine = {
  'rewards/margins': 1,
  'logps/chosen': -20,
  'tokens/chosen': 10,
  'tokens/rejected': 12,
};
const reports = (...changes: Partial<typeof fine>[]) =>
  [{}, ...changes].map((change) => ({ figures: { ...fine, ...change } }));

test('a training that went well has nothing said of it', () => {
  assert.equal(guardTraining(reports({ 'rewards/margins': 19, 'logps/chosen': -29 }), 32), []);
  assert.equal(guardTraining(reports({ 'logps/chosen': -2 }), 1000), []);
});

test('each guard says in a sentence what went wrong', () => {
  const said = (change: Partial<typeof fine>, pairs = 100) => guardTraining(reports(change), pairs);
  assert.equal(said({}, 31), ['too few pairs: 31 are less than 32']);
  assert.equal(said({ 'rewards/margins': 20.5 }), ['margin explosion: a mean reward margin of 20.5 nats']);
  assert.equal(said({ 'logps/chosen': -31 }), [
    'collapse of the chosen turns: 1.10 nats per token less likely than at first',
  ]);
  const short = { 'tokens/chosen': 2, 'tokens/rejected': 30 };
  assert.equal(guardTraining([{ figures: { ...fine, ...short } }], 100), [
    'length collapse: chosen turns have 2.0 tokens, rejected ones 30.0',
  ]);
  assert.equal(guardTraining([{ figures: { ...fine, ...short, 'tokens/rejected': 8 } }], 100), []);
  assert.equal(guardTraining([{ figures: { ...fine, 'tokens/chosen': 3, 'tokens/rejected': 30 } }], 100), []);
  assert.is(said({ 'rewards/margins': 99, 'logps/chosen': -99 }, 3).length, 3);
});

test.run();
