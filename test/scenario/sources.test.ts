import { mkdtemp, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { z } from 'zod';
import { OptimaError } from '../../src/domain/errors.ts';
import { createRng } from '../../src/domain/rng.ts';
import { generated, jsonl, splits } from '../../src/scenario/index.ts';

const folder = await mkdtemp(join(tmpdir(), 'optima-sources-'));
const row = z.object({ question: z.string(), answers: z.array(z.string()).min(1) });
const fileOf = async (name: string, lines: readonly string[]) => {
  const path = join(folder, name);
  await writeFile(path, lines.join('\n'));
  return path;
};
const failure = async (promise: Promise<unknown>): Promise<OptimaError> => {
  try {
    await promise;
  } catch (error) {
    assert.instance(error, OptimaError);
    return error as OptimaError;
  }
  throw new Error('nothing was thrown');
};

test('a smaller count gives a prefix of a larger one', async () => {
  const source = generated((rng) => rng.next());
  const few = await source.load('train', 3, createRng(1));
  const many = await source.load('train', 8, createRng(1));
  assert.equal(few, many.slice(0, 3));
  assert.not.equal(few, await source.load('test', 3, createRng(1)));
  assert.not.equal(few, await source.load('train', 3, createRng(2)));
});

test('every line of a file belongs to exactly one split', async () => {
  const lines = Array.from({ length: 300 }, (_, i) => JSON.stringify({ question: `q${i}`, answers: ['a'] }));
  const source = jsonl(await fileOf('good.jsonl', lines), row);
  const counts = { train: 0, validation: 0, test: 0 };
  const seen = new Set<string>();
  for (const split of splits) {
    for (let count = 1; ; count++) {
      const tasks = await source.load(split, count, createRng(1)).catch(() => null);
      if (tasks === null) break;
      counts[split] = count;
      seen.add(tasks.at(-1)!.question);
    }
  }
  assert.is(counts.train + counts.validation + counts.test, 300);
  assert.is(seen.size, 300);
  assert.ok(counts.train > 200 && counts.validation > 10 && counts.test > 10);
});

test('a line that is not JSON is named by file and line', async () => {
  const path = await fileOf('broken.jsonl', ['{"question":"q","answers":["a"]}', '{"question":']);
  const error = await failure(jsonl(path, row).load('train', 1, createRng(1)));
  assert.is(error.code, 'data.invalid');
  assert.ok(error.message.startsWith(`${path}:2: not JSON`), error.message);
});

test('a line that does not fit the schema is named by file, line and field', async () => {
  const path = await fileOf('misfit.jsonl', ['{"question":"q","answers":[]}']);
  const error = await failure(jsonl(path, row).load('train', 1, createRng(1)));
  assert.ok(error.message.startsWith(`${path}:1: field answers:`), error.message);
});

test('a missing file and too many tasks are clear errors', async () => {
  assert.is(
    (await failure(jsonl(join(folder, 'no.jsonl'), row).load('train', 1, createRng(1)))).code,
    'io.read',
  );
  const path = await fileOf('short.jsonl', ['{"question":"q","answers":["a"]}']);
  const error = await failure(jsonl(path, row).load('train', 5, createRng(1)));
  assert.match(error.message, /5 train tasks wanted, \d there/);
});

test('a deal is drawn from the seed', async () => {
  const path = await fileOf(
    'deal.jsonl',
    Array.from({ length: 40 }, (_, i) => JSON.stringify({ question: `q${i}`, answers: ['a'] })),
  );
  const source = jsonl(path, row, { deal: (value, rng) => ({ ...value, coin: rng.next() }) });
  const once = await source.load('train', 5, createRng(1));
  assert.equal(once, await source.load('train', 5, createRng(1)));
  assert.not.equal(once, await source.load('train', 5, createRng(2)));
});

test.run();
