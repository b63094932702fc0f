// The lessons of a warm-up, apart from the training that they are for.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { createRng } from '../../src/domain/rng.ts';
import { EchoLessons, lookupLessons } from '../../src/warmup/lessons.ts';

test('where the other roles hold nothing of their own, all cues are of the own lines', () => {
  const dialogue = {
    views: { alice: 'we share this\noak is tall\nelm was old', bob: 'we share this' },
    turns: [],
  };
  const lessons = Array.from({ length: 40 }, (_, seed) => lookupLessons([dialogue], createRng(seed))).flat();
  assert.ok(lessons.length > 5);
  for (const [view, ...exchange] of lessons) {
    assert.is(view!.content, 'oak is tall\nelm was old');
    for (const { role, content } of exchange) {
      assert.match(
        content,
        role === 'user' ? /^\? (oak is|is tall|elm was|was old)$/ : /^(oak is tall|elm was old)$/,
      );
    }
  }
});

test('a line alone is no lesson: every cue would have the same answer', () => {
  const dialogue = { views: { alice: 'oak is tall', bob: 'elm was old' }, turns: [] };
  assert.equal(lookupLessons([dialogue], createRng(1)), []);
});

test('a batch repeats as many lines whatever the lesson, in another order', () => {
  const view = Array.from({ length: 9 }, (_, line) => `line ${line}`).join('\n');
  const echo = new EchoLessons(1000);
  for (let lines = 2; !echo.finished; lines++) {
    const batch = echo.write([{ views: { alice: view, bob: 'none' }, turns: [] }], createRng(lines));
    assert.is(batch.length, Math.floor(180 / lines));
    const told = batch.map(([system, own]) => [system, own].map((message) => message!.content.split('\n')));
    assert.ok(told.some(([first, second]) => first!.length === lines && String(first) !== String(second)));
    for (const [first, second] of told) assert.equal(first!.toSorted(), second!.toSorted());
    echo.learn(0);
  }
});

test.run();
