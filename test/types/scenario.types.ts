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
