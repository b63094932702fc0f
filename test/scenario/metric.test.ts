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

test('the normal form keeps words together and what is inside them', () => {
  for (const [text, normal] of [
    ["Don't", 'dont'],
    ['U.S.A.', 'usa'],
    ['$5 + €3', '5 3'],
    ['A\tbanana\n an\u00a0apple', 'banana apple'],
    ['the', ''],
    ['theta analysis', 'theta analysis'],
    ['ÉCOLE', 'école'],
  ] as const) {
    assert.is(normalizeAnswer(text), normal);
  }
});

test('F1 is the same whichever of the two answers comes first', () => {
  for (const [a, b, score] of [
    // Shared: twice cat of 3 and 4 words.
    ['cat cat dog', 'cat cat cat fish', 4 / 7],
    ['one two three', 'three', 1 / 2],
    ['b a1', 'a1 b', 1],
    ['', 'cat', 0],
    ['the', 'an', 1],
  ] as const) {
    assert.is(answerF1(a, b), score, `${a} | ${b}`);
    assert.is(answerF1(b, a), score, `${b} | ${a}`);
  }
});

test('both metrics bear their names, and any accepted answer is an exact match', () => {
  assert.equal([f1.name, exactMatch.name], ['f1', 'exact-match']);
  const answers = ['Oslo', 'city of Oslo'];
  for (const metric of [f1, exactMatch]) {
    for (const said of ['oslo!', 'The City of Oslo']) {
      assert.equal(metric.score(said, answers), { score: 1, exactMatch: true });
    }
    assert.equal(metric.score('Rome', answers), { score: 0, exactMatch: false });
    assert.equal(metric.score(null, ['']), { score: 0, exactMatch: false });
    assert.equal(metric.score('', ['']), { score: 1, exactMatch: true });
  }
  // The same words in another order overlap wholly and are still not the same answer.
  assert.equal(f1.score('Oslo city of', answers), { score: 1, exactMatch: false });
  assert.equal(exactMatch.score('Oslo city of', answers), { score: 0, exactMatch: false });
});

test.run();
