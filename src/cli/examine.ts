// What is wrong with a run's folder: each of its files read to the end and held against what the log says of it.
import fs from 'node:fs';
import path from 'node:path';
import { systemClock } from '../domain/clock.ts';
import { messageOf, OptimaError } from '../domain/errors.ts';
import type { PolicyHash, TeamPolicy } from '../domain/ids.ts';
import { isAdapterFolder } from '../models/llama/adapter-header.ts';
import type { LlamaPolicy } from '../models/llama/index.ts';
import { indexParts, readIndex } from '../reading/index-file.ts';
import { indexPath } from '../reading/indexed-log.ts';
import { RunReader } from '../reading/run-reader.ts';
import { recipeSchema } from '../recipe/schema.ts';
import { metricsRows } from '../run/figures.ts';
import { planIterations } from '../run/plan.ts';
import { EventLog } from '../store/event-log.ts';
import { readText, requireWithin } from '../store/files.ts';
import { ForkLog, forksPath } from '../store/fork-log.ts';
import { linesIn } from '../store/lines.ts';
import { isLocked } from '../store/lock.ts';
import { compressedPath, logPath, openLogFile } from '../store/log-file.ts';
import { finalFolder, type Manifest, manifestPath, readManifest } from '../store/manifest.ts';
import { RunFolder } from '../store/run-folder.ts';
import { requireSameMetrics } from './results-document.ts';

export interface Finding {
  /** `wrong`: the run is not what it was. `remark`: it is, and something about it may be worth knowing. */
  readonly level: 'wrong' | 'remark';
  readonly problem: string;
  readonly advice?: string | undefined;
}

export interface Examination {
  /** What was read and found right, in words. */
  readonly checked: readonly string[];
  readonly findings: readonly Finding[];
}

/** Examines a run; `onRight` hears what was read and found right, in words. Rejects with `run.missing` where there is no run. */
export async function examine(folder: string, onRight: (what: string) => void): Promise<Examination> {
  const checked: string[] = [];
  const findings: Finding[] = [];
  /** Does a part; what it throws is a finding, unless that it is no run at all. */
  const part = async <Result>(name: string, work: () => Result | Promise<Result>): Promise<Result | null> => {
    try {
      const result = await work();
      checked.push(name);
      onRight(name);
      return result;
    } catch (error) {
      const { hint } = error instanceof OptimaError ? error : { hint: undefined };
      findings.push({ level: 'wrong', problem: messageOf(error), advice: hint });
      return null;
    }
  };
  const remark: Remark = (problem, advice) => findings.push({ level: 'remark', problem, advice });

  const file = logPath(folder);
  if (!fs.existsSync(manifestPath(folder)) && !fs.existsSync(file)) readManifest(folder);
  const isAlone = !fs.existsSync(manifestPath(folder)) && !beganRun(file);
  if (isAlone)
    remark('it has no manifest.json: a log alone, as a dialogue held in code leaves it, or no whole run');
  const manifest = isAlone
    ? null
    : await part('manifest.json has its hash', () => {
        requireWithin(folder, manifestPath(folder));
        return readManifest(folder);
      });
  const run = await part('every line of events.jsonl has its sum, its schema and a time', () => {
    requireWithin(folder, file);
    return manifest === null ? readAlone(file) : openRun(folder, file);
  });
  try {
    tornLine(file, remark);
    if (run !== null && manifest !== null) {
      await part('every dialogue of events.jsonl follows from its messages', () => foldAll(run));
      await part('metrics.jsonl says what the log says', () => checkMetrics(run, manifest, folder, remark));
      await checkCheckpoints(run, part);
      if (run.policy !== null)
        await part('checkpoints/final leads to what the run ended with', () => checkFinal(run, run.policy!));
      await part('events.index is what the log says', () => checkIndex(folder));
    }
    const forks = forksPath(folder);
    const taken = run === null ? [] : takenForks(run);
    if (fs.existsSync(forks) || taken.length > 0) {
      await part(
        'every line of forks.jsonl has its sum and its schema, and trainings took it from there',
        () => {
          requireWithin(folder, forks);
          if (fs.existsSync(forks)) readAlone(forks);
          const log = ForkLog.read(folder);
          for (const { phase, log: end } of taken) {
            if (log.holds(end)) continue;
            throw new OptimaError(
              'run.corrupt',
              `${forks}: its first ${end.events} events are not those that ${phase} trained on.`,
              {
                hint: 'The file was cut, deleted or replaced; restore it.',
              },
            );
          }
        },
      );
    }
  } finally {
    run?.close();
  }
  if (manifest !== null) lookAround(folder, manifest, run, remark);
  return { checked, findings };
}

/** Whether a log is that of a run, which has a manifest, as its first event says. */
function beganRun(file: string): boolean {
  const log = openLogFile(file);
  try {
    const head = Buffer.alloc(128);
    return head.toString('latin1', 0, log.read(head, 0, head.length, 0)).includes('"type":"run.started"');
  } finally {
    log.close();
  }
}

function openRun(folder: string, file: string): RunFolder {
  const run = RunFolder.read(folder);
  requireTimes(file);
  return run;
}

/** How far the forks went of which trainings took pairs. */
const takenForks = (run: RunFolder) =>
  [...run.phases].flatMap(([name, { output }]) =>
    output.kind === 'train'
      ? [...run.eventsOf(name)].flatMap((event) => (event.type === 'forks.taken' ? [event] : []))
      : [],
  );

/** A log that no manifest says anything of. */
function readAlone(file: string): null {
  new EventLog(file, systemClock, { readOnly: true }).close();
  requireTimes(file);
  return null;
}

/** Times are in no sum: of them only that they are ones. */
function requireTimes(file: string): void {
  const log = openLogFile(file);
  try {
    let number = 0;
    for (const [text] of linesIn(log, 0, log.size())) {
      number++;
      const time = /^\{"seq":\d+,"at":"([^"]*)"/.exec(text)?.[1] ?? '';
      const parsed = Date.parse(time);
      if (Number.isNaN(parsed) || new Date(parsed).toISOString() !== time) {
        throw new OptimaError('run.corrupt', `${file}:${number}: ${JSON.stringify(time)} is not a time.`, {
          hint: 'Nothing is computed from times; the run can be read and resumed all the same.',
        });
      }
    }
  } finally {
    log.close();
  }
}

function foldAll(run: RunFolder): void {
  for (const name of run.phases.keys()) for (const _ of run.dialoguesOf(name));
}

function tornLine(file: string, remark: (problem: string, advice?: string) => void): void {
  // What is no plain file was found before.
  if (!fs.existsSync(file) || !fs.statSync(file).isFile() || file.endsWith(compressedPath(''))) return;
  const log = openLogFile(file);
  try {
    const size = log.size();
    const last = Buffer.alloc(1);
    if (size === 0 || log.read(last, 0, 1, size - 1) === 0 || last[0] === 0x0a) return;
    remark(
      `${file}: its last line has no end: a process was killed while it wrote it, or writes it now.`,
      'It is cut off when the run goes on.',
    );
  } finally {
    log.close();
  }
}

function checkMetrics(run: RunFolder, manifest: Manifest, folder: string, remark: Remark): void {
  const recipe = recipeSchema.safeParse(manifest.recipe);
  if (!recipe.success) {
    throw new OptimaError('run.version', `${manifestPath(folder)}: this version does not know its recipe.`, {
      hint: `Read it with optima-actors ${manifest.version}, which wrote it.`,
    });
  }
  const rows = metricsRows(run, planIterations(recipe.data, { kind: 'information-exchange' }));
  const file = path.join(folder, 'metrics.jsonl');
  requireWithin(folder, file);
  // It is written behind the phase that its next row is of: a kill may come between the two.
  const there = fs.existsSync(file) ? readText(file).split('\n').length - 1 : 0;
  const known = run.policy === null && there < rows.length ? rows.slice(0, there) : rows;
  if (known.length > 0 || fs.existsSync(file)) requireSameMetrics(file, known);
  if (known.length < rows.length) {
    remark(
      `${file} lacks the last ${rows.length - known.length} of its rows`,
      'Resume the run: it writes them from the log.',
    );
  }
}

type Remark = (problem: string, advice?: string) => void;

type Part = <Result>(name: string, work: () => Result | Promise<Result>) => Promise<Result | null>;

/** Every policy that a training of the run left, by its hash. */
async function checkCheckpoints(run: RunFolder, part: Part): Promise<void> {
  const trained = [...run.phases.values()].flatMap(({ output }) =>
    output.kind === 'train' ? Object.values(output.policy) : [],
  );
  const { base, partners = {} } = run.manifest;
  const frozen = new Set<string>([base, ...Object.values(partners)].map(({ hash }) => hash));
  const hashes = [...new Set(trained)].filter((hash) => !frozen.has(hash));
  if (hashes.length === 0) return;
  const { startEngine } = await import('../tensor/index.ts');
  const { loadPolicy } = await import('../models/llama/index.ts');
  await startEngine();
  // Of adapters: one copy of what all of them read.
  let whole: LlamaPolicy | undefined;
  if (hashes.some((hash) => isAdapterFolder(run.checkpointFolder(hash)))) {
    const loaded = await part('the base that the checkpoints adapt has its hash', () =>
      loadPolicy(base.folder, { hash: base.hash, frozen: true }),
    );
    if (loaded === null) return;
    whole = loaded;
  }
  for (const hash of hashes) {
    await part(`checkpoints/${hash} has its hash`, async () => {
      const folder = checkpointOf(run, hash);
      const policy = await loadPolicy(folder, { hash, base: whole });
      policy.dispose();
    });
  }
  whole?.dispose();
}

/** What lies in a folder; nothing where there is none. */
const namesIn = (folder: string): string[] =>
  fs.existsSync(folder) && fs.statSync(folder).isDirectory() ? fs.readdirSync(folder) : [];

/** The folder of a checkpoint, which must be the run's own. */
function checkpointOf(run: RunFolder, hash: PolicyHash): string {
  if (!/^[0-9a-f]{16}$/.test(hash)) {
    throw new OptimaError(
      'run.corrupt',
      `${run.log.path}: ${JSON.stringify(hash)} is not the hash of a policy.`,
    );
  }
  const folder = run.checkpointFolder(hash);
  requireWithin(run.path, folder);
  for (const name of namesIn(folder)) requireWithin(run.path, path.join(folder, name));
  return folder;
}

function checkFinal(run: RunFolder, policy: TeamPolicy): void {
  const final = finalFolder(run.path);
  const hashes = new Set(Object.values(policy));
  const links: [string, PolicyHash][] =
    hashes.size === 1
      ? [[final, [...hashes][0]!]]
      : Object.entries(policy).map(([role, hash]) => [path.join(final, path.basename(role)), hash]);
  for (const [link, hash] of links) {
    const to = fs.existsSync(link) ? fs.realpathSync(link) : null;
    const folder = run.policyFolder(hash);
    if (to !== null && fs.existsSync(folder) && to === fs.realpathSync(folder)) continue;
    throw new OptimaError(
      'run.corrupt',
      `${link} does not lead to policy ${hash}, which the run ended with.`,
      {
        hint: `\`optima train --resume ${run.path}\` names it anew.`,
      },
    );
  }
}

/** Makes the index again, as far as the one in the file goes, and compares. */
function checkIndex(folder: string): void {
  const known = readIndex(indexPath(folder));
  if (known === null) return;
  const advice = {
    hint: `Delete ${indexPath(folder)}, or leave it: it is not believed, and made anew by whoever reads the run.`,
  };
  if (known instanceof Error) {
    throw new OptimaError(
      'run.corrupt',
      `${indexPath(folder)}: not an index of this run: ${messageOf(known)}.`,
      advice,
    );
  }
  const anew = RunReader.indexAnew(folder, known.end.bytes);
  // The first part has the hash of the others.
  const [made, found] = [anew, known].map((data) => Buffer.from(indexParts(data)[0]!));
  if (made!.equals(found!)) return;
  throw new OptimaError('run.corrupt', `${indexPath(folder)}: it does not say what the log says.`, advice);
}

/** What lies about in the folder, and what the run needs that is elsewhere. */
function lookAround(folder: string, manifest: Manifest, run: RunFolder | null, remark: Remark): void {
  const held = isLocked(folder);
  const names = fs.readdirSync(folder);
  const locks = names.filter((name) => /^(forks\.)?lock(\.[0-9a-f]{16})?$/.test(name));
  if (held) remark(`${folder} is in use: a process writes it.`);
  else if (locks.length > 0) {
    remark(
      `${path.join(folder, locks[0]!)}: a process that has the run is gone.`,
      'Nothing has to be done: whoever goes on with the run takes it over.',
    );
  }
  const inside = namesIn(path.join(folder, 'checkpoints'));
  if (names.includes('events.jsonl') && names.includes('events.jsonl.gz'))
    remark(
      `${path.join(folder, 'events.jsonl.gz')}: beside the log itself, as a killed process leaves it that compressed the log.`,
      'It may be deleted; compressing the log again replaces it.',
    );
  const halves = [
    ...names.filter((name) => name.endsWith('.partial')),
    ...inside.filter((name) => name.startsWith('partial')).map((name) => path.join('checkpoints', name)),
  ];
  if (!held)
    for (const name of halves)
      remark(
        `${path.join(folder, name)}: half of a file that a killed process was writing.`,
        'It may be deleted.',
      );
  const known =
    /^(manifest\.json|events\.(jsonl(\.gz)?|index)|metrics\.jsonl|forks\.(jsonl|lock.*)|checkpoints|lock.*|.*\.partial)$/;
  for (const name of names) if (!known.test(name)) remark(`${path.join(folder, name)}: not a file of a run.`);
  const trained = new Set<string>(
    [...(run?.phases.values() ?? [])].flatMap(({ output }) =>
      output.kind === 'train' ? Object.values(output.policy) : [],
    ),
  );
  for (const name of inside) {
    if (run === null || name === 'final' || name.startsWith('partial') || trained.has(name)) continue;
    remark(
      `${path.join(folder, 'checkpoints', name)}: the log has no training that left it.`,
      held ? undefined : 'A killed training may have; the resumed run makes it again.',
    );
  }
  if (manifest.failure !== undefined)
    remark(`The run ended with: ${manifest.failure.message}`, manifest.failure.hint);
  else if (run !== null && run.policy === null && !held)
    remark('The run is not completed.', `optima train --resume ${folder}`);
  for (const [what, one] of Object.entries({
    base: manifest.base,
    ...manifest.partners,
    ...(manifest.judge && { judge: manifest.judge }),
  })) {
    if (!fs.existsSync(one.folder))
      remark(
        `${one.folder}: the ${what === 'base' || what === 'judge' ? what : `partner of ${what}`} is no longer there.`,
        'Without it the run cannot be resumed; what it says can be read.',
      );
  }
}
