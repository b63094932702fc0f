import { test } from 'uvu';
import * as assert from 'uvu/assert';
import scenario from '../../scenarios/two-hop-qa.ts';
import { createRng } from '../../src/domain/rng.ts';
import { splitOf, systemText } from '../../src/scenario/index.ts';

const rng = createRng(11);
const load = (split: 'train' | 'validation' | 'test', count: number) =>
  scenario.tasks.load(split, count, rng);
const capitals = (text: string) => new Set(text.match(/\b[A-Z][a-z]+(?=[ .?]|$)/g) ?? []);

test('each agent alone lacks one of the two facts, and together they have both', async () => {
  for (const task of await load('train', 200)) {
    const hop1 = (hand: 'alice' | 'bob') =>
      task.facts[hand].some((fact) => fact.relation === task.first && fact.subject === task.topic);
    const hop2 = (hand: 'alice' | 'bob') =>
      task.facts[hand].some((fact) => fact.relation === task.second && fact.subject === task.bridge);
    assert.is.not(hop1('alice'), hop1('bob'));
    assert.is(hop1('alice'), hop2('bob'));
    assert.is(hop1('bob'), hop2('alice'));
  }
});

test('tasks hold 6 to 12 facts, and a look-alike of the second hop', async () => {
  for (const task of await load('train', 200)) {
    const all = [...task.facts.alice, ...task.facts.bob];
    assert.ok(all.length >= 6 && all.length <= 12);
    assert.ok(all.filter((fact) => fact.relation === task.second).length >= 2);
    assert.is(new Set(all.map((fact) => `${fact.relation.noun} of ${fact.subject}`)).size, all.length);
  }
});

test('names of one split never appear in another', async () => {
  for (const split of ['train', 'validation', 'test'] as const) {
    for (const task of await load(split, 100)) {
      for (const fact of [...task.facts.alice, ...task.facts.bob]) {
        assert.is(splitOf(fact.subject), split);
        assert.is(splitOf(fact.object), split);
      }
    }
  }
});

test('a private fact of one agent is nowhere in the view of the other', async () => {
  for (const task of await load('train', 50)) {
    const bobSees = systemText(scenario, 'bob', task, null);
    for (const line of task.left) assert.not.ok(bobSees.includes(line));
  }
});

test('demonstrations follow the protocol, end in agreement and copy names from the task only', async () => {
  const tasks = await load('train', 300);
  let right = 0;
  let plain = 0;
  for (const [index, task] of tasks.entries()) {
    const { format, turns } = scenario.demonstrate!(task, rng.split(index));
    const asTurns = turns.map((turn) => ({ ...turn }) as never);
    const dialogue = { task, turns: asTurns };
    assert.ok(
      scenario.protocol.agreed(asTurns, scenario.answer, dialogue),
      turns.map((turn) => turn.text).join('\n'),
    );
    for (const [position, turn] of turns.entries()) {
      assert.is(turn.speaker, scenario.protocol.next(asTurns.slice(0, position), dialogue));
    }
    const known = capitals(`${systemText(scenario, 'alice', task, null)} ${task.right.join(' ')}`);
    const stated = scenario.answer.parse(turns.at(-1)!.text)!;
    assert.ok(known.has(stated.split(' ').at(-1)!), stated);
    if (format === null) {
      plain++;
      right += scenario.metric.score(stated, scenario.answers(task)).score;
    }
  }
  assert.ok(plain > 100 && plain < 200);
  assert.ok(right / plain > 0.4 && right / plain < 0.75, `plain demonstrations score ${right / plain}`);
});

test('variants share no relation, and ask for one that their facts have', async () => {
  const nounsOf = async (variant: 'common' | 'rare') => {
    const tasks = await scenario.variants![variant]!.load('test', 100, rng);
    for (const { first, second, facts } of tasks) {
      const known = new Set([...facts.alice, ...facts.bob].map(({ relation }) => relation));
      assert.ok(known.has(first) && known.has(second));
    }
    return new Set(tasks.flatMap(({ facts }) => [...facts.alice, ...facts.bob].map((f) => f.relation.noun)));
  };
  const [common, rare] = [await nounsOf('common'), await nounsOf('rare')];
  assert.equal([common.size, rare.size], [9, 5]);
  assert.not.ok([...common].some((noun) => rare.has(noun)));
});

test.run();
