import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { Turn } from '../../src/domain/transcript.ts';
import { agreement, dialogue, majority, tagged, unchangedAnswer } from '../../src/scenario/index.ts';

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

const asking = { task: null, turns: [] };

test('roles may speak at once, to some, and in an order of their own', () => {
  const order = ['a', 'b', 'c'] as const;
  const common = { order, maxTurns: 6, until: agreement() };
  const together = dialogue({ ...common, together: true });
  assert.equal(together.next([], asking), order);
  const to = (speaker: string) => (speaker === 'a' ? (['b'] as const) : 'all');
  assert.equal(dialogue({ ...common, to }).next([], asking), { speaker: 'a', to: ['b'] });
  assert.equal(dialogue({ ...common, together: true, to }).next([], asking), [
    { speaker: 'a', to: ['b'] },
    { speaker: 'b', to: 'all' },
    { speaker: 'c', to: 'all' },
  ]);
  const whisper = { speaker: 'c', to: [] } as const;
  const own = dialogue({ ...common, to, next: (turns) => (turns.length > 0 ? whisper : ['b', whisper]) });
  assert.equal(
    own.next([], asking),
    [{ speaker: 'b', to: 'all' }, whisper],
    'what says whom it is for stays',
  );
  assert.equal(own.next(turns(['a', '']), asking), whisper);
});

test('a majority is more than half of those who answer, by their latest stated answers', () => {
  const rule = majority();
  const order = ['a', 'b', 'c', 'd'];
  const said = turns(['a', '<A>Rome</A>'], ['b', '<A>rome</A>'], ['c', '<A>Oslo</A>'], ['d', 'hm']);
  assert.not(rule(said, answer, order), 'two of four');
  assert.ok(rule(said, answer, ['a', 'b', 'c']), 'two of three');
  assert.not(rule(said, answer, ['a', 'c', 'd']), 'others do not count');
  assert.ok(rule([...said, ...turns(['d', '<A>Rome.</A>'])], answer, order));
  assert.not(
    rule([...said, ...turns(['a', '<A>Bern</A>'], ['d', '<A>Rome</A>'])], answer, order),
    'a has changed',
  );
  assert.not(rule([], answer, order));
});

test('the answer of a majority is what most state, and of equals what was stated last', () => {
  const protocol = dialogue({ order: ['a', 'b', 'c'], maxTurns: 6, until: majority() });
  const decided = (...said: [string, string][]) => protocol.decide!(turns(...said), answer);
  assert.is(decided(['a', '<A>Rome</A>'], ['b', '<A>the Rome</A>'], ['c', '<A>Oslo</A>']), 'the Rome');
  assert.is(decided(['a', '<A>Rome</A>'], ['b', '<A>Oslo</A>'], ['a', 'still so']), 'Oslo');
  assert.is(decided(['a', '<A>Rome</A>'], ['b', '<A>Oslo</A>'], ['a', '<A>Rome</A>']), 'Rome');
  assert.is(decided(['a', 'hm']), null);
  const two = dialogue({ order: ['a', 'b', 'c'], maxTurns: 6, until: majority(), answeredBy: ['a', 'b'] });
  assert.is(two.decide!(turns(['a', '<A>1</A>'], ['c', '<A>2</A>'], ['c', '<A>2</A>']), answer), '1');
});

test('who answers is an option for every rule', () => {
  const protocol = dialogue({
    order: ['a', 'b', 'c'],
    maxTurns: 6,
    until: agreement(),
    answeredBy: ['a', 'b'],
  });
  assert.equal(protocol.answeredBy, ['a', 'b']);
  const said = turns(['a', '<A>x</A>'], ['b', '<A>x</A>'], ['c', '<A>y</A>']);
  assert.ok(protocol.agreed(said, answer, asking), 'c is not asked');
  const debate = dialogue({ order: ['a', 'b'], maxTurns: 6, until: unchangedAnswer('a') });
  assert.equal(debate.answeredBy, ['a']);
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
