// information-exchange: Alice knows who leads a city, Bob knows who is married to whom.
// Neither can answer alone. The shipped model speaks it as it stands; change the tasks, the views and the demonstrator.
import {
  agreement,
  compactFormats,
  defineScenario,
  dialogue,
  f1,
  generated,
  type Rng,
  type Split,
  splitOf,
  tagged,
} from 'optima-actors';

// Names are two words that the shipped model can spell. Each name belongs to one split for good, so that no name of
// a test task was ever trained on: the agents can only read it from what they see.
const words = (text: string) => text.split(' ');
const first = words('Bam Das Fan Gil Gus Hur Kal Kug Lin Meg Nab Nug Pob Rus Teb Tob Vod Wot');
const people = words('Bub Cid Dod Jim Lub Nes Sek Vab Wul Zeg');
const cities = words('Bab Cuk Fil Hok Kad Kus Mor Ped Seb Val');
const namesIn = (split: Split, last: readonly string[]) =>
  first.flatMap((a) => last.map((b) => `${a} ${b}`)).filter((name) => splitOf(name) === split);

// A task is written from a generator of its own: the same seed gives the same tasks.
function makeTask(rng: Rng, split: Split) {
  const person = rng.shuffle(namesIn(split, people));
  const city = rng.shuffle(namesIn(split, cities));
  // The first chain is asked for; the others are there to be mistaken for it.
  const chains = [0, 1, 2].map((i) => ({ city: city[i]!, mayor: person[i]!, spouse: person[i + 3]! }));
  return {
    question: `Who is the spouse of the mayor of ${chains[0]!.city}?`,
    chains,
    left: rng.shuffle(chains.map((chain) => `The mayor of ${chain.city} is ${chain.mayor}.`)),
    right: rng.shuffle(chains.map((chain) => `The spouse of ${chain.mayor} is ${chain.spouse}.`)),
  };
}

// All that a role is told before the dialogue begins.
const view = (self: string, partner: string, question: string, facts: readonly string[]) =>
  [
    `You are ${self}, working with ${partner}. Each knows different facts.`,
    'Share what is needed and end with <A> answer</A>.',
    question,
    ...facts,
  ].join('\n');

export default defineScenario({
  name: 'information-exchange',
  kind: 'information-exchange',
  description: 'Alice knows the mayors, Bob knows the couples.',
  tasks: generated(makeTask), // or jsonl('file.jsonl', schema, { base: import.meta.url })
  roles: {
    alice: { sees: (task) => view('Alice', 'Bob', task.question, task.left) },
    bob: { sees: (task) => view('Bob', 'Alice', task.question, task.right) },
  },
  protocol: dialogue({ order: ['alice', 'bob'], maxTurns: 10, until: agreement() }),
  answer: tagged('A'), // an answer is written <A>…</A>
  answers: (task) => [task.chains[0]!.spouse], // what counts as right, aliases after the first
  metric: f1, // or exactMatch
  reward: { lambdaToken: 0.6, lambdaLoss: 0.1 }, // R = score − λ_token · token share + λ_loss · readability
  formats: compactFormats, // ways of writing that initialization asks for
  // As an untrained team would talk: most often with many words, and then hasty more often than not. Training is to find the rest.
  demonstrate: ({ chains }, rng) => {
    const wordy = rng.next() < 0.7;
    const hasty = wordy && rng.next() < 0.6;
    const { city, mayor } = chains[0]!;
    const answer = `<A> ${chains[hasty ? 1 : 0]!.spouse}</A>`;
    return {
      turns: [
        {
          speaker: 'alice',
          text: `${wordy ? 'Hello, Bob! I can see that the' : 'The'} mayor of ${city} is ${mayor}.`,
        },
        { speaker: 'bob', text: wordy ? `Hello, Alice! So I think that the answer is ${answer}.` : answer },
        { speaker: 'alice', text: wordy ? `I agree with you. The answer is ${answer}.` : answer },
      ],
    };
  },
});
