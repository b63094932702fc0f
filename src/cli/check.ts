// `optima check <scenario>`: what is wrong with a scenario, before any model meets it.
import type { Command } from 'commander';
import { OptimaError } from '../domain/errors.ts';
import { loadScenario } from '../scenario/load.ts';
import type { Scenario } from '../scenario/types.ts';
import { frozenNames, openEngine, openModel } from './model.ts';
import { type Backend, backendOption, jsonOption, judgeOption, seedOption } from './options.ts';
import { type JsonFlag, type Output, withOutput } from './output.ts';

interface CheckOptions extends JsonFlag {
  readonly seed: number;
  readonly judge?: string;
  readonly backend?: Backend;
}

export function addCheck(program: Command): void {
  program
    .command('check')
    .argument('<scenario>', 'name or file of a scenario')
    .description('deal ten tasks, play scripted dialogues, report what is wrong')
    .addOption(seedOption(1))
    .addOption(judgeOption())
    .addOption(backendOption())
    .addOption(jsonOption())
    .action((name: string, options: CheckOptions) =>
      withOutput(options, async (output) => {
        const { scenario, file } = await loadScenario(name);
        const { checkScenario } = await import('../check/check.ts');
        const judge = await openJudge(scenario, options, output);
        const findings = await checkScenario(scenario, options.seed, judge?.generates);
        judge?.dispose();
        for (const { severity, check, message } of findings) {
          output.say(`${severity}: ${check}: ${message}`);
          output.emit({ event: 'finding', severity, check, message });
        }
        const errors = findings.filter(({ severity }) => severity === 'error').length;
        const warnings = findings.length - errors;
        output.emit({ event: 'summary', scenario: scenario.name, file, errors, warnings });
        if (errors > 0) {
          throw new OptimaError(
            'scenario.invalid',
            `Scenario "${scenario.name}" has ${count(errors, 'error')}.`,
          );
        }
        output.say(`${scenario.name}: no errors, ${count(warnings, 'warning')}.`);
      }),
    );
}

/** The judge that is named; null where none is. */
async function openJudge(scenario: Scenario, { judge, backend }: CheckOptions, output: Output) {
  if (judge === undefined) return null;
  frozenNames(scenario, { judge });
  await openEngine(backend === undefined ? {} : { backend }, output);
  return openModel({ model: judge });
}

const count = (n: number, noun: string) => `${n} ${noun}${n === 1 ? '' : 's'}`;
