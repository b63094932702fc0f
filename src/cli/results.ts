// `optima results <run…>`: writes the results document from run folders.
import path from 'node:path';
import type { Command } from 'commander';
import { makeFolder, writeFileAtomic } from '../store/files.ts';
import { jsonOption } from './options.ts';
import { type JsonFlag, withOutput } from './output.ts';
import { readResult, resultsDocument } from './results-document.ts';

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
        makeFolder(path.dirname(options.out));
        writeFileAtomic(options.out, resultsDocument(results, command));
        output.say(`Wrote ${options.out} from ${runs.length} runs.`);
        output.emit({ event: 'summary', out: options.out, runs: runs.length });
      }),
    );
}
