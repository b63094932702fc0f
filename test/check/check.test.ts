import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { checkScenario } from '../../src/check/check.ts';
import { createRng, type Rng } from '../../src/domain/rng.ts';
import {
  type AnswerMetric,
  agreement,
  defineScenario,
  dialogue,
  f1,
  generated,
  type ScenarioDefinition,
  type Split,
  tagged,
} from '../../src/scenario/index.ts';

interface Task {
  readonly question: string;
  readonly left: readonly string[];
  readonly right: readonly string[];
  readonly answer: string;
}
type Definition = ScenarioDefinition<Task, 'alice' | 'bob'>;

const metric = f1;
const sound: Definition & { metric: typeof f1 } = {
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
  metric,
  reward: { lambdaToken: 0.6, lambdaLoss: 1 },
  formats: [],
};

/** Without what test/check/tasks.test.ts is about: these views are as short as they can be. */
const findings = async (change: Partial<Definition>) =>
  (await checkScenario(defineScenario({ ...sound, ...change }), 1))
    .map(({ severity, check, message }) => `${severity}: ${check}: ${message}`)
    .filter((text) => !/never says how an answer|look the same to every role|stands in no view/u.test(text));

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
    /Protocol gave turn 0 to "carol", which is not a role/,
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
    /^error: tasks: tasks\.load: the same seed does not give the same tasks/,
  );
});

test('tasks that cannot be loaded are found with the reason', () =>
  finds({ tasks: { load: () => Promise.reject(new Error('lines.jsonl:2: not JSON')) } }, /lines\.jsonl:2/));

test('a demonstration out of turn is found', () =>
  finds(
    { demonstrate: () => ({ format: null, turns: [{ speaker: 'bob', text: 'Hello' }] }) },
    /^error: demonstrate: train-00000: turn 1 is by bob, but alice has the floor/,
  ));

test('a demonstration that stops where the dialogue would go on is a warning', () =>
  finds(
    { demonstrate: () => ({ format: null, turns: [{ speaker: 'alice', text: 'Hello' }] }) },
    /^warning: demonstrate: train-00000: stops after turn 1 without agreement, and bob has the floor/,
  ));

test('a demonstration that uses its turns up without agreement is one', async () => {
  const turns = Array.from({ length: sound.protocol.maxTurns }, (_, turn) => ({
    speaker: (['alice', 'bob'] as const)[turn % 2]!,
    text: 'Hm.',
  }));
  assert.equal(await findings({ demonstrate: () => ({ format: null, turns }) }), []);
});

test('the tasks that are looked at are the first ten training tasks, and each split must have one', async () => {
  const asked: unknown[] = [];
  const watched: Partial<Definition> = {
    tasks: {
      load: async (split, count, rng) => {
        asked.push([split, count]);
        return sound.tasks.load(split, count, rng);
      },
    },
  };
  assert.equal(await findings(watched), []);
  assert.equal(asked, [
    ['train', 10],
    ['train', 10],
    ['train', 3],
    ['train', 1],
    ['validation', 1],
    ['test', 1],
    ['train', 200],
    ['train', 200],
    ['test', 200],
  ]);
  await finds(
    {
      tasks: {
        load: async (split, count, rng) => (split === 'test' ? [] : sound.tasks.load(split, count, rng)),
      },
    },
    /^error: tasks: Scenario "sound": tasks\.load\('test', 1\) gave 0 tasks\.$/,
  );
});

test('first tasks that depend on how many are loaded are found, and only they', async () => {
  const counted = {
    load: async (split: Split, count: number, rng: Rng) =>
      (await sound.tasks.load(split, count, rng)).map((task) => ({ ...task, question: `One of ${count}?` })),
  };
  assert.equal(await findings({ tasks: counted }), [
    'error: tasks: tasks.load: the first tasks depend on how many are loaded.',
  ]);
});

test('a scenario is checked with the tasks of the seed, and what is wrong with all is said once', async () => {
  const broken: Partial<Definition> = {
    answer: { parse: tagged('A').parse, example: (answer) => `It is ${answer}` },
  };
  const tasks = await sound.tasks.load('train', 1, createRng(1).split('tasks'));
  assert.equal(
    (await findings(broken)).filter((text) => text.includes(': answer: ')),
    [
      `error: answer: train-00000: "It is ${tasks[0]!.answer}" is read back as null, not "${tasks[0]!.answer}".`,
    ],
  );
});

test('different findings of one check are all named', async () => {
  const metric = {
    name: 'odd',
    score: (prediction: string | null) => ({ score: prediction === null ? 0.5 : 1, exactMatch: true }),
  };
  assert.equal(await findings({ metric }), [
    'error: metric: a dialogue without an answer scores 0.5, not 0.',
    'error: metric: the wrong answer "zzyzx" scores 1.',
  ]);
});

test('a role that sees nothing, or nothing but space, or no text, is found', async () => {
  for (const view of ['', ' \n ']) {
    const debate: Partial<Definition> = {
      kind: 'debate',
      roles: { ...sound.roles, bob: { sees: () => view } },
    };
    const found = await findings(debate);
    assert.ok(found.includes('error: views: train-00000: role bob sees nothing.'), found.join('\n'));
    assert.is(found.filter((text) => text.includes('sees nothing')).length, 1);
  }
  const none: Partial<Definition> = {
    roles: { ...sound.roles, bob: { sees: () => undefined as unknown as string } },
  };
  await finds(none, /error: views: sees: role "bob" sees undefined, not a text/);
});

test('in a debate the roles may know the same', async () => {
  const same = { sees: (task: Task) => task.question };
  assert.equal(await findings({ kind: 'debate', roles: { alice: same, bob: same } }), []);
});

test('lines that stand in the views of all tasks are no knowledge', () =>
  finds(
    {
      roles: {
        ...sound.roles,
        bob: { sees: (task) => `You are Bob.\nYou are thorough.\n${task.question}\n${task.left.join('\n')}` },
      },
    },
    /^error: views: role bob knows nothing that the others do not/,
  ));

test('a leak is found in a later task, deep in it, and in either direction', async () => {
  const deep = (index: number) => (task: Task) => ({ ...task, hands: [{ cards: task.left }], index });
  let number = 0;
  const numbered: Definition['tasks'] = {
    load: async (split, count, rng) => {
      number = 0;
      return (await sound.tasks.load(split, count, rng)).map((task) => deep(number++)(task));
    },
  };
  const sees = (task: Task) =>
    [
      'You are Bob.',
      task.question,
      ...task.right,
      (task as Task & { index: number }).index === 4 && task.left[0],
    ]
      .filter(Boolean)
      .join('\n');
  const found = await findings({ tasks: numbered, roles: { ...sound.roles, bob: { sees } } });
  const tasks = await sound.tasks.load('train', 5, createRng(1).split('tasks'));
  const leaked = JSON.stringify(tasks[4]!.left[0]);
  assert.equal(found, [
    `error: views: train-00004: task.left is dealt to alice, but bob sees ${leaked} of it.`,
    `error: views: train-00004: task.hands.0.cards is dealt to alice, but bob sees ${leaked} of it.`,
  ]);
  const toAlice = {
    ...sound.roles,
    alice: { sees: (task: Task) => [task.question, ...task.left, task.right[1]].join('\n') },
  };
  await finds({ roles: toAlice }, /task\.right is dealt to bob, but alice sees "The fourth number/);
});

test('a list that both sides see whole, or that holds short texts or others than texts, is no hand', async () => {
  for (const list of [
    ['The moon is made of cheese.', 'The sun is not.'],
    ['one two', 'three'],
    [7, 'The third of all'],
  ]) {
    const rules = list as string[];
    const seen = (more: string | undefined) => (task: Task) =>
      [
        'Rules:',
        ...(rules.length === 2 && rules[0]!.length > 8 ? rules : rules.slice(0, 1)),
        more,
        task.question,
      ]
        .filter((line) => line !== undefined)
        .join('\n');
    const tasks: Definition['tasks'] = {
      load: async (split, count, rng) =>
        (await sound.tasks.load(split, count, rng)).map((task) => ({ ...task, rules })),
    };
    const alice = { sees: (task: Task) => `${seen(String(rules[1]))(task)}\n${task.left.join('\n')}` };
    const bob = { sees: (task: Task) => `${seen(undefined)(task)}\n${task.right.join('\n')}` };
    assert.equal(await findings({ tasks, roles: { alice, bob } }), [], JSON.stringify(list));
  }
});

test('texts of eight letters are long enough to be dealt', async () => {
  const tasks: Definition['tasks'] = {
    load: async (split, count, rng) =>
      (await sound.tasks.load(split, count, rng)).map((task) => ({
        ...task,
        cards: ['clubs 10', 'hearts 9'],
      })),
  };
  const alice = { sees: (task: Task) => `clubs 10 hearts 9 ${task.left}\n${task.left.join('\n')}` };
  const bob = { sees: (task: Task) => `hearts 9 ${task.right}\n${task.right.join('\n')}` };
  await finds(
    { tasks, roles: { alice, bob } },
    /task\.cards is dealt to alice, but bob sees "hearts 9" of it/,
  );
});

test('agreement without an answer is a warning, and so is a message without one that is read as one', async () => {
  const { protocol, answer } = sound;
  const once: Definition['protocol'] = { ...protocol, agreed: (turns) => turns.length >= 1 };
  assert.equal(await findings({ protocol: once }), [
    'warning: protocol: the team agrees although nobody stated an answer.',
  ]);
  const eager = {
    ...answer,
    parse: (text: string) => answer.parse(text) ?? (text.includes('know') ? '?' : null),
  };
  assert.equal(await findings({ answer: eager }), [
    'warning: protocol: the team agrees although nobody stated an answer.',
    'warning: answer: a message without an answer is read as one: "I do not know."',
  ]);
});

test('a role is silent only if the talk went on to the cap without it', async () => {
  const late = (turns: readonly unknown[]): 'alice' | 'bob' => (turns.length === 5 ? 'bob' : 'alice');
  const alone = (turns: Parameters<Definition['protocol']['agreed']>[0]) =>
    turns.some(({ text }) => text.includes('<A>'));
  const { protocol } = sound;
  assert.equal(await findings({ protocol: { ...protocol, next: late, agreed: alone } }), []);
  const found = await findings({ protocol: { ...protocol, next: () => 'alice', agreed: alone } });
  assert.equal(found, ['error: protocol: role bob never has the floor within 6 turns.']);
});

test('a protocol is shown turns of one dialogue, each below the one before', async () => {
  const { protocol } = sound;
  const seen: (readonly { readonly id: string; readonly parent: string }[])[] = [];
  const next: Definition['protocol']['next'] = (turns, dialogue) => {
    seen.push(turns);
    return protocol.next(turns, dialogue);
  };
  const state = (task: Task) => [
    ['alice', 'Hm.'] as const,
    ['bob', `<A>${task.answer}</A>`] as const,
    ['alice', `<A>${task.answer}</A>`] as const,
  ];
  assert.equal(await findings({ ...demonstration(state), protocol: { ...protocol, next } }), []);
  assert.ok(Math.max(...seen.map(({ length }) => length)) >= 5);
  for (const turns of seen) {
    for (const [index, { id, parent }] of turns.entries()) {
      if (index > 0) assert.is(parent, turns[index - 1]!.id);
      assert.ok(id.startsWith(`${parent}.`), id);
    }
    assert.is(new Set(turns.map(({ id }) => id)).size, turns.length);
  }
});

test('a scenario without answers, or of which only some are right, is found', async () => {
  const none = await findings({ answers: () => [] });
  assert.ok(none.includes('error: answer: train-00000: answers() gives none.'), none.join('\n'));
  const first: AnswerMetric = {
    name: 'first',
    score: (prediction, answers) =>
      prediction === answers[0] ? { score: 1, exactMatch: true } : { score: 0, exactMatch: false },
  };
  await finds(
    { answers: (task) => [task.answer, 'another'], metric: first },
    /^error: metric: train-00000: the right answer "another" scores 0, exact match false\.$/,
  );
  const inexact: Definition['metric'] = {
    name: 'inexact',
    score: (prediction, answers) => ({ ...first.score(prediction, answers), exactMatch: false }),
  };
  await finds({ metric: inexact }, /scores 1, exact match false\.$/);
});

test('a wrong answer may earn a part, but nothing below 0', async () => {
  const scoring = (wrong: number): Definition['metric'] => ({
    name: 'partial',
    score: (prediction, answers) =>
      prediction === answers[0]
        ? { score: 1, exactMatch: true }
        : { score: prediction === null ? 0 : wrong, exactMatch: false },
  });
  assert.equal(await findings({ metric: scoring(0.4) }), []);
  assert.equal(await findings({ metric: scoring(-0.1) }), [
    'error: metric: train-00000: Scenario "sound": metric partial gave -0.1, not a number in [0, 1].',
  ]);
});

test('an answer in a view that is not the right one is no leak', async () => {
  const alice = {
    sees: (task: Task) => `${task.question}\n${task.left.join('\n')}\nSay it as <A>your answer</A>.`,
  };
  assert.equal(await findings({ roles: { ...sound.roles, alice } }), []);
});

const demonstration = (
  turns: (task: Task) => (readonly ['alice' | 'bob', string])[],
): Partial<Definition> => ({
  demonstrate: (task) => ({
    format: null,
    turns: turns(task).map(([speaker, text]) => ({ speaker, text })),
  }),
});

test('a demonstration that the protocol lets happen has no finding, one beyond its end or cap has', async () => {
  const state = (task: Task) => `<A>${task.answer}</A>`;
  const agreed = (task: Task) => [['alice', state(task)] as const, ['bob', state(task)] as const];
  assert.equal(await findings(demonstration(agreed)), []);
  assert.equal(await findings(demonstration((task) => [...agreed(task), ['alice', 'Thanks!']])), [
    'warning: demonstrate: train-00000: goes on after the team agreed in turn 2.',
  ]);
  const chat = (count: number) =>
    Array.from({ length: count }, (_, index) => [index % 2 === 0 ? 'alice' : 'bob', 'Well.'] as const);
  assert.equal(await findings(demonstration((task) => [...chat(4), ...agreed(task)])), []);
  assert.equal(await findings(demonstration((task) => [...chat(6), ...agreed(task)])), [
    'error: demonstrate: train-00000: is longer than 6 turns.',
  ]);
  const late = demonstration((task) => [
    ['alice', 'Hm.'],
    ['alice', state(task)],
  ]);
  await finds(late, /^error: demonstrate: train-00000: turn 2 is by alice, but bob has the floor\.$/);
});

test('a demonstrator draws from a generator of its task', async () => {
  const drawn = new Map<string, number>();
  await findings({
    demonstrate: (task, rng) => {
      drawn.set(task.question, rng.seed32());
      return { format: null, turns: [] };
    },
  });
  const tasks = await sound.tasks.load('train', 10, createRng(1).split('tasks'));
  for (const [index, { question }] of tasks.entries()) {
    assert.is(drawn.get(question), createRng(1).split('demonstrate').split(`train-0000${index}`).seed32());
  }
});

test('dialogues are played where nothing else is wrong: one that fails, or scores less, is found', async () => {
  const { protocol } = sound;
  let calls = 0;
  // The checks before ask four times for each of ten tasks, and the views are not read as answers.
  const tired: Definition['metric'] = {
    name: 'tired',
    score: (prediction, answers) => {
      if (++calls > 30) throw new Error('too tired');
      return metric.score(prediction, answers);
    },
  };
  assert.equal(await findings({ metric: tired }), [
    'error: dialogue: train-00000: stating the right answer ends as failed: Scenario "sound": metric tired threw: too tired.',
  ]);
  calls = 0;
  const mild: Definition['metric'] = {
    name: 'mild',
    score: (prediction, answers) =>
      ++calls > 30 ? { score: 0.5, exactMatch: false } : metric.score(prediction, answers),
  };
  assert.equal(await findings({ metric: mild }), [
    'error: dialogue: train-00000: stating the right answer scores 0.5.',
  ]);
  // Without agreement where the turns are those of actors.
  const endless: Definition['protocol'] = {
    ...protocol,
    agreed: (turns, ...rest) =>
      turns.every(({ provenance }) => provenance === 'recorded') && protocol.agreed(turns, ...rest),
  };
  assert.equal(await findings({ protocol: endless }), [
    'error: dialogue: train-00000: stating the right answer ends as turn-cap.',
  ]);
  const quiet = demonstration(() => [['alice', 'Hm.']]);
  assert.equal(
    await findings({ ...quiet, protocol: endless }),
    [
      'warning: demonstrate: train-00000: stops after turn 1 without agreement, and bob has the floor.',
      'error: dialogue: train-00000: stating the right answer ends as turn-cap.',
    ],
    'a warning does not keep them from being played',
  );
});

test('what a referee may decide is a warning; an environment that fails is an error', async () => {
  const environment = { respond: () => 'go on' };
  const protocol = { ...sound.protocol, agreed: () => false };
  assert.equal(await findings({ environment, protocol }), [
    'warning: protocol: cannot end: all roles stated the same answer for 6 turns without agreement.',
    'warning: dialogue: train-00000: stating the right answer ends as turn-cap.',
  ]);
  const broken = { respond: () => 7 as unknown as string };
  await finds({ environment: broken }, /^error: protocol: protocol: environment.respond after turn 0 gave 7/);
});

test('what the environment opens with is a part of what a role is told', async () => {
  const { alice } = sound.roles;
  const roles = { alice, bob: { sees: (task: Task) => `You are Bob.\n${task.question}` } };
  await finds({ roles }, /role bob knows nothing that the others do not/);
  const open: NonNullable<Definition['environment']>['open'] = ({ task }) => ({
    text: task.right.join('\n'),
    to: ['bob'],
  });
  assert.equal(await findings({ roles, environment: { open } }), []);
});

test('what is no task, no list of answers, no demonstration or no verdict is said in one line', async () => {
  const odd = (value: unknown) => value as never;
  for (const [change, ...expected] of [
    [
      { tasks: odd(generated(() => undefined)) },
      'error: tasks: Scenario "sound": task 0 of train is undefined: each must be made at once, and given back.',
    ],
    [
      // What rejects later is told of no more.
      { tasks: odd(generated(async () => Promise.reject(new Error('late')))) },
      'error: tasks: Scenario "sound": task 0 of train is a promise: each must be made at once, and given back.',
    ],
    [{ answers: odd(() => 'x') }, 'error: answer: answers: train-00000: gave a string, not a list of texts'],
    [
      { answers: odd(() => ['x', 7]) },
      'error: answer: answers: train-00000: gave a number in its list, where a text should be: String(…)',
    ],
    [
      { demonstrate: odd(async () => ({})) },
      'error: demonstrate: train-00000: gave a promise, not { turns: [{ speaker, text }, …] }',
    ],
    [
      { demonstrate: odd(() => ({ turns: [{ speaker: 'alice', text: 7 }] })) },
      'error: demonstrate: train-00000: the text of turn 1 is a number',
    ],
    [
      { roles: odd({ ...sound.roles, bob: { sees: async () => 'x' } }) },
      'error: views: sees: role "bob" sees a promise, not a text',
    ],
    [
      { protocol: odd({ ...sound.protocol, agreed: async () => false }) },
      'error: protocol: protocol: Protocol failed at turn 0: agreed, or until, gave a promise, not true or false',
    ],
    [
      { protocol: odd({ ...sound.protocol, next: () => Promise.reject(new Error('late')) }) },
      'error: protocol: protocol: Protocol gave turn 0 to a promise, not to a role.',
    ],
    [
      odd({ demonstrator: () => null }),
      'warning: fields: "demonstrator" is no field of a scenario, and is not read. Did you mean "demonstrate"?',
    ],
  ] as [Partial<Definition>, ...string[]][]) {
    assert.equal(await findings(change), expected);
  }
});

test('a metric that takes the dialogue must have a score for wrong answers and for none', async () => {
  const share = ({ answer, answers }: { answer: string | null; answers: readonly string[] }) =>
    answer === answers[0] ? 1 : Number(answer) - Number(answer);
  assert.equal(await findings({ metric: share }), [
    'error: dialogue: train-00000: saying "<A>zzyzx</A>" fails: Scenario "sound": metric share gave NaN, not a number in [0, 1].',
  ]);
  const mute = ({ answer }: { answer: string | null }) => (answer === null ? Number.NaN : 1);
  assert.equal(await findings({ metric: mute }), [
    'error: dialogue: train-00000: saying "I do not know." fails: Scenario "sound": metric mute gave NaN, not a number in [0, 1].',
  ]);
});

test('a metric of its own that never settles is a finding as well', async () => {
  const metric: Definition['metric'] = {
    name: 'slow',
    timeoutMs: 30,
    score: (_prediction, _answers, _dialogue) => new Promise(() => {}),
  };
  assert.equal(await findings({ metric }), [
    'error: metric: played: Scenario "sound": metric slow gave no score for check/train-00000.0 within 30 ms.',
  ]);
});

test('a view that says undefined is a slip, unless the task says so', async () => {
  const { alice, bob } = sound.roles;
  const misspelt = { sees: (task: Task) => `${alice.sees(task)}\n${(task as { hint?: string }).hint}` };
  await finds(
    { roles: { alice: misspelt, bob } },
    /^warning: views: train-00000: the view of alice says undefined: either the task lacks a field that is asked for, or those are its words\.$/,
  );
  const tasks = generated((rng) => ({
    ...{ question: `Is ${rng.int(1000)} / 0 undefined?`, answer: `${rng.int(1000)}` },
    ...{ left: [`The left one is ${rng.int(1000)}.`], right: [`The right one is ${rng.int(1000)}.`] },
  }));
  assert.equal(await findings({ tasks }), []);
});

test('what throws on a later task, or on a test task, is a finding that names it', async () => {
  const { alice, bob } = sound.roles;
  const load: Definition['tasks']['load'] = async (split, count, rng) =>
    (await sound.tasks.load(split, count, rng)).map((task, index) =>
      split === 'test' && index === 3 ? { ...task, question: 'odd' } : task,
    );
  const sees = (task: Task) => {
    if (task.question === 'odd') throw new Error('no such question');
    return alice.sees(task);
  };
  assert.equal(await findings({ tasks: { load }, roles: { alice: { sees }, bob } }), [
    'error: tasks: views and answers: test-00003: no such question',
  ]);
  const tasks = generated((rng) => ({
    ...{ question: `What is ${rng.int(1e9)}?`, answer: String(rng.int(1000)) },
    ...{ left: [`The left one is ${rng.int(1e9)}.`], right: [`The right one is ${rng.int(1e9)}.`] },
  }));
  const eleventh = (await tasks.load('train', 11, createRng(1).split('tasks')))[10]!.question;
  const answers = (task: Task) => {
    if (task.question === eleventh) throw new Error('no answer');
    return [task.answer];
  };
  assert.equal(await findings({ tasks, answers }), [
    'error: tasks: views and answers: train-00010: no answer',
  ]);
});

test('a role that is told nothing of its own in other words is a warning', async () => {
  const all = { sees: ({ left, right }: Task) => `All: ${[...left, ...right].join(' ')}` };
  await finds(
    { roles: { alice: all, bob: { sees: ({ right }) => `Some: ${right.join(' ')}` } } },
    /^warning: views: every text and number of the task that role bob is told, another role is told too\.$/,
  );
});

test('tasks that are all the same are found as such', async () => {
  const only = { question: 'q', left: ['The first is 1.'], right: ['The second is 2.'], answer: '3' };
  await finds(
    { tasks: generated(() => only) },
    /^error: tasks: tasks\.load: the first 10 tasks are all the same\.$/,
  );
  // Whole numbers of any size can stand in a task.
  const large = generated(async (rng, split) => ({
    ...(await sound.tasks.load(split, 1, rng))[0]!,
    size: 10n,
  }));
  const tasks = {
    load: async (split: Split, count: number, rng: Rng) => Promise.all(await large.load(split, count, rng)),
  };
  assert.equal(await findings({ tasks }), []);
});

test('speakers at once are played, by a demonstrator too', async () => {
  const protocol = dialogue({ order: ['alice', 'bob'], maxTurns: 6, until: agreement(), together: true });
  assert.equal(await findings({ protocol }), []);
  const stated = (task: Task) => `<A>${task.answer}</A>`;
  const script = demonstration((task) => [
    ['alice', stated(task)],
    ['bob', stated(task)],
  ]);
  assert.equal(await findings({ ...script, protocol }), []);
});

test.run();
