// team: three agents with a number each look for the middle one, and vote.
// The shipped model must be warmed up on it first. Change the tasks, the views and the demonstrator.
import { defineScenario, dialogue, exactMatch, generated, majority, type Rng, tagged } from 'optima-actors';

// A task is written from a generator of its own: the same seed gives the same tasks.
function makeTask(rng: Rng) {
  const [ann, ben, cora] = [10 + rng.int(90), 10 + rng.int(90), 10 + rng.int(90)];
  return { ann, ben, cora };
}
type Task = ReturnType<typeof makeTask>;

const sorted = ({ ann, ben, cora }: Task) => [ann, ben, cora].sort((a, b) => a - b);

// From three roles up the partners' messages begin with their names: `Ben: I have 12.`
const view = (self: string, number: number) =>
  `You are ${self}. Your number is ${number}.\nThree of you look for the middle one of your numbers. Vote with <A>number</A>.`;

export default defineScenario({
  name: 'team',
  kind: 'information-exchange',
  description: 'Three agents look for the middle one of their numbers.',
  tasks: generated(makeTask), // or jsonl('file.jsonl', schema, { base: import.meta.url })
  roles: {
    ann: { sees: (task) => view('Ann', task.ann) },
    ben: { sees: (task) => view('Ben', task.ben) },
    cora: { sees: (task) => view('Cora', task.cora) },
  },
  protocol: dialogue({ order: ['ann', 'ben', 'cora'], maxTurns: 9, until: majority() }),
  answer: tagged('A'), // an answer is written <A>…</A>
  answers: (task) => [String(sorted(task)[1])],
  metric: exactMatch,
  reward: { lambdaToken: 0.6, lambdaLoss: 0.1 }, // R = score − λ_token · token share + λ_loss · readability
  formats: [], // no format prompts: every dialogue is plain
  // How an untrained team talks: wordy, and in three dialogues of ten Cora votes for her own number.
  demonstrate: (task, rng) => {
    const { ann, ben, cora } = task;
    const [low, middle, high] = sorted(task);
    const vote = rng.next() < 0.3 ? cora : middle;
    const order = `In order they are ${low}, ${middle} and ${high}.`;
    return {
      format: null,
      turns: [
        { speaker: 'ann', text: `Hello to you all! My number is ${ann}.` },
        { speaker: 'ben', text: `Hello! My number is ${ben}.` },
        { speaker: 'cora', text: `My number is ${cora}. ${order} So I vote for <A>${vote}</A>.` },
        { speaker: 'ann', text: `Thank you, Cora. I think so too, <A>${vote}</A>.` },
      ],
    };
  },
});
