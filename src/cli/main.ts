// The command line. Each command registers itself from a file of its own, which is loaded where that command is asked for or
// all are listed, and loads what it needs only when it runs: so `--help` and errors come at once.
import fs from 'node:fs';
import path from 'node:path';
import { Command, CommanderError } from 'commander';
import { OptimaError } from '../domain/errors.ts';
import { loseOutput } from './interrupt.ts';
import { packageFolder } from './options.ts';
import { reportError } from './output.ts';
import { unsettled } from './watch.ts';

const { version } = JSON.parse(fs.readFileSync(path.join(packageFolder, 'package.json'), 'utf8'));

/** What registers a command, in the order in which they are listed. */
const commands: Record<string, () => Promise<(program: Command) => void>> = {
  train: async () => (await import('./train.ts')).addTrain,
  plan: async () => (await import('./plan.ts')).addPlan,
  eval: async () => (await import('./eval.ts')).addEval,
  chat: async () => (await import('./chat.ts')).addChat,
  list: async () => (await import('./list.ts')).addList,
  new: async () => (await import('./new.ts')).addNew,
  check: async () => (await import('./check.ts')).addCheck,
  warmup: async () => (await import('./warmup.ts')).addWarmup,
  merge: async () => (await import('./merge.ts')).addMerge,
  results: async () => (await import('./results.ts')).addResults,
  reproduce: async () => (await import('./reproduce.ts')).addReproduce,
  show: async () => (await import('./show.ts')).addShow,
  tree: async () => (await import('./tree.ts')).addTree,
  runs: async () => (await import('./runs.ts')).addRuns,
  doctor: async () => (await import('./doctor.ts')).addDoctor,
  replay: async () => (await import('./replay.ts')).addReplay,
  fork: async () => (await import('./fork.ts')).addFork,
  pairs: async () => (await import('./fork.ts')).addPairs,
  rerank: async () => (await import('./rerank.ts')).addRerank,
  view: async () => (await import('./view.ts')).addView,
  export: async () => (await import('./export.ts')).addExport,
};

/** Carries out a command, by its words; what it comes to is the process's exit code. */
export async function runCommandLine(args: readonly string[]): Promise<void> {
  const program = new Command('optima')
    .description('Trains teams of language-model agents to talk less and solve more.')
    .version(version, '--version', 'print the version')
    .helpOption('--help', 'show this help')
    .helpCommand(false)
    // Set before the commands are added: they inherit both.
    .exitOverride()
    .configureOutput({ writeErr: () => {} });

  for (const stream of [process.stdout, process.stderr]) stream.on('error', loseOutput);

  const named = Object.hasOwn(commands, args[0] ?? '') ? [commands[args[0]!]!] : Object.values(commands);
  for (const load of named) (await load())(program);

  const json = args.includes('--json');
  // There is nothing left to do, and the command has not ended.
  process.once('beforeExit', () => {
    const error = unsettled();
    if (error !== null) process.exit(reportError(error, json));
  });
  // What no command caught must not print a stack trace either.
  process.on('uncaughtException', (error) => {
    process.exitCode = reportError(error, json);
    // That it cannot be written shows only then.
    setImmediate(() => process.exit());
  });
  try {
    if (args.length === 0) program.outputHelp();
    else await program.parseAsync(args, { from: 'user' });
  } catch (error) {
    if (!(error instanceof CommanderError)) process.exitCode = reportError(error, json);
    else if (error.exitCode !== 0) process.exitCode = reportError(usageError(error, args), json);
  }
}

/** Commander's complaint as ours: its suggestion in brackets becomes the hint. */
function usageError({ code, message }: CommanderError, args: readonly string[]): OptimaError {
  if (code === 'commander.help') {
    return new OptimaError('usage', 'This command has commands of its own, of which it takes one.', {
      hint: `\`optima ${args[0]} --help\` lists them.`,
    });
  }
  const [first, suggestion] = message.replace(/^error: /, '').split('\n');
  const hint = suggestion?.replace(/^\((.*)\)$/, '$1') ?? '`optima <command> --help` lists the options.';
  return new OptimaError('usage', `${first!.charAt(0).toUpperCase()}${first!.slice(1).replace(/\.$/, '')}.`, {
    hint,
  });
}
