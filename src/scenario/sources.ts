// Ready-made task sources: tasks generated from the seed, and tasks read from files of rows.
import { fileURLToPath } from 'node:url';
import type { z } from 'zod';
import { messageOf, OptimaError } from '../domain/errors.ts';
import { hash32, type Rng } from '../domain/rng.ts';
import { csvRows, type FileRow, jsonRows, lineRows, parquetRows, type Rows } from './rows.ts';
import type { Split, TaskSource } from './types.ts';

/** Tasks written by `make`, one generator each: task i of a split is the same whatever the count. */
export function generated<Task>(make: (rng: Rng, split: Split) => Task): TaskSource<Task> {
  return {
    load: async (split, count, rng) =>
      Array.from({ length: count }, (_, index) => make(rng.split(split).split(index), split)),
  };
}

/** What a source of rows takes besides its file and the schema of its rows. */
export interface RowOptions<Row, Task> {
  /** What a relative path is relative to: pass `import.meta.url`. Default: the working folder. */
  readonly base?: string;
  /** Makes the task of a row; it may add what is drawn from the run's seed (who is dealt which part). Default: the row. */
  readonly deal?: (row: Row, rng: Rng) => Task;
}

/**
 * Tasks from a file of one JSON object a line, each checked against a zod schema. Each line belongs to one split for good,
 * by the hash of its text: 80 % train, 10 % validation, 10 % test. The file is read as far as it takes, some of it at a
 * time; a bad line on the way throws `data.invalid` naming file, line and field.
 */
export function jsonl<Schema extends z.ZodType, Task = z.output<Schema>>(
  file: string,
  schema: Schema,
  options: RowOptions<z.output<Schema>, Task> = {},
): TaskSource<Task> {
  return rowSource(lineRows, file, schema, options);
}

/**
 * As `jsonl`, from a file that holds one JSON array of objects. A row belongs to a split by its compact JSON
 * (`JSON.stringify`): to the same one as the line of a JSONL file that is written so. Errors name file and row, from 1.
 */
export function json<Schema extends z.ZodType, Task = z.output<Schema>>(
  file: string,
  schema: Schema,
  options: RowOptions<z.output<Schema>, Task> = {},
): TaskSource<Task> {
  return rowSource(jsonRows, file, schema, options);
}

/**
 * As `json`, from a file of comma-separated values (RFC 4180) whose first line names the columns. All values are texts:
 * `z.coerce.number()` makes numbers of them. Errors name file and row, the first behind the names being 1.
 */
export function csv<Schema extends z.ZodType, Task = z.output<Schema>>(
  file: string,
  schema: Schema,
  options: RowOptions<z.output<Schema>, Task> = {},
): TaskSource<Task> {
  return rowSource(csvRows, file, schema, options);
}

/**
 * As `json`, from a Parquet file, uncompressed or with Snappy, Zstandard, gzip, Brotli or LZ4; one row group is in memory at
 * a time. Rows are as JSON would hold them: what is missing is null, times are ISO 8601 texts, bytes are refused, as are whole
 * numbers beyond 2⁵³.
 */
export function parquet<Schema extends z.ZodType, Task = z.output<Schema>>(
  file: string,
  schema: Schema,
  options: RowOptions<z.output<Schema>, Task> = {},
): TaskSource<Task> {
  return rowSource(parquetRows, file, schema, options);
}

function rowSource<Schema extends z.ZodType, Task>(
  read: Rows,
  file: string,
  schema: Schema,
  { base, deal }: RowOptions<z.output<Schema>, Task>,
): TaskSource<Task> {
  const path = base === undefined ? file : fileURLToPath(new URL(file, base));
  return {
    load: async (split, count, rng) => {
      const rows = await takeRows(read(path), path, schema, split, count);
      return rows.map((row, index) => (deal ? deal(row, rng.split(split).split(index)) : (row as Task)));
    },
  };
}

/** The split a text (a data line, a name) belongs to: 80 % train, 10 % validation, 10 % test, by its hash. */
export function splitOf(text: string): Split {
  const bucket = hash32(text) % 10;
  return bucket < 8 ? 'train' : bucket === 8 ? 'validation' : 'test';
}

/** The first `count` rows of the split, read no further than it takes; throws `data.invalid` where there are fewer. */
async function takeRows<Schema extends z.ZodType>(
  parts: AsyncIterable<readonly FileRow[]>,
  path: string,
  schema: Schema,
  split: Split,
  count: number,
): Promise<z.output<Schema>[]> {
  const rows: z.output<Schema>[] = [];
  let all = 0;
  if (count === 0) return rows;
  for await (const part of parts) {
    for (const row of part) {
      const value = readRow(row, schema, path);
      all++;
      if (splitOf(row.json) !== split) continue;
      rows.push(value);
      if (rows.length === count) return rows;
    }
  }
  throw new OptimaError('data.invalid', `${path}: ${count} ${split} tasks wanted, ${rows.length} there.`, {
    hint: `Ask for fewer tasks with --set, or add rows to the file: of its ${all} some 80 % are train, 10 % validation, 10 % test.`,
  });
}

function readRow<Schema extends z.ZodType>(
  { json, place }: FileRow,
  schema: Schema,
  path: string,
): z.output<Schema> {
  let value: unknown;
  try {
    value = JSON.parse(json);
  } catch (error) {
    throw new OptimaError('data.invalid', `${path}:${place}: not JSON: ${messageOf(error)}.`, {
      hint: 'Every line must be one JSON object; a file that is one array is read by json().',
    });
  }
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const issue = result.error.issues[0]!;
  const field = issue.path.length > 0 ? `field ${issue.path.join('.')}` : 'the row';
  throw new OptimaError('data.invalid', `${path}:${place}: ${field}: ${issue.message}.`);
}
