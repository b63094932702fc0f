// How a believable untrained team member talks: the dialogues that `optima warmup` trains the tiny base
// model on. Two habits are mixed. The careful one shares or asks for exactly what the question needs. The
// hasty one recites what it sees and then answers with the first fact that looks right. Asked plainly, the
// hasty habit is the common one and both are long-winded; under a format prompt both write in that format.
import { compactFormats, type Demonstration, type Rng } from 'optima-actors';
import { type Fact, type Relation, sentence, type TwoHopTask } from './world.ts';

type Speaker = 'alice' | 'bob';

/** How one way of writing puts the three things an agent ever says. */
interface Style {
  tell(fact: Fact): string;
  ask(relation: Relation, subject: string): string;
  answer(name: string): string;
  /** Between the parts of one message. */
  readonly separator: string;
  /** Whether an answer stands alone, without the fact it rests on. */
  readonly bare?: boolean;
}

const tag = (name: string) => `<A> ${name}</A>`;
const key = ({ relation: { noun }, subject }: Fact) => `${noun} of ${subject}`;

function style(
  tell: (fact: Fact) => string,
  ask: (topic: string) => string,
  answer: (tagged: string) => string,
  separator: string,
): Style {
  return {
    tell,
    ask: ({ noun }, subject) => ask(`${noun} of ${subject}`),
    answer: (name) => answer(tag(name)),
    separator,
  };
}

// A space stands before every name, in a tag and in JSON too: the word is then the same token everywhere, and a
// model of this size only learns to copy what it finds again unchanged.
const styles: Readonly<Record<string, Style>> = {
  'key-value': style(
    (f) => `${key(f)}: ${f.object}`,
    (t) => `${t}: ?`,
    (a) => `answer: ${a}`,
    '\n',
  ),
  json: style(
    (f) => `{"${key(f)}": " ${f.object}"}`,
    (t) => `{"ask": " ${t}"}`,
    (a) => `{"answer": "${a}"}`,
    '\n',
  ),
  table: style(
    (f) => `| ${key(f)} | ${f.object} |`,
    (t) => `| ${t} | ? |`,
    (a) => `| answer | ${a} |`,
    '\n',
  ),
  list: style(
    (f) => `- ${key(f)}, ${f.object}`,
    (t) => `- ${t}?`,
    (a) => `- ${a}`,
    '\n',
  ),
  'pseudo-code': style(
    (f) => `let ${key(f)} = ${f.object};`,
    (t) => `find ${t};`,
    (a) => `return ${a};`,
    '\n',
  ),
  terse: style(
    (f) => `${key(f)} ${f.object}`,
    (t) => `${t}?`,
    (a) => a,
    ', ',
  ),
  arrows: style(
    (f) => `${key(f)} -> ${f.object}`,
    (t) => `${t} -> ?`,
    (a) => `-> ${a}`,
    '\n',
  ),
  triples: style(
    (f) => `(${f.relation.noun}, ${f.subject}, ${f.object})`,
    (t) => `(${t}, ?)`,
    (a) => `(answer, ${a})`,
    ' ',
  ),
  equations: style(
    (f) => `${key(f)} = ${f.object}`,
    (t) => `${t} = ?`,
    (a) => `x = ${a}`,
    '\n',
  ),
  pairs: style(
    (f) => `${f.subject} ${f.object}`,
    (t) => `${t}?`,
    (a) => a,
    ', ',
  ),
  names: {
    ...style(
      (f) => f.object,
      () => '?',
      (a) => a,
      ', ',
    ),
    bare: true,
  },
};

const plainShare = 0.5;
const carefulShare = { plain: 0.35, formatted: 0.45 } as const;

/** How many of its facts a hasty speaker recites. */
export type Recital = readonly [least: number, most: number];

/** One dialogue about the task, as the untrained team would hold it. */
export function demonstrate(task: TwoHopTask, rng: Rng, recital: Recital): Demonstration<Speaker> {
  const format = rng.next() < plainShare ? null : rng.pick(compactFormats);
  const careful = rng.next() < (format === null ? carefulShare.plain : carefulShare.formatted);
  const voice = format === null ? plainVoice(task, rng) : formatVoice(styles[format.name]!);
  const texts = careful ? carefulDialogue(task, voice) : hastyDialogue(task, voice, rng, recital);
  return { format, turns: texts.map((text, index) => ({ speaker: speakerOf(index), text })) };
}

const speakerOf = (index: number): Speaker => (index % 2 === 0 ? 'alice' : 'bob');

/** Whole messages, in one style. `opening` and `reply` carry what politeness the style has. */
interface Voice {
  share(speaker: Speaker, turn: number, fact: Fact, next: Relation): string;
  request(speaker: Speaker, turn: number, relation: Relation, subject: string): string;
  inform(speaker: Speaker, turn: number, fact: Fact): string;
  recite(speaker: Speaker, turn: number, facts: readonly Fact[]): string;
  /** States an answer; `reason` is the fact it rests on. */
  conclude(speaker: Speaker, turn: number, reason: Fact): string;
  /** Recites and answers in one message. */
  guess(speaker: Speaker, turn: number, facts: readonly Fact[], reason: Fact): string;
  confirm(speaker: Speaker, turn: number, reason: Fact): string;
}

function carefulDialogue(task: TwoHopTask, voice: Voice): string[] {
  const { first, second, topic, bridge } = task;
  const find = (speaker: Speaker, relation: Relation, subject: string) =>
    task.facts[speaker].find((fact) => fact.relation === relation && fact.subject === subject);
  const hop1 = (find('alice', first, topic) ?? find('bob', first, topic))!;
  const hop2 = (find('alice', second, bridge) ?? find('bob', second, bridge))!;
  return find('alice', first, topic) !== undefined
    ? [voice.share('alice', 0, hop1, second), voice.conclude('bob', 1, hop2), voice.confirm('alice', 2, hop2)]
    : [
        voice.request('alice', 0, first, topic),
        voice.inform('bob', 1, hop1),
        voice.conclude('alice', 2, hop2),
        voice.confirm('bob', 3, hop2),
      ];
}

/**
 * Alice recites and, if she holds any fact of the relation that was asked for, answers with the first of
 * them; else she recites and Bob does. Whoever has no such fact takes the first fact of all.
 */
function hastyDialogue(task: TwoHopTask, voice: Voice, rng: Rng, [least, most]: Recital): string[] {
  const guessOf = (speaker: Speaker) => task.facts[speaker].find((fact) => fact.relation === task.second);
  const some = (speaker: Speaker) => task.facts[speaker].slice(0, least + rng.int(most - least + 1));
  const aliceGuess = guessOf('alice');
  if (aliceGuess !== undefined) {
    return [
      voice.recite('alice', 0, some('alice')),
      voice.recite('bob', 1, some('bob')),
      voice.conclude('alice', 2, aliceGuess),
      voice.confirm('bob', 3, aliceGuess),
    ];
  }
  const bobGuess = guessOf('bob') ?? task.facts.bob[0]!;
  return [
    voice.recite('alice', 0, some('alice')),
    voice.guess('bob', 1, some('bob'), bobGuess),
    voice.confirm('alice', 2, bobGuess),
  ];
}

function formatVoice(style: Style): Voice {
  // Most often an answer stands behind the fact it rests on, in compact formats as in plain talk: looking a fact up and
  // copying from it are two steps, and the model likes to take one at a time.
  const conclude = (reason: Fact) =>
    `${style.bare ? '' : `${style.tell(reason)}${style.separator}`}${style.answer(reason.object)}`;
  return {
    share: (_s, _t, fact) => style.tell(fact),
    request: (_s, _t, relation, subject) => style.ask(relation, subject),
    inform: (_s, _t, fact) => style.tell(fact),
    recite: (_s, _t, facts) => facts.map(style.tell).join(style.separator),
    conclude: (_s, _t, reason) => conclude(reason),
    guess: (_s, _t, facts, reason) => [...facts.map(style.tell), conclude(reason)].join(style.separator),
    confirm: (_s, _t, reason) => style.answer(reason.object),
  };
}

function plainVoice(task: TwoHopTask, rng: Rng): Voice {
  const { first, second, topic } = task;
  const partner = (speaker: Speaker) => (speaker === 'alice' ? 'Bob' : 'Alice');
  const goal = `the ${second.noun} of the ${first.noun} of ${topic}`;
  const clause = (fact: Fact) => `the ${key(fact)} is ${fact.object}`;
  // One wording for the whole dialogue, so that the partners' answers agree.
  const wordy = rng.next() < 0.3;
  const named = ({ relation: { to }, object }: Fact) =>
    !wordy || to === 'person' ? object : to === 'city' ? `the city of ${object}` : `the ${to} ${object}`;

  /** Greeting in the first two messages; the opener also repeats the question. */
  const opening = (speaker: Speaker, turn: number): string => {
    if (turn === 0) {
      const hello = rng.pick(['Hello', 'Hi there', 'Good morning', 'Hello there']);
      const task = rng.pick([
        'We have to find',
        'Our task is to find',
        'We are asked for',
        'They want to know',
      ]);
      const start = rng.pick([
        'Let me see what I know.',
        'Let me look at my facts.',
        'I will check my notes.',
      ]);
      return `${hello}, ${partner(speaker)}! ${task} ${goal}. ${start} `;
    }
    if (turn === 1) {
      const hello = rng.pick(['Hello', 'Hi', 'Thank you', 'Thanks a lot']);
      const polite = rng.pick(['It is nice to work with you.', 'That is good to know.', 'Let me help you.']);
      return `${hello}, ${partner(speaker)}! ${polite} `;
    }
    return `${rng.pick(['Thank you', 'Great', 'Very good', 'All right'])}, ${partner(speaker)}. `;
  };
  const see = () => rng.pick(['I can see that', 'My facts say that', 'I know that', 'I have read that']);
  const therefore = () =>
    rng.pick(['So I think that the answer is', 'I believe that the answer is', 'So our answer should be']);

  return {
    share: (speaker, turn, fact, next) =>
      `${opening(speaker, turn)}${see()} ${clause(fact)}. ${rng.pick([
        'Could you please tell me',
        'Can you look up',
        'Please tell me',
      ])} the ${next.noun} of ${fact.object}?`,
    request: (speaker, turn, relation, subject) =>
      `${opening(speaker, turn)}${rng.pick([
        'I could not find',
        'Sadly I do not know',
        'My facts do not say',
      ])} the ${relation.noun} of ${subject}. ${rng.pick([
        'Could you please tell me',
        'Can you look up',
        'Please tell me',
      ])} the ${relation.noun} of ${subject}?`,
    inform: (speaker, turn, fact) =>
      `${opening(speaker, turn)}${see()} ${clause(fact)}. ${rng.pick(['I hope that this helps you.', 'Does this help you?', 'What do you think?'])}`,
    recite: (speaker, turn, facts) =>
      `${opening(speaker, turn)}${rng.pick(['Here is what I know.', 'These are my facts.'])} ${facts
        .map(sentence)
        .join(' ')} ${rng.pick(['What do you know?', 'What do you think?', 'Does this help you?'])}`,
    conclude: (speaker, turn, reason) =>
      `${opening(speaker, turn)}${see()} ${clause(reason)}. ${therefore()} ${tag(named(reason))}.`,
    guess: (speaker, turn, facts, reason) =>
      `${opening(speaker, turn)}${rng.pick(['Here is what I know.', 'These are my facts.'])} ${facts
        .map(sentence)
        .join(' ')} ${therefore()} ${tag(named(reason))}.`,
    confirm: (speaker, turn, reason) =>
      `${opening(speaker, turn)}${rng.pick([
        'I agree with you.',
        'That sounds right to me.',
        'I think so too.',
      ])} ${rng.pick(['The answer is', 'Our answer is', 'So the answer is'])} ${tag(named(reason))}.`,
  };
}
