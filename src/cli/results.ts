// `optima results <run…>`: writes the results document from run folders.
import path from 'node:path';
import type { Command } from 'commander';
import { mkdirSync } from 'node:fs';
import { ioError, writeFileAtomic } from '../run/files.ts';
import { readResult, resultsDocument } from '../run/results.ts';
import { jsonOption } from './options.ts';
import { type JsonFlag, withOutput } from './output.ts';

interface ResultsOptions extends JsonFlag {
  readonly out: string;
}

export function addResults(program: Command): void {
  program
    .command('results')
    .argument('<run...>', 'folders of completed runs')
    .description('write the results document from run folders')
    .option('--out <file>', 'where to write it', 'docs/results.md')
    .addOption(jsonOption())
    .action((runs: string[], options: ResultsOptions) =>
      withOutput(options, async (output) => {
        const results = runs.map(readResult);
        const command = ['npx optima results', ...runs, '--out', options.out].join(' ');
        try {
          mkdirSync(path.dirname(options.out), { recursive: true });
        } catch (error) {
          throw ioError('write', options.out, error);
        }
        writeFileAtomic(options.out, resultsDocument(results, command));
        output.say(`Wrote ${options.out} from ${runs.length} runs.`);
        output.emit({ event: 'summary', out: options.out, runs: runs.length });
      }),
    );
}
