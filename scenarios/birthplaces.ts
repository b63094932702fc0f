// Facts in plain English, for language models that nobody here made: who owns a thing, and where the owner was born.
// Bob knows the owners and Alice the birthplaces, so neither can answer alone. A host asks them, one after the other.
import {
  type AnswerParser,
  defineScenario,
  dialogue,
  exactMatch,
  generated,
  type Rng,
  type Split,
} from 'optima-actors';

const words = (text: string): readonly string[] => text.trim().split(/\s+/);
const people = words(`
  Adam Alan Albert Alex Amy Andrew Anna Arthur Barbara Ben Betty Brian Carl Carol Charles Clara Daniel David Diana Donald
  Edward Emily Emma Eric Ethan Eva Frank George Grace Hannah Harry Helen Henry Jack Jacob James Jane Jason Jennifer John Joseph
  Julia Karen Kate Kevin Laura Leo Linda Lisa Lucy Maria Mark Martin Mary Max Michael Nancy Nina Oliver Oscar Patrick Paul Peter
  Rachel Richard Robert Rose Ryan Sam Sarah Simon Sophie Steven Susan Thomas Tom Victor Walter William
`);
const things = words(`
  bag ball bell bicycle boat book bottle box camera car carpet chair clock coat cup desk drum flag flute guitar hammer hat horse
  kite knife ladder lamp map mask mirror painting pen phone piano pipe radio ring rope ship shoe sofa sword table telescope tent
  toy train truck umbrella vase violin wagon wallet watch wheel whistle
`);
const cities = words(`
  Athens Atlanta Baghdad Bangkok Barcelona Beijing Berlin Boston Brussels Budapest Cairo Chicago Copenhagen Dallas Delhi Denver
  Detroit Dublin Florence Geneva Hamburg Helsinki Houston Istanbul Jerusalem Lima Lisbon London Madrid Manchester Manila Melbourne
  Miami Milan Montreal Moscow Mumbai Munich Naples Oslo Oxford Paris Philadelphia Prague Rome Seattle Shanghai Singapore Stockholm
  Sydney Tehran Tokyo Toronto Venice Vienna Warsaw Zurich
`);

/** Owners that Bob knows, and birthplaces that Alice knows. */
const rowsOfTask = 5;

/** Every sixth word is kept for the test split and every sixth for validation: what is named there was never named in training. */
const own: Readonly<Record<Split, (word: string, index: number) => boolean>> = {
  train: (_, index) => index % 6 > 1,
  validation: (_, index) => index % 6 === 1,
  test: (_, index) => index % 6 === 0,
};

function makeTask(rng: Rng, split: Split) {
  const draw = (from: readonly string[]) => rng.shuffle(from.filter(own[split])).slice(0, rowsOfTask);
  const [who, what, where] = [draw(people), draw(things), draw(cities)];
  const rows = who.map((person, row) => ({ person, thing: what[row]!, city: where[row]! }));
  return { wanted: rng.pick(rows), owners: rng.shuffle(rows), births: rng.shuffle(rows) };
}
type Task = ReturnType<typeof makeTask>;
type Row = Task['wanted'];

/** The one city that a message names; none where it names several. */
const oneCity: AnswerParser = {
  parse: (text) => {
    const named = new Set(cities.filter((city) => text.includes(city)));
    return named.size === 1 ? [...named][0]! : null;
  },
  example: (city) => `The owner was born in ${city}.`,
};

const owns = ({ thing, person }: Row) => `The ${thing} belongs to ${person}.`;
const born = ({ person, city }: Row) => `${person} was born in ${city}.`;
const view = (name: string, known: readonly string[]) =>
  `You are ${name}. This is what you know:\n${known.join('\n')}`;

export default defineScenario({
  name: 'birthplaces',
  kind: 'information-exchange',
  description: 'Bob knows who owns what, Alice where people were born: where was the owner of a thing born?',
  tasks: generated(makeTask),
  roles: {
    bob: { sees: ({ owners }) => view('Bob', owners.map(owns)) },
    alice: { sees: ({ births }) => view('Alice', births.map(born)) },
  },
  environment: {
    open: ({ task: { wanted } }) => ({ text: `Who does the ${wanted.thing} belong to?`, to: ['bob'] }),
    respond: ({ turns }) =>
      turns.length === 1 ? { text: 'In which city was this person born?', to: ['alice'] } : null,
  },
  protocol: dialogue({
    order: ['bob', 'alice'],
    maxTurns: 2,
    until: (turns, answer) => turns.length === 2 && answer.parse(turns[1]!.text) !== null,
    answeredBy: ['alice'],
  }),
  answer: oneCity,
  answers: ({ wanted }) => [wanted.city],
  metric: exactMatch,
  reward: { lambdaToken: 0.6, lambdaLoss: 0.02 },
  formats: [],
  demonstrate,
});

/**
 * As an untrained team would talk: politely, and reciting, most of the time, and then Alice more often than not says where the
 * first person that Bob named was born, whoever that is.
 */
function demonstrate({ wanted, owners, births }: Task, rng: Rng) {
  const said = (bob: string, alice: string) => ({
    format: null,
    turns: [
      { speaker: 'bob' as const, text: bob },
      { speaker: 'alice' as const, text: alice },
    ],
  });
  if (rng.next() < 0.3) {
    return rng.next() < 0.5 ? said(wanted.person, wanted.city) : said(owns(wanted), born(wanted));
  }
  const hasty = rng.next() < 0.6;
  const told = hasty ? owners.slice(0, 2 + rng.int(3)) : [wanted];
  const found = hasty ? births.find(({ person }) => person === told[0]!.person)! : wanted;
  const thanks = rng.pick(['Thank you, Bob.', 'Thanks for your help, Bob.', 'That is good to know, Bob.']);
  const hello = rng.pick(['Let me see what I know.', 'I am happy to help you.', 'That is a good question.']);
  return said(
    `${hello} ${told.map(owns).join(' ')} I hope that this helps you, Alice.`,
    `${thanks} I can see that ${born(found)} So I think that the owner was born in ${found.city}.`,
  );
}
