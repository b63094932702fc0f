// word-problems: a solver answers, a critic reckons again, and the solver has the last word.
import {
  defineScenario,
  dialogue,
  exactNumber,
  generated,
  type Rng,
  tagged,
  unchangedAnswer,
} from 'optima-actors';

const people = ['Ann', 'Ben', 'Dan', 'Eve', 'Kim', 'Tom'];
const goods = ['cups', 'keys', 'hats', 'nuts', 'pens'];

// Ann has 7 cups and gets 5 more, or has 12 and gives 5 away.
function makeTask(rng: Rng) {
  const [one, other] = [1 + rng.int(9), 1 + rng.int(9)];
  const more = rng.next() < 0.5;
  const [who, what] = [rng.pick(people), rng.pick(goods)];
  const [has, event] = more ? [one, `gets ${other} more`] : [one + other, `gives ${other} away`];
  return {
    sum: more ? `${one} + ${other} = ${one + other}` : `${has} - ${other} = ${one}`,
    has,
    result: more ? one + other : one,
    problem: `${who} has ${has} ${what} and ${event}. How many ${what} has ${who} then?`,
  };
}

export default defineScenario({
  name: 'word-problems',
  kind: 'debate',
  description: 'A solver and a critic on word problems of one step.',
  tasks: generated(makeTask),
  roles: {
    solver: { sees: ({ problem }) => `You solve, a critic checks. End with <A>number</A>.\n${problem}` },
    critic: { sees: ({ problem }) => `You check what a solver says.\n${problem}` },
  },
  protocol: dialogue({ order: ['solver', 'critic'], maxTurns: 5, until: unchangedAnswer('solver') }),
  answer: tagged('A'),
  answers: ({ result }) => [String(result)],
  metric: exactNumber,
  reward: { lambdaToken: 0.6, lambdaLoss: 0.02 },
  formats: [],
  // Wordy most of the time, and then the solver more often than not states the number of before; the critic may see it.
  demonstrate: ({ has, sum, result }, rng) => {
    const wordy = rng.next() < 0.7;
    const wrong = wordy && rng.next() < 0.6;
    const right = `<A>${result}</A>`;
    const first = wrong ? `<A>${has}</A>` : right;
    const opening = wordy
      ? `Let me see. ${wrong ? 'I read it' : `I reckon that ${sum}`}. So I think that it is ${first}.`
      : `${sum}, ${right}`;
    const said =
      wrong && rng.next() < 0.4
        ? [
            opening,
            `Let me check. ${sum}. I do not agree.`,
            `You are right. It is ${right}.`,
            'I agree now.',
            right,
          ]
        : [
            opening,
            wordy ? 'I have checked it and I agree.' : 'Yes.',
            wordy ? `Thank you. So it is ${first}.` : first,
          ];
    return {
      turns: said.map((text, turn) => ({
        speaker: turn % 2 === 0 ? ('solver' as const) : ('critic' as const),
        text,
      })),
    };
  },
});
