import { test } from 'uvu';
import * as assert from 'uvu/assert';
import scenario from '../../scenarios/pages-qa.ts';
import { createRng } from '../../src/domain/rng.ts';
import { systemText } from '../../src/scenario/index.ts';

const rng = createRng(12);
const tasks = await scenario.tasks.load('train', 300, rng);

test('each agent has a page of 17 to 21 facts, and one of the two that answer', () => {
  for (const task of tasks) {
    for (const own of [task.left, task.right]) {
      assert.ok(own.length >= 17 && own.length <= 21, String(own.length));
      assert.is(new Set(own).size, own.length);
    }
    const holds = (facts: readonly string[], relation: string, subject: string) =>
      facts.some((fact) => fact.startsWith(`The ${relation} of ${subject} is `));
    assert.is.not(
      holds(task.left, task.first.noun, task.topic),
      holds(task.right, task.first.noun, task.topic),
    );
    assert.is(
      holds(task.left, task.first.noun, task.topic),
      holds(task.right, task.second.noun, task.bridge),
    );
  }
});

test('the untrained team recites more than ten facts in a message; those who write names state nothing else', () => {
  let recited = 0;
  for (const [index, task] of tasks.entries()) {
    const { format, turns } = scenario.demonstrate!(task, rng.split(index));
    const asTurns = turns.map((turn) => ({ ...turn }) as never);
    assert.ok(scenario.protocol.agreed(asTurns, scenario.answer, { task, turns: asTurns }));
    if (format === null && (turns[0]!.text.match(/ is /g) ?? []).length > 10) recited++;
    if (format?.name !== 'names') continue;
    const known = new Set(
      systemText(scenario, 'alice', task, null)
        .concat(...task.right)
        .match(/[A-Z][a-z]+/g),
    );
    for (const { text } of turns) {
      for (const word of text.replaceAll(/<\/?A>/g, '').match(/\w+/g) ?? []) assert.ok(known.has(word), text);
    }
    // An answer stands alone, without the fact it rests on.
    assert.match(turns.at(-1)!.text, /^<A> \w+ \w+<\/A>$/);
    assert.match(turns.at(-2)!.text, /^(\w+ \w+, )*<A> \w+ \w+<\/A>$/);
  }
  assert.ok(recited > 60, String(recited));
});

test.run();
