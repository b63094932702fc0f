// The index of a run as a file beside its log, `events.index`. It holds nothing that the log does not say: whoever reads a
// run makes it, continues it where the log has grown, and makes it anew where it is damaged or of another log.
import fs from 'node:fs';
import { createHash16, hash16 } from '../domain/hash.ts';
import { type Columns, columnNames, emptyIndex, grown, type IndexData, marked } from './run-index.ts';

/** Raised when an index that is there cannot be read as one of now. */
const version = 1;

/** What stands in the first line, as JSON: what the rest is, and how long. */
interface Head {
  readonly index: number;
  /** Of all that follows the first line. */
  readonly hash: string;
  readonly rows: number;
  /** Bytes of the texts, which come first. */
  readonly texts: number;
}

/** An index as bytes, a part after the other: it is long, and nothing of it is copied. */
export function indexParts(data: IndexData): Uint8Array[] {
  const { rows, columns } = data;
  const texts = Buffer.from(
    JSON.stringify({
      end: data.end,
      markBytes: data.markBytes,
      markSums: data.markSums.join(''),
      phases: data.phases,
      cohortFrom: data.cohortFrom,
      cohortTo: data.cohortTo,
      trees: data.trees.map(({ root, taskId, phase, cohorts, pairs, pairsKept }) => [
        ...[root, taskId, phase, cohorts, pairs, pairsKept],
      ]),
      suffixes: data.suffixes,
      formats: data.formats,
      failures: data.failures,
      tasks: [...data.tasks],
      formatDeals: [...data.formatDeals],
      places: [...data.places].map(([node, { tokens, turns }]) => [node, tokens, turns]),
      policy: data.policy,
    }),
  );
  const parts = [texts, ...columnNames.map((name) => bytesOf(columns[name].subarray(0, rows)))];
  const hash = createHash16();
  for (const part of parts) hash.update(part);
  const head: Head = { index: version, hash: hash.digest(), rows, texts: texts.length };
  return [Buffer.from(`${JSON.stringify(head)}\n`), ...parts];
}

const bytesOf = ({ buffer, byteOffset, byteLength }: Columns[keyof Columns]) =>
  Buffer.from(buffer, byteOffset, byteLength);

/** The index that these bytes are. Throws where they are none, or are not whole. */
export function indexFrom(bytes: Buffer): IndexData {
  const start = bytes.indexOf('\n') + 1;
  const { index, hash, rows, texts }: Head = JSON.parse(bytes.toString('utf8', 0, start));
  const body = bytes.subarray(start);
  if (index !== version) throw new Error(`it is of version ${index}`);
  if (hash !== hash16(body)) throw new Error('it does not have its hash');
  const held = JSON.parse(body.toString('utf8', 0, texts));
  const columns = grown(emptyIndex().columns, Math.max(64, rows));
  let at = texts;
  for (const name of columnNames) {
    const part = bytesOf(columns[name].subarray(0, rows));
    at += body.copy(part, 0, at, at + part.length);
  }
  if (at !== body.length) throw new Error('it is not as long as it says');
  const data: IndexData = {
    ...held,
    markSums: held.markSums.match(/.{6}/gs) ?? [],
    trees: held.trees.map(([root, taskId, phase, cohorts, pairs, pairsKept]: never[]) => ({
      ...{ root, taskId, phase, cohorts, rows: [], pairs, pairsKept },
    })),
    tasks: new Map(held.tasks),
    formatDeals: new Map(held.formatDeals),
    places: new Map(
      held.places.map(([node, tokens, turns]: [string, number, number]) => [node, { tokens, turns }]),
    ),
    rows,
    columns,
  };
  requireSound(data);
  for (let row = 0; row < rows; row++) data.trees[columns.tree[row]!]!.rows.push(row);
  return data;
}

/** Throws where parts of an index lead to what it does not have: it was not made by this program. */
function requireSound(data: IndexData): void {
  const { rows, columns, trees, end, markBytes, markSums, cohortFrom, cohortTo, suffixes, phases } = data;
  const marks = Math.ceil(end.events / marked);
  const sound =
    end.events > 0 &&
    suffixes.length === rows &&
    markBytes.length === marks &&
    markSums.length === marks &&
    cohortFrom.length === cohortTo.length &&
    cohortTo.every((to) => to <= end.events) &&
    trees.every(
      ({ phase, cohorts }) => phases[phase] !== undefined && cohorts.every((at) => at < cohortFrom.length),
    ) &&
    columns.tree.subarray(0, rows).every((tree) => tree < trees.length);
  if (!sound) throw new Error('its parts do not fit each other');
}

/** What is in the file; null where there is none, and an error where it is not an index that can be used. */
export function readIndex(file: string): IndexData | Error | null {
  let descriptor: number;
  try {
    // Not through a link: the index is nobody else's file. Nor is a pipe waited for.
    const { O_RDONLY, O_NOFOLLOW = 0, O_NONBLOCK = 0 } = fs.constants;
    descriptor = fs.openSync(file, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ENOENT' ? null : (error as Error);
  }
  try {
    return indexFrom(fs.readFileSync(descriptor));
  } catch (error) {
    return error as Error;
  } finally {
    fs.closeSync(descriptor);
  }
}

/**
 * Writes the index, whole or not at all, whoever else writes it at the same time; of two the later one stays. Returns
 * whether it could: a folder may be read-only, or a disk full, and reading goes on.
 */
export function writeIndex(file: string, data: IndexData): boolean {
  const draft = `${file}.${process.pid}.partial`;
  try {
    // What a process of this number left is in nobody's hands; a link in its place is not followed.
    fs.rmSync(draft, { force: true });
    const descriptor = fs.openSync(draft, 'wx');
    try {
      for (const part of indexParts(data)) writeAll(descriptor, part);
    } finally {
      fs.closeSync(descriptor);
    }
    fs.renameSync(draft, file);
    return true;
  } catch {
    try {
      fs.rmSync(draft, { force: true });
    } catch {
      // Where nothing can be written nothing can be deleted.
    }
    return false;
  }
}

function writeAll(descriptor: number, bytes: Uint8Array): void {
  for (let written = 0; written < bytes.length; ) {
    written += fs.writeSync(descriptor, bytes, written, bytes.length - written);
  }
}
