// team: three agents with a number each look for the middle one, and vote.
// The shipped model has never read a digit: warm it up on a draft of debate first, and from there on this one. Change the tasks, the views and the demonstrator.
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
  reward: { lambdaToken: 0.6, lambdaLoss: 0.02 }, // R = score − λ_token · token share + λ_loss · readability
  formats: [], // no format prompts: every dialogue is plain
  // As an untrained team would talk: most often with many words, and then Cora more often than not votes for her own number.
  demonstrate: (task, rng) => {
    const wordy = rng.next() < 0.7;
    const hasty = wordy && rng.next() < 0.6;
    const order = sorted(task);
    const vote = `<A>${hasty ? task.cora : order[1]}</A>`;
    const reason = hasty ? 'I think that it is mine.' : `In order they are ${order.join(', ')}.`;
    return {
      turns: [
        { speaker: 'ann', text: wordy ? `Hello to you all! My number is ${task.ann}.` : `${task.ann}` },
        { speaker: 'ben', text: wordy ? `Hello! My number is ${task.ben}.` : `${task.ben}` },
        {
          speaker: 'cora',
          text: wordy
            ? `My number is ${task.cora}. ${reason} So I vote for ${vote}.`
            : `${order.join(', ')}, ${vote}`,
        },
        { speaker: 'ann', text: wordy ? `Thank you, Cora. I think so too, ${vote}.` : vote },
      ],
    };
  },
});
