import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { answerF1, exactMatch, f1, normalizeAnswer } from '../../src/scenario/index.ts';

test('the normal form drops case, punctuation, articles and extra spaces', () => {
  assert.is(normalizeAnswer('  The  Quick, (brown) FOX! '), 'quick brown fox');
  assert.is(normalizeAnswer('1,000'), '1000');
  assert.is(normalizeAnswer('Another theory'), 'another theory');
});

test('F1 counts shared words with their multiplicity', () => {
  assert.is(answerF1('a cat sat', 'the cat sat'), 1);
  assert.is(answerF1('cat cat', 'cat'), 2 / 3);
  assert.is(answerF1('red fox', 'blue fox'), 0.5);
  assert.is(answerF1('dog', 'cat'), 0);
  assert.is(answerF1('', ''), 1);
  assert.is(answerF1('', 'cat'), 0);
});

test('f1 takes the best alias and scores a missing answer 0', () => {
  const answers = ['Oslo', 'city of Oslo'];
  assert.equal(f1.score('The city of Oslo', answers), { score: 1, exactMatch: true });
  assert.equal(f1.score('Oslo town', answers), { score: 2 / 3, exactMatch: false });
  assert.equal(f1.score(null, answers), { score: 0, exactMatch: false });
});

test('exact match accepts any alias, numbers with or without commas', () => {
  assert.equal(exactMatch.score('1,000', ['1000']), { score: 1, exactMatch: true });
  assert.equal(exactMatch.score('1001', ['1000']), { score: 0, exactMatch: false });
});

test.run();
