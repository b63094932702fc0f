// Sources of rows that are no lines: JSON arrays, comma-separated values, Parquet.
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { z } from 'zod';
import { OptimaError } from '../../src/domain/errors.ts';
import { createRng } from '../../src/domain/rng.ts';
import { csv, json, jsonl, parquet, splits, type TaskSource } from '../../src/scenario/index.ts';
import { damaged, refusalOf, rounds } from '../support/damage.ts';
import { temporaryFolder } from '../support/run.ts';

const folder = temporaryFolder('rows');
test.after(() => fs.rmSync(folder, { recursive: true }));
const golden = (name: string) => path.join(import.meta.dirname, 'golden', name);

const row = z.object({ question: z.string(), answers: z.array(z.string()) });
const pair = z.object({ question: z.string(), answer: z.string() });

function write(name: string, content: string | Uint8Array): string {
  const file = path.join(folder, name);
  fs.writeFileSync(file, content);
  return file;
}

async function failure(source: TaskSource<unknown>): Promise<string> {
  try {
    await source.load('train', 1000, createRng(1));
  } catch (error) {
    assert.instance(error, OptimaError);
    const { code, message } = error as OptimaError;
    return `${code} ${message.replaceAll(`${folder}/`, '')}`;
  }
  return assert.unreachable('nothing was thrown') as never;
}

/** All rows of each split. */
async function allOf<Row>(source: TaskSource<Row>): Promise<Record<string, readonly Row[]>> {
  const rows: Record<string, readonly Row[]> = {};
  for (const split of splits) {
    const problem = await source.load(split, 10_000, createRng(1)).then(String, (error) => error.message);
    const there = Number(/wanted, (\d+) there/.exec(problem)![1]);
    rows[split] = await source.load(split, there, createRng(1));
  }
  return rows;
}

const hub = z.strictObject({
  id: z.string(),
  question: z.string(),
  answers: z.array(z.string()),
  context: z.object({ title: z.array(z.string()), sentences: z.array(z.array(z.string())) }),
  level: z.string(),
  year: z.number().nullable(),
  share: z.number(),
  yes: z.boolean(),
  note: z.string().nullable(),
});

test('a Parquet file as the hub publishes them has the rows of its JSON lines, in the same splits', async () => {
  const lines = await allOf(jsonl(golden('hub.jsonl'), hub));
  assert.is(Object.values(lines).flat().length, 240);
  assert.equal(await allOf(parquet(golden('hub.parquet'), hub)), lines);
});

test('with Zstandard too', async () => {
  const rows = Object.values(await allOf(parquet(golden('zstd.parquet'), hub))).flat();
  const lines = fs.readFileSync(golden('hub.jsonl'), 'utf8').split('\n').slice(0, 30);
  const byId = (one: { id: string }, other: { id: string }) => one.id.localeCompare(other.id);
  assert.equal(
    rows.toSorted(byId),
    lines.map((line) => JSON.parse(line)),
  );
});

test('of a Parquet file no row group is read behind the one that it takes', async () => {
  const bytes = fs.readFileSync(golden('hub.parquet'));
  // In the last third of the file, before the metadata: the third row group.
  const broken = write(
    'third.parquet',
    Uint8Array.from(bytes, (byte, i) => (i > 8500 && i < 9500 ? 0 : byte)),
  );
  assert.is((await parquet(broken, hub).load('train', 100, createRng(1))).length, 100);
  assert.match(
    await failure(parquet(broken, hub)),
    /^data\.invalid third\.parquet: not a Parquet file that can/,
  );
});

test('a JSON array has the rows of its JSON lines, in the same splits, however it is written', async () => {
  const lines = fs.readFileSync(golden('hub.jsonl'), 'utf8').trim().split('\n');
  const rows = lines.map((line) => JSON.parse(line));
  const expected = await allOf(jsonl(golden('hub.jsonl'), hub));
  const many = Array.from({ length: 6 }, (_, i) => ({ ...rows[i], question: '\\"]},['.repeat(2e4 + i) }));
  for (const [name, text] of [
    ['compact', JSON.stringify(rows)],
    ['pretty', `\uFEFF  ${JSON.stringify(rows, null, 2).replaceAll('\n', '\r\n')}\r\n`],
  ] as const) {
    assert.equal(await allOf(json(write(`${name}.json`, text), hub)), expected);
  }
  // Texts that look like JSON, and longer than what is read at once.
  const long = await allOf(json(write('long.json', JSON.stringify(many)), hub));
  assert.equal(
    new Set(Object.values(long).flatMap((part) => part.map(({ question }) => question.length))),
    new Set(many.map(({ question }) => question.length)),
  );
});

const wrongJson: [name: string, text: string, message: string][] = [
  ['no-array', '{"question":"q"}', 'no-array.json: it does not begin with [.'],
  ['nothing', ' \n', 'nothing.json: it does not begin with [.'],
  ['cut', '[{"question":"q","answers":[]},{"quest', 'cut.json: it ends within row 2.'],
  ['two', '[] []', 'two.json: something stands behind the array: [].'],
  ['comma', '[{"question":"q","answers":[]},]', 'comma.json:2: not JSON: Unexpected end of JSON input.'],
  ['names', '[{question:"q"}]', "names.json:1: not JSON: Expected property name or '}' in JSON"],
  ['field', '[{"question":"q","answers":[]},{"question":7}]', 'field.json:2: field question: Invalid input'],
  ['kind', '["q"]', 'kind.json:1: the row: Invalid input: expected object'],
  ['few', '[]', 'few.json: 1000 train tasks wanted, 0 there.'],
];
for (const [name, text, message] of wrongJson) {
  test(`JSON that is wrong is named by file, row and field: ${name}`, async () => {
    const said = await failure(json(write(`${name}.json`, text), row));
    assert.ok(said.startsWith(`data.invalid ${message}`), said);
  });
}

test('comma-separated values: quotes, commas and line ends within them, a byte order mark, CRLF', async () => {
  const text = '\uFEFFquestion,answer\r\n"Who, ""me""?",one\r\n\r\n"two\r\nlines", three \r\n';
  const rows = Object.values(await allOf(csv(write('good.csv', text), pair))).flat();
  assert.equal(
    new Set(rows.map(({ question, answer }) => `${question}|${answer}`)),
    new Set(['Who, "me"?|one', 'two\r\nlines| three ']),
  );
});

test('comma-separated values are in the splits of their JSON lines, and may become numbers', async () => {
  const rows = Array.from({ length: 2500 }, (_, i) => ({ question: `q ${i}`, answer: String(i) }));
  const text = `question,answer\n${rows.map(({ question, answer }) => `${question},"${answer}"\n`).join('')}`;
  const lines = write('same.jsonl', rows.map((one) => JSON.stringify(one)).join('\n'));
  const number = pair.extend({ answer: z.coerce.number() });
  assert.equal(await allOf(csv(write('same.csv', text), number)), await allOf(jsonl(lines, number)));
});

const wrongCsv: [name: string, text: string, message: string][] = [
  [
    'column',
    'question\nq\n',
    'column.csv:1: field answer: Invalid input: expected string, received undefined.',
  ],
  ['short', 'question,answer\nq,a\nq\n', 'short.csv:2: Invalid Record Length: columns length is 2, got 1.'],
  ['open', 'question,answer\nq,"a\nq,a\n', 'open.csv:1: Quote Not Closed'],
  ['behind', 'question,answer\nq,a\nq,"a"b\n', 'behind.csv:2: Invalid Closing Quote'],
  ['within', 'question,answer\nq,a"b\n', 'within.csv:1: Invalid Opening Quote'],
  ['twice', 'question,answer,question\nq,a,q\n', 'twice.csv: two columns are named "question".'],
  ['empty', '', 'empty.csv: 1000 train tasks wanted, 0 there.'],
];
for (const [name, text, message] of wrongCsv) {
  test(`comma-separated values that are wrong are named by file and row: ${name}`, async () => {
    const said = await failure(csv(write(`${name}.csv`, text), pair));
    assert.ok(said.startsWith(`data.invalid ${message}`), said);
  });
}

test('a Parquet file that is cut off, none, or of other columns is named', async () => {
  const bytes = fs.readFileSync(golden('hub.parquet'));
  const unreadable = 'not a Parquet file that can be read';
  for (const [name, content] of [
    ['cut.parquet', bytes.subarray(0, 9000)],
    ['text.parquet', Buffer.from('question,answer\n')],
    ['empty.parquet', Buffer.alloc(0)],
  ] as const) {
    const said = await failure(parquet(write(name, content), hub));
    assert.ok(said.startsWith(`data.invalid ${name}: ${unreadable}: `), said);
  }
  const other = await failure(parquet(golden('hub.parquet'), pair));
  assert.match(other, /hub\.parquet:1: field answer: Invalid input: expected string, received undefined\.$/);
  const late = hub.extend({ id: z.string().refine((id) => id !== 'row-0150', 'is not wanted') });
  assert.match(
    await failure(parquet(golden('hub.parquet'), late)),
    /hub\.parquet:151: field id: is not wanted\.$/,
  );
});

test('what Parquet holds and JSON does not is refused, with row and field', async () => {
  const any = z.record(z.string(), z.unknown());
  assert.match(
    await failure(parquet(golden('large.parquet'), any)),
    /large\.parquet:1: field id: 1152921504606846976 is too large for an exact number\.$/,
  );
  assert.match(
    await failure(parquet(golden('bytes.parquet'), any)),
    /field image: bytes cannot be read as text/,
  );
});

test('a file that is not there is an error of reading', async () => {
  for (const [ending, source] of Object.entries({ json, csv, parquet })) {
    const said = await failure(source(path.join(folder, `no.${ending}`), row));
    assert.ok(said.startsWith(`io.read Cannot read task file no.${ending}: ENOENT`), said);
  }
});

test('rows are dealt as those of JSON lines are', async () => {
  const deal = (one: z.output<typeof hub>, rng: { int(n: number): number }) =>
    [one.id, rng.int(1000)] as const;
  const lines = await jsonl(golden('hub.jsonl'), hub, { deal }).load('test', 9, createRng(3));
  assert.equal(await parquet(golden('hub.parquet'), hub, { deal }).load('test', 9, createRng(3)), lines);
  const relative = json('hub.json', hub, { base: import.meta.url });
  assert.match(await failure(relative), 'test/scenario/hub.json');
});

for (const [file, source] of [
  ['hub.jsonl', jsonl],
  ['hub.json', json],
  ['hub.csv', csv],
  ['hub.parquet', parquet],
] as const) {
  test(`${rounds} times damaged at random, ${file} gives its rows or is refused in one line`, async () => {
    const lines = fs.readFileSync(golden('hub.jsonl'), 'utf8').trim().split('\n').slice(0, 60);
    const objects = lines.map((line) => JSON.parse(line));
    const csvRow = ({ id, question, answers }: z.output<typeof hub>) =>
      [id, question, answers[0]].map((value) => JSON.stringify(value).replaceAll('\\"', '""')).join();
    const whole = {
      'hub.jsonl': Buffer.from(lines.join('\n')),
      'hub.json': Buffer.from(JSON.stringify(objects)),
      'hub.csv': Buffer.from(['id,question,answer', ...objects.map(csvRow)].join('\r\n')),
      'hub.parquet': fs.readFileSync(golden('hub.parquet')),
    }[file];
    const schema = source === csv ? pair : hub;
    const load = (bytes: Uint8Array) => {
      const at = write(`damaged-${file}`, bytes);
      return refusalOf(() => source(at, schema).load('train', 30, createRng(1)));
    };
    assert.is(await load(whole), null);
    const rng = createRng(1).split(file);
    let refused = 0;
    for (let round = 0; round < rounds; round++) {
      if ((await load(damaged(whole, round, rng))) !== null) refused++;
    }
    assert.ok(refused > rounds / 8, `${refused} of ${rounds}`);
  });
}

test.run();
