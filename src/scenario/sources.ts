// Ready-made task sources: tasks generated from the seed, and tasks read from a JSONL file.
import { createReadStream } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { z } from 'zod';
import { messageOf, OptimaError } from '../domain/errors.ts';
import { hash32, type Rng } from '../domain/rng.ts';
import type { Split, TaskSource } from './types.ts';

/** Tasks written by `make`, one generator each: task i of a split is the same whatever the count. */
export function generated<Task>(make: (rng: Rng, split: Split) => Task): TaskSource<Task> {
  return {
    load: async (split, count, rng) =>
      Array.from({ length: count }, (_, index) => make(rng.split(split).split(index), split)),
  };
}

/**
 * Tasks from a file of one JSON object a line, each checked against a zod schema; `deal` may then add what is
 * drawn from the run's seed (who is dealt which part). Relative paths are relative to `base`: pass
 * `import.meta.url`. Each line belongs to one split for good, by the hash of its text: 80 % train,
 * 10 % validation, 10 % test. The file is read as far as it takes; a bad line on the way throws `data.invalid` naming file,
 * line and field.
 */
export function jsonl<Schema extends z.ZodType, Task = z.output<Schema>>(
  file: string,
  schema: Schema,
  options: { base?: string; deal?: (row: z.output<Schema>, rng: Rng) => Task } = {},
): TaskSource<Task> {
  const path = options.base === undefined ? file : fileURLToPath(new URL(file, options.base));
  return {
    load: async (split, count, rng) => {
      const rows = await readRows(path, schema, split, count);
      return rows.map((value, index) =>
        options.deal ? options.deal(value, rng.split(split).split(index)) : (value as Task),
      );
    },
  };
}

/** The split a text (a data line, a name) belongs to: 80 % train, 10 % validation, 10 % test, by its hash. */
export function splitOf(text: string): Split {
  const bucket = hash32(text) % 10;
  return bucket < 8 ? 'train' : bucket === 8 ? 'validation' : 'test';
}

/** The first `count` lines of the split, read no further than it takes; throws `data.invalid` where there are fewer. */
async function readRows<Schema extends z.ZodType>(
  path: string,
  schema: Schema,
  split: Split,
  count: number,
): Promise<z.output<Schema>[]> {
  const rows: z.output<Schema>[] = [];
  let number = 0;
  if (count === 0) return rows;
  for await (const lines of linesOf(path)) {
    for (const line of lines) {
      number++;
      const text = line.trim();
      if (text === '') continue;
      const value = readRow(text, schema, `${path}:${number}`);
      if (splitOf(text) !== split) continue;
      rows.push(value);
      if (rows.length === count) return rows;
    }
  }
  throw new OptimaError('data.invalid', `${path}: ${count} ${split} tasks wanted, ${rows.length} there.`, {
    hint: 'Ask for fewer tasks with --set, or add lines to the file.',
  });
}

function readRow<Schema extends z.ZodType>(text: string, schema: Schema, where: string): z.output<Schema> {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw new OptimaError('data.invalid', `${where}: not JSON: ${messageOf(error)}.`, {
      hint: 'Every line must be one JSON object.',
    });
  }
  const result = schema.safeParse(json);
  if (result.success) return result.data;
  const issue = result.error.issues[0]!;
  const field = issue.path.length > 0 ? `field ${issue.path.join('.')}` : 'the line';
  throw new OptimaError('data.invalid', `${where}: ${field}: ${issue.message}.`);
}

/** The lines of a file, those of a part of it at a time; a line ends with a line feed and with nothing else. */
async function* linesOf(path: string): AsyncGenerator<string[]> {
  let rest = '';
  try {
    for await (const chunk of createReadStream(path, { encoding: 'utf8', highWaterMark: 2 ** 18 })) {
      const lines = `${rest}${chunk}`.split('\n');
      rest = lines.pop()!;
      yield lines;
    }
  } catch (error) {
    throw new OptimaError('io.read', `Cannot read task file ${path}: ${messageOf(error)}.`, { cause: error });
  }
  yield [rest];
}
