// Readers of files of rows: each gives a file's rows as JSON, part by part, and holds no more than a part of it in memory. The
// libraries behind them are loaded when such a file is read.
import { createReadStream } from 'node:fs';
import { messageOf, OptimaError } from '../domain/errors.ts';

/** A row as JSON, and where it stands in its file, from 1: its line where a line is a row, else its number. */
export interface FileRow {
  readonly json: string;
  readonly place: number;
}

/** Reads a file's rows. Throws `io.read`, and `data.invalid` where the file is not what it should be. */
export type Rows = (path: string) => AsyncIterable<readonly FileRow[]>;

/** Text that is read at once. */
const chunkBytes = 2 ** 18;
/** Records that are handed on at once. */
const csvPart = 1000;

async function* textOf(path: string): AsyncGenerator<string> {
  try {
    yield* createReadStream(path, { encoding: 'utf8', highWaterMark: chunkBytes });
  } catch (error) {
    throw unreadable(path, error);
  }
}

const unreadable = (path: string, error: unknown) =>
  new OptimaError('io.read', `Cannot read task file ${path}: ${messageOf(error)}.`, { cause: error });

const invalid = (where: string, what: string, hint?: string) =>
  new OptimaError('data.invalid', `${where}: ${what}.`, { hint });

/** The lines of a file that hold something; a line ends with a line feed and with nothing else. */
export async function* lineRows(path: string): AsyncGenerator<FileRow[]> {
  let rest = '';
  let number = 0;
  const rowsOf = (lines: readonly string[]) =>
    lines.map((line) => ({ json: line.trim(), place: ++number })).filter(({ json }) => json !== '');
  for await (const chunk of textOf(path)) {
    const lines = `${rest}${chunk}`.split('\n');
    rest = lines.pop()!;
    yield rowsOf(lines);
  }
  yield rowsOf([rest]);
}

/** What matters to where an element of an array ends. */
const marks = /["\\[\]{},]/g;

/** The elements of a file that holds one JSON array; `trim` takes off a byte order mark too. */
export async function* jsonRows(path: string): AsyncGenerator<FileRow[]> {
  const wrong = (what: string) => invalid(path, what, 'The file must hold one JSON array of objects.');
  let text = '';
  let state: 'before' | 'within' | 'behind' = 'before';
  /** Brackets that are open, the array's own included, and whether a text is. */
  let depth = 0;
  let quoted = false;
  let number = 0;
  let at = 0;
  const rowOf = (json: string): FileRow => {
    const place = ++number;
    try {
      // What the row is known by must not depend on how it is written.
      return { json: JSON.stringify(JSON.parse(json)), place };
    } catch (error) {
      throw invalid(`${path}:${place}`, `not JSON: ${messageOf(error)}`);
    }
  };
  for await (const chunk of textOf(path)) {
    text += chunk;
    const rows: FileRow[] = [];
    let start = 0;
    marks.lastIndex = at;
    for (let match = marks.exec(text); match !== null; match = marks.exec(text)) {
      const [mark] = match;
      at = marks.lastIndex;
      if (quoted) {
        if (mark === '"') quoted = false;
        // What is escaped may be in the next chunk.
        else if (mark === '\\') marks.lastIndex = at += 1;
      } else if (state === 'before') {
        if (mark !== '[' || text.slice(0, match.index).trim() !== '') throw wrong('it does not begin with [');
        state = 'within';
        depth = 1;
        start = at;
      } else if (state === 'behind') {
        break;
      } else if (mark === '"') {
        quoted = true;
      } else if (mark === '[' || mark === '{') {
        depth++;
      } else if (depth === 1 && (mark === ',' || mark === ']')) {
        const element = text.slice(start, match.index);
        if (mark === ']') state = 'behind';
        if (number > 0 || mark === ',' || element.trim() !== '') rows.push(rowOf(element));
        start = at;
      } else if (mark !== ',') {
        depth--;
      }
    }
    text = text.slice(start);
    at = Math.max(at, start + text.length) - start;
    yield rows;
  }
  if (state === 'before') throw wrong('it does not begin with [');
  if (state === 'within') throw wrong(`it ends within row ${number + 1}`);
  if (text.trim() !== '') throw wrong(`something stands behind the array: ${text.trim().slice(0, 20)}`);
}

/** The records of comma-separated values, as objects of texts by the names of their columns. */
export async function* csvRows(path: string): AsyncGenerator<FileRow[]> {
  const { parse, CsvError } = await import('csv-parse');
  const columns = (names: string[]) => {
    const twice = names.find((name, index) => names.indexOf(name) < index);
    if (twice !== undefined) throw invalid(path, `two columns are named "${twice}"`);
    return names;
  };
  const parser = parse({ bom: true, columns, info: true, skip_empty_lines: true });
  const stream = createReadStream(path, { highWaterMark: chunkBytes });
  stream.on('error', (error) => parser.destroy(unreadable(path, error)));
  let rows: FileRow[] = [];
  let place = 0;
  try {
    for await (const { record } of stream.pipe(parser)) {
      rows.push({ json: JSON.stringify(record), place: ++place });
      if (rows.length < csvPart) continue;
      yield rows;
      rows = [];
    }
  } catch (error) {
    if (!(error instanceof CsvError)) throw error;
    // Its own count of lines is too high where texts hold line ends of two characters.
    throw invalid(`${path}:${Number(error.records) + 1}`, error.message.replace(/ (?:on|at) line \d+/, ''));
  } finally {
    stream.destroy();
  }
  yield rows;
}

/** The rows of a Parquet file, a row group at a time. */
export async function* parquetRows(path: string): AsyncGenerator<FileRow[]> {
  const { asyncBufferFromFile, parquetMetadataAsync, parquetReadObjects } = await import('hyparquet');
  const { compressors } = await import('hyparquet-compressors');
  const file = await asyncBufferFromFile(path).catch((error: unknown) => {
    throw unreadable(path, error);
  });
  const attempt = <Result>(read: () => Promise<Result>) =>
    read().catch((error: unknown) => {
      throw invalid(path, `not a Parquet file that can be read: ${messageOf(error)}`);
    });
  const metadata = await attempt(() => parquetMetadataAsync(file));
  let from = 0;
  for (const { num_rows: count } of metadata.row_groups) {
    const to = from + Number(count);
    // Without `utf8: false` bytes that are no text would be read as one.
    const range = { file, metadata, compressors, utf8: false, rowStart: from, rowEnd: to };
    const objects = await attempt(() => parquetReadObjects(range));
    yield objects.map((row, index) => {
      const place = from + index + 1;
      return { json: JSON.stringify(row, asJson(`${path}:${place}`)), place };
    });
    from = to;
  }
}

/** For JSON.stringify: values of Parquet that JSON does not have. */
const asJson = (where: string) => (key: string, value: unknown) => {
  if (value === undefined) return null;
  if (value instanceof Uint8Array) throw invalid(where, `field ${key}: bytes cannot be read as text`);
  if (typeof value !== 'bigint') return value;
  if (Number.isSafeInteger(Number(value))) return Number(value);
  throw invalid(where, `field ${key}: ${value} is too large for an exact number`);
};
