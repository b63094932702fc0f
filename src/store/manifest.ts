// `manifest.json` of a run: what began it and how far it is. Written in one step after every phase, with a hash of itself.
import fs from 'node:fs';
import path from 'node:path';
import { z } from 'zod';
import { messageOf, OptimaError } from '../domain/errors.ts';
import { hash16 } from '../domain/hash.ts';
import type { PolicyHash, RunId } from '../domain/ids.ts';
import { branded } from '../domain/schemas.ts';
import { ioError, requireNoPipe, writeFileAtomic } from './files.ts';

/** The layout of a run folder; raised when an older program could not read a newer folder or the reverse. */
export const formatVersion = 6;

type Fields = Readonly<Record<string, unknown>>;

/**
 * What makes the manifest of an older format one of the next. Formats without a way to here are refused. A run is read as it
 * lies there, and its manifest is of the new format when it is written again.
 */
const migrations: Readonly<Record<number, (manifest: Fields) => Fields>> = {
  // From 6 on the log may be compressed.
  5: (manifest) => manifest,
};

/** A manifest in the format of now; null where no way leads there. */
function migrated(manifest: Fields): Fields | null {
  let current = manifest;
  while (current.format !== formatVersion) {
    const format = Number(current.format);
    const next = migrations[format]?.(current);
    if (next === undefined) return null;
    current = { ...next, format: format + 1 };
  }
  return current;
}

const model = z.object({ folder: z.string(), hash: branded<PolicyHash>() });

const manifestSchema = z.object({
  format: z.literal(formatVersion),
  /** Version of this package. */
  version: z.string(),
  /** Version of Node. */
  node: z.string(),
  run: branded<RunId>(),
  /** The command line that began the run, without the program's name. */
  command: z.array(z.string()),
  /** Hashes of the file's text, and of what the roles are told of the run's tasks (see `hashTasks`). */
  scenario: z.object({ name: z.string(), file: z.string(), hash: z.string(), tasks: z.string() }),
  /** The preset the recipe began from; the recipe itself is complete. */
  preset: z.string(),
  recipe: z.record(z.string(), z.unknown()),
  /** One line: backend and BLAS. */
  engine: z.string(),
  base: model,
  /** Who plays roles that are not trained, where it is not the base; and the judge. A script has its file as `folder`. */
  partners: z.record(z.string(), model).optional(),
  judge: model.optional(),
  /** Seconds of work in completed phases, over all processes that had a share in the run. */
  seconds: z.number(),
  /** How far the log went when this was written: it holds these events, and it may hold more. */
  log: z.object({ events: z.int().nonnegative(), sum: z.string() }),
  /** What ended the run before it was complete, an interruption aside; it may be resumed all the same. */
  failure: z.object({ code: z.string(), message: z.string(), hint: z.string().optional() }).optional(),
});

export type Manifest = Readonly<z.output<typeof manifestSchema>>;

export const manifestPath = (folder: string): string => path.join(folder, 'manifest.json');

/** Where a run keeps a policy that it trained. */
export const checkpointFolder = (folder: string, hash: PolicyHash): string =>
  path.join(folder, 'checkpoints', hash);

/** Where a policy of a run is: those that it does not train in their own folders, any other among the checkpoints. */
export function policyFolder(folder: string, { base, partners = {} }: Manifest, hash: PolicyHash): string {
  const frozen = [base, ...Object.values(partners)].find((one) => one.hash === hash);
  return frozen?.folder ?? checkpointFolder(folder, hash);
}

/** Where a completed run's policy is by name: a link to its checkpoint, or for policies by role a folder with one for each. */
export const finalFolder = (folder: string): string => path.join(folder, 'checkpoints', 'final');

/** The error for a run that lacks something because it did not come to its end: why not, and what to do, where that is known. */
export const incomplete = (folder: string, { failure }: Manifest, lacks: string): OptimaError =>
  new OptimaError(
    'run.missing',
    `${folder}: the run has ${lacks}: ${failure === undefined ? 'it is not completed.' : `it ended with: ${failure.message}`}`,
    { hint: failure === undefined ? `Complete it with: optima train --resume ${folder}` : failure.hint },
  );

/** The error for a log that is not the one that the manifest knows. */
export const notThisLog = (file: string, { log: { events } }: Manifest): OptimaError =>
  new OptimaError(
    'run.corrupt',
    `${file}: its first ${events} events are not those that the manifest knows.`,
    {
      hint: 'The file was cut, deleted or replaced; restore it or start a new run.',
    },
  );

export function writeManifest(folder: string, manifest: Manifest): void {
  // What else the object has, such as an older sum, is no part of it.
  const own = manifestSchema.parse(manifest);
  const sum = hash16(JSON.stringify(own));
  writeFileAtomic(manifestPath(folder), `${JSON.stringify({ ...own, sum }, null, 2)}\n`);
}

/**
 * Reads a run's manifest. Throws `run.missing` when the folder holds no run, `run.version` for another
 * layout, `run.corrupt` for a file that is not a manifest.
 */
export function readManifest(folder: string): Manifest {
  const file = manifestPath(folder);
  let text: string;
  try {
    requireNoPipe(file);
    text = fs.readFileSync(file, 'utf8');
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code !== 'ENOENT' && code !== 'ENOTDIR') throw ioError('read', file, error);
    throw new OptimaError('run.missing', `${folder} is not a run folder: it has no manifest.json.`, {
      hint: 'Give the folder that `optima train` named, for example runs/two-hop-qa-isft-s1-ab12cd.',
    });
  }
  let json: Fields;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw new OptimaError('run.corrupt', `${file}: not JSON: ${messageOf(error)}.`);
  }
  const { sum, ...rest } = json ?? {};
  if (typeof rest.format !== 'number') {
    throw new OptimaError('run.corrupt', `${file}: it has no format, as a manifest has.`, {
      hint: 'The file was changed or damaged; restore it or start a new run.',
    });
  }
  const current = migrated(rest);
  if (current === null) {
    throw new OptimaError(
      'run.version',
      `${file}: written by optima-actors ${rest.version} in run format ${rest.format}; this version reads formats ${Object.keys(migrations)[0]} to ${formatVersion}.`,
      { hint: 'Continue it with the version that wrote it, or start a new run.' },
    );
  }
  const result = manifestSchema.safeParse(current);
  if (!result.success) {
    const issue = result.error.issues[0]!;
    throw new OptimaError('run.corrupt', `${file}: field ${issue.path.join('.')}: ${issue.message}.`);
  }
  if (sum !== hash16(JSON.stringify(rest))) {
    throw new OptimaError('run.corrupt', `${file}: it does not have the hash that it was written with.`, {
      hint: 'The file was changed; restore it or start a new run.',
    });
  }
  return result.data;
}
