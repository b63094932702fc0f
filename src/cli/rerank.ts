// `optima rerank <run>`: what a run would have chosen under other numbers, from its log.
import type { Command } from 'commander';
import { OptimaError } from '../domain/errors.ts';
import type { TaskId } from '../domain/ids.ts';
import { createRng } from '../domain/rng.ts';
import type { RunReader } from '../reading/index.ts';
import type {
  Both,
  PairDetail,
  RerankedChoice,
  RerankedDialogue,
  TaskDetail,
} from '../reading/rerank/index.ts';
import { withoutTraining } from '../scenario/types.ts';

import { readManifest } from '../store/manifest.ts';
import { interruptible } from './interrupt.ts';
import { collect, jsonOption } from './options.ts';
import { formatTable, type JsonFlag, line, type Output, withOutput } from './output.ts';
import { notInRun, withReader } from './reader.ts';
import { recipeOf, reopenRun } from './reopen.ts';

interface RerankOptions extends JsonFlag {
  readonly set?: readonly string[];
  readonly task?: string;
}

export function addRerank(program: Command): void {
  program
    .command('rerank')
    .argument('<run>', 'folder of a run')
    .description('show what a run would have chosen under other numbers, from its log and without a model')
    .option('--set <key=value,…>', "change numbers of the run's recipe; may be repeated", collect)
    .option('--task <id>', 'show one task before and after, such as train-00012')
    .addOption(jsonOption())
    .action((folder: string, options: RerankOptions) =>
      withOutput(options, (output) =>
        interruptible(output, (signal) =>
          withReader(folder, output, (reader) => rerank(reader, options, output, signal), signal),
        ),
      ),
    );
}

async function rerank(
  reader: RunReader,
  { set = [], task }: RerankOptions,
  output: Output,
  signal: AbortSignal,
) {
  const { changesBetween, rerankedLog, rerankRecipe, rerankRun } = await import('../reading/rerank/index.ts');
  const { choicesIn, planRun } = await import('../run/plan.ts');
  const { answersIn } = await import('../run/phases/context.ts');
  const { requireSameTasks } = await import('../run/tasks.ts');
  const { folder } = reader;
  const manifest = reader.manifest ?? readManifest(folder);
  const before = recipeOf(manifest, folder);
  const after = rerankRecipe(before, set);
  if (task !== undefined && reader.trees({ taskId: task }).next().done === true)
    throw notInRun(reader, 'task', task);
  const { loaded } = await reopenRun(folder, manifest, signal);
  await requireSameTasks(loaded.scenario, before, manifest.scenario.tasks);
  const scenario = withoutTraining(loaded.scenario, Object.keys(manifest.partners ?? {}));
  const plan = planRun(after, scenario);
  const changes = changesBetween(before, after);
  const { lambdaToken, lambdaLoss } = scenario.reward;
  const own: Readonly<Record<string, number>> = {
    'reward.lambdaToken': lambdaToken,
    'reward.lambdaLoss': lambdaLoss,
  };
  for (const { key, ...both } of changes) {
    const shown = (value: unknown) => (value === null ? `${own[key]} (the scenario's)` : String(value));
    output.say(`${key}: ${shown(both.before)} → ${shown(both.after)}`);
  }
  output.emit({ event: 'run', run: folder, scenario: scenario.name, changes });
  const choices: RerankedChoice[] = [];
  const taskId = task as TaskId | undefined;
  const rng = createRng(before.seed);
  for await (const choice of rerankRun({
    ...{ run: rerankedLog(reader), recipe: { before, after }, scenario, task: taskId },
    choices: choicesIn(plan),
    answersIn: (search) => answersIn({ scenario, plan, rng }, search),
  })) {
    choices.push(choice);
    emitChoice(choice, output);
    if (signal.aborted) throw new OptimaError('interrupted', 'The ranking was interrupted.');
  }
  if (choices.length === 0) {
    throw new OptimaError('run.missing', `${folder}: the run has ranked nothing yet.`, {
      hint: `Go on with it: optima train --resume ${folder}`,
    });
  }
  if (task !== undefined) sayTask(task, choices, output);
  else sayChoices(choices, output);
  output.emit({
    event: 'summary',
    ranked: choices.reduce((sum, { ranked }) => sum + ranked, 0),
    changed: choices.reduce((sum, { changed }) => sum + changed, 0),
    flips: choices.reduce((sum, { flips }) => sum + flips.length, 0),
  });
}

function emitChoice({ flips, task, ...choice }: RerankedChoice, output: Output): void {
  output.emit({ event: 'choice', ...choice, flips: flips.length });
  for (const flip of flips) output.emit({ event: 'flip', phase: choice.phase, ...flip });
  if (task !== null) output.emit({ event: 'task', phase: choice.phase, ...task });
}

function sayChoices(choices: readonly RerankedChoice[], output: Output): void {
  const rows = choices.map(({ phase, kind, ranked, changed, meanReward, kept, flips }) => {
    const of = (change: string) =>
      String(flips.filter((flip) => ('pair' in flip ? flip.pair : flip.chosen) === change).length);
    return [
      phase,
      String(ranked),
      String(changed),
      arrow(meanReward, (value) => value.toFixed(3)),
      `${arrow(kept, String)} ${kind === 'pair' ? 'pairs' : 'dialogues'}`,
      of('gained'),
      of('lost'),
      kind === 'pair' ? of('turned') : '',
    ];
  });
  const head = ['choice', 'ranked', 'new reward', 'mean reward', 'chosen', 'gained', 'lost', 'turned'];
  output.say(`\n${formatTable([head, ...rows])}`);
  for (const { phase, dropped } of choices) {
    const reasons = [...new Set([...Object.keys(dropped.before), ...Object.keys(dropped.after)])];
    const words = reasons.map(
      (reason) =>
        `${reason} ${arrow({ before: dropped.before[reason] ?? 0, after: dropped.after[reason] ?? 0 }, String)}`,
    );
    output.say(`not chosen in ${phase}: ${words.join(', ')}`);
  }
  output.say(
    '\nEach choice stands by itself: what later iterations said came of the choices that the run made. Searched trees keep their branches.',
  );
}

const arrow = <T>({ before, after }: Both<T>, shown: (value: T) => string): string =>
  before === after ? shown(before) : `${shown(before)} → ${shown(after)}`;

function sayTask(task: string, choices: readonly RerankedChoice[], output: Output): void {
  const found = choices.filter((choice) => choice.task !== null);
  if (found.length === 0) output.say(`\n${task}: nothing of it was ranked.`);
  for (const { phase, task: detail } of found) {
    output.say(`\n${phase}, ${task}\n${dialogueTable(detail!)}`);
    for (const pair of detail!.pairs) output.say(pairInWords(pair));
  }
}

const figure = (value: number | null | undefined): string => value?.toFixed(3) ?? '–';

function dialogueTable({ dialogues }: TaskDetail): string {
  const inWords = ({ before, after, kept }: RerankedDialogue): string[] => {
    const { terms } = before;
    const chosen = [kept.before, kept.after].map((roles) =>
      roles.length === 0 ? '' : roles.includes('all') ? 'yes' : roles.join(' '),
    );
    return [
      before.dialogueId.slice(before.dialogueId.lastIndexOf(before.taskId) + before.taskId.length + 1),
      figure(terms?.task),
      figure(after.terms?.tokenShare),
      figure(after.terms?.loss),
      arrow({ before: figure(before.reward), after: figure(after.reward) }, String),
      chosen[0] === chosen[1] ? chosen[0]! : `${chosen[0] || 'no'} → ${chosen[1] || 'no'}`,
      [...before.edgeCases, ...(before.failure === null ? [] : ['failed'])].join(' '),
    ];
  };
  const head = ['dialogue', 'score', 'token share', 'R_loss', 'reward', 'trained on', 'cases'];
  return formatTable([head, ...dialogues.map(inWords)]);
}

function pairInWords({ parent, chosen, rejected, speaker, texts, before, after }: PairDetail): string {
  const worth = (side: PairDetail['before']) =>
    side === null ? 'no pair' : `value ${figure(side.value)}, ${figure(side.gap)} above the other`;
  return [
    `pair after ${line(parent)}, by ${line(speaker)}: ${arrow({ before: worth(before), after: worth(after) }, String)}`,
    `  better ${chosen}: ${line(texts.chosen)}`,
    `  worse  ${rejected}: ${line(texts.rejected)}`,
  ].join('\n');
}
