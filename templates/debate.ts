// debate: a solver answers a word problem, a critic checks the sum, and the solver has the last word.
// The shipped model must be warmed up on it first. Change the problems, the views and the demonstrator.
import {
  defineScenario,
  dialogue,
  exactMatch,
  generated,
  type Rng,
  tagged,
  unchangedAnswer,
} from 'optima-actors';

// A task is written from a generator of its own: the same seed gives the same tasks.
function makeTask(rng: Rng) {
  const [who, what] = [
    rng.pick(['Ann', 'Ben', 'Cora', 'Dan']),
    rng.pick(['apples', 'books', 'coins', 'keys']),
  ];
  const [has, gets] = [rng.int(50), rng.int(50)];
  return {
    has,
    gets,
    problem: `${who} has ${has} ${what} and gets ${gets} more. How many ${what} has ${who}?`,
  };
}

// A small model adds when it may write the steps down: ones, then tens.
function steps(a: number, b: number): string {
  const ones = (a % 10) + (b % 10);
  const tens = [Math.floor(a / 10), Math.floor(b / 10), ...(ones > 9 ? [1] : [])];
  return `${a % 10} + ${b % 10} = ${ones}, ${tens.join(' + ')} = ${tens.reduce((x, y) => x + y)}`;
}

export default defineScenario({
  name: 'debate',
  kind: 'debate', // all may know the same; each iteration trains from the base
  description: 'A solver adds, a critic checks.',
  tasks: generated(makeTask), // or jsonl('file.jsonl', schema, { base: import.meta.url })
  roles: {
    solver: { sees: ({ problem }) => `You solve, a critic checks.\nState <A>number</A>.\n${problem}` },
    critic: { sees: ({ problem }) => `You check what a solver says.\n${problem}` },
  },
  // Done when the solver states its answer again after the critic spoke; the solver's answer is the team's.
  protocol: dialogue({ order: ['solver', 'critic'], maxTurns: 5, until: unchangedAnswer('solver') }),
  answer: tagged('A'), // an answer is written <A>…</A>
  answers: ({ has, gets }) => [String(has + gets)],
  metric: exactMatch,
  reward: { lambdaToken: 0.6, lambdaLoss: 0.02 }, // R = score − λ_token · token share + λ_loss · readability
  formats: [], // no format prompts: every dialogue is plain
  // As an untrained team would talk: most often with many words, and then the solver more often than not forgets the carry; the
  // critic's sums may save it.
  demonstrate: ({ has, gets }, rng) => {
    const wordy = rng.next() < 0.7;
    const right = has + gets;
    const hasty = wordy && rng.next() < 0.6 && (has % 10) + (gets % 10) > 9;
    const state = (answer: number) => `<A>${answer}</A>`;
    const first = hasty ? right - 10 : right;
    const opening = wordy
      ? `Let me see. I add ${has} and ${gets}. So I think that it is ${state(first)}.`
      : `${steps(has, gets)}, ${state(first)}`;
    const checked = rng.next() < 0.5;
    const agrees = wordy ? 'I agree with you.' : 'Yes.';
    const said: string[] =
      hasty && checked
        ? [
            opening,
            `Let me check. ${steps(has, gets)}. I do not agree.`,
            `You are right, it is ${state(right)}.`,
            agrees,
            state(right),
          ]
        : [opening, agrees, wordy ? `Thank you. My answer is ${state(first)}.` : state(first)];
    return {
      turns: said.map((text, turn) => ({
        speaker: turn % 2 === 0 ? ('solver' as const) : ('critic' as const),
        text,
      })),
    };
  },
});
