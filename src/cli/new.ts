// `optima new <name>`: writes a commented scenario file that trains as it stands.
import fs from 'node:fs';
import path from 'node:path';
import type { Command } from 'commander';
import { OptimaError } from '../domain/errors.ts';
import { ioError, makeFolder } from '../store/files.ts';
import { jsonOption } from './options.ts';
import { type JsonFlag, withOutput } from './output.ts';

interface NewOptions extends JsonFlag {
  readonly out?: string;
}

export function addNew(program: Command): void {
  program
    .command('new')
    .argument('<name>', 'lower-case words joined by hyphens')
    .description('write a scenario file to begin with')
    .option('--out <file>', 'where to write it (default: scenarios/<name>.ts)')
    .addOption(jsonOption())
    .action((name: string, options: NewOptions) =>
      withOutput(options, async (output) => {
        if (!/^[a-z0-9]+(-[a-z0-9]+)*$/.test(name)) {
          throw new OptimaError('usage', `"${name}" is not a scenario name.`, {
            hint: 'Use lower-case words joined by hyphens, such as split-facts.',
          });
        }
        const file = options.out ?? path.join('scenarios', name + moduleSuffix());
        writeNew(file, scenarioText(name));
        const argument = options.out === undefined ? name : file;
        output.say(`Wrote ${file}. Next:`);
        for (const command of ['check', 'chat', 'train']) output.say(`  npx optima ${command} ${argument}`);
        output.emit({ event: 'summary', scenario: name, file });
      }),
    );
}

/** Never replaces a file. */
function writeNew(file: string, text: string): void {
  makeFolder(path.dirname(file));
  try {
    fs.writeFileSync(file, text, { flag: 'wx' });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') {
      throw new OptimaError('io.write', `${file} exists already.`, { hint: 'Choose another name or --out.' });
    }
    throw ioError('write', file, error);
  }
}

/** Node reads a .ts file as an ES module only where a package.json says so; .mts is one everywhere. */
function moduleSuffix(): '.ts' | '.mts' {
  for (let folder = process.cwd(); ; folder = path.dirname(folder)) {
    const file = path.join(folder, 'package.json');
    if (fs.existsSync(file)) {
      try {
        return JSON.parse(fs.readFileSync(file, 'utf8')).type === 'module' ? '.ts' : '.mts';
      } catch {
        return '.mts'; // Whatever is wrong with that file, this name works beside it.
      }
    }
    if (path.dirname(folder) === folder) return '.mts';
  }
}

const scenarioText = (
  name: string,
) => `// ${name}: Alice knows who leads a city, Bob knows who is married to whom.
// Neither can answer alone. Change the tasks and the views, then: npx optima check ${name}
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

// Names are two words that the embedded model can spell. Each name belongs to one split for good, so that no name of
// a test task was ever trained on: the agents can only read it from what they see.
const words = (text: string) => text.split(' ');
const first = words('Bam Das Fan Gil Gus Hur Kal Kug Lin Meg Nab Nug Pob Rus Teb Tob Vod Wot');
const people = words('Bub Cid Dod Jim Lub Nes Sek Vab Wul Zeg');
const cities = words('Bab Cuk Fil Hok Kad Kus Mor Ped Seb Val');
const namesIn = (split: Split, last: readonly string[]) =>
  first.flatMap((a) => last.map((b) => \`\${a} \${b}\`)).filter((name) => splitOf(name) === split);

// A task is written from a generator of its own: the same seed gives the same tasks.
function makeTask(rng: Rng, split: Split) {
  const person = rng.shuffle(namesIn(split, people));
  const city = rng.shuffle(namesIn(split, cities));
  // The first chain is asked for; the others are there to be mistaken for it.
  const chains = [0, 1, 2].map((i) => ({ city: city[i], mayor: person[i], spouse: person[i + 3]! }));
  return {
    question: \`Who is the spouse of the mayor of \${chains[0]!.city}?\`,
    answer: chains[0]!.spouse,
    left: rng.shuffle(chains.map((chain) => \`The mayor of \${chain.city} is \${chain.mayor}.\`)),
    right: rng.shuffle(chains.map((chain) => \`The spouse of \${chain.mayor} is \${chain.spouse}.\`)),
  };
}

// All that a role is told before the dialogue begins.
const view = (self: string, partner: string, question: string, facts: readonly string[]) =>
  [
    \`You are \${self}, working with \${partner}. Each knows different facts.\`,
    'Share what is needed and end with <A> answer</A>.',
    question,
    ...facts,
  ].join('\\n');

export default defineScenario({
  name: '${name}',
  kind: 'information-exchange', // or 'debate'
  description: 'Alice knows the mayors, Bob knows the couples.',
  tasks: generated(makeTask), // or jsonl('file.jsonl', schema, { base: import.meta.url })
  roles: {
    alice: { sees: (task) => view('Alice', 'Bob', task.question, task.left) },
    bob: { sees: (task) => view('Bob', 'Alice', task.question, task.right) },
  },
  protocol: dialogue({ order: ['alice', 'bob'], maxTurns: 10, until: agreement() }),
  answer: tagged('A'), // an answer is written <A>…</A>
  answers: (task) => [task.answer], // what counts as right, aliases after the first
  metric: f1, // or exactMatch
  reward: { lambdaToken: 0.6, lambdaLoss: 0.1 }, // R = score − λ_token · token share + λ_loss · readability
  formats: compactFormats, // ways of writing that initialization asks for
});
`;
