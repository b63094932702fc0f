// `optima list`: the scenarios that can be named on the command line.
import path from 'node:path';
import type { Command } from 'commander';
import { OptimaError } from '../domain/errors.ts';
import { listScenarios } from '../scenario/load.ts';
import { interruptible } from './interrupt.ts';
import { jsonOption } from './options.ts';
import { type JsonFlag, line, withOutput } from './output.ts';
import { openScenario } from './watch.ts';

export function addList(program: Command): void {
  program
    .command('list')
    .description('list the scenarios of ./scenarios and of this package')
    .addOption(jsonOption())
    .action((options: JsonFlag) =>
      withOutput(options, (output) =>
        interruptible(output, async (signal) => {
          const rows: string[][] = [];
          const found = await listScenarios();
          for (const [name, file] of found) {
            try {
              const { kind, description, variants = {} } = (await openScenario(file, signal)).scenario;
              const names = Object.keys(variants);
              const also = names.map((variant) => `${name}:${variant}`).join(', ');
              rows.push([name, `${kind}: ${description}${also && ` Variants: ${also}.`}`]);
              output.emit({ event: 'scenario', name, kind, description, variants: names, file });
            } catch (error) {
              // One broken file must not hide the others.
              if (!(error instanceof OptimaError) || error.code === 'interrupted') throw error;
              rows.push([name, error.message]);
              output.emit({ event: 'scenario', name, file, error: error.message });
            }
          }
          output.emit({ event: 'summary', scenarios: found.size });
          for (const [name, text] of rows) output.say(`${name!.padEnd(16)}  ${line(text!)}`);
          if (rows.length === 0) {
            output.say(`No scenario in ${path.resolve('scenarios')}. \`optima new <name>\` writes one.`);
          }
        }),
      ),
    );
}
