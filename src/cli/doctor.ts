// `optima doctor <run>`: reads everything of a run and says what is wrong with it, where, and what can be done.
import type { Command } from 'commander';
import { OptimaError } from '../domain/errors.ts';
import { examine } from './examine.ts';
import { jsonOption } from './options.ts';
import { type JsonFlag, line, withOutput } from './output.ts';

export function addDoctor(program: Command): void {
  program
    .command('doctor')
    .argument('<run>', 'folder of a run')
    .description('read everything of a run and say what is wrong with it; changes nothing')
    .addOption(jsonOption())
    .action((folder: string, options: JsonFlag) =>
      withOutput(options, async (output) => {
        const { checked, findings } = await examine(folder, (what) => output.say(`✓ ${line(what)}`));
        for (const { level, problem, advice } of findings) {
          output.emit({ event: 'finding', level, problem, advice });
          output.say(`${level === 'wrong' ? '✗' : '·'} ${line(problem)}`);
          if (advice !== undefined) output.say(`    ${line(advice)}`);
        }
        const wrong = findings.filter(({ level }) => level === 'wrong');
        output.emit({
          event: 'summary',
          wrong: wrong.length,
          remarks: findings.length - wrong.length,
          checked,
        });
        if (wrong.length === 0) output.say('Nothing is wrong with it.');
        else {
          throw new OptimaError(
            'run.corrupt',
            `${folder}: ${wrong.length === 1 ? 'a thing is' : `${wrong.length} things are`} wrong, the first: ${wrong[0]!.problem}`,
            {
              hint: wrong[0]!.advice,
            },
          );
        }
      }),
    );
}
