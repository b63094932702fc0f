import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { Turn } from '../../src/domain/transcript.ts';
import { agreement, dialogue, tagged, unchangedAnswer } from '../../src/scenario/index.ts';

const answer = tagged('A');
const turns = (...said: [speaker: string, text: string][]) =>
  said.map(([speaker, text]) => ({ speaker, text }) as Turn);

test('roles take turns in their order', () => {
  const protocol = dialogue({ order: ['a', 'b', 'c'], maxTurns: 6, until: agreement() });
  const task = null;
  const next = (said: readonly Turn[]) => protocol.next(said, { task, turns: said });
  assert.is(next([]), 'a');
  assert.is(next(turns(['a', ''], ['b', ''])), 'c');
  assert.is(next(turns(['a', ''], ['b', ''], ['c', ''])), 'a');
  assert.equal([protocol.order, protocol.maxTurns], [['a', 'b', 'c'], 6]);
});

test('the stop rule is asked with the turns, the parser and the order, and its answer counts', () => {
  const order = ['a', 'b'] as const;
  const said = turns(['a', 'x']);
  for (const verdict of [true, false]) {
    const asked: unknown[][] = [];
    const until = (...question: unknown[]) => {
      asked.push(question);
      return verdict;
    };
    const asking = { task: 7, turns: said };
    assert.is(dialogue({ order, maxTurns: 2, until }).agreed(said, answer, asking), verdict);
    assert.is(asked.length, 1);
    for (const [i, part] of [said, answer, order, asking].entries()) assert.is(asked[0]![i], part);
  }
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

test('a turn that states nothing leaves the latest answer of its role standing', () => {
  const agreed = agreement();
  const order = ['a', 'b'];
  const said = turns(['a', '<A>Rome</A>'], ['b', 'why?'], ['a', 'trust me'], ['b', '<A>rome!</A>']);
  assert.ok(agreed(said, answer, order));
  assert.not(agreed(said.slice(0, 3), answer, order), 'b never stated one');
  assert.not(agreed([], answer, order));
  const third = turns(['a', '<A>x</A>'], ['b', '<A>x</A>'], ['c', '<A>y</A>']);
  assert.not(agreed(third, answer, ['a', 'b', 'c']), 'all three count');
  assert.not(agreed(third.slice(0, 2), answer, ['a', 'b', 'c']), 'and all three must have spoken');
});

/** A debate in which `s` and `c` stand for the solver and the critic, and a digit for the answer that was stated. */
const debate = (...said: string[]) =>
  turns(
    ...said.map((entry): [string, string] => [
      entry[0] === 's' ? 'solver' : 'critic',
      entry.length > 1 ? `<A>${entry.slice(1)}</A>` : 'hm',
    ]),
  );

test('an answer that the solver repeats after the critic spoke ends a debate', () => {
  const done = (...said: string[]) =>
    unchangedAnswer('solver')(debate(...said), answer, ['solver', 'critic']);
  assert.ok(done('s4', 'c', 's4'));
  assert.ok(done('s4', 'c', 'c', 's4'));
  assert.ok(done('sthe 4', 'c', 's 4.'), 'in normal form');
  assert.ok(done('s4', 'c', 's5', 'c', 's5'), 'the answer before, not the first one');
  assert.not(done('s4', 'c', 's5', 'c', 's4'));
  assert.not(done('s4', 'c', 's5'));
  assert.not(done('s4', 'c'));
  assert.not(done('s4', 'c', 's4', 'c'), 'the solver has the last word');
  assert.not(done('s4', 'c4'), 'the critic repeats nothing');
  assert.not(done('s4', 'c', 'c4'));
  assert.not(done('c4', 's4'));
  assert.not(done('s4'));
  assert.not(done());
});

test('in a debate the solver’s answer is the team’s, in an exchange everybody’s', () => {
  const order = ['solver', 'critic'] as const;
  assert.equal(dialogue({ order, maxTurns: 4, until: unchangedAnswer('solver') }).answeredBy, ['solver']);
  assert.is(dialogue({ order, maxTurns: 4, until: agreement() }).answeredBy, undefined);
});

test('an answer repeated before anybody else spoke settles nothing', () => {
  const done = unchangedAnswer('solver');
  assert.not(done(debate('s4', 's4'), answer, []));
  assert.not(done(debate('s4', 'c', 's4', 's4'), answer, []));
});

test('an answer that is not stated is not unchanged', () => {
  const done = unchangedAnswer('solver');
  assert.not(done(debate('s', 'c', 's'), answer, []));
  assert.not(done(debate('s4', 'c', 's'), answer, []));
  assert.not(done(debate('s', 'c', 's4'), answer, []));
  assert.not(done(debate('s4', 'c', 's', 'c', 's4'), answer, []), 'the turn before is the one that counts');
});

test.run();
