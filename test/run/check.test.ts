import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { checkScenario } from '../../src/run/check.ts';
import {
  agreement,
  defineScenario,
  dialogue,
  f1,
  generated,
  type ScenarioDefinition,
  tagged,
} from '../../src/scenario/index.ts';

interface Task {
  readonly question: string;
  readonly left: readonly string[];
  readonly right: readonly string[];
  readonly answer: string;
}
type Definition = ScenarioDefinition<Task, 'alice' | 'bob'>;

const sound: Definition = {
  name: 'sound',
  kind: 'information-exchange',
  description: '',
  tasks: generated((rng) => {
    const fact = (side: string) => `The ${side} number ${rng.int(1000)} is ${rng.int(1000)}.`;
    return {
      question: `What is the sum of all but ${rng.int(1000)}?`,
      left: [fact('first'), fact('second')],
      right: [fact('third'), fact('fourth')],
      answer: String(rng.int(1000)),
    };
  }),
  roles: {
    alice: { sees: (task) => ['You are Alice.', task.question, ...task.left].join('\n') },
    bob: { sees: (task) => ['You are Bob.', task.question, ...task.right].join('\n') },
  },
  protocol: dialogue({ order: ['alice', 'bob'], maxTurns: 6, until: agreement() }),
  answer: tagged('A'),
  answers: (task) => [task.answer],
  metric: f1,
  reward: { lambdaToken: 0.6, lambdaLoss: 1 },
  formats: [],
};

const findings = async (change: Partial<Definition>) =>
  (await checkScenario(defineScenario({ ...sound, ...change }), 1)).map(
    ({ severity, check, message }) => `${severity}: ${check}: ${message}`,
  );

async function finds(change: Partial<Definition>, expected: RegExp): Promise<void> {
  const found = await findings(change);
  assert.ok(
    found.some((text) => expected.test(text)),
    `${expected} is not among:\n${found.join('\n')}`,
  );
}

test('a sound scenario has no findings', async () => {
  assert.equal(await findings({}), []);
});

test('a private fact in the partner’s view is named', () =>
  finds(
    {
      roles: {
        ...sound.roles,
        bob: { sees: (task) => [task.question, ...task.right, task.left[1]].join('\n') },
      },
    },
    /^error: views: train-00000: task\.left is dealt to alice, but bob sees "The second number/,
  ));

test('a role that knows nothing of its own is found', () =>
  finds(
    { roles: { ...sound.roles, bob: { sees: (task) => `You are Bob.\n${task.question}` } } },
    /^error: views: role bob knows nothing that the others do not/,
  ));

test('an answer that stands in a view is found', () =>
  finds(
    {
      roles: {
        ...sound.roles,
        alice: { sees: (task) => `${task.left.join('\n')}\nSay <A>${task.answer}</A>.` },
      },
    },
    /^error: views: train-00000: the view of alice states the answer/,
  ));

test('a protocol that cannot end is found', () =>
  finds(
    { protocol: { ...sound.protocol, agreed: () => false } },
    /^error: protocol: cannot end: all roles stated the same answer for 6 turns/,
  ));

test('a protocol that ends before it begins is found', () =>
  finds({ protocol: { ...sound.protocol, agreed: () => true } }, /before anybody has spoken/));

test('a role that never has the floor is found', () =>
  finds({ protocol: { ...sound.protocol, next: () => 'alice' } }, /role bob never has the floor/));

test('a floor given to nobody is found', () =>
  finds(
    { protocol: { ...sound.protocol, next: () => 'carol' as 'alice' } },
    /gave the floor to "carol", who is not one of alice, bob/,
  ));

test('an answer that is not read back is found', () =>
  finds(
    { answer: { parse: tagged('A').parse, example: (answer) => `The answer is ${answer}` } },
    /^error: answer: train-00000: "The answer is \d+" is read back as null, not "\d+"/,
  ));

test('a metric that denies its own answers is found', () =>
  finds(
    { metric: { name: 'strict', score: () => ({ score: 0, exactMatch: false }) } },
    /^error: metric: train-00000: the right answer "\d+" scores 0/,
  ));

test('a metric that throws is found with its reason', () =>
  finds(
    {
      metric: {
        name: 'broken',
        score: () => {
          throw new Error('no such table');
        },
      },
    },
    /no such table/,
  ));

test('a view that throws is found with its reason', () =>
  finds(
    {
      roles: {
        ...sound.roles,
        bob: {
          sees: () => {
            throw new Error('no facts');
          },
        },
      },
    },
    /^error: views: sees: no facts/,
  ));

test('tasks that are not the same twice are found', () => {
  let calls = 0;
  return finds(
    {
      tasks: {
        load: async (split, count, rng) => {
          const tasks = await sound.tasks.load(split, count, rng);
          return tasks.map((task) => ({ ...task, question: `Question ${calls++}?` }));
        },
      },
    },
    /^error: tasks: the same seed does not give the same tasks/,
  );
});

test('tasks that cannot be loaded are found with the reason', () =>
  finds({ tasks: { load: () => Promise.reject(new Error('lines.jsonl:2: not JSON')) } }, /lines\.jsonl:2/));

test('a demonstration out of turn is found', () =>
  finds(
    { demonstrate: () => ({ format: null, turns: [{ speaker: 'bob', text: 'Hello' }] }) },
    /^error: demonstrate: train-00000: turn 1 is by bob, but alice has the floor/,
  ));

test('a demonstration that does not end in agreement is a warning', () =>
  finds(
    { demonstrate: () => ({ format: null, turns: [{ speaker: 'alice', text: 'Hello' }] }) },
    /^warning: demonstrate: train-00000: ends without agreement/,
  ));

test.run();
