// `optima check <scenario>`: a scenario on a page, what is wrong with it, and whether a model speaks it.
import type { Command } from 'commander';
import type { Page, ScoredAnswer } from '../check/page.ts';
import { messageOf, OptimaError } from '../domain/errors.ts';
import type { Scenario } from '../scenario/types.ts';
import { interruptible } from './interrupt.ts';
import { frozenNames, locateModel, openEngine, openModel, openPolicy } from './model.ts';
import { type Backend, backendOption, jsonOption, judgeOption, modelOption, seedOption } from './options.ts';
import { type JsonFlag, type Output, withOutput } from './output.ts';
import { printable } from './report.ts';
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
  const model = locateModel(options.model);
  const loaded = await openScenario(name);
  const { scenario, file } = loaded;
  const { checkScenario } = await import('../check/check.ts');
  const judge = await openJudge(scenario, options, output);
  const findings = [...(await checkScenario(scenario, seed, judge?.generates))];
  if (!findings.some(({ severity }) => severity === 'error')) {
    const { checkReload } = await import('../check/tasks.ts');
    const message = await checkReload(scenario, (await reopenScenario(loaded)).scenario, seed);
    if (message !== null) findings.push({ severity: 'error', check: 'tasks', message });
  }
  const errors = findings.filter(({ severity }) => severity === 'error').length;
  // What cannot be dealt cannot be shown; what is wrong otherwise may be plain to see.
  const isAsked = scenario.judge !== undefined && judge === null;
  if (!isAsked && !findings.some(({ severity, check }) => severity === 'error' && check === 'tasks')) {
    await openEngine({ backend }, output);
    const { policy: base } = await openPolicy({ model });
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
    if (errors === 0) {
      const { sayProbe, unreadyMessage, warmupAdvice } = await import('./look.ts');
      const { whyUnready } = await import('../check/probe.ts');
      const why = whyUnready(
        await sayProbe(
          { scenario, models: [base], judges: judge === null ? [] : [judge.generates], seed, signal },
          output,
        ),
      );
      const team = { scenario, name, model, base };
      if (why !== null) {
        const message = `${unreadyMessage(team, why)} ${await warmupAdvice(team)}`;
        findings.push({ severity: 'warning', check: 'model', message });
      }
    }
    base.dispose();
    output.say();
  }
  judge?.dispose();
  for (const { severity, check, message } of findings) {
    output.say(`${severity}: ${check}: ${message}`);
    output.emit({ event: 'finding', severity, check, message });
  }
  const warnings = findings.length - errors;
  output.emit({ event: 'summary', scenario: scenario.name, file, errors, warnings });
  if (errors > 0) {
    throw new OptimaError('scenario.invalid', `Scenario "${scenario.name}" has ${count(errors, 'error')}.`);
  }
  output.say(`${scenario.name}: no errors, ${count(warnings, 'warning')}.`);
}

/** The judge that is named; null where none is. */
async function openJudge(scenario: Scenario, { judge, backend }: CheckOptions, output: Output) {
  if (judge === undefined) return null;
  frozenNames(scenario, { judge });
  await openEngine(backend === undefined ? {} : { backend }, output);
  return openModel({ model: judge });
}

function sayPage(page: Page, { name, kind, description, metric }: Scenario, output: Output): void {
  const { taskId, roles, parts, opening, order, maxTurns, shortest, answers, tokens } = page;
  output.say(`\n${name} (${kind}): ${description}`);
  output.say(`\nTask ${taskId}, as each role is told it; › marks what no other role is told.`);
  for (const { role, name, tokens, lines } of roles) {
    output.say(`\n${role}${name === null ? '' : `, called ${name}`} (${tokens} tokens)`);
    for (const { text, isPrivate } of lines) output.say(`${isPrivate ? '  › ' : '    '}${printable(text)}`);
  }
  for (const text of opening) output.say(`\nThe environment opens: ${printable(text)}`);
  const rows = parts.map(({ path, texts, seenBy }) => {
    const seen = Object.entries(seenBy).map(([role, n]) =>
      n === texts.length ? role : `${role} (${n} of ${texts.length})`,
    );
    return [`  ${path}`, seen.join(', ') || 'hidden', cut(texts.join(' · '))];
  });
  output.say(`\nWhat the task holds, and who is told it\n${leftTable(rows)}`);
  output.say(`\nSpeakers: ${order.join(', ')}; at most ${maxTurns} turns`);
  output.say(
    `A team that says nothing but the right answer ends after ${shortest.turns} (${shortest.outcome}).`,
  );
  const scored = answers.map(answerRow(metric.name));
  if (scored.length > 0) {
    output.say(`\nWhat the scorer says to a team that says nothing but\n${leftTable(scored)}`);
  }
  const demonstrated =
    tokens.demonstrated === null ? '' : `, ${Math.round(tokens.demonstrated)} as it is demonstrated`;
  output.say(
    `\nTokens of a dialogue: ${tokens.shortest} for the right answer alone${demonstrated}.\nIf every message runs into its cap of ${tokens.maxMessageTokens}: ${tokens.longest}, and a role reads ${tokens.context}.\n`,
  );
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

const leftTable = (rows: readonly (readonly string[])[]) => {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  return rows
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column]!))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
};

const cut = (text: string) => (text.length > 60 ? `${printable(text.slice(0, 57))}…` : printable(text));

const count = (n: number, noun: string) => `${n} ${noun}${n === 1 ? '' : 's'}`;
