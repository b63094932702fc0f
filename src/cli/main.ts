// The command line. Each command registers itself from a file of its own and loads what it needs only when it
// runs, so that `--help` and errors come at once.
import fs from 'node:fs';
import path from 'node:path';
import { Command, CommanderError } from 'commander';
import { OptimaError } from '../domain/errors.ts';
import { addChat } from './chat.ts';
import { addCheck } from './check.ts';
import { addDoctor } from './doctor.ts';
import { addEval } from './eval.ts';
import { addExport } from './export.ts';
import { addFork, addPairs } from './fork.ts';
import { loseOutput } from './interrupt.ts';
import { addList } from './list.ts';
import { addMerge } from './merge.ts';
import { addNew } from './new.ts';
import { packageFolder } from './options.ts';
import { reportError } from './output.ts';
import { addReplay } from './replay.ts';
import { addReproduce } from './reproduce.ts';
import { addRerank } from './rerank.ts';
import { addResults } from './results.ts';
import { addRuns } from './runs.ts';
import { addShow } from './show.ts';
import { addTrain } from './train.ts';
import { addTree } from './tree.ts';
import { addView } from './view.ts';
import { addWarmup } from './warmup.ts';
import { unsettled } from './watch.ts';

const { version } = JSON.parse(fs.readFileSync(path.join(packageFolder, 'package.json'), 'utf8'));

const program = new Command('optima')
  .description('Trains teams of language-model agents to talk less and solve more.')
  .version(version, '--version', 'print the version')
  .helpOption('--help', 'show this help')
  .helpCommand(false)
  // Set before the commands are added: they inherit both.
  .exitOverride()
  .configureOutput({ writeErr: () => {} });

for (const add of [
  addTrain,
  addEval,
  addChat,
  addList,
  addNew,
  addCheck,
  addWarmup,
  addMerge,
  addResults,
  addReproduce,
  addShow,
  addTree,
  addRuns,
  addDoctor,
  addReplay,
  addFork,
  addPairs,
  addRerank,
  addView,
  addExport,
]) {
  add(program);
}

for (const stream of [process.stdout, process.stderr]) stream.on('error', loseOutput);

const args = process.argv.slice(2);
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
  else if (error.exitCode !== 0) process.exitCode = reportError(usageError(error), json);
}

/** Commander's complaint as ours: its suggestion in brackets becomes the hint. */
function usageError({ code, message }: CommanderError): OptimaError {
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
