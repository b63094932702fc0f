// Compile-time checks of the authoring API, run by `npm run types`: each line marked as an error must be one.
import { agreement, defineScenario, dialogue, f1, generated, tagged } from 'optima-actors';

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

const team = {
  ...shared,
  tasks: generated((rng) => ({ left: rng.int(2) })),
  roles: { alice: { sees: () => '' }, bob: { sees: () => '', trained: false } },
  protocol: dialogue({ order: ['alice', 'bob'], maxTurns: 4, until: agreement() }),
} as const;

// A metric that is a function has the task's type, and needs no answers.
defineScenario({ ...team, name: 'c', metric: ({ task, turns }) => task.left / turns.length });
defineScenario({
  ...team,
  name: 'd',
  judge: {},
  metric: async ({ judge, answer }) => ({
    seats: { alice: Number(await judge.ask(answer ?? '')), bob: 0 },
  }),
});
// @ts-expect-error: the task has no such field
defineScenario({ ...team, name: 'e', metric: ({ task }) => task.rigth });
// @ts-expect-error: a score is a number
defineScenario({ ...team, name: 'f', metric: ({ answer }) => answer ?? '' });
