// Compile-time checks of the authoring API, run by `npm run types`: each line marked as an error must be one.
import {
  agreement,
  type Dialogue,
  defineScenario,
  dialogue,
  f1,
  generated,
  tagged,
  tool,
  tools,
} from 'optima-actors';
import { z } from 'zod';

const shared = {
  kind: 'information-exchange',
  description: '',
  answer: tagged('A'),
  metric: f1,
  reward: { lambdaToken: 0, lambdaLoss: 0 },
  formats: [],
} as const;

defineScenario({
  ...shared,
  name: 'a',
  tasks: generated((rng) => ({ left: rng.int(2) })),
  roles: {
    alice: { sees: (task) => `${task.left}` },
    // @ts-expect-error: the task has no such field
    bob: { sees: (task) => `${task.rigth}` },
  },
  protocol: dialogue({ order: ['alice', 'bob'], maxTurns: 4, until: agreement() }),
  answers: (task) => [`${task.left}`],
});

defineScenario({
  ...shared,
  name: 'b',
  tasks: generated((rng) => ({ left: rng.int(2) })),
  roles: { alice: { sees: () => '' }, bob: { sees: () => '' } },
  // @ts-expect-error: bbo is not a role
  protocol: dialogue({ order: ['alice', 'bbo'], maxTurns: 4, until: agreement() }),
  // @ts-expect-error: an answer is a text
  answers: (task) => [task.left],
});

interface Left {
  readonly left: number;
}
const turns = {
  ...shared,
  tasks: generated((rng): Left => ({ left: rng.int(2) })),
  roles: { alice: { sees: () => '' }, bob: { sees: () => '' } },
  answers: ({ left }: Left) => [`${left}`],
};
const order = ['alice', 'bob'] as const;

defineScenario({
  ...turns,
  name: 'c',
  protocol: dialogue({
    order,
    maxTurns: 4,
    until: (_turns, _answer, _answering, { task }: Dialogue<Left>) => task.left > 1,
    // @ts-expect-error: bbo is not a role
    next: () => 'bbo',
    // @ts-expect-error: bbo is not a role
    to: () => ['bbo'],
    // @ts-expect-error: bbo is not a role
    answeredBy: ['bbo'],
  }),
  environment: {
    // @ts-expect-error: the task has no such field
    open: ({ task }) => `${task.rigth}`,
    // @ts-expect-error: bbo is not a role
    respond: ({ turns }) => ({ text: turns.at(-1)!.text, to: ['bbo'] }),
  },
});

defineScenario({
  ...turns,
  name: 'd',
  protocol: {
    ...dialogue({ order, maxTurns: 4, until: agreement() }),
    // @ts-expect-error: the task has no such field
    agreed: (_turns, _answer, { task }) => task.rigth > 1,
  },
  // @ts-expect-error: a tool for tasks of another type
  environment: tools([
    tool('x', z.string(), (text, { task }: Dialogue<{ rigth: number }>) => text + task.rigth),
  ]),
});

defineScenario({
  ...turns,
  name: 'e',
  protocol: {
    order: ['alice', 'bob'],
    maxTurns: 4,
    next: (_turns, { task }) => (task.left > 0 ? ['alice', { speaker: 'bob', to: [] }] : 'bob'),
    // @ts-expect-error: the task has no such field
    agreed: (_turns, _answer, { task }) => task.rigth > 1,
  },
  environment: tools([tool('x', z.number(), (number, { task }: Dialogue<Left>) => `${number + task.left}`)]),
});
