import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { z } from 'zod';
import { OptimaError } from '../../src/domain/errors.ts';
import { createRng, type Rng } from '../../src/domain/rng.ts';
import { generated, jsonl, splitOf, splits } from '../../src/scenario/index.ts';

const folder = await mkdtemp(join(tmpdir(), 'optima-sources-'));
test.after(() => rm(folder, { recursive: true }));
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
  const error = await failure(jsonl(path, row).load('train', 2, createRng(1)));
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

const questions = (n: number) =>
  Array.from({ length: n }, (_, i) => JSON.stringify({ question: `q${i}`, answers: ['a'] }));

/** Sources whose tasks each hold one number that was drawn, `draws` giving how many were drawn before it. */
const drawn = {
  generated: async (draws: () => number) => generated((rng) => numberAfter(draws(), rng)),
  jsonl: async (draws: () => number) =>
    jsonl(await fileOf('deal.jsonl', questions(200)), row, {
      deal: (_, rng) => numberAfter(draws(), rng),
    }),
};
const numberAfter = (draws: number, rng: Rng) => {
  for (let i = 0; i < draws; i++) rng.next();
  return rng.next();
};

for (const [kind, sourceOf] of Object.entries(drawn)) {
  test(`${kind}: every task of every split draws numbers of its own, and the same from the same seed`, async () => {
    const source = await sourceOf(() => 0);
    const perSplit = await Promise.all(splits.map((split) => source.load(split, 8, createRng(1))));
    assert.is(new Set(perSplit.flat()).size, 24);
    assert.equal(await source.load('train', 8, createRng(1)), perSplit[0]);
    assert.not.equal(await source.load('train', 8, createRng(2)), perSplit[0]);
    assert.equal(await source.load('train', 12, createRng(1)).then((more) => more.slice(0, 8)), perSplit[0]);
  });

  test(`${kind}: what a task draws follows from its place alone, whatever the others draw`, async () => {
    const plain = await (await sourceOf(() => 0)).load('test', 6, createRng(1));
    let calls = 0;
    // The tasks draw 0, 1, 2 … numbers more than they need; the generator may have been used before.
    const used = createRng(1);
    used.next();
    const greedy = await (await sourceOf(() => calls++)).load('test', 6, used);
    assert.is(greedy[0], plain[0]);
    assert.not.equal(greedy, plain);
    calls = 0;
    const lastAlone = await (await sourceOf(() => (calls++ < 5 ? 9 : 0))).load('test', 6, createRng(1));
    assert.is(lastAlone[5], plain[5]);
    const untouched = createRng(1);
    untouched.next();
    assert.is(used.next(), untouched.next(), 'the generator that was handed in draws nothing');
  });
}

test('the split that is asked for is the one that tasks are made for', async () => {
  for (const split of splits) {
    assert.equal(await generated((_, made) => made).load(split, 2, createRng(1)), [split, split]);
  }
  assert.equal(await generated(() => 1).load('train', 0, createRng(1)), []);
});

test('of ten texts eight are for training, one for validation and one for the test', () => {
  const counts = { train: 0, validation: 0, test: 0 };
  for (let i = 0; i < 20_000; i++) counts[splitOf(`line ${i}`)]++;
  for (const [split, share] of [
    ['train', 0.8],
    ['validation', 0.1],
    ['test', 0.1],
  ] as const) {
    assert.ok(Math.abs(counts[split] / 20_000 - share) < 0.01, `${split}: ${counts[split]}`);
  }
  // And the same ones from release to release.
  const pinned = ['line 1', 'line 22', 'line 33', 'line 13', 'line 24'];
  assert.equal(pinned.map(splitOf), ['train', 'validation', 'validation', 'test', 'test']);
});

test('rows come in the order of the file, in their split, as the schema reads them', async () => {
  const lines = questions(60);
  const schema = row.extend({ level: z.number().default(3) });
  const source = jsonl(await fileOf('order.jsonl', lines), schema);
  for (const split of splits) {
    const expected = lines.filter((line) => splitOf(line) === split);
    const tasks = await source.load(split, expected.length, createRng(1));
    assert.equal(
      tasks,
      expected.map((line) => ({ ...JSON.parse(line), level: 3 })),
    );
    const error = await failure(source.load(split, expected.length + 1, createRng(1)));
    assert.is(error.code, 'data.invalid');
    assert.match(error.message, `${expected.length + 1} ${split} tasks wanted, ${expected.length} there.`);
    assert.match(error.hint!, /Ask for fewer tasks/);
  }
});

test('white space around a line and empty lines change nothing but the numbers of lines', async () => {
  const lines = questions(40);
  const padded = await fileOf('padded.jsonl', ['', ...lines.map((line) => `  ${line}\t\r`), '', '  ', '']);
  const [plain, spaced] = [jsonl(await fileOf('plain.jsonl', lines), row), jsonl(padded, row)];
  for (const split of splits) {
    assert.equal(await spaced.load(split, 2, createRng(1)), await plain.load(split, 2, createRng(1)));
  }
  const broken = await fileOf('gap.jsonl', ['', lines[0]!, '', '[1,']);
  const error = await failure(jsonl(broken, row).load('train', 2, createRng(1)));
  assert.ok(error.message.startsWith(`${broken}:4: not JSON: `), error.message);
  assert.match(error.hint!, /one JSON object/);
});

test('a bad line is named by the path of its field, or as a whole, even where it is not dealt', async () => {
  for (const [line, where] of [
    ['{"question":"q","answers":["a",7]}', 'field answers.1: '],
    ['{"answers":["a"]}', 'field question: '],
    ['"q"', 'the row: '],
    ['null', 'the row: '],
  ] as const) {
    const path = await fileOf('field.jsonl', [...questions(30), line, '{"question":7}']);
    const error = await failure(jsonl(path, row).load('train', 30, createRng(1)));
    assert.is(error.code, 'data.invalid');
    assert.ok(error.message.startsWith(`${path}:31: ${where}`), error.message);
  }
});

test('a file is read as far as it takes, in parts, whatever characters they end in', async () => {
  // Some parts of 256 KiB end inside a letter of two bytes, and none at the end of a line.
  const long = 'é\u2028'.repeat(20_001);
  const lines = questions(60).map((line, index) => line.replace('}', `,"note":"${index} ${long}"}`));
  const path = await fileOf('long.jsonl', [...lines, 'no JSON']);
  const noted = row.extend({ note: z.string() });
  const tasks = await jsonl(path, noted).load('train', 20, createRng(1));
  assert.equal(
    tasks.map(({ note }) => note),
    lines
      .filter((line) => splitOf(line) === 'train')
      .slice(0, 20)
      .map((line) => JSON.parse(line).note),
  );
  const error = await failure(jsonl(path, noted).load('train', 61, createRng(1)));
  assert.ok(error.message.startsWith(`${path}:61: not JSON`), error.message);
  assert.equal(await jsonl(path, noted).load('train', 0, createRng(1)), []);
});

test('a relative path is read from beside the scenario file', async () => {
  const path = await fileOf('beside.jsonl', questions(40));
  const base = pathToFileURL(join(folder, 'scenario.ts')).href;
  const beside = jsonl('./beside.jsonl', row, { base });
  assert.equal(
    await beside.load('train', 5, createRng(1)),
    await jsonl(path, row).load('train', 5, createRng(1)),
  );
  const missing = join(folder, 'missing.jsonl');
  const error = await failure(jsonl('missing.jsonl', row, { base }).load('train', 1, createRng(1)));
  assert.is(error.code, 'io.read');
  assert.ok(error.message.startsWith(`Cannot read task file ${missing}: ENOENT`), error.message);
});

test.run();
