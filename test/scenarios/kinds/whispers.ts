// A captain tells its scout, and nobody else, which gate is open; the guard, who hears all but that, must not find out.
import { defineScenario, dialogue, exactMatch, generated, tagged } from 'optima-actors';

interface Gate {
  readonly gate: string;
}

const gates = ['north', 'south', 'east', 'west'];
const end = 'Whoever names a gate writes <A>gate</A>.';

export default defineScenario({
  name: 'whispers',
  kind: 'debate',
  description: 'A captain whispers to a scout; a guard guesses from what it hears.',
  tasks: generated((rng): Gate => ({ gate: rng.pick(gates) })),
  roles: {
    captain: {
      sees: ({ gate }) => `The ${gate} gate is open. Tell the scout; only the scout hears you. ${end}`,
    },
    scout: {
      sees: () => `The captain whispers to you. Say something, but not the gate. ${end}`,
      name: 'The scout',
    },
    guard: { sees: () => `Guess the gate from what the scout says. ${end}` },
  },
  environment: {
    open: ({ task }) => [
      `The gates are ${gates.join(', ')}.`,
      { text: `It is not locked: ${task.gate}.`, to: ['captain'] },
    ],
  },
  protocol: dialogue({
    order: ['captain', 'scout', 'guard'],
    maxTurns: 3,
    to: (speaker) => (speaker === 'captain' ? ['scout'] : 'all'),
    until: (turns, answer) => turns.length === 3 && answer.parse(turns[2]!.text) !== null,
    answeredBy: ['guard'],
  }),
  answer: tagged('A'),
  answers: ({ gate }) => [gate],
  metric: exactMatch,
  reward: { lambdaToken: 0.6, lambdaLoss: 0.1 },
  formats: [],
});
