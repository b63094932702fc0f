// `optima runs [folder]`: the runs of a folder, what they came to and what they take; with --compress, to have some take less; with
// --prune, to be rid of some.
import fs from 'node:fs';
import path from 'node:path';
import readline from 'node:readline/promises';
import type { Command } from 'commander';
import { messageOf, nearest, OptimaError, requireWanted } from '../domain/errors.ts';
import type { TeamMetrics } from '../domain/metrics.ts';
import { compressLog } from '../store/compress.ts';
import { ioError, isWithin } from '../store/files.ts';
import { isLocked, lock } from '../store/lock.ts';
import { logPath } from '../store/log-file.ts';
import { readManifest } from '../store/manifest.ts';
import { interruptible } from './interrupt.ts';
import { collect, jsonOption } from './options.ts';
import { counted, formatTable, type JsonFlag, line, type Output, spanOf, withOutput } from './output.ts';
import { openReader, runsIn, shortened, sizeOf, widthOf } from './reader.ts';
import { stateOf } from './show.ts';

interface RunsOptions extends JsonFlag {
  readonly compress?: readonly string[];
  readonly prune?: readonly string[];
  readonly yes?: boolean;
}

export function addRuns(program: Command): void {
  program
    .command('runs')
    .argument('[folder]', 'where the runs are', 'runs')
    .description('list runs with their size and state, compress the logs of some, or delete some')
    .option('--compress <run>', 'compress the log of this run, which is over; may be repeated', collect)
    .option('--prune <run>', 'delete this run of the folder, after a question; may be repeated', collect)
    .option('--yes', 'do not ask: needed where there is no terminal to ask on')
    .addOption(jsonOption())
    .action((folder: string, options: RunsOptions) =>
      withOutput(options, (output) =>
        interruptible(output, async (signal) => {
          if (!fs.existsSync(folder) || !fs.statSync(folder).isDirectory()) {
            throw new OptimaError('run.missing', `${folder}: no such folder.`, {
              hint: 'Give the folder in which the runs are; `optima train` makes them in ./runs.',
            });
          }
          const { compress, prune } = options;
          if (compress !== undefined && prune !== undefined)
            throw new OptimaError('usage', '--compress or --prune: one of them at a time.');
          if (compress !== undefined) await compressRuns(folder, compress, output, signal);
          else if (prune === undefined) await list(folder, output, signal);
          else await pruneRuns(folder, prune, options, output, signal);
        }),
      ),
    );
}

interface Listed {
  readonly name: string;
  readonly folder: string;
  readonly scenario: string | null;
  readonly recipe: string | null;
  readonly seed: number | null;
  readonly state: string;
  /** Task score of the base and of the trained team. */
  readonly base: number | null;
  readonly trained: number | null;
  readonly seconds: number | null;
  readonly events: number | null;
  readonly bytes: number;
}

/** A run as the list has it; what cannot be read is listed with why. */
async function listed(folder: string, name: string, output: Output, signal: AbortSignal): Promise<Listed> {
  const run = path.join(folder, name);
  const known = { name, folder: run, bytes: bytesIn(run) };
  try {
    const reader = await openReader(run, output, signal);
    try {
      const { manifest, recipe, size } = reader;
      const outputs = new Map(reader.phases().map((phase) => [phase.name, phase.output]));
      const scoreOf = (phase: string) => {
        const output = outputs.get(phase);
        return output?.kind === 'evaluate' ? (output.metrics satisfies TeamMetrics).taskScore : null;
      };
      return {
        ...known,
        ...{
          scenario: manifest?.scenario.name ?? null,
          recipe: recipe?.recipe ?? null,
          seed: recipe?.seed ?? null,
        },
        ...{ state: stateOf(reader), base: scoreOf('base'), trained: scoreOf('trained') },
        ...{ seconds: manifest?.seconds ?? null, events: size.events },
      };
    } finally {
      reader.close();
    }
  } catch (error) {
    requireWanted(signal, `Reading ${run}`);
    const nothing = {
      scenario: null,
      recipe: null,
      seed: null,
      base: null,
      trained: null,
      seconds: null,
      events: null,
    };
    return { ...known, ...nothing, state: messageOf(error) };
  }
}

async function list(folder: string, output: Output, signal: AbortSignal): Promise<void> {
  const runs: Listed[] = [];
  for (const name of runsIn(folder)) runs.push(await listed(folder, name, output, signal));
  for (const run of runs) output.emit({ event: 'run', ...run });
  const bytes = runs.reduce((sum, run) => sum + run.bytes, 0);
  output.emit({ event: 'summary', runs: runs.length, bytes });
  if (runs.length === 0) {
    output.say(`No run in ${path.resolve(folder)}. \`optima train <scenario>\` makes one.`);
    return;
  }
  const score = (value: number | null) => value?.toFixed(3) ?? '–';
  const rows = runs.map((run) => [
    shortened(run.name, 40),
    run.recipe ?? '–',
    score(run.base),
    score(run.trained),
    run.seconds === null ? '–' : spanOf(run.seconds),
    sizeOf(run.bytes),
  ]);
  const table = formatTable([['run', 'recipe', 'base', 'trained', 'work', 'size'], ...rows]).split('\n');
  const width = Math.max(...table.map(({ length }) => length));
  for (const [place, row] of table.entries()) {
    const state =
      place === 0 ? 'state' : shortened(line(runs[place - 1]!.state), Math.max(20, widthOf() - width - 2));
    output.say(`${row.padEnd(width)}  ${state}`);
  }
  output.say(`${counted(runs.length, 'run')}, ${sizeOf(bytes)}`);
}

/** Bytes of a folder's files; links count for nothing. */
function bytesIn(folder: string): number {
  return fs.readdirSync(folder, { withFileTypes: true }).reduce((sum, entry) => {
    const file = path.join(folder, entry.name);
    if (entry.isDirectory()) return sum + bytesIn(file);
    // A run under way may have taken a file away meanwhile.
    return sum + (entry.isFile() ? (fs.lstatSync(file, { throwIfNoEntry: false })?.size ?? 0) : 0);
  }, 0);
}

/** The names of runs of a folder, each once; throws `run.missing` for one that is not there, with the nearest. */
function namesIn(folder: string, names: readonly string[], known: readonly string[]): string[] {
  const asked = [...new Set(names.map((name) => nameIn(folder, name)))];
  for (const name of asked) {
    if (known.includes(name)) continue;
    const guess = nearest(name, known);
    throw new OptimaError('run.missing', `${folder} has no run ${name}.`, {
      hint: guess === undefined ? `\`optima runs ${folder}\` lists them.` : `Did you mean ${guess}?`,
    });
  }
  return asked;
}

/** Compresses the logs of runs, one after the other: what is done stays done. */
async function compressRuns(
  folder: string,
  names: readonly string[],
  output: Output,
  signal: AbortSignal,
): Promise<void> {
  for (const name of namesIn(folder, names, runsIn(folder))) {
    const run = path.join(folder, name);
    const bytes = fs.statSync(logPath(run), { throwIfNoEntry: false })?.size ?? 0;
    output.progress.begin(`compressing ${name}`, Math.ceil(bytes / 2 ** 20), 'MiB');
    const onProgress = (done: number) => output.progress.advance(Math.ceil(done / 2 ** 20));
    const sizes = await compressLog(run, { onProgress, signal });
    const words =
      sizes === null
        ? 'its log is compressed already'
        : `its log had ${sizeOf(sizes.before)}, and has ${sizeOf(sizes.after)} now`;
    output.progress.end('done');
    output.say(`${name}: ${words}`);
    output.emit({
      event: 'compressed',
      run: name,
      folder: run,
      ...(sizes ?? { before: bytes, after: bytes }),
    });
  }
}

async function pruneRuns(
  folder: string,
  names: readonly string[],
  { yes = false, json = false }: RunsOptions,
  output: Output,
  signal: AbortSignal,
): Promise<void> {
  const known = runsIn(folder);
  const runs: Listed[] = [];
  for (const name of namesIn(folder, names, known)) runs.push(await listed(folder, name, output, signal));
  requireUnneeded(folder, runs, known);
  for (const { folder } of runs) {
    // Taking it says who has it.
    for (const name of ['lock', 'forks.lock']) if (isLocked(folder, name)) lock(folder, name)();
  }
  for (const { name, state, bytes } of runs) output.say(`${name}: ${line(state)}, ${sizeOf(bytes)}`);
  if (!yes && !(await isAgreed(runs.length, json, signal))) {
    output.say('Nothing was deleted.');
    output.emit({ event: 'summary', deleted: 0, bytes: 0 });
    return;
  }
  for (const run of runs) {
    // Nobody else is to begin with it meanwhile; the lock goes with the folder.
    lock(run.folder);
    try {
      fs.rmSync(run.folder, { recursive: true });
    } catch (error) {
      throw ioError('write', run.folder, error);
    }
    output.emit({ event: 'deleted', run: run.name, folder: run.folder, bytes: run.bytes });
  }
  const bytes = runs.reduce((sum, run) => sum + run.bytes, 0);
  output.say(`${counted(runs.length, 'run')} deleted, ${sizeOf(bytes)}.`);
  output.emit({ event: 'summary', deleted: runs.length, bytes });
}

/** Throws `usage` where another run of the folder began with, or plays against, a checkpoint in one that is to go. */
function requireUnneeded(
  folder: string,
  going: readonly { readonly name: string; readonly folder: string }[],
  known: readonly string[],
): void {
  const names = new Set(going.map(({ name }) => name));
  for (const name of known) {
    if (names.has(name)) continue;
    for (const needed of modelsOf(path.join(folder, name))) {
      const run = going.find((one) => isWithin(one.folder, needed));
      if (run === undefined) continue;
      throw new OptimaError('usage', `${name} needs a checkpoint of ${run.name}: ${needed}.`, {
        hint: `Delete ${name} too, or copy the checkpoint elsewhere and keep ${run.name} until then.`,
      });
    }
  }
}

/** Where the models lie that a run needs beside its own; none of a run whose manifest cannot be read. */
function modelsOf(run: string): string[] {
  try {
    const { base, partners = {}, judge } = readManifest(run);
    return [base, ...Object.values(partners), ...(judge === undefined ? [] : [judge])].flatMap(
      ({ folder }) => (fs.existsSync(folder) ? [folder] : []),
    );
  } catch {
    return [];
  }
}

/** A run as it is called in its folder; it may be given by its path. */
const nameIn = (folder: string, name: string): string =>
  path.resolve(path.dirname(name)) === path.resolve(folder) ? path.basename(name) : name.replace(/\/$/, '');

async function isAgreed(count: number, json: boolean, signal: AbortSignal): Promise<boolean> {
  if (json || !process.stdin.isTTY || !process.stdout.isTTY) {
    throw new OptimaError('usage', 'Runs are deleted after a question, and there is nobody to ask.', {
      hint: 'Add --yes to delete them without one.',
    });
  }
  const terminal = readline.createInterface({ input: process.stdin, output: process.stdout });
  try {
    const answer = await terminal.question(
      `Delete ${count === 1 ? 'it' : `these ${count}`} for good? Type yes: `,
      { signal },
    );
    return answer.trim().toLowerCase() === 'yes';
  } finally {
    terminal.close();
  }
}
