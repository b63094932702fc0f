// `optima new <name>`: writes a commented scenario file of a kind to begin with.
import fs from 'node:fs';
import path from 'node:path';
import { type Command, Option } from 'commander';
import { OptimaError } from '../domain/errors.ts';
import { shippedModel } from '../run/locate.ts';
import { isModuleFolder } from '../scenario/load.ts';
import { ioError, makeFolder } from '../store/files.ts';
import { jsonOption, oneOf, packageFolder } from './options.ts';
import { type JsonFlag, withOutput } from './output.ts';

/** What there is a draft of, in templates/. */
const kinds = ['information-exchange', 'debate', 'tools', 'team'] as const;
type Kind = (typeof kinds)[number];

interface NewOptions extends JsonFlag {
  readonly kind: Kind;
  readonly out?: string;
}

export function addNew(program: Command): void {
  program
    .command('new')
    .argument('<name>', 'lower-case words joined by hyphens')
    .description('write a scenario file to begin with')
    .addOption(
      new Option('--kind <kind>', `what kind of scenario: ${kinds.join(', ')}`)
        .argParser(oneOf('--kind', kinds))
        .default(kinds[0]),
    )
    .option(
      '--out <file>',
      'where to write it (default: scenarios/<name>.ts, .mts where package.json has no "type": "module")',
    )
    .addOption(jsonOption())
    .action((name: string, options: NewOptions) =>
      withOutput(options, async (output) => {
        if (!/^[a-z0-9]+(-[a-z0-9]+)*$/.test(name)) {
          throw new OptimaError('usage', `"${name}" is not a scenario name.`, {
            hint: 'Use lower-case words joined by hyphens, such as split-facts.',
          });
        }
        // A .mts file is a module everywhere.
        const suffix = isModuleFolder(path.resolve('scenarios')) ? '.ts' : '.mts';
        const file = options.out ?? path.join('scenarios', name + suffix);
        writeNew(file, draftOf(options.kind, name));
        const argument = options.out === undefined ? name : file;
        output.say(`Wrote ${file}. Next:`);
        // The other kinds are nothing that the shipped model has ever heard.
        const isSpoken = options.kind === 'information-exchange';
        const model = `models/${name}`;
        const commands = isSpoken
          ? [`check ${argument}`, `train ${argument}`]
          : [
              `check ${argument}`,
              ...(options.kind === 'team' ? learnDigits : []),
              `warmup ${argument} ${options.kind === 'team' ? afterDigits : `--from ${shippedModel}`} --out ${model}`,
              `train ${argument} --model ${model}`,
            ];
        for (const command of commands) output.say(`  npx optima ${command}`);
        output.emit({ event: 'summary', scenario: name, kind: options.kind, file, next: commands });
      }),
    );
}

/**
 * A team's words are few beside its numbers, which the shipped model cannot copy: it has read no digit, and learns none there
 * (docs/scenario-authoring.md). In a debate on sums it does, and then needs few steps.
 */
const learnDigits = ['new digits --kind debate', `warmup digits --from ${shippedModel} --out models/digits`];
const afterDigits = '--from models/digits --steps 300';

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

/** The draft of a kind, under another name: a scenario of the package's own, checked with everything else. */
function draftOf(kind: Kind, name: string): string {
  const text = fs.readFileSync(path.join(packageFolder, 'templates', `${kind}.ts`), 'utf8');
  return text
    .replace(/^\/\/ [\w-]+:/u, `// ${name}:`)
    .replace(/^ {2}name: '[\w-]+',$/mu, `  name: '${name}',`);
}
