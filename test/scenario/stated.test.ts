// What of a dialogue's messages is the team's answer.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { Turn } from '../../src/domain/transcript.ts';
import { dialogue, majority, option } from '../../src/scenario/index.ts';
import { lastStated, parserOf } from '../../src/scenario/stated.ts';
import { wordPairs } from '../support/scenarios.ts';

const task = { left: 'oak', right: 'elm' };
const views = ['Find both words.\nEnd with <A>two words</A>.', 'End with <A>two words</A> or <A>none</A>.'];
const turns = (...said: (readonly [speaker: string, text: string])[]) =>
  said.map(([speaker, text]) => ({ speaker, text })) as unknown as Turn[];

test('what a view states is an instruction, in whatever form it is repeated', () => {
  const { parse, example } = parserOf(wordPairs(), task, () => views);
  for (const text of ['<A>two words</A>', 'I am to end with <A> Two  words. </A>', '<A>none</A>']) {
    assert.is(parse(text), null, text);
  }
  assert.is(parse('<A>elm</A>'), 'elm');
  assert.is(parse('nothing'), null);
  assert.is(parse(example('elm')), 'elm');
});

test('a parser that gives nothing has found none, and one that gives no text says so', () => {
  const giving = (value: unknown) =>
    parserOf(wordPairs({ answer: { parse: () => value as null, example: String } }), task, () => views);
  assert.is(giving(undefined).parse('elm'), null);
  assert.throws(() => giving(7).parse('elm'), 'answer.parse gave a number, not a text or null');
});

test('where a view lists what may be answered, a wrong answer counts as a right one does', () => {
  const { parse } = parserOf(wordPairs(), task, () => ['Say <A>Oak elm</A>', 'or <A>elm oak</A>.']);
  assert.is(parse('<A>oak elm</A>'), 'oak elm');
  assert.is(parse('<A>elm oak</A>'), 'elm oak');
  const options = wordPairs({ answer: option('D'), answers: () => ['B'] });
  const listed = parserOf(options, task, () => ['Which one?\nA) Paris\nB) Rome\nC) Bern\nD) Oslo']);
  for (const letter of 'ABCD') assert.is(listed.parse(`The answer is ${letter}`), letter);
});

test('the views of a task are asked for once, and only when something is stated', () => {
  let asked = 0;
  const scenario = wordPairs();
  const parser = () =>
    parserOf(scenario, task, () => {
      asked++;
      return views;
    });
  parser().parse('hm');
  assert.is(asked, 0);
  for (const text of ['elm', 'oak', 'elm']) assert.is(parser().parse(`<A>${text}</A>`), text);
  assert.is(asked, 1);
});

test('a task that is no object has views of its own each time', () => {
  const scenario = wordPairs({ answers: () => ['elm'] });
  assert.is(parserOf(scenario, 1, () => ['Say <A>oak</A>.']).parse('<A>oak</A>'), null);
  assert.is(parserOf(scenario, 1, () => ['Say <A>elk</A>.']).parse('<A>oak</A>'), 'oak');
});

test('the last answer counts, of the roles whose answer does', () => {
  const said = turns(['alice', '<A>oak</A>'], ['bob', '<A>elm</A>'], ['alice', 'hm']);
  const scenario = wordPairs();
  assert.is(lastStated(scenario, said, scenario.answer), 'elm');
  const { protocol } = scenario;
  const byAlice = wordPairs({ protocol: { ...protocol, answeredBy: ['alice'] } });
  assert.is(lastStated(byAlice, said, scenario.answer), 'oak');
  assert.is(lastStated(byAlice, said.slice(1), scenario.answer), null);
});

test('a protocol that decides says what the answer is', () => {
  const protocol = dialogue({ order: ['alice', 'bob', 'carol'], maxTurns: 3, until: majority() });
  const said = turns(['alice', '<A>oak</A>'], ['bob', '<A>oak</A>'], ['carol', '<A>elm</A>']);
  const scenario = wordPairs();
  assert.is(lastStated({ ...scenario, protocol }, said, scenario.answer), 'oak');
});

test.run();
