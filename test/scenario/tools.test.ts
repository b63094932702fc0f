// Tools: what counts as a call, what it is answered with, and who hears it.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { z } from 'zod';
import type { Turn } from '../../src/domain/transcript.ts';
import { tool, tools } from '../../src/scenario/index.ts';

const lookup = tool(
  'lookup',
  z.string(),
  (city, { task, caller }: { task: Record<string, string>; caller: string }) => {
    if (city === 'Hell') throw new Error('no such place\nfor tables');
    return task[city] ?? `nothing for ${caller}`;
  },
);
const add = tool('add', z.object({ a: z.number(), b: z.number() }), ({ a, b }) => String(a + b));
const environment = tools<Record<string, string>>([lookup, add]);
const asked = (text: string, more: Partial<Turn> = {}) =>
  environment.respond!({ task: { Rome: 'Ada' }, turns: [{ speaker: 'alice', text, ...more } as Turn] });
const answered = (text: string) => (asked(text) as { text: string }[]).map((said) => said.text);

test('a call is answered with the tool’s result, to its caller alone', () => {
  assert.equal(asked('I ask <call>lookup Rome</call>.'), [{ text: 'lookup: Ada', to: ['alice'] }]);
  assert.equal(answered('<call>lookup "Rome"</call>'), ['lookup: Ada']);
  assert.equal(answered('<call> add {"a": 2, "b": 3} </call>'), ['add: 5']);
  assert.equal(answered('<call>lookup Oslo</call>'), ['lookup: nothing for alice']);
  assert.equal(
    answered('<call>lookup Oslo</call> no: <call>lookup Rome</call>'),
    ['lookup: Ada'],
    'the last one',
  );
});

test('no call, no answer', () => {
  assert.equal(asked('lookup Rome'), []);
  assert.equal(asked('you could say "<call>lookup Rome</call>" yourself'), []);
});

test('a malformed call is answered with what is wrong with it', () => {
  assert.equal(answered('<call>lookup Rome'), ['call: it is written <call>name arguments</call>']);
  assert.equal(answered('<call></call>'), ['call: it is written <call>name arguments</call>']);
  assert.equal(answered('<call>find Rome</call>'), ['call: there is no tool find, only lookup, add']);
  assert.match(answered('<call>add {"a": 2}</call>')[0]!, /^add: b: .*expected number/);
  assert.match(answered('<call>add {"a": 2</call>')[0]!, /^add: .*expected object/);
  assert.match(answered('<call>lookup 7</call>')[0]!, /^lookup: .*expected string/);
});

test('a tool that throws fails with its name, arguments and reason', () => {
  assert.throws(
    () => asked('<call>lookup Hell</call>'),
    /^tool lookup with Hell failed: no such place for tables$/,
  );
});

test('all who heard a call may hear its answer', () => {
  const shared = tools<Record<string, string>>([lookup], { heardBy: 'all' });
  const call = { speaker: 'alice', text: '<call>lookup Rome</call>' } as Turn;
  const respond = (turns: Turn[]) => shared.respond!({ task: { Rome: 'Ada' }, turns });
  assert.equal(respond([call]), [{ text: 'lookup: Ada', to: 'all' }]);
  assert.equal(respond([{ ...call, to: ['bob'] }]), [{ text: 'lookup: Ada', to: ['alice', 'bob'] }]);
});

test('of a round every message is answered, of earlier ones none', () => {
  const round = ['alice', 'bob'];
  const said = (speaker: string, more: object = {}) =>
    ({ speaker, text: '<call>lookup Rome</call>', ...more }) as Turn;
  const turns = [said('carol'), said('alice', { round }), said('bob', { round })];
  assert.equal(environment.respond!({ task: { Rome: 'Ada' }, turns }), [
    { text: 'lookup: Ada', to: ['alice'] },
    { text: 'lookup: Ada', to: ['bob'] },
  ]);
});

test.run();
