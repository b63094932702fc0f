// `optima check <scenario>`: a scenario on a page, what is wrong with it, and whether a model speaks it.
import type { Command } from 'commander';
import type { Page, ScoredAnswer } from '../check/page.ts';
import { messageOf, OptimaError } from '../domain/errors.ts';
import { locateModel } from '../run/locate.ts';
import type { Scenario } from '../scenario/types.ts';
import { interruptible } from './interrupt.ts';
import { frozenNames, openEngine, openModel, openPolicy } from './model.ts';
import { type Backend, backendOption, jsonOption, judgeOption, modelOption, seedOption } from './options.ts';
import { counted, formatTable, type JsonFlag, line, type Output, quoted, withOutput } from './output.ts';
import { openScenario, reopenScenario } from './watch.ts';

interface CheckOptions extends JsonFlag {
  readonly seed: number;
  readonly model?: string;
  readonly judge?: string;
  readonly backend?: Backend;
}

export function addCheck(program: Command): void {
  program
    .command('check')
    .argument('<scenario>', 'name or file of a scenario')
    .description('explain a scenario in a page, report what is wrong, let a model play a handful of tasks')
    .addOption(seedOption(1))
    .addOption(modelOption())
    .addOption(judgeOption())
    .addOption(backendOption())
    .addOption(jsonOption())
    .action((name: string, options: CheckOptions) =>
      withOutput(options, (output) =>
        interruptible(output, (signal) => checkNamed(name, options, output, signal)),
      ),
    );
}

async function checkNamed(name: string, options: CheckOptions, output: Output, signal: AbortSignal) {
  const { seed, backend } = options;
  const model = await locateModel(options.model, '--model');
  const loaded = await openScenario(name, signal);
  const { scenario, file } = loaded;
  const { checkScenario } = await import('../check/check.ts');
  if (options.judge !== undefined) await frozenNames(scenario, options);
  await openEngine({ backend }, output);
  const judge = options.judge === undefined ? null : await openModel({ model: options.judge });
  const findings = [...(await checkScenario(scenario, seed, judge?.generates))];
  if (!findings.some(({ severity }) => severity === 'error')) {
    const { checkReload } = await import('../check/tasks.ts');
    const message = await checkReload(scenario, (await reopenScenario(loaded)).scenario, seed);
    if (message !== null) findings.push({ severity: 'error', check: 'tasks', message });
  }
  const errors = findings.filter(({ severity }) => severity === 'error').length;
  // What cannot be dealt cannot be shown; what is wrong otherwise may be plain to see.
  if (!findings.some(({ severity, check }) => severity === 'error' && check === 'tasks')) {
    const { policy: base } = await openPolicy({ model }, 'tokenizer to count tokens with');
    const { describeScenario } = await import('../check/page.ts');
    const countTokens = (text: string) => base.tokenizer.encode(text).length;
    try {
      const page = await describeScenario(scenario, seed, countTokens, judge?.generates);
      sayPage(page, scenario, output);
      output.emit({ event: 'page', ...page });
    } catch (thrown) {
      if (errors === 0) throw thrown;
      output.say(`The scenario cannot be laid out: ${messageOf(thrown)}.`);
    }
    if (errors === 0 && (scenario.judge === undefined || judge !== null)) {
      const { adviceFor, sayProbe, unreadyMessage } = await import('./look.ts');
      const { whyUnready } = await import('../check/probe.ts');
      const judges = judge === null ? [] : [judge.generates];
      const probe = await sayProbe({ scenario, models: [base], judges, seed, signal }, output);
      const why = whyUnready(probe);
      const team = { scenario, name, model, base };
      if (why !== null) {
        const message = `${unreadyMessage(team, why, probe)} ${await adviceFor(team, probe)}`;
        findings.push({ severity: 'warning', check: 'model', message });
      }
    }
    base.dispose();
    output.say();
  }
  judge?.dispose();
  for (const { severity, check, message } of findings) {
    output.say(`${severity}: ${check}: ${line(message)}`);
    output.emit({ event: 'finding', severity, check, message });
  }
  const warnings = findings.length - errors;
  output.emit({ event: 'summary', scenario: scenario.name, file, errors, warnings });
  if (errors > 0) {
    throw new OptimaError('scenario.invalid', `Scenario "${scenario.name}" has ${counted(errors, 'error')}.`);
  }
  output.say(`${scenario.name}: no errors, ${counted(warnings, 'warning')}.`);
}

function sayPage(page: Page, { name, kind, description, metric }: Scenario, output: Output): void {
  const { taskId, roles, parts, opening, order, maxTurns, shortest, answers, demonstrated, tokens } = page;
  output.say(`\n${name} (${kind}): ${description}`);
  output.say(`\nTask ${taskId}, as each role is told it; › marks what no other role is told.`);
  for (const { role, name, tokens, lines } of roles) {
    output.say(`\n${role}${name === null ? '' : `, called ${name}`} (${tokens} tokens)`);
    for (const { text, isPrivate } of lines) output.say(`${isPrivate ? '  › ' : '    '}${quoted(text)}`);
  }
  for (const text of opening) output.say(`\nThe environment opens: ${quoted(text)}`);
  const rows = parts.map(({ path, texts, seenBy }) => {
    const seen = Object.entries(seenBy).map(([role, n]) =>
      n === texts.length ? role : `${role} (${n} of ${texts.length})`,
    );
    return [`  ${path}`, seen.join(', ') || 'hidden', cut(texts.join(' · '))];
  });
  output.say(`\nWhat the task holds, and who is told it\n${formatTable(rows, 'left')}`);
  output.say(`\nSpeakers: ${order.join(', ')}; at most ${maxTurns} turns`);
  output.say(
    shortest === null
      ? 'No answer is right beforehand: the metric scores the dialogue.'
      : `A team that says nothing but the right answer ends after ${shortest.turns} (${shortest.outcome}).`,
  );
  const scored = answers.map(answerRow(metric.name));
  if (scored.length > 0) {
    output.say(`\nWhat the scorer says to a team that says nothing but\n${formatTable(scored, 'left')}`);
  }
  if (demonstrated !== null) {
    const { n, score, right, agreed, seats } = demonstrated;
    const each = Object.entries(seats ?? {}).map(([role, mean]) => `, ${role} ${mean.toFixed(2)}`);
    output.say(
      `\n${counted(n, 'demonstration')}: ${metric.name} ${score.toFixed(2)}${each.join('')}; ${percent(right)} right, ${percent(agreed)} agreed.`,
    );
  }
  const costs = [
    ...(tokens.shortest === null ? [] : [`${tokens.shortest} for the right answer alone`]),
    ...(tokens.demonstrated === null ? [] : [`${Math.round(tokens.demonstrated)} as it is demonstrated`]),
    `${tokens.longest} if every message runs into its cap of ${tokens.maxMessageTokens}, and a role then reads ${tokens.context}`,
  ];
  output.say(`\nTokens of a dialogue: ${costs.join(', ')}.\n`);
}

const answerRow =
  (metric: string) =>
  ({ what, message, read, score, exactMatch, outcome, failure }: ScoredAnswer): string[] => [
    `  ${what}`,
    cut(message),
    read === null ? 'read as none' : `read as ${JSON.stringify(read)}`,
    score === null
      ? `failed: ${failure}`
      : `${metric} ${score.toFixed(2)}, ${exactMatch ? 'right' : 'not right'}`,
    outcome,
  ];

const cut = (text: string) => (text.length > 60 ? `${text.slice(0, 57)}…` : text || '(empty)');

const percent = (share: number) => `${Math.round(100 * share)} %`;
