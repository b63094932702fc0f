import { test } from 'uvu';
import * as assert from 'uvu/assert';
import {
  answerF1,
  closeTo,
  exactMatch,
  exactNumber,
  exactOption,
  f1,
  kendallTau,
  normalizeAnswer,
} from '../../src/scenario/index.ts';

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
  assert.is(answerF1('', ''), 0);
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
    ['the', 'the'],
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
    ['the', 'an', 0],
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
    assert.equal(metric.score('', ['']), { score: 0, exactMatch: false });
  }
  // The same words in another order overlap wholly and are still not the same answer.
  assert.equal(f1.score('Oslo city of', answers), { score: 1, exactMatch: false });
  assert.equal(exactMatch.score('Oslo city of', answers), { score: 0, exactMatch: false });
});

test('signs, decimal points, exponents, percent signs, separators and operators carry meaning', () => {
  for (const [one, ...others] of [
    ['-7', '7', '- 7', '0.7'],
    ['2.5', '25', '2,5', '2:5', '2-5'],
    ['.5', '5'],
    ['1e-5', '1e5', '15'],
    ['40 %', '40', '.40'],
    ['C++', 'C', 'C#', 'C+'],
    ['3/4', '34', '3*4', '3^4'],
    ['x_1', 'x1'],
    ['x > 5', 'x < 5', 'x 5'],
    ['12:30', '1230'],
    ['1990-2010', '19902010'],
    ['+', '-', '*'],
    ['-$7', '$7', '7'],
    ['-x', 'x'],
    ['-√2', '√2'],
    ['A-', 'A', 'A+'],
    ['3 / 4', '3 * 4', '3 - 4', '3 4'],
    ['A ∪ B', 'A ∩ B', 'A B'],
    ['10^{3}', '103', '10^2'],
    ['10^{-3}', '10-3', '10^3'],
    ['2*-3', '2-3', '2*3'],
    ['-0.5', '0.5'],
    ['x²', 'x2'],
    ['5 km', '5 m', '5'],
    ['5 ‰', '5', '5 %'],
    ['3 a day', '3day'],
    ['vitamin B 12 c', 'vitamin B 12c'],
    ['5 km north', '5km north'],
    ['room 5 b', 'room 5b'],
    ['?', 'the', 'A'],
  ] as const) {
    assert.ok(exactMatch.score(one, [one]).exactMatch, one);
    for (const other of others) assert.not.ok(exactMatch.score(one, [other]).exactMatch, `${one} | ${other}`);
  }
  for (const [one, ...others] of [
    ['12,345,678', '12345678'],
    ['-7', '\u22127', '\u20137', ' -7.'],
    ['40 %', '40%', '40  %.'],
    ['Rome.', '"rome"', '**Rome**', '(Rome)', 'Rome!', '# Rome'],
    ['well-known', 'Well-Known', 'wellknown'],
    ['the Beatles', 'Beatles', 'The  Beatles'],
    ['vitamin A', 'Vitamin a'],
    ['A', 'a', 'A.', '(A)'],
    ['$18', '18'],
    ['3/4', '3 / 4'],
    ['-0', '0', '\u22120'],
    ['-0.0', '0.0'],
    ['1,2,3', '1, 2, 3', '(1, 2, 3)'],
    ['H₂O', 'H2O'],
    ['5 km', '5km', 'The 5 KM.'],
    ['1e5 km/h', '1e5km/h'],
    ['-1/2 cup', '-1/2cup'],
    ['May 5, 2020', 'May 5 2020', 'may 5,2020'],
    ['５\u200b', '5', '𝟓', '\ufeff5'],
    ['ﬁsh', 'fish'],
    ['x = 3', 'x=3'],
    ['p < 0.5', 'p<0.5'],
    ['10^{3}', '10^3'],
    ['- Rome', 'Rome'],
    ['pre- and post-war', 'pre and postwar'],
  ] as const) {
    for (const other of others) assert.ok(exactMatch.score(one, [other]).exactMatch, `${one} | ${other}`);
  }
  // Three digits behind each comma, and no more than three before the first: else it is a list.
  for (const list of ['1,21', '1234,567', '1,2345', '1,000,00']) {
    assert.not.ok(exactMatch.score(list, [list.replaceAll(',', '')]).exactMatch, list);
  }
});

test('an article stands before a word, in every alphabet, and a text has one Unicode form', () => {
  for (const [one, other, same] of [
    ['Pen\u0303a', 'Peña', true],
    ['la Peña', 'la Peñ', false],
    ['Año a', 'Año', false],
    ['a cat', 'cat', true],
    ['banana', 'banan', false],
    ['theta', 'ta', false],
    ['３４', '34', true],
  ] as const) {
    assert.is(exactMatch.score(one, [other]).exactMatch, same, `${one} | ${other}`);
  }
});

test('F1 follows HotpotQA: yes, no and noanswer match only themselves, ASCII punctuation alone goes', () => {
  for (const [one, other, score] of [
    ['Yes!', 'yes', 1],
    ['yes they are', 'yes', 0],
    ['no', 'no way', 0],
    ['noanswer', 'no answer', 0],
    ['94%', '94', 1],
    ['1.5', '15', 1],
    ['1986–2013', '1986', 0],
    ['vitamin A', 'vitamin', 1],
    ['Peñ', 'Peña', 0],
  ] as const) {
    assert.is(answerF1(one, other), score, `${one} | ${other}`);
  }
  assert.is(f1.score('94%', ['94']).exactMatch, true);
  assert.is(exactMatch.score('94%', ['94']).exactMatch, false);
});

test('Chinese and Japanese overlap by character', () => {
  assert.is(answerF1('上海市', '上海'), 0.8);
  assert.is(answerF1('とうきょう', 'とうきょう'), 1);
  assert.is(answerF1('東京 Tower', '東京 tower'), 1);
  assert.is(answerF1('上海', '東京'), 0);
});

test('numbers are compared as GSM8K does, options by their letter', () => {
  for (const [said, right, hit] of [
    ['6250', '6,250', true],
    ['6,250', '6250', true],
    ['3.0', '3', false],
    ['-3', '3', false],
    ['', '', false],
    ['12 ', '12', true],
    ['１２', '12', true],
    ['\u22123', '-3', true],
  ] as const) {
    assert.equal(
      exactNumber.score(said, [right]),
      { score: Number(hit), exactMatch: hit },
      `${said} | ${right}`,
    );
  }
  assert.is(exactNumber.score(null, ['3']).score, 0);
  assert.equal(exactOption.score('b', ['A', 'B']), { score: 1, exactMatch: true });
  assert.equal(exactOption.score('C', ['B']), { score: 0, exactMatch: false });
  assert.equal([exactNumber.name, exactOption.name], ['exact-number', 'exact-option']);
});

test('a number is close within a tolerance, relative to the right one or absolute', () => {
  const hits = (metric: ReturnType<typeof closeTo>, said: string | null, ...right: string[]) => {
    const { score, exactMatch } = metric.score(said, right);
    assert.is(exactMatch, score === 1);
    return score === 1;
  };
  const exact = closeTo();
  for (const [said, right] of [
    ['3.0', '3'],
    ['1,000', '1000'],
    ['2e3', '2,000.0'],
    ['-\u0033', '-3'],
    ['\u22123', '-3'],
    ['50 %', '0.5'],
    ['.5', '0.5'],
    ['\uff11\uff12', '12'],
    ['0', '0.00'],
    ['-0', '0'],
    ['3/4', '0.75'],
    ['0.75', '3/4'],
    ['-1/2', '-.5'],
    ['$5', '5'],
    ['-$1,000', '-1000'],
    ['5 €', '5'],
    ['\u20133', '-3'],
    ['5 ‰', '0.005'],
    ['1,000/4', '250'],
    ['10 / 4', '2.5'],
    [' $5 ', '5'],
  ] as const) {
    assert.ok(hits(exact, said, right), `${said} ${right}`);
  }
  for (const [said, right] of [
    ['3.001', '3'],
    ['-3', '3'],
    ['50', '50 %'],
    ['about 3', '3'],
    ['3 apples', '3'],
    ['1,00', '100'],
    ['', '0'],
    ['.', '0'],
    ['%', '0'],
    ['e5', '0'],
    ['1e999', '3'],
    ['3/0', '3'],
    ['/4', '4'],
    ['1/2/3', '1'],
    ['1.5/2', '0.75'],
    ['1./2', '0.5'],
    ['1e3/4', '250'],
    ['$ 5 %', '0.05'],
    ['5 % €', '0.05'],
  ] as const) {
    assert.not.ok(hits(exact, said, right), `${said} ${right}`);
  }
  assert.not.ok(hits(exact, null, '0'));
  const tenth = closeTo({ relative: 0.1 });
  assert.ok(hits(tenth, '110', '100'));
  assert.ok(hits(tenth, '-90', '-100'));
  // Of the right number, not of the larger one.
  assert.not.ok(hits(tenth, '111', '100'));
  assert.not.ok(hits(tenth, '0.001', '0'));
  assert.ok(hits(tenth, '8', '100', '8.5'));
  const half = closeTo({ absolute: 0.5 });
  assert.ok(hits(half, '100.5', '100'));
  assert.not.ok(hits(half, '100.6', '100'));
  assert.ok(hits(closeTo({ absolute: 0.5, relative: 0.1 }), '0.4', '0'));
  assert.throws(() => closeTo().score('3', ['three']), 'the accepted answer "three" is no number');
  for (const tolerance of [{ relative: -1 }, { absolute: Number.NaN }]) {
    assert.throws(
      () => closeTo(tolerance),
      (error: unknown) => error instanceof RangeError,
    );
  }
});

test('a list scores the share of pairs in the right order, to which F1 is blind', () => {
  const scoreOf = (said: string | null, ...right: string[]) => kendallTau().score(said, right);
  assert.equal(scoreOf('a1, b, c, d', 'a1, b, c, d'), { score: 1, exactMatch: true });
  assert.is(scoreOf('d, c, b, a1', 'a1, b, c, d').score, 0);
  assert.is(f1.score('d, c, b, a1', ['a1, b, c, d']).score, 1);
  // One neighbouring pair of six is wrong.
  assert.equal(scoreOf('b, a1, c, d', 'a1, b, c, d'), { score: 5 / 6, exactMatch: false });
  // What is missing, or too much, is in no right pair.
  assert.is(scoreOf('a1, b, c', 'a1, b, c, d').score, 3 / 6);
  assert.is(scoreOf('a1, b, x', 'a1, b').score, 1 / 3);
  assert.is(scoreOf('a1, b, b', 'a1, b').score, 1 / 3);
  assert.is(scoreOf('b, b', 'b, b').score, 1);
  assert.equal(
    ['a1', 'b', '', null].map((said) => scoreOf(said, 'a1').score),
    [1, 0, 0, 0],
  );
  assert.is(scoreOf('c, b', 'b, c', 'c, b').score, 1);
  // As people write lists.
  for (const said of [
    '1. Rome\n2. Oslo\n3. Bern',
    'ROME > Oslo > Bern',
    'Rome → Oslo → Bern;',
    '- Rome\n- Oslo\n- Bern',
    'Rome, Oslo, and Bern.',
    'Rome，Oslo、Bern',
    'Rome < Oslo < Bern',
  ]) {
    assert.is(scoreOf(said, 'Rome, Oslo, Bern').score, 1, said);
  }
  // The smaller one first says the same as the larger one first.
  assert.equal(scoreOf('c > b > a1', 'a1 < b < c'), { score: 1, exactMatch: true });
  assert.is(scoreOf('a1 < b < b < c', 'c > b > b > a1').score, 1);
  assert.is(scoreOf('a1 > b > c', 'a1 < b < c').score, 0);
  assert.is(scoreOf('c > b > a1', 'a1 < b < c', 'x').score, 1);
  for (const both of ['a1 < b > c', 'a1 > b, b < c']) {
    assert.is(scoreOf(both, 'a1, b, c').score, 0, both);
    assert.is(scoreOf(both, both).score, 0, both);
  }
  assert.is(kendallTau(', ').score('a < 1, b > 2', ['a < 1, b > 2']).score, 1);
  assert.is(scoreOf('1,000, 2,000', '1000; 2000').score, 1);
  assert.is(scoreOf('3,1,2', '3, 1, 2').score, 1);
  assert.is(kendallTau('|').score('a1|b', ['b|a1']).score, 0);
  assert.is(kendallTau().name, 'kendall-tau');
  assert.is(closeTo().name, 'close-to');
});

test.run();
