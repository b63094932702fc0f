// order-facts: Alice knows when two things were built, Bob knows a third; the team puts them in order, oldest first.
import { agreement, defineScenario, dialogue, generated, kendallTau, type Rng, tagged } from 'optima-actors';

const things = ['dam', 'fort', 'gate', 'hall', 'inn', 'mill', 'tower', 'well'];

function makeTask(rng: Rng) {
  const names = rng.shuffle(things);
  const years = rng.shuffle(Array.from({ length: 90 }, (_, i) => 10 + i));
  return { facts: [0, 1, 2].map((i) => ({ name: names[i]!, year: years[i]! })) };
}
type Task = ReturnType<typeof makeTask>;

const oldest = ({ facts }: Task) => [...facts].sort((a, b) => a.year - b.year);
const say = ({ name, year }: Task['facts'][number]) => `The ${name} is of 19${year}.`;
const goal = 'Put all three in order with your partner, oldest first: <A>first, second, third</A>.';

export default defineScenario({
  name: 'order-facts',
  kind: 'information-exchange',
  description: 'Alice knows two dates, Bob one; the team states the three things, oldest first.',
  tasks: generated(makeTask),
  roles: {
    alice: { sees: ({ facts }) => `You are Alice. ${goal}\n${say(facts[0]!)}\n${say(facts[1]!)}` },
    bob: { sees: ({ facts }) => `You are Bob. ${goal}\n${say(facts[2]!)}` },
  },
  protocol: dialogue({ order: ['alice', 'bob'], maxTurns: 6, until: agreement() }),
  answer: tagged('A'),
  answers: (task) => [
    oldest(task)
      .map(({ name }) => name)
      .join(', '),
  ],
  metric: kendallTau(),
  reward: { lambdaToken: 0.6, lambdaLoss: 0.02 },
  formats: [],
  // Wordy most of the time, and then Bob names the three as he heard them more often than not.
  demonstrate: (task, rng) => {
    const wordy = rng.next() < 0.7;
    const hasty = wordy && rng.next() < 0.6;
    const [a, b, c] = task.facts as [Task['facts'][0], Task['facts'][0], Task['facts'][0]];
    const order = hasty ? [a, b, c] : oldest(task);
    const answer = `<A>${order.map(({ name }) => name).join(', ')}</A>`;
    const dated = oldest(task).map(({ name, year }) => `${year} ${name}`);
    return {
      turns: [
        {
          speaker: 'alice',
          text: wordy
            ? `Hello, Bob! I can tell you this. ${say(a)} ${say(b)}`
            : `${a.year} ${a.name}, ${b.year} ${b.name}`,
        },
        {
          speaker: 'bob',
          text: wordy
            ? `Thank you, Alice. ${say(c)} ${hasty ? 'I think that it is' : `So ${dated.join(', ')}, and it is`} ${answer}.`
            : `${dated.join(', ')}, ${answer}`,
        },
        { speaker: 'alice', text: wordy ? `I agree with you, Bob. It is ${answer}.` : answer },
      ],
    };
  },
});
