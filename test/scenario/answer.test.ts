import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { tagged } from '../../src/scenario/index.ts';

test('a tag is read from the last complete pair', () => {
  const answer = tagged('A');
  for (const [text, stated] of [
    ['first <A>Rome</A>, no: <A> Oslo </A>.', 'Oslo'],
    ['<A>Rome</A> or <A>Oslo', 'Rome'],
    ['<A>Rome <A>Oslo</A>', 'Oslo'],
    ['<A>Rome</A><A></A>', null],
    ['<A> \n </A>', null],
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

test.run();
