// Three people each hold a number; a majority must name the median. Nobody can tell it alone.
import { defineScenario, dialogue, exactNumber, generated, majority, tagged } from 'optima-actors';

interface Numbers {
  readonly alice: number;
  readonly bob: number;
  readonly carol: number;
}

const middleOf = (numbers: Numbers) => Object.values(numbers).sort((a, b) => a - b)[1]!;

const sees = (self: 'Alice' | 'Bob' | 'Carol', number: number) =>
  [
    `You are ${self}, one of Alice, Bob and Carol. Your number is ${number}.`,
    'Find the median of the three numbers; end with <A>median</A>.',
  ].join('\n');

export default defineScenario({
  name: 'median',
  kind: 'information-exchange',
  description: 'Three agents each hold a number; most of them must name the median.',
  tasks: generated((rng): Numbers => {
    const [alice, bob, carol] = rng.shuffle(Array.from({ length: 40 }, (_, n) => n + 10));
    return { alice: alice!, bob: bob!, carol: carol! };
  }),
  roles: {
    alice: { sees: (task) => sees('Alice', task.alice) },
    bob: { sees: (task) => sees('Bob', task.bob) },
    carol: { sees: (task) => sees('Carol', task.carol) },
  },
  protocol: dialogue({ order: ['alice', 'bob', 'carol'], maxTurns: 9, until: majority() }),
  answer: tagged('A'),
  answers: (task) => [String(middleOf(task))],
  metric: exactNumber,
  reward: { lambdaToken: 0.6, lambdaLoss: 0.1 },
  formats: [],
});
