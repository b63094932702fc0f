import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { Turn } from '../../src/domain/transcript.ts';
import { agreement, dialogue, tagged, unchangedAnswer } from '../../src/scenario/index.ts';

const answer = tagged('A');
const turns = (...said: [speaker: string, text: string][]) =>
  said.map(([speaker, text], index) => ({ speaker, text, index }) as Turn);

test('a tag is read from the last complete pair, and an empty pair states nothing', () => {
  assert.is(answer.parse('first <A>Rome</A>, no: <A> Oslo </A>.'), 'Oslo');
  assert.is(answer.parse('<A>Rome'), null);
  assert.is(answer.parse('</A>Rome<A>'), null);
  assert.is(answer.parse('<A> </A>'), null);
  assert.is(answer.parse(answer.example('Rome')), 'Rome');
});

test('roles take turns in their order', () => {
  const protocol = dialogue({ order: ['a', 'b', 'c'], maxTurns: 6, until: agreement() });
  assert.is(protocol.next([]), 'a');
  assert.is(protocol.next(turns(['a', ''], ['b', ''])), 'c');
  assert.is(protocol.next(turns(['a', ''], ['b', ''], ['c', ''])), 'a');
});

test('agreement needs the latest answer of every role to be the same', () => {
  const agreed = agreement();
  const order = ['a', 'b'];
  assert.not(agreed(turns(['a', '<A>Rome</A>']), answer, order));
  assert.ok(agreed(turns(['a', '<A>Rome</A>'], ['b', 'yes, <A>the Rome</A>']), answer, order));
  assert.not(agreed(turns(['a', '<A>Rome</A>'], ['b', '<A>Oslo</A>']), answer, order));
  assert.ok(agreed(turns(['a', '<A>Rome</A>'], ['b', '<A>Oslo</A>'], ['a', '<A>Oslo</A>']), answer, order));
  assert.not(agreed(turns(['a', '<A>Rome</A>'], ['a', '<A>Rome</A>']), answer, order), 'one role alone');
});

test('an answer that the solver repeats after the critic spoke ends a debate', () => {
  const done = unchangedAnswer('solver');
  const order = ['solver', 'critic'];
  assert.not(done(turns(['solver', '<A>4</A>'], ['critic', 'check']), answer, order));
  assert.ok(done(turns(['solver', '<A>4</A>'], ['critic', 'check'], ['solver', '<A>4</A>']), answer, order));
  assert.not(done(turns(['solver', '<A>4</A>'], ['critic', 'check'], ['solver', '<A>5</A>']), answer, order));
});

test.run();
