// tools: Alice knows what is asked, Bob can look prices up: an environment answers his calls.
// The shipped model must be warmed up on it first. Change the table, the tool, the views and the demonstrator.
import {
  agreement,
  defineScenario,
  dialogue,
  exactMatch,
  generated,
  type Rng,
  tagged,
  tool,
  tools,
} from 'optima-actors';
import { z } from 'zod';

const goods = ['apples', 'beans', 'bread', 'eggs', 'honey', 'milk', 'pears', 'rice', 'salt', 'tea'];

// A task is written from a generator of its own: the same seed gives the same tasks.
function makeTask(rng: Rng) {
  return { wanted: rng.pick(goods), prices: goods.map((name) => ({ name, price: 10 + rng.int(90) })) };
}
type Task = ReturnType<typeof makeTask>;

const priceOf = ({ prices }: Task, wanted: string) => prices.find(({ name }) => name === wanted)?.price;

// `<call>price tea</call>` is answered with `price: 12`. The arguments fit the schema, or the caller is told what is wrong.
const price = tool('price', z.string(), (name: string, { task }: { task: Task }) =>
  String(priceOf(task, name) ?? `there is no ${name}`),
);

export default defineScenario({
  name: 'tools',
  kind: 'information-exchange',
  description: 'Alice wants a price, Bob can look it up.',
  tasks: generated(makeTask), // or jsonl('file.jsonl', schema, { base: import.meta.url })
  roles: {
    alice: {
      sees: ({ wanted }) => `You are Alice. Ask Bob for the price of ${wanted}. End with <A>price</A>.`,
    },
    bob: {
      sees: () => `You are Bob. Look up with <call>price name</call>. End with <A>price</A>.`,
    },
  },
  // After a call its caller goes on, for it alone has heard the answer.
  protocol: dialogue({
    order: ['alice', 'bob'],
    maxTurns: 8,
    until: agreement(),
    next: (turns) => (turns.at(-1)?.observed || turns.at(-1)?.speaker === 'alice' ? 'bob' : 'alice'),
  }),
  environment: tools([price]), // its words are the agents' to read, not theirs to learn, and cost nothing
  answer: tagged('A'), // an answer is written <A>…</A>
  answers: (task) => [String(priceOf(task, task.wanted))],
  metric: exactMatch,
  reward: { lambdaToken: 0.6, lambdaLoss: 0.02 }, // R = score − λ_token · token share + λ_loss · readability
  formats: [], // no format prompts: every dialogue is plain
  // As an untrained team would talk: most often with many words, and then Bob more often than not looks up what stands first.
  demonstrate: (task, rng) => {
    const wordy = rng.next() < 0.7;
    const looked = wordy && rng.next() < 0.6 ? goods[0]! : task.wanted;
    const found = `<A>${priceOf(task, looked)}</A>`;
    return {
      turns: [
        {
          speaker: 'alice',
          text: wordy ? `Hello, Bob! Could you tell me the price of ${task.wanted}?` : task.wanted,
        },
        {
          speaker: 'bob',
          text: `${wordy ? 'I will look that up for you. ' : ''}<call>price ${looked}</call>`,
        },
        { speaker: 'bob', text: wordy ? `I have found the price of ${looked}. It is ${found}.` : found },
        { speaker: 'alice', text: wordy ? `Thank you, Bob. So the answer is ${found}.` : found },
      ],
    };
  },
});
