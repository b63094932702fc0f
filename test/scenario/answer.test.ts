import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { hashes, option, tagged } from '../../src/scenario/index.ts';

test('a tag is read from the last complete pair', () => {
  const answer = tagged('A');
  for (const [text, stated] of [
    ['first <A>Rome</A>, no: <A> Oslo </A>.', 'Oslo'],
    ['<A>Rome</A> or <A>Oslo', 'Rome'],
    ['<A>Rome <A>Oslo</A>', 'Oslo'],
    ['<A>Rome</A><A></A>', null],
    ['<A> \n </A>', null],
    ['<A>\u200b</A>', null],
    ['<A>Rome', null],
    ['Rome</A>', null],
    ['</A>Rome<A>', null],
    ['<a>Rome</a>', null],
    ['', null],
    ['<A>new\nline</A>', 'new\nline'],
  ] as const) {
    assert.is(answer.parse(text), stated, text);
  }
});

test('an example states the answer it was given, under the tag of the parser', () => {
  const final = tagged('final');
  assert.is(final.example('42'), '<final>42</final>');
  assert.is(final.parse(`so: ${final.example('42')}`), '42');
  assert.is(final.parse('<A>42</A>'), null);
});

test('a tag that is doubled, nested or left open hides no answer, and no answer holds a piece of one', () => {
  const { parse } = tagged('A');
  for (const [text, stated] of [
    ['<A>x</A></A>', 'x'],
    ['<A><A>x</A></A>', 'x'],
    ['<A>a<A>x</A>b</A>', 'x'],
    ['<A>x</A> then <A>y', 'x'],
    ['</A><A>x</A><A>', 'x'],
  ] as const) {
    assert.is(parse(text), stated, text);
  }
  for (const tag of ['', '<A>', '</A>', 'the answer'])
    assert.throws(() => tagged(tag), /the name of a tag alone, such as A\.$/);
  // The name of a tag is no pattern.
  assert.is(tagged('A.B').parse('<AxB>1</AxB> <A.B>2</A.B> <AxB>3</AxB>'), '2');
});

test('who quotes a tag has not stated it; the whole message and a value in JSON may stand in quotation marks', () => {
  const { parse } = tagged('A');
  for (const text of [
    'You wrote "<A>12</A>", but that cannot be right.',
    "Why '<A>12</A>'?",
    'You say “<A>12</A>”. I doubt it.',
    'Is `<A> 12 </A>` what you mean?',
    '> <A>12</A>\nI do not think so.',
    'He said "It is <A>12</A>". I disagree.',
    'You wrote: "<A>12</A>", but why?',
  ]) {
    assert.is(parse(text), null, text);
  }
  for (const text of [
    'You wrote "<A>9</A>"; I find <A>12</A>.',
    '"<A>12</A>"',
    '{"answer": "<A> 12</A>"}',
    '["<A>12</A>", "sure"]',
    "It's <A>12</A>. That's all.",
    'I say: <A>12</A>.',
    '12 > 9, so <A>12</A>',
    'Answer: "<A>12</A>"',
    'Final answer:\n"<A>12</A>".',
    'My answer: `<A>12</A>`',
    '```\n<A>12</A>\n```',
    "The dogs' sum is <A>12</A>. 'Tis all.",
    "It's <A>12</A>, isn't it?",
    '{"why": "as you say", "answer": "it is <A>12</A>"}',
    'not "<A>9</A>" but <A>12</A>',
  ]) {
    assert.is(parse(text), '12', text);
  }
});

test('a number is what stands behind the first four hashes and a space', () => {
  const { parse, example } = hashes();
  for (const [text, stated] of [
    ['so 3 + 9 = 12\n#### 12', '12'],
    ['#### 12\n#### 13', '12'],
    ['#### -1,250.50 euros', '-1,250.50'],
    ['#### -１２', '-12'],
    ['#### \u221212', null],
    ['####12', null],
    ['### 12', null],
    ['12', null],
    ['#### twelve', null],
  ] as const) {
    assert.is(parse(text), stated, text);
  }
  assert.is(parse(example('-12')), '-12');
});

test('the letter of an option is read where it is stated, and a word is none', () => {
  const { parse, example } = option('D');
  for (const [text, stated] of [
    ['B', 'B'],
    [' (B).\n', 'B'],
    ['**B**', 'B'],
    ['[B]', 'B'],
    ['\\boxed{\\text{B}}', 'B'],
    ['<answer>B</answer>', 'B'],
    ['B: the moon', 'B'],
    ['B) the moon', 'B'],
    ['(B) the moon', 'B'],
    ['Answer: B', 'B'],
    ['The answer is (B) the moon.', 'B'],
    ['The answer is **B**', 'B'],
    ['the correct choice is B, not C.', 'B'],
    ['Option B', 'B'],
    ['The answer is C. No, the answer is B.', 'B'],
    ['It is not A. The answer is B.', 'B'],
    ['My pick would be this one: B', 'B'],
    ['Final Answer: B\nExplanation: Option A fails', 'B'],
    ['The answer is B. Option C is wrong.', 'B'],
    ['The answer is B because option A is wrong.', 'B'],
    ["The answer is 'B'.", 'B'],
    ['{"answer": "B", "why": "it fits"}', 'B'],
    ['The answer is \\textbf{B}', 'B'],
    ['The answer: <A>B</A>', 'B'],
    ['Answer - B', 'B'],
    ['B\nbecause it fits', 'B'],
    ['B - Rome', 'B'],
    ['- B', 'B'],
    ['A: I think it is this one: B', 'B'],
    ['Final Answer: \\(\\boxed{B}\\)', 'B'],
    ['The answer is the letter B.', 'B'],
    ['答案：Ｂ', 'B'],
    ['I think A is wrong, so B.', 'B'],
    ['It is B because A is wrong.', 'B'],
    ['I would pick (B).', 'B'],
    ['B is correct, C is not.', 'B'],
    ['I would pick B', 'B'],
    ['so B', 'B'],
    ['B is correct', 'B'],
    ['It is not A, so B.', 'B'],
    ["It isn't A, it's B.", 'B'],
    ['A or B? I would pick B.', 'B'],
    ['If x is 2, y is 3. So B.', 'B'],
    ['I would pick B. I would not pick C.', 'B'],
    ['No, I would pick B, not A.', 'B'],
    ['I doubt that B is correct.', null],
    ['I would not pick B.', null],
    ["Don't choose A.", null],
    ['Don’t choose A.', null],
    ['I would not go with C', null],
    ['I do not, on reflection, pick B', null],
    ['There is no reason to choose B.', null],
    ['We cannot choose D because it is too small.', null],
    ["It's A or B, I am not sure.", null],
    ["It's B, but I am not sure.", null],
    ['I would pick A and C.', null],
    ['I choose A, C.', null],
    ['Either it is A or it is B.', null],
    ['Maybe it is B.', null],
    ['If it is C, then D fails.', null],
    ['If A fails at 0.5, B is correct.', null],
    ['I would pick B, if anything.', null],
    ['So A or B?', null],
    ['So B?', null],
    ['It is not A. B is correct.', 'B'],
    ['So I would not pick B.', null],
    ['It is not B.', null],
    ['So A is wrong.', null],
    ['Vitamin C is good.', null],
    ['The answer is A planet', null],
    ['The answer is A good choice', null],
    ['A day has 24 hours.', null],
    ['A planet is large. Answer: B', 'B'],
    ['By the sea', null],
    ['The answer is Basalt', null],
    ["The answer is D'Artagnan", null],
    ['BCD', null],
    ['E', null],
    ['Answer: E', null],
    ['Β', null],
    ['I do not know.', null],
    ['', null],
  ] as const) {
    assert.is(parse(text), stated, text);
  }
  assert.throws(() => option('d'), /last option is a capital letter/);
  assert.is(option().parse('The answer is E.'), 'E');
  assert.is(parse(example('C')), 'C');
});

test.run();
