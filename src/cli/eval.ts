// `optima eval <scenario>`: how well a team does with one model in every role, or with a run's for each, and at what cost.
import type { Command } from 'commander';
import { cleaningUp } from '../domain/errors.ts';
import { createRng } from '../domain/rng.ts';
import { presetRecipe } from '../recipe/presets.ts';
import { machinePolicy } from '../run/figures.ts';
import { modelsFrom, openFrozen, speakersFrom } from '../run/frozen.ts';
import { foldersFor, locateTeam } from '../run/locate.ts';
import { messageCap, type Split, trainedRoles } from '../scenario/types.ts';
import { type PolicyHost, sourceOfPolicy } from '../workers/host.ts';
import { interruptible } from './interrupt.ts';
import { frozenHashes, frozenNames, hashesOf, openEngines, openModel, openPartners } from './model.ts';
import {
  type Backend,
  backendOption,
  jsonOption,
  judgeOption,
  modelOption,
  policyOption,
  seedOption,
  splitOption,
  wholeNumber,
  workersOption,
} from './options.ts';
import { withOutput } from './output.ts';
import { sayMetrics, sayTranscripts, summaryMetrics } from './report.ts';
import { openScenario } from './watch.ts';

interface EvalOptions {
  readonly split: Split;
  readonly tasks: number;
  readonly maxTokens?: number;
  readonly show: number;
  readonly seed: number;
  readonly model?: string;
  readonly policy?: readonly string[];
  readonly judge?: string;
  readonly backend?: Backend;
  readonly workers?: number;
  readonly json?: boolean;
}

export function addEval(program: Command): void {
  const defaults = presetRecipe('quick');
  program
    .command('eval')
    .argument('<scenario>', 'name or file of a scenario')
    .description('evaluate a model in every role of a scenario, at temperature 0')
    .addOption(splitOption())
    .option('--tasks <n>', 'tasks, the first ones of the split', wholeNumber('--tasks', 1), 100)
    .option(
      '--max-tokens <n>',
      "cap on one message (default: the scenario's)",
      wholeNumber('--max-tokens', 1),
    )
    .option('--show <n>', 'dialogues to print', wholeNumber('--show', 0), 3)
    .addOption(seedOption(defaults.seed))
    .addOption(modelOption())
    .addOption(policyOption())
    .addOption(judgeOption())
    .addOption(backendOption())
    .addOption(workersOption())
    .addOption(jsonOption())
    .action((name: string, options: EvalOptions) =>
      withOutput(options, (output) =>
        interruptible(output, async (signal) => {
          const located = await locateTeam(options.model, '--model');
          const { scenario } = await openScenario(name, signal);
          const names = await frozenNames(scenario, options);
          const [folder, byRole] = foldersFor(scenario, located, Object.keys(names.partners));
          const { startHost } = await openEngines(options, output);
          const model = await openModel({ model: folder });
          const { generates, trains } = model;
          let host: PolicyHost | undefined;
          const evaluate = async () => {
            const tokenizer = trains?.policy.tokenizer;
            const team = await openPartners(byRole);
            const partners = await openPartners(names.partners);
            const judge = names.judge === undefined ? null : await openFrozen(names.judge);
            host = await startHost(trains?.policy ?? null);
            const own = trains === null ? generates : sourceOfPolicy(trains.policy, trains.folder);
            const { evaluateTeam } = await import('../rollouts/evaluate.ts');
            const { metrics, trajectories } = await evaluateTeam({
              phase: 'eval',
              scenario,
              models: await speakersFrom(scenario, own, { ...team, ...partners }, host),
              evaluated: trainedRoles(scenario).filter((role) => !Object.hasOwn(partners, role)),
              judges: judge === null ? undefined : await modelsFrom(judge.model, host),
              split: options.split,
              count: options.tasks,
              maxMessageTokens: messageCap(scenario, options.maxTokens ?? null),
              concurrency: defaults.concurrency,
              rng: createRng(options.seed),
              ...(tokenizer && { countTokens: (text: string) => tokenizer.encode(text).length }),
              progress: output.progress,
              signal,
            });
            sayMetrics(metrics, scenario, output);
            sayTranscripts(trajectories.slice(0, options.show), output);
            output.emit({
              event: 'summary',
              scenario: scenario.name,
              split: options.split,
              seed: options.seed,
              ...summaryMetrics(metrics),
              failed: metrics.failed,
              ...(metrics.refused !== undefined && { refused: metrics.refused }),
              seconds: Math.round(process.uptime()),
              policy: Object.keys(team).length === 0 ? generates.hash : machinePolicy(hashesOf(team)),
              ...frozenHashes(partners, judge),
            });
          };
          await cleaningUp(evaluate, () => host?.stop(), model.dispose);
        }),
      ),
    );
}
