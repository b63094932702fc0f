// A run that trains adapters, and what other commands make of it: the same log wherever it is computed and however often it is
// killed, a base that stays as it is, and checkpoints that are PEFT's folders.
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { RunEvent } from '../../src/domain/events.ts';
import type { PolicyHash } from '../../src/domain/ids.ts';
import { type LlamaPolicy, loadPolicy } from '../../src/models/llama/index.ts';
import { readSafetensors, writeSafetensors } from '../../src/models/llama/safetensors.ts';
import { readManifest } from '../../src/store/manifest.ts';
import {
  cutRun,
  eventsIn,
  optimaHere,
  smallHybridRun,
  smallRun,
  temporaryFolder,
  writeRandomCheckpoint,
  writeSmallScenario,
} from '../support/run.ts';

const folder = temporaryFolder('lora');
test.after(() => fs.rmSync(folder, { recursive: true }));
const inFolder = (name: string) => path.join(folder, name);
const model = inFolder('model');
const run = inFolder('run');
const scenario = writeSmallScenario(folder);
const lora = ['rank=2', 'dropout=0.2', 'targets=attention'].flatMap((key) => ['--set', `lora.${key}`]);
const train = (out: string, ...more: string[]) => [
  'train',
  scenario,
  '--anyway',
  '--json',
  '--out',
  out,
  ...more,
];
const whole = (out: string, ...more: string[]) =>
  train(out, '--model', model, ...smallHybridRun.slice(1), ...lora, ...more);
const checkpoints = (of: string) =>
  fs
    .readdirSync(path.join(of, 'checkpoints'))
    .filter((name) => name !== 'final')
    .sort();
const succeed = async (args: readonly string[]) => {
  const { code, stdout, stderr } = await optimaHere(args);
  assert.is(code, 0, stdout + stderr);
  return stdout;
};
const fail = async (args: readonly string[]) => {
  const { code, stdout, stderr } = await optimaHere(args);
  assert.not.equal(code, 0);
  return stdout + stderr;
};
const trainingsOf = (events: readonly RunEvent[]) =>
  events.flatMap((event) =>
    event.type === 'phase.completed' && event.output.kind === 'train' ? [event.output.policy] : [],
  );

test.before(async () => {
  await writeRandomCheckpoint(model);
  await succeed(whole(run, '--workers', '0'));
});

test('every checkpoint is an adapter of the base; its factors have moved, and the base has not', async () => {
  const base = await loadPolicy(model);
  const { base: known } = readManifest(run);
  assert.is(base.hash, known.hash);
  const trained = new Set(trainingsOf(eventsIn(run)).map(({ alice }) => alice!));
  assert.is(trained.size, 3);
  assert.equal(checkpoints(run), [...trained].sort());
  for (const hash of trained) {
    const at = path.join(run, 'checkpoints', hash);
    assert.equal(fs.readdirSync(at).sort(), [
      'adapter_config.json',
      'adapter_model.safetensors',
      'optima.json',
    ]);
    const policy = await loadPolicy(at, { base, hash: hash as PolicyHash });
    assert.equal(policy.lora, {
      rank: 2,
      alpha: 32,
      dropout: 0.2,
      targets: ['q_proj', 'k_proj', 'v_proj', 'o_proj'],
    });
    for (const [name, factor] of policy.parameters) {
      const moved = factor.dataSync<'float32'>().some((value) => value !== 0);
      assert.ok(moved, `${name} of ${hash} has not moved`);
    }
    policy.dispose();
  }
  base.dispose();
});

test('what comes out does not depend on where it is computed, dropout included', async () => {
  const out = inFolder('workers');
  const { code, stderr } = await optimaHere(whole(out, '--workers', '2'));
  assert.is(code, 0, stderr);
  assert.equal(eventsIn(out), eventsIn(run));
  assert.equal(checkpoints(out), checkpoints(run));
});

test('a run that is killed while an adapter is trained, or behind its checkpoint, goes on to the same end', async () => {
  for (const [name, place] of Object.entries({
    first: { phase: 'init-0/train', lines: 2, halfLine: true },
    saved: { phase: 'isft-1/train' },
    later: { phase: 'idpo-2/train', lines: 2 },
  })) {
    const out = inFolder(name);
    cutRun(run, out, place);
    await succeed(['train', '--resume', out, '--json', '--workers', '0']);
    assert.equal(eventsIn(out), eventsIn(run), name);
    assert.equal(checkpoints(out), checkpoints(run));
  }
});

test('an adapter that was changed is found by the doctor, and a resumed run refuses it', async () => {
  assert.match(await succeed(['doctor', run]), 'Nothing is wrong with it.');
  const out = inFolder('damaged');
  fs.cpSync(run, out, { recursive: true, verbatimSymlinks: true });
  const [hash] = checkpoints(out);
  const file = (name: string) => path.join(out, 'checkpoints', hash!, name);
  for (const [name, change, words] of [
    ['adapter_model.safetensors', (bytes: Buffer) => (bytes[bytes.length - 7]! ^= 4), 'it has the hash'],
    ['adapter_model.safetensors', (bytes: Buffer) => bytes.fill(0, 0, 4), 'checkpoint'],
    [
      'adapter_config.json',
      (bytes: Buffer) => bytes.write('7', bytes.indexOf('lora_alpha') + 13),
      'it has the hash',
    ],
    [
      'optima.json',
      (bytes: Buffer) => bytes.write('0000', bytes.indexOf(':') + 3),
      'an adapter of the base 0000',
    ],
  ] as const) {
    const bytes = fs.readFileSync(file(name));
    const changed = Buffer.from(bytes);
    change(changed);
    assert.not.ok(changed.equals(bytes));
    fs.writeFileSync(file(name), changed);
    assert.match(await fail(['doctor', out]), words);
    assert.match(await fail(['train', '--resume', out, '--json', '--workers', '0']), hash!);
    fs.writeFileSync(file(name), bytes);
  }
  assert.match(await succeed(['doctor', out]), 'Nothing is wrong with it.');
});

test('a run of adapters is measured, forked, replayed and exported as any other', async () => {
  await succeed(['eval', scenario, '--model', run, '--tasks', '2', '--workers', '0', '--json']);
  const first = eventsIn(run).find((event) => event.type === 'turn.taken')!;
  const { id } = (first as Extract<RunEvent, { type: 'turn.taken' }>).turn;
  const forked = await succeed([
    'fork',
    run,
    '--instead-of',
    id,
    '--reroll',
    '1',
    '--policy',
    checkpoints(run)[0]!,
    '--json',
  ]);
  assert.match(forked, '"event":"fork"');
  await succeed(['replay', run, '--verify-model', '--workers', '0', '--json']);
  const rows = await succeed(['export', run, '--format', 'trl-sft']);
  assert.ok(rows.trim().split('\n').length > 2);
});

test('rows of adapters need a tokenizer: where the base was moved, the folder is named, and read where the adapter says it is', async () => {
  const copy = inFolder('exported');
  fs.cpSync(run, copy, { recursive: true });
  const moved = inFolder('moved');
  const ask = ['export', copy, '--format', 'trl-sft'];
  const rows = await succeed(ask);
  fs.renameSync(model, moved);
  try {
    const said = await fail(ask);
    assert.match(said, `the base of this adapter, ${model}, is not there.`);
    for (const hash of checkpoints(copy)) {
      const config = path.join(copy, 'checkpoints', hash, 'adapter_config.json');
      const fields = JSON.parse(fs.readFileSync(config, 'utf8'));
      fs.writeFileSync(config, JSON.stringify({ ...fields, base_model_name_or_path: moved }));
    }
    assert.is(await succeed(ask), rows);
  } finally {
    fs.renameSync(moved, model);
  }
});

test('a team goes on from the adapter that a run ended with, by the same settings', async () => {
  const out = inFolder('on');
  const from = ['--init-from', run, ...smallRun, '--recipe', 'isft', '--workers', '0'];
  assert.match(
    await fail(train(out, ...from)),
    'The model is a base with an adapter, and what is asked for trains all weights.',
  );
  assert.not.ok(fs.existsSync(out));
  await succeed(train(out, ...from, ...lora));
  const { base } = readManifest(out);
  assert.is(base.hash, path.basename(fs.realpathSync(path.join(run, 'checkpoints', 'final'))));
  const config = (at: string) => JSON.parse(fs.readFileSync(path.join(at, 'adapter_config.json'), 'utf8'));
  for (const name of checkpoints(out)) {
    assert.is(
      config(path.join(out, 'checkpoints', name)).base_model_name_or_path,
      model,
      'of the first base still',
    );
  }
  assert.match(await succeed(['doctor', out]), 'Nothing is wrong with it.');
});

test('each role has an adapter of its own over the one base', async () => {
  const out = inFolder('roles');
  await succeed(
    train(
      out,
      '--model',
      model,
      ...smallRun,
      '--recipe',
      'isft',
      ...lora,
      '--policies',
      'per-role',
      '--workers',
      '0',
    ),
  );
  const team = trainingsOf(eventsIn(out)).at(-1)!;
  assert.is.not(team.alice, team.bob);
  const base = await loadPolicy(model);
  const policies: LlamaPolicy[] = [];
  for (const hash of Object.values(team)) {
    policies.push(await loadPolicy(path.join(out, 'checkpoints', hash), { base, hash }));
  }
  assert.ok(policies.every(({ weights }) => weights === base.weights));
  for (const one of [...policies, base]) one.dispose();
});

test('an adapter is merged into a checkpoint that says the same, and nothing else can be', async () => {
  const out = inFolder('merged');
  const said = JSON.parse((await succeed(['merge', run, '--out', out, '--json'])).trim().split('\n').at(-1)!);
  assert.ok(said.difference < 1e-4, `${said.difference}`);
  const policy = await loadPolicy(out, { hash: said.policy });
  assert.is(policy.lora, null);
  policy.dispose();
  assert.match(await fail(['merge', run, '--out', out]), 'is there already');
  const again = inFolder('again');
  assert.match(await fail(['merge', out, '--out', again]), 'has no adapter');
  // Of such factors the product is no number any more.
  const large = inFolder('large');
  fs.cpSync(path.join(run, 'checkpoints', checkpoints(run)[0]!), large, { recursive: true });
  const config = path.join(large, 'adapter_config.json');
  const { base_model_name_or_path: _, ...kept } = JSON.parse(fs.readFileSync(config, 'utf8'));
  fs.writeFileSync(config, JSON.stringify({ ...kept, base_model_name_or_path: model }));
  const weights = path.join(large, 'adapter_model.safetensors');
  const factors = await readSafetensors(weights);
  for (const { values } of factors.values()) values.fill(1e30);
  await writeSafetensors(weights, factors);
  assert.match(await fail(['merge', large, '--out', again]), 'merged it says something else');
  const left = fs.readdirSync(folder).filter((name) => name.includes('again'));
  assert.equal(left, []);
});

test.run();
