// median: three agents with a name and a number each; the team states the middle one.
import { agreement, closeTo, defineScenario, dialogue, generated, type Rng, tagged } from 'optima-actors';

const names = { smith: 'Sue', cook: 'Carl', guard: 'Gus' } as const;

function makeTask(rng: Rng) {
  const [smith, cook, guard] = rng.shuffle(Array.from({ length: 90 }, (_, i) => 10 + i)) as [
    number,
    number,
    number,
  ];
  return { smith, cook, guard };
}
type Task = ReturnType<typeof makeTask>;
type Role = keyof typeof names;

const sorted = ({ smith, cook, guard }: Task) => [smith, cook, guard].sort((a, b) => a - b);
const role = (id: Role) => ({
  name: names[id],
  sees: (task: Task) =>
    `You are ${names[id]}. Your pay is ${task[id]}. Find the median of the pay of Sue, Carl and Gus; end with <A>number</A>.`,
});

export default defineScenario({
  name: 'median',
  kind: 'information-exchange',
  description: 'Three agents with names of their own look for the median of their pay.',
  tasks: generated(makeTask),
  roles: { smith: role('smith'), cook: role('cook'), guard: role('guard') },
  protocol: dialogue({ order: ['smith', 'cook', 'guard'], maxTurns: 9, until: agreement() }),
  answer: tagged('A'),
  answers: (task) => [String(sorted(task)[1])],
  metric: closeTo({ absolute: 0.5 }),
  reward: { lambdaToken: 0.6, lambdaLoss: 0.02 },
  formats: [],
  // Wordy most of the time, and then Gus states Carl's number, which he heard last, more often than not.
  demonstrate: (task, rng) => {
    const wordy = rng.next() < 0.7;
    const hasty = wordy && rng.next() < 0.6;
    const order = sorted(task).join(', ');
    const answer = `<A>${hasty ? task.cook : sorted(task)[1]}</A>`;
    const agree = wordy ? `I see, thank you. I agree that it is ${answer}.` : answer;
    return {
      turns: [
        {
          speaker: 'smith',
          text: wordy ? `Good morning to you both! I am paid ${task.smith}.` : `${task.smith}`,
        },
        { speaker: 'cook', text: wordy ? `Good morning! As to me, I am paid ${task.cook}.` : `${task.cook}` },
        {
          speaker: 'guard',
          text: wordy
            ? `And I am paid ${task.guard}. ${hasty ? 'I think that Carl is the middle one' : `In order this is ${order}`}, so it is ${answer}.`
            : `${order}, ${answer}`,
        },
        { speaker: 'smith', text: agree },
        { speaker: 'cook', text: agree },
      ],
    };
  },
});
