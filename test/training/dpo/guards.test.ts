import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { guardTraining } from '../../../src/training/dpo/guards.ts';

const fine = {
  'rewards/margins': 1,
  'rewards/chosen': -0.5,
  'tokens/chosen': 10,
  'tokens/rejected': 12,
};
const reports = (...changes: Partial<typeof fine>[]) =>
  [{}, ...changes].map((change) => ({ figures: { ...fine, ...change } }));

test('a training that went well has nothing said of it', () => {
  assert.equal(guardTraining(reports({ 'rewards/margins': 19, 'rewards/chosen': -2.9 }), 32, 0.3), []);
  assert.equal(guardTraining(reports({ 'rewards/chosen': 2 }), 1000, 0.3), []);
});

test('each guard says in a sentence what went wrong', () => {
  const said = (change: Partial<typeof fine>, pairs = 100) => guardTraining(reports(change), pairs, 0.3);
  assert.equal(said({}, 31), ['too few pairs: 31 are less than 32']);
  assert.equal(said({ 'rewards/margins': 20.5 }), ['margin explosion: a mean reward margin of 20.5 nats']);
  assert.equal(said({ 'rewards/chosen': -3.3 }), [
    'collapse of the chosen turns: 1.10 nats per token less likely than under the reference',
  ]);
  const short = { 'tokens/chosen': 2, 'tokens/rejected': 30 };
  assert.equal(guardTraining([{ figures: { ...fine, ...short } }], 100, 0.3), [
    'length collapse: chosen turns have 2.0 tokens, rejected ones 30.0',
  ]);
  assert.equal(guardTraining([{ figures: { ...fine, ...short, 'tokens/rejected': 8 } }], 100, 0.3), []);
  assert.equal(
    guardTraining([{ figures: { ...fine, 'tokens/chosen': 3, 'tokens/rejected': 30 } }], 100, 0.3),
    [],
  );
  assert.is(said({ 'rewards/margins': 99, 'rewards/chosen': -99 }, 3).length, 3);
});

test.run();
