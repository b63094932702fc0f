// `optima export <run>`: what a run trained on, measured or held, in the formats of other tools.
import fs from 'node:fs';
import path from 'node:path';
import { type Command, Option } from 'commander';
import { OptimaError } from '../domain/errors.ts';
import type { PhaseOutputOf } from '../domain/events.ts';
import { dialoguesIn } from '../domain/metrics.ts';
import type { RowFormat, RowFormatName, RowKind } from '../export/formats.ts';
import type { PhaseTimes, RecordedEvaluation } from '../export/inspect.ts';
import type { PlannedTraining, TrainingRow } from '../export/rows.ts';
import { sourceIn } from '../run/locate.ts';
import { ioError, makeFolder, refuseExisting, writeFileWhole } from '../store/files.ts';
import { readEvents } from '../store/read-events.ts';
import { RunFolder } from '../store/run-folder.ts';
import { interruptible } from './interrupt.ts';
import { jsonOption, oneOf, wholeNumber } from './options.ts';
import { type JsonFlag, jsonOf, type Output, withOutput } from './output.ts';
import { recipeOf } from './reopen.ts';

const formats = [
  'trl-sft',
  'trl-preference',
  'openai-dpo',
  'openrlhf',
  'llama-factory',
  'sharegpt',
  'inspect',
  'tensorboard',
] as const satisfies readonly (RowFormatName | 'inspect' | 'tensorboard')[];

interface ExportOptions extends JsonFlag {
  readonly format: (typeof formats)[number];
  readonly out?: string;
  readonly of?: 'dialogues' | 'pairs';
  readonly iteration?: number;
  readonly force?: boolean;
}

export function addExport(program: Command): void {
  program
    .command('export')
    .argument('<run>', 'folder of a run')
    .description('write what a run trained on, or measured, in the formats of other tools')
    .addOption(
      new Option('--format <name>', formats.join(', '))
        .argParser(oneOf('--format', formats))
        .makeOptionMandatory(),
    )
    .option('--out <path>', 'a file, - for stdout (default); a folder for inspect and tensorboard')
    .addOption(
      new Option(
        '--of <rows>',
        'dialogues or pairs, where the format has both (default: pairs, if the run has some)',
      ).argParser(oneOf('--of', ['dialogues', 'pairs'] as const)),
    )
    .addOption(
      new Option('--iteration <n>', 'of this iteration alone; 0 is initialization').argParser(
        wholeNumber('--iteration', 0),
      ),
    )
    .option('--force', 'replace what is there')
    .addOption(jsonOption())
    .action((folder: string, options: ExportOptions) =>
      withOutput(options, (output) =>
        interruptible(output, async (signal) => {
          const run = RunFolder.read(folder);
          try {
            await exportRun({ folder, run, options, output, signal });
          } finally {
            run.close();
          }
        }),
      ),
    );
}

interface Export {
  readonly folder: string;
  readonly run: RunFolder;
  readonly options: ExportOptions;
  readonly output: Output;
  readonly signal: AbortSignal;
}

async function exportRun(work: Export): Promise<void> {
  const { format, of } = work.options;
  const isRows = format !== 'inspect' && format !== 'tensorboard';
  if (of !== undefined && !isRows) throw new OptimaError('usage', `--format ${format} takes no --of.`);
  if (format === 'inspect') await exportEvaluations(work);
  else if (format === 'tensorboard') await exportScalars(work);
  else await exportRows(work, format);
}

/** Rows of training data, to a file or to stdout. */
async function exportRows(work: Export, name: RowFormatName): Promise<void> {
  const { run, options, output, signal } = work;
  const { datasetInfo, rowFormats } = await import('../export/formats.ts');
  const { trainingRows } = await import('../export/rows.ts');
  const { loadTokenizer } = await import('../models/tokenizer/index.ts');
  const { modelFolderOf } = await import('../models/llama/adapter-header.ts');
  const completed = await trainingsOf(work);
  const format: RowFormat = rowFormats[name];
  const kind = kindOf(work, name, format, completed);
  const trainings = completed.filter(({ on }) => (on.method === 'sft') === (kind === 'dialogue'));
  const tokenizer = await loadTokenizer(await modelFolderOf(sourceIn(run, policyOf(run, trainings[0]!))));
  const encode = (messages: Parameters<typeof tokenizer.encodeChat>[0]) =>
    tokenizer.encodeChat(messages, false);
  let rows = 0;
  const write = format[kind] as (row: TrainingRow) => object;
  const read = trainingRows(run, trainings, encode);
  const first = read.next();
  if (first.done === true)
    throw new OptimaError('selection.empty', `${work.folder}: its trainings have no row in the log.`);
  function* lines(): Generator<string> {
    rows++;
    yield `${jsonOf(write(first.value!))}\n`;
    for (const row of read) {
      rows++;
      yield `${jsonOf(write(row))}\n`;
    }
  }
  const { out = '-', force = false } = options;
  if (out === '-') {
    for (const line of lines()) {
      await output.pour(line);
      if (signal.aborted) throw new OptimaError('interrupted', 'The export was interrupted.');
    }
    output.remark(`${rows} rows of ${trainings.map((training) => training.name).join(', ')}`);
    return;
  }
  makeFolder(path.dirname(out));
  const info = name === 'llama-factory' ? datasetInfo(path.basename(out), kind) : null;
  const infoText = info === null ? null : infoBeside(out, info, force);
  const bytes = await writeFileWhole(out, lines(), { force, signal });
  if (infoText !== null) await writeFileWhole(infoFile(out), [infoText], { force: true });
  output.say(`Wrote ${out}: ${rows} rows of ${trainings.map((training) => training.name).join(', ')}.`);
  const from = trainings.map((training) => training.name);
  output.emit({ event: 'summary', format: name, out, rows, bytes, trainings: from });
}

/** The trainings that the run has completed, of the iteration that is asked for. */
async function trainingsOf({ folder, run, options }: Export): Promise<PlannedTraining[]> {
  const { completedTrainings } = await import('../export/rows.ts');
  const { planRun } = await import('../run/plan.ts');
  // What a training starts from, which the kind of a scenario decides, is not asked.
  const plan = planRun(recipeOf(run.manifest, folder), { kind: 'information-exchange' });
  const planned = plan.flatMap((phase): PlannedTraining[] => {
    const { iteration } = phase;
    return phase.kind === 'train' && iteration !== null ? [{ ...phase, iteration }] : [];
  });
  const completed = completedTrainings(run, planned);
  if (completed.length === 0) {
    throw new OptimaError('run.missing', `${folder}: the run has completed no training.`, {
      hint: `Go on with it: optima train --resume ${folder}`,
    });
  }
  const { iteration } = options;
  if (iteration === undefined) return completed;
  const own = completed.filter((training) => training.iteration === iteration);
  if (own.length > 0) return own;
  const known = completed.map((training) => training.iteration).join(', ');
  throw new OptimaError('usage', `--iteration ${iteration}: the run has trained in iterations ${known}.`);
}

/** Which rows a format is to have: throws `usage` where it has none of those, or the run did not train on any. */
function kindOf(
  { folder, options: { of } }: Export,
  name: RowFormatName,
  format: RowFormat,
  completed: readonly PlannedTraining[],
): RowKind {
  const trained = (kind: RowKind) =>
    completed.some(({ on }) => on.method === (kind === 'pair' ? 'dpo' : 'sft'));
  const wanted = of === undefined ? undefined : of === 'pairs' ? 'pair' : 'dialogue';
  if (wanted !== undefined && format[wanted] === undefined)
    throw new OptimaError('usage', `--of ${of}: format ${name} has no rows of ${of}.`);
  const kinds = (['pair', 'dialogue'] as const).filter(
    (kind) => format[kind] !== undefined && (wanted ?? kind) === kind,
  );
  const found = kinds.find(trained);
  if (found !== undefined) return found;
  const [words, other] = kinds[0] === 'pair' ? ['pairs', 'trl-sft'] : ['dialogues', 'trl-preference'];
  throw new OptimaError('usage', `${folder}: no training on ${words} is there to export.`, {
    hint: `What it has trained on otherwise: --format ${other}.`,
  });
}

/** What a training made; the base where it left that as it was. */
function policyOf(run: RunFolder, { name }: PlannedTraining) {
  const output = run.outputOf({ name, kind: 'train' })!;
  const { base, partners = {} } = run.manifest;
  const trained = Object.entries(output.policy).find(
    ([role, hash]) => hash !== base.hash && !Object.hasOwn(partners, role),
  );
  return trained?.[1] ?? base.hash;
}

const infoFile = (out: string) => path.join(path.dirname(out), 'dataset_info.json');

/** What is to be in the file in which LLaMA-Factory looks data sets up; throws where it has another one of that name. */
function infoBeside(out: string, info: object, force: boolean): string {
  const file = infoFile(out);
  const name = path.basename(out).replace(/\.\w+$/, '');
  let known: Record<string, unknown> = {};
  if (fs.existsSync(file)) {
    try {
      known = JSON.parse(fs.readFileSync(file, 'utf8'));
    } catch (error) {
      throw ioError('read', file, error);
    }
  }
  const isOther = Object.hasOwn(known, name) && JSON.stringify(known[name]) !== JSON.stringify(info);
  if (isOther && !force) {
    throw new OptimaError('io.write', `${file} has another data set of the name ${name}.`, {
      hint: 'Name another file, or replace it with --force.',
    });
  }
  return `${JSON.stringify({ ...known, [name]: info }, null, 2)}\n`;
}

/** The folder that a format of several files goes to. */
function folderOf({ options: { format, out } }: Export): string {
  if (out !== undefined && out !== '-') return out;
  throw new OptimaError('usage', `--format ${format} writes files: it needs --out <folder>.`);
}

/** Each completed evaluation as a log of Inspect. */
async function exportEvaluations(work: Export): Promise<void> {
  const { folder, run, options, output, signal } = work;
  const { evalLog, evalLogName } = await import('../export/inspect.ts');
  const out = folderOf(work);
  const times = await phaseTimes(folder);
  const evaluations = [...run.phases].flatMap(([phase, { output: result }]): RecordedEvaluation[] => {
    const own = options.iteration === undefined || phase.includes(`-${options.iteration}/`);
    return result.kind === 'evaluate' && own
      ? [{ phase, times: times.get(phase)!, output: result as PhaseOutputOf<'evaluate'> }]
      : [];
  });
  if (evaluations.length === 0)
    throw new OptimaError('run.missing', `${folder}: the run has completed no such evaluation.`);
  makeFolder(out);
  const files = evaluations.map((one) => path.join(out, evalLogName(one, run.manifest)));
  for (const file of files) refuseExisting(file, options.force === true);
  for (const [index, one] of evaluations.entries()) {
    const file = files[index]!;
    await writeFileWhole(file, evalLog(one, run), { force: options.force === true, signal });
    output.say(`Wrote ${file}: ${dialoguesIn(one.output.metrics)} dialogues of ${one.phase}.`);
  }
  output.emit({ event: 'summary', format: 'inspect', out, files });
}

async function phaseTimes(folder: string): Promise<ReadonlyMap<string, PhaseTimes>> {
  const times = new Map<string, PhaseTimes>();
  for await (const event of readEvents(folder)) {
    if (event.type === 'phase.started') times.set(event.phase, { startedAt: event.at, endedAt: event.at });
    else if (event.type === 'phase.completed')
      times.set(event.phase, { ...times.get(event.phase)!, endedAt: event.at });
  }
  return times;
}

/** The figures of the run as one event file. */
async function exportScalars(work: Export): Promise<void> {
  const { folder, run, options, output, signal } = work;
  if (options.iteration !== undefined)
    throw new OptimaError('usage', '--format tensorboard takes no --iteration: its figures are of the run.');
  const { eventFile, scalarsIn, secondsOf } = await import('../export/tensorboard.ts');
  const out = folderOf(work);
  let begun = 0;
  for await (const event of readEvents(folder)) {
    begun = secondsOf(event);
    break;
  }
  makeFolder(out);
  const id = run.manifest.run.replaceAll(/[^\w.-]+/g, '-');
  const name = `events.out.tfevents.${Math.floor(begun)}.${id}`;
  const file = path.join(out, name);
  const bytes = await writeFileWhole(file, eventFile(scalarsIn(readEvents(folder)), begun), {
    force: options.force === true,
    signal,
  });
  output.say(`Wrote ${file}. Look at it with: tensorboard --logdir ${out}`);
  output.emit({ event: 'summary', format: 'tensorboard', out, files: [file], bytes });
}
