// Exports of a small run, against what their readers made of them (golden/readers.json, by tools/fixtures/make_export_fixture.py),
// and against what the run trained on.
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { RunEventOf } from '../../src/domain/events.ts';
import type { NodeId, PolicyHash } from '../../src/domain/ids.ts';
import { type RowFormat, rowFormats } from '../../src/export/formats.ts';
import type { DialogueRow, PairRow } from '../../src/export/rows.ts';
import { crc32c, eventFile, type Scalar, tfRecord } from '../../src/export/tensorboard.ts';
import { trainTeam } from '../../src/run/train.ts';
import type { Scenario } from '../../src/scenario/types.ts';
import { appendForks, ForkLog } from '../../src/store/fork-log.ts';
import { readManifest } from '../../src/store/manifest.ts';
import { makeSmallRun, rowExports, writeExports } from '../support/exports.ts';
import { eventsIn, optimaHere, replaceLog, temporaryFolder } from '../support/run.ts';
import { type Spied, spyOn, spyRecipe, spyScenario } from '../support/spy.ts';

const root = temporaryFolder('export');
test.after(() => fs.rmSync(root, { recursive: true }));
const run = path.join(root, 'run');
const out = path.join(root, 'out');
const readers = JSON.parse(fs.readFileSync(new URL('golden/readers.json', import.meta.url), 'utf8'));

/** Anything that JSON may hold. */
type Json = ReturnType<typeof JSON.parse>;
const textOf = (name: string) => fs.readFileSync(path.join(out, `${name}.jsonl`), 'utf8');
const rowsOf = (name: string): Json[] =>
  textOf(name)
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line));

let spied: Spied;
test.before(async () => {
  spied = await makeSmallRun(run);
  await writeExports(run, out);
});

test('TRL tokenizes the text of every row to the ids that it has', () => {
  assert.equal(
    rowsOf('trl-sft').map(({ id, token_ids }) => ({ id, input_ids: token_ids, same: true })),
    readers['trl-sft'],
  );
  assert.equal(
    rowsOf('trl-preference').map((row) => ({
      ...{ id: row.id, prompt_ids: row.prompt_token_ids },
      ...{ chosen_ids: row.chosen_token_ids, rejected_ids: row.rejected_token_ids, same: true },
    })),
    readers['trl-preference'],
  );
});

test('rows are what the run trained on: each sequence, and each pair', () => {
  const sorted = (items: readonly object[]) => items.map((item) => JSON.stringify(item)).sort();
  const trained = spied.trainings.map(({ steps }) => steps.flat() as object[]);
  // What stands behind the last token that counts is not read.
  const sequences = rowsOf('trl-sft').map(({ iteration, token_ids: tokenIds, loss_mask: lossMask }) => {
    const end = lossMask.lastIndexOf(1) + 1;
    return { iteration, sequence: { tokenIds: tokenIds.slice(0, end), lossMask: lossMask.slice(0, end) } };
  });
  for (const iteration of [0, 1]) {
    const own = sequences.filter((row) => row.iteration === iteration).map(({ sequence }) => sequence);
    assert.ok(own.length > 0);
    assert.equal(sorted(own), sorted(trained[iteration]!));
  }
  const pairs = rowsOf('trl-preference').map((row) => ({
    ...{
      promptIds: row.prompt_token_ids,
      chosenIds: row.chosen_token_ids,
      rejectedIds: row.rejected_token_ids,
    },
    ...{ refChosen: row.chosen_logprob, refRejected: row.rejected_logprob },
    group: /^.*?train-\d+/.exec(row.id)![0],
  }));
  assert.equal(sorted(pairs), sorted(trained[2]!));
});

test('every format has the same rows under its own names', () => {
  const [sft, pairs] = [rowsOf('trl-sft'), rowsOf('trl-preference')];
  assert.equal(
    Object.fromEntries(
      Object.keys(rowExports)
        .filter((name) => !name.startsWith('trl'))
        .map((name) => [name, rowsOf(name).length]),
    ),
    readers.rows,
  );
  for (const [at, { prompt, chosen, rejected, gap, id }] of pairs.entries()) {
    assert.equal(rowsOf('openai-dpo')[at], {
      input: { messages: prompt },
      preferred_output: chosen,
      non_preferred_output: rejected,
    });
    const hlf = rowsOf('openrlhf')[at]!;
    assert.equal([hlf.id, hlf.prompt, hlf.chosen, hlf.margin], [id, prompt, chosen, gap]);
    const factory = rowsOf('llama-factory')[at]!;
    assert.equal([factory.system, factory.chosen.value], [prompt[0].content, chosen[0].content]);
  }
  for (const [at, { messages }] of sft.entries()) {
    assert.equal(rowsOf('openrlhf-dialogues')[at]!.input, messages);
    const { conversations } = rowsOf('sharegpt')[at]!;
    assert.equal(
      conversations.map(({ value }: Json) => value),
      messages.map(({ content }: Json) => content),
    );
    const factory = rowsOf('llama-factory-dialogues')[at]!.conversations;
    assert.is(factory.length % 2, 0);
  }
  const info = JSON.parse(fs.readFileSync(path.join(out, 'dataset_info.json'), 'utf8'));
  assert.equal(Object.keys(info), ['llama-factory', 'llama-factory-dialogues']);
  assert.ok(info['llama-factory'].ranking && !('ranking' in info['llama-factory-dialogues']));
});

test('where a format knows turns about alone, silence is an empty message and what is heard at once is one', () => {
  const message = (role: 'system' | 'user' | 'assistant', content: string) => ({ role, content });
  const messages = [
    ...[message('system', 'S'), message('assistant', 'a'), message('assistant', 'b')],
    ...[message('user', 'c'), message('user', 'd')],
  ];
  const source = { id: 'x', iteration: 0, task: 't' as never, role: 'r', policy: 'p' as never };
  const format: RowFormat = rowFormats['llama-factory'];
  const dialogue = {
    ...source,
    kind: 'dialogue',
    messages,
    tokenIds: [],
    lossMask: [],
  } as unknown as DialogueRow;
  const turns = (row: object) =>
    (row as Json).conversations.map(({ from, value }: Json) => `${from} ${value}`);
  assert.equal(turns(format.dialogue!(dialogue)), ['human ', 'gpt a', 'human ', 'gpt b']);
  const pair = {
    ...source,
    kind: 'pair',
    prompt: messages,
    chosen: 'e',
    rejected: 'f',
  } as unknown as PairRow;
  assert.equal(turns(format.pair!(pair)), ['human ', 'gpt a', 'human ', 'gpt b', 'human c\nd']);
  const own = { ...pair, prompt: messages.slice(0, 3) };
  assert.equal(turns(format.pair!(own)).at(-1), 'human ');
});

test('Inspect read of its logs what they say', () => {
  const folder = path.join(out, 'inspect');
  const seen = Object.fromEntries(
    fs.readdirSync(folder).map((name) => {
      const log: Json = JSON.parse(fs.readFileSync(path.join(folder, name), 'utf8'));
      const numbers = (group: Json, of: string) =>
        Object.fromEntries(Object.entries<Json>(group).map(([key, value]) => [key, value[of]]));
      return [
        name,
        {
          ...{ version: log.version, status: log.status, task: log.eval.task },
          scores: Object.fromEntries(
            log.results.scores.map((one: Json) => [one.name, numbers(one.metrics, 'value')]),
          ),
          samples: log.samples.map(({ id }: Json) => id),
          values: log.samples.map(({ scores = {} }: Json) => numbers(scores, 'value')),
          errors: log.samples.map(({ error }: Json) => error?.message ?? null),
          first: log.samples[0].messages.map(({ role, content }: Json) => [role, content]),
          usage: log.samples.map(({ model_usage }: Json) =>
            Object.values<Json>(model_usage).reduce((sum, { total_tokens }) => sum + total_tokens, 0),
          ),
        },
      ];
    }),
  );
  assert.equal(seen, readers.inspect);
});

/** The scalars of an event file, by tag, read by the rules of TFRecord and protocol buffers. */
function readEventFile(bytes: Buffer): Record<string, number[][]> {
  const scalars: Record<string, number[][]> = {};
  for (let at = 0; at < bytes.length; ) {
    const length = Number(bytes.readBigUInt64LE(at));
    assert.equal(
      Buffer.from(tfRecord(bytes.subarray(at + 12, at + 12 + length))),
      bytes.subarray(at, at + 16 + length),
    );
    const event = fieldsOf(bytes.subarray(at + 12, at + 12 + length));
    at += 16 + length;
    const summary = event.get(5) as Buffer | undefined;
    if (summary === undefined) continue;
    const value = fieldsOf(fieldsOf(summary).get(1) as Buffer);
    const tag = (value.get(1) as Buffer).toString();
    scalars[tag] = [...(scalars[tag] ?? []), [event.get(1), event.get(2), value.get(2)] as number[]];
  }
  return scalars;
}

function fieldsOf(bytes: Buffer): Map<number, number | Buffer> {
  const fields = new Map<number, number | Buffer>();
  let at = 0;
  const varint = () => {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = bytes[at++]!;
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
  };
  while (at < bytes.length) {
    const key = varint();
    const wire = key & 7;
    if (wire === 0) fields.set(key >> 3, varint());
    else if (wire === 2) {
      const length = varint();
      fields.set(key >> 3, bytes.subarray(at, at + length));
      at += length;
    } else {
      fields.set(key >> 3, wire === 1 ? bytes.readDoubleLE(at) : bytes.readFloatLE(at));
      at += wire === 1 ? 8 : 4;
    }
  }
  return fields;
}

test('TensorBoard read of the event file what it says', () => {
  const [name, ...others] = fs.readdirSync(path.join(out, 'tensorboard'));
  assert.equal([name, others], ['events.out.tfevents.0.spied', []]);
  const seen = readEventFile(fs.readFileSync(path.join(out, 'tensorboard', name!)));
  assert.equal(Object.keys(seen).sort(), Object.keys(readers.tensorboard).sort());
  for (const [tag, scalars] of Object.entries(seen)) {
    for (const [at, [wallTime, step, value]] of scalars.entries()) {
      const expected = readers.tensorboard[tag][at];
      assert.equal([wallTime, step], expected.slice(0, 2), tag);
      // Weights, and what is computed of them, round otherwise on other machines.
      assert.ok(Math.abs(value! - expected[2]) <= 1e-5 * Math.abs(expected[2]), tag);
    }
  }
});

test('checksums are CRC-32C, and numbers of any size are written', async () => {
  assert.is(crc32c(Buffer.from('123456789')), 0xe3069283);
  assert.is(crc32c(new Uint8Array(32)), 0x8a9136aa);
  // As TensorBoard's own masked_crc32c frames it.
  assert.is(
    Buffer.from(tfRecord(Buffer.from('abc'))).toString('hex'),
    '0300000000000000b099490e6162636e57f121',
  );
  const scalars: Scalar[] = [{ tag: 'grün', step: 2 ** 40 + 5, value: -0.25, wallTime: 1.5e9 + 0.125 }];
  const pieces: Uint8Array[] = [];
  async function* given() {
    yield* scalars;
  }
  for await (const piece of eventFile(given(), 7)) pieces.push(piece);
  assert.equal(readEventFile(Buffer.concat(pieces)), { grün: [[1.5e9 + 0.125, 2 ** 40 + 5, -0.25]] });
});

test('two exports are the same bytes, on stdout too; one iteration can be asked for', async () => {
  const { stdout, stderr } = await optimaHere(['export', run, '--format', 'trl-sft']);
  assert.is(stdout, textOf('trl-sft'));
  assert.match(stderr, /^6 rows of init-0\/train, isft-1\/train\n/);
  const first = await optimaHere([
    'export',
    run,
    '--format',
    'trl-sft',
    '--iteration',
    '0',
    '--out',
    '-',
    '--json',
  ]);
  const own = rowsOf('trl-sft').filter(({ iteration }) => iteration === 0);
  assert.equal(
    first.stdout
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line)),
    own,
  );
  const ids = rowsOf('trl-sft').map(({ id }) => id);
  assert.is(new Set(ids).size, ids.length);
});

test('nothing is replaced unless --force says so', async () => {
  const file = path.join(root, 'kept.jsonl');
  fs.writeFileSync(file, 'mine');
  const args = ['export', run, '--format', 'sharegpt', '--out', file];
  const refused = await optimaHere(args);
  assert.is(refused.code, 1);
  assert.match(refused.stderr, /error: .*kept\.jsonl exists already\.\nhint: .*--force/);
  assert.is(fs.readFileSync(file, 'utf8'), 'mine');
  assert.is((await optimaHere([...args, '--force'])).code, 0);
  assert.is(fs.readFileSync(file, 'utf8'), textOf('sharegpt'));
  for (const format of ['inspect', 'tensorboard']) {
    const again = await optimaHere(['export', run, '--format', format, '--out', path.join(out, format)]);
    assert.match(again.stderr, 'exists already');
  }
  // With one of its files there, none of the others is written.
  const some = path.join(root, 'some');
  fs.mkdirSync(some);
  const last = fs.readdirSync(path.join(out, 'inspect')).at(-1)!;
  fs.writeFileSync(path.join(some, last), 'mine');
  await optimaHere(['export', run, '--format', 'inspect', '--out', some]);
  assert.equal(fs.readdirSync(some), [last]);
  const info = path.join(root, 'dataset_info.json');
  fs.writeFileSync(info, '{"pairs":{"file_name":"other"},"mine":1}');
  const named = ['export', run, '--format', 'llama-factory', '--out', path.join(root, 'pairs.jsonl')];
  assert.match((await optimaHere(named)).stderr, 'has another data set of the name pairs');
  assert.not.ok(fs.existsSync(path.join(root, 'pairs.jsonl')));
  await optimaHere([...named, '--force']);
  assert.equal(Object.keys(JSON.parse(fs.readFileSync(info, 'utf8'))), ['pairs', 'mine']);
  assert.equal(
    fs.readdirSync(root).filter((name) => name.endsWith('.partial')),
    [],
  );
});

test('what it cannot write is one line', async () => {
  const failure = async (...args: string[]) => {
    const { code, stderr } = await optimaHere(['export', run, ...args]);
    assert.ok(code === 1 || code === 2);
    return stderr;
  };
  assert.match(await failure('--format', 'trl'), /--format trl: must be one of trl-sft/);
  assert.match(await failure(), /--format/);
  assert.match(await failure('--format', 'inspect'), 'needs --out <folder>');
  assert.match(await failure('--format', 'inspect', '--of', 'pairs'), 'takes no --of');
  assert.match(
    await failure('--format', 'tensorboard', '--out', 'x', '--iteration', '1'),
    'takes no --iteration',
  );
  assert.match(
    await failure('--format', 'trl-sft', '--iteration', '7'),
    'the run has trained in iterations 0, 1, 2',
  );
  assert.match(await failure('--format', 'trl-sft', '--of', 'pairs'), 'has no rows of pairs');
  assert.match(await failure('--format', 'trl-preference', '--iteration', '0'), 'no training on pairs');
  assert.match(
    await failure('--format', 'trl-sft', '--out', path.join(run, 'manifest.json', 'x')),
    'Cannot write',
  );
});

test('pairs of forks that a training took are among its rows, and only these', async () => {
  const forked = path.join(root, 'forked');
  fs.cpSync(run, forked, { recursive: true });
  const [first] = rowsOf('trl-preference');
  const turn = (id: string, text: string, ids: readonly number[]) => ({
    ...{ id: id as NodeId, text, tokenIds: ids, policyHash: 'p' as PolicyHash, provenance: 'human' as const },
  });
  const kept: RunEventOf<'pair.kept'> = {
    ...{
      type: 'pair.kept' as const,
      fork: 0,
      taskId: first.task,
      tree: 'tree' as NodeId,
      parent: 'tree' as NodeId,
    },
    ...{ speaker: first.role, view: first.prompt, value: 1, gap: 2 },
    chosen: turn('tree.f0', first.chosen[0].content, first.chosen_token_ids),
    rejected: turn('tree.0', first.rejected[0].content, first.rejected_token_ids),
  };
  await appendForks(forked, () => [kept, { ...kept, fork: 1, chosen: turn('tree.f1', 'x', [5]) }]);
  const events = eventsIn(forked);
  const begun = events.findIndex((event) => event.type === 'phase.started' && event.phase === 'idpo-2/train');
  const pairs = [{ fork: 0, chosen: kept.chosen.id, rejected: kept.rejected.id }];
  const taken = { type: 'forks.taken', phase: 'idpo-2/train', pairs, log: ForkLog.read(forked).end } as const;
  replaceLog(forked, events.toSpliced(begun + 1, 0, taken));
  const exported = async () => optimaHere(['export', forked, '--format', 'trl-preference']);
  const lines = (await exported()).stdout.trimEnd().split('\n');
  assert.is(lines.slice(0, -1).join('\n'), textOf('trl-preference').trimEnd());
  const own = { value: 1, gap: 2, fork: 0, policy: 'p', chosen_logprob: null, rejected_logprob: null };
  assert.equal(JSON.parse(lines.at(-1)!), { ...first, id: 'tree.f0>tree.0', ...own });
  fs.rmSync(path.join(forked, 'forks.jsonl'));
  assert.match((await exported()).stderr, 'are not those that idpo-2/train trained on');
});

/** Rows of a run of initialization alone under another scenario. */
async function rowsUnder(scenario: Scenario, ...settings: string[]): Promise<Json[]> {
  const folder = path.join(root, scenario.name);
  const counts = ['iterations=0', 'evaluation.tasks=1', 'evaluation.validationTasks=0'];
  const recipe = spyRecipe(...counts, ...settings);
  const { training } = await spyOn({ folder, model: `${run}-model`, recipe, scenario });
  await trainTeam(training);
  training.run.close();
  const { stdout } = await optimaHere(['export', folder, '--format', 'trl-sft']);
  return stdout
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line));
}

test('a training that left the base as it was is exported with the tokenizer of the base', async () => {
  const still = path.join(root, 'still-run');
  fs.cpSync(run, still, { recursive: true });
  const events = eventsIn(still).map((event) => {
    if (event.type !== 'phase.completed' || event.output.kind !== 'train') return event;
    const { policy } = event.output;
    const base = Object.fromEntries(Object.keys(policy).map((role) => [role, readManifest(run).base.hash]));
    return { ...event, output: { ...event.output, policy: base } };
  });
  replaceLog(still, events);
  fs.rmSync(path.join(still, 'checkpoints'), { recursive: true });
  const { code, stdout, stderr } = await optimaHere(['export', still, '--format', 'trl-sft']);
  assert.is(code, 0, stderr);
  assert.is(stdout, textOf('trl-sft'));
});

test('a role that is not trained has no rows; where seats have scores each role has those chosen for it', async () => {
  const scenario = spyScenario as Scenario;
  const { alice, bob } = scenario.roles;
  const frozen = { ...scenario, name: 'frozen', roles: { alice: { ...alice!, trained: false }, bob: bob! } };
  assert.equal([...new Set((await rowsUnder(frozen)).map(({ role }) => role))], ['bob']);
  // Nothing is learnt at such a rate: the policy is the base.
  const still = await rowsUnder({ ...scenario, name: 'still' }, 'sft.learningRate=1e-300');
  assert.equal([...new Set(still.map(({ role }) => role))], ['alice', 'bob']);
  const metric: Scenario['metric'] = {
    name: 'seats',
    // The right answer is bob's gain and alice's loss.
    score: (answer, answers) => {
      const right = Number(answers.includes(answer ?? ''));
      return { score: right, seats: { alice: 1 - right, bob: right } };
    },
  };
  const rows = await rowsUnder({ ...scenario, name: 'seated', metric });
  const dialogues = (role: string) => rows.filter((row) => row.role === role).map(({ dialogue }) => dialogue);
  assert.equal(
    dialogues('alice').map((id) => id.slice(-1)),
    ['1', '1'],
  );
  assert.ok(dialogues('bob').every((id) => !id.endsWith('.1')) && dialogues('bob').length === 2);
});

test.run();
