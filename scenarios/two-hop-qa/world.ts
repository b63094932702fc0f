// The world of two-hop-qa and pages-qa: invented people, films, books and cities, the facts about them, and the tasks.
// Names are two invented words and belong to one split for good, so that a name met in the test split was
// never seen in training: an agent can only read it from its prompt.
import { type Rng, type Split, splitOf } from 'optima-actors';

export type Kind = 'person' | 'film' | 'book' | 'city';

export interface Relation {
  /** As in "the director of Kel Dax". */
  readonly noun: string;
  readonly from: Kind;
  readonly to: Kind;
}

/** One fact: "The director of Kel Dax is Mir Fos." */
export interface Fact {
  readonly relation: Relation;
  readonly subject: string;
  readonly object: string;
}

export interface TwoHopTask {
  readonly question: string;
  /** The answer and its aliases, the plain name first. */
  readonly answers: readonly string[];
  /** Facts as Alice and Bob read them, in their order. */
  readonly left: readonly string[];
  readonly right: readonly string[];
  /** What the demonstrator needs to know of the task; agents never see it. */
  readonly first: Relation;
  readonly second: Relation;
  readonly topic: string;
  readonly bridge: string;
  readonly facts: { readonly alice: readonly Fact[]; readonly bob: readonly Fact[] };
}

const words = (text: string): readonly string[] => text.trim().split(/\s+/);
const relation = (noun: string, from: Kind, to: Kind): Relation => ({ noun, from, to });

export const relations: readonly Relation[] = [
  relation('director', 'film', 'person'),
  relation('star', 'film', 'person'),
  relation('location', 'film', 'city'),
  relation('author', 'book', 'person'),
  relation('editor', 'book', 'person'),
  relation('setting', 'book', 'city'),
  relation('birthplace', 'person', 'city'),
  relation('home', 'person', 'city'),
  relation('mentor', 'person', 'person'),
  relation('spouse', 'person', 'person'),
  relation('favourite film', 'person', 'film'),
  relation('favourite book', 'person', 'book'),
  relation('mayor', 'city', 'person'),
  relation('founder', 'city', 'person'),
];

/** The relations in two halves that share no word: what a team learnt of one can be tried on the other. */
const rareNouns = ['star', 'editor', 'home', 'mentor', 'founder'];
export const rareRelations = relations.filter(({ noun }) => rareNouns.includes(noun));
export const commonRelations = relations.filter((each) => !rareRelations.includes(each));

const firstWords = words(`
  Bam Bir Buk Bul Cen Cir Cit Cor Das Dek Dib Dit Dun Dur Dus Dut Fan Fes Fet Fib Fis Fon Ged Gib Gil
  Gin Gir Gis Gon Gud Guk Gul Gus Hal Hek Hob Hon Hud Huk Hum Hur Jeb Jek Jir Jos Juk Jur Kak Kal Keg
  Ken Ket Kis Kob Kod Kon Kug Kul Kur Kut Leb Lel Lem Lim Lin Lok Lom Lor Lug Lum Mag Med Meg Mes Mib
  Min Mis Mok Mub Mul Nab Nar Ned Nek Nin Nit Nok Non Nug Pab Pak Peb Pek Pel Pid Pik Pob Pol Pom Pug
  Pul Ran Reb Rik Rus Sar Sil Som Sor Sos Sud Tak Teb Tem Ter Tes Tet Tid Tig Tir Tob Tog Tos Tuk Var
  Ved Ver Vir Vod Vor Vug Wab Wel Wim Wir Wom Wot Wub Wuk Wur Zal Zan Zat Zed Zib Zog Zol Zos Zub Zur
`);
const lastWords: Record<Kind, readonly string[]> = {
  person: words(`
    Bub Bur Cak Ceg Cid Cug Cul Dis Dod Gal Gok Hed Jim Kos Len Lib Lub Mol Mon Mot
    Nes Nid Rir Rur Sek Sol Tal Tut Vab Vig Vud Wog Wul Wun Zad Zas Zeg Zer Zud Zuk
  `),
  film: words(`
    Bas Bod Cal Cam Cik Deg Fel Fod Fok Fot Fud Geb Ges Gid Jas Jed Jeg Kok Mak Mas
    Mil Nas Ner Nuk Pal Pog Ral Ror San Sel Sig Tik Vog Wem Wis Zag Zes Zis Zod Zom
  `),
  book: words(`
    Bis Cob Dan Det Dom Fug Geg Gug Hab Hil Jad Jel Jes Jod Jud Kar Kek Kir Lut Mem
    Mun Mur Nur Pem Pum Res Rit Rul Sab Sed Tud Vad Ves Vik Vok Web Wug Wum Zek Zul
  `),
  city: words(`
    Bab Bes Bon Cig Cuk Dir Fak Fas Fil Fom Hak Hat Hok Jam Jor Kab Kad Kag Kom Kum
    Kus Mel Mik Mog Mor Neb Nis Pam Ped Pes Pib Ril Seb Sim Sir Tul Val Von Vus Zar
  `),
};

const aliases: Record<Kind, (name: string) => readonly string[]> = {
  person: (name) => [name],
  film: (name) => [name, `film ${name}`],
  book: (name) => [name, `book ${name}`],
  city: (name) => [name, `city of ${name}`, `${name} City`],
};

/** "The director of Kel Dax is Mir Fos." */
export const sentence = ({ relation: { noun }, subject, object }: Fact) =>
  `The ${noun} of ${subject} is ${object}.`;

/** What the tasks of a scenario are drawn from. */
export interface World {
  /** Facts of a task, both agents' together. */
  readonly facts: readonly [least: number, most: number];
  readonly relations: readonly Relation[];
}

/** A task of the world: two facts that answer the question, look-alikes that do not, and unrelated ones. */
export function makeTask(
  { facts: [least, most], relations: known }: World,
  rng: Rng,
  split: Split,
): TwoHopTask {
  const names = nameSource(rng.split('names'), split);
  const first = rng.pick(known.filter(({ to }) => known.some(({ from }) => from === to)));
  const second = rng.pick(known.filter((next) => next.from === first.to));
  const topic = names(first.from);
  const bridge = names(first.to);
  const answer = names(second.to);
  const support = [
    { relation: first, subject: topic, object: bridge },
    { relation: second, subject: bridge, object: answer },
  ] as const;

  const total = least + rng.int(most - least + 1);
  const distractors: Fact[] = [];
  for (let chain = 0; chain < 2; chain++) {
    // A look-alike chain: the same two relations about others.
    const subject = names(first.from);
    const object = names(first.to);
    if (chain === 0) distractors.push({ relation: first, subject, object });
    distractors.push({ relation: second, subject: object, object: names(second.to) });
  }
  while (distractors.length < total - 2) {
    const other = rng.pick(known.filter((candidate) => candidate !== first && candidate !== second));
    distractors.push({ relation: other, subject: names(other.from), object: names(other.to) });
  }

  // The two that answer go to different agents; the rest is dealt at random, evenly.
  const aliceFirst = rng.next() < 0.5;
  const hands: { alice: Fact[]; bob: Fact[] } = {
    alice: [support[aliceFirst ? 0 : 1]],
    bob: [support[aliceFirst ? 1 : 0]],
  };
  for (const [index, fact] of rng.shuffle(distractors).entries()) {
    hands[index % 2 === 0 ? 'alice' : 'bob'].push(fact);
  }
  const facts = { alice: rng.shuffle(hands.alice), bob: rng.shuffle(hands.bob) };
  return {
    question: ask(rng, first, second, topic),
    answers: aliases[second.to](answer),
    left: facts.alice.map(sentence),
    right: facts.bob.map(sentence),
    first,
    second,
    topic,
    bridge,
    facts,
  };
}

function ask(rng: Rng, first: Relation, second: Relation, topic: string): string {
  const chain = `the ${second.noun} of the ${first.noun} of ${topic}`;
  const word = { person: 'Who', film: 'Which film', book: 'Which book', city: 'Which city' }[second.to];
  return rng.pick([
    `${word} is ${chain}?`,
    `What is ${chain}?`,
    `Name ${chain}.`,
    `Find the ${first.noun} of ${topic}. Name the ${second.noun} of that ${first.to}.`,
  ]);
}

/** Names of one split; within a task no two begin with the same word. */
function nameSource(rng: Rng, split: Split): (kind: Kind) => string {
  const used = new Set<string>();
  return (kind) => {
    for (;;) {
      const first = rng.pick(firstWords);
      const name = `${first} ${rng.pick(lastWords[kind])}`;
      if (used.has(first) || splitOf(name) !== split) continue;
      used.add(first);
      return name;
    }
  };
}
