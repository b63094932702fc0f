import { mkdtemp, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { OptimaError } from '../../../src/domain/errors.ts';
import { hash16 } from '../../../src/domain/hash.ts';
import type { PolicyHash } from '../../../src/domain/ids.ts';
import { createRng } from '../../../src/domain/rng.ts';
import { type LlamaConfig, parseLlamaConfig } from '../../../src/models/llama/config.ts';
import { createPolicy, type LlamaPolicy, loadPolicy } from '../../../src/models/llama/index.ts';
import { readSafetensors, SafetensorsFile, writeSafetensors } from '../../../src/models/llama/safetensors.ts';
import { requireRoomForWeights } from '../../../src/models/llama/size.ts';
import { weightShapes } from '../../../src/models/llama/weights.ts';
import { startEngine, tf } from '../../../src/tensor/index.ts';
import { lettersTokenizer } from '../../support/letters.ts';
import { createTinyPolicy, tinyConfig } from '../../support/llama.ts';
import { writeRandomCheckpoint } from '../../support/run.ts';

let root: string;
test.before(async () => {
  await startEngine();
  root = await mkdtemp(join(tmpdir(), 'optima-checkpoint-'));
});
test.after(() => rm(root, { recursive: true }));

let folders = 0;
const newFolder = () => join(root, `checkpoint-${folders++}`);
const load = (folder: string) => loadPolicy(folder, { tokenizer: lettersTokenizer });

const logitsOf = (policy: LlamaPolicy) =>
  tf.tidy(() => policy.computeLogits(tf.tensor2d([[5, 9, 33, 7]], [1, 4], 'int32')).arraySync());

async function assertRefused(promise: Promise<unknown>, code: string, pattern: RegExp): Promise<OptimaError> {
  let error: OptimaError | undefined;
  try {
    await promise;
  } catch (caught) {
    error = caught as OptimaError;
  }
  assert.is(error?.code, code, String(error));
  assert.match(error!.message, pattern);
  assert.not.match(error!.message, /\n/);
  return error!;
}

/** A saved tiny checkpoint whose files a test then damages. */
async function savedFolder(overrides = {}): Promise<string> {
  const folder = newFolder();
  const policy = createTinyPolicy(overrides);
  await policy.save(folder);
  policy.dispose();
  return folder;
}

for (const tie_word_embeddings of [false, true]) {
  test(`saving and loading keeps hash and logits (tied: ${tie_word_embeddings})`, async () => {
    const folder = newFolder();
    const policy = createTinyPolicy({ tie_word_embeddings });
    const hash = await policy.save(folder);
    const loaded = await load(folder);
    assert.is(hash, policy.hash);
    assert.is(loaded.hash, policy.hash);
    assert.equal(loaded.config, policy.config);
    assert.equal(logitsOf(loaded), logitsOf(policy));
    assert.is(loaded.refreshHash(), hash);
    assert.equal((await readdir(folder)).sort(), [
      'config.json',
      'model.safetensors',
      'tokenizer.json',
      'tokenizer_config.json',
    ]);
    policy.dispose();
    loaded.dispose();
  });
}

test('weights that are not those asked for are refused, and leave nothing in memory', async () => {
  const [folder, tokenizer] = [newFolder(), lettersTokenizer];
  const policy = createTinyPolicy();
  const hash = await policy.save(folder);
  policy.dispose();
  const loaded = await loadPolicy(folder, { tokenizer, hash });
  assert.is(loaded.hash, hash);
  loaded.dispose();
  const before = tf.memory().numTensors;
  const other = hash16('other') as PolicyHash;
  const error = await assertRefused(
    loadPolicy(folder, { tokenizer, hash: other }),
    'checkpoint.invalid',
    new RegExp(`^${folder}: it has the hash ${hash}, not ${other}\\.$`),
  );
  assert.is(error.hint, 'The files were changed since they were written.');
  assert.is(tf.memory().numTensors, before);
});

test('whatever decides what a policy says is a part of its name: tokenizer, chat template and stops, too', async () => {
  const folder = newFolder();
  await writeRandomCheckpoint(folder);
  const hashOf = async () => {
    const policy = await loadPolicy(folder);
    policy.dispose();
    return policy.hash;
  };
  const hash = await hashOf();
  for (const [file, change] of [
    ['tokenizer.json', (text: string) => text.replace('<|end|>', '<|over|>')],
    [
      'tokenizer_config.json',
      (text: string) => text.replace("+ message['content']", "+ ' ' + message['content']"),
    ],
    ['generation_config.json', () => '{"eos_token_id":[1,2]}'],
  ] as const) {
    const at = join(folder, file);
    const before = await readFile(at, 'utf8').catch(() => null);
    const after = change(before ?? '');
    assert.is.not(after, before);
    await writeFile(at, after);
    assert.is.not(await hashOf(), hash, file);
    if (before === null) await rm(at);
    else await writeFile(at, before);
  }
  assert.is(await hashOf(), hash);
});

test('saving over an older checkpoint replaces it and leaves nothing beside it', async () => {
  const folder = await savedFolder();
  const newer = createTinyPolicy({}, { seed: 8 });
  await newer.save(folder);
  const loaded = await load(folder);
  assert.is(loaded.hash, newer.hash);
  assert.not.ok((await readdir(root)).some((name) => name.startsWith('.')));
  newer.dispose();
  loaded.dispose();
});

test('a checkpoint that cannot be written leaves what was there untouched', async () => {
  const folder = await savedFolder();
  const before = await readFile(join(folder, 'model.safetensors'));
  const policy = createTinyPolicy({}, { seed: 8 });
  await assertRefused(
    policy.save(join(folder, 'config.json', 'x')),
    'io.write',
    /Cannot write the checkpoint/,
  );
  const circular: Record<string, unknown> = {};
  circular.self = circular;
  const broken = createPolicy(
    tinyConfig,
    { ...lettersTokenizer, files: { tokenizerJson: circular, tokenizerConfig: {} } },
    createRng(1),
  );
  await assertRefused(broken.save(folder), 'io.write', /circular/);
  assert.equal(await readFile(join(folder, 'model.safetensors')), before);
  assert.not.ok((await readdir(root)).some((name) => name.startsWith('.')));
  policy.dispose();
  broken.dispose();
});

test('the hash follows the weights and the seed', () => {
  const policy = createTinyPolicy();
  const same = createTinyPolicy();
  const other = createTinyPolicy({}, { seed: 8 });
  assert.is(same.hash, policy.hash);
  assert.match(policy.hash, /^[0-9a-f]{16}$/);
  assert.not.equal(other.hash, policy.hash);
  const norm = same.parameters.get('model.norm.weight')!;
  tf.tidy(() => norm.assign(tf.mul(norm, 1.0001)));
  assert.is(same.hash, policy.hash, 'not before refreshHash');
  assert.not.equal(same.refreshHash(), policy.hash);
  for (const each of [policy, same, other]) each.dispose();
});

test('first values have the deviation they should', () => {
  const policy = createPolicy(
    { ...tinyConfig, hidden_size: 64, num_hidden_layers: 8 },
    lettersTokenizer,
    createRng(1),
  );
  const deviation = (name: string) =>
    tf.tidy(() => tf.sqrt(tf.moments(policy.parameters.get(name)!).variance).dataSync()[0]!);
  assert.ok(Math.abs(deviation('model.layers.3.self_attn.q_proj.weight') - 0.02) < 0.001);
  assert.ok(Math.abs(deviation('model.layers.3.self_attn.o_proj.weight') - 0.02 / 4) < 0.00025);
  assert.ok(Math.abs(deviation('model.layers.3.mlp.down_proj.weight') - 0.02 / 4) < 0.00025);
  assert.is(deviation('model.norm.weight'), 0);
  assert.is(policy.config.eos_token_id, lettersTokenizer.endOfTurnId);
  assert.is(policy.config.pad_token_id, lettersTokenizer.padId);
  policy.dispose();
});

test('a missing folder or file is reported as missing', async () => {
  await assertRefused(load(newFolder()), 'checkpoint.missing', /no such checkpoint folder/);
  for (const file of ['config.json', 'model.safetensors']) {
    const folder = await savedFolder();
    await rm(join(folder, file));
    await assertRefused(load(folder), 'checkpoint.missing', new RegExp(`${file}: no such file`));
  }
});

test('a file cut off anywhere is refused, naming file and tensor', async () => {
  const { length } = await readFile(join(await savedFolder(), 'model.safetensors'));
  for (const [bytes, pattern] of [
    [0, /model\.safetensors: truncated: 0 bytes/],
    [5, /model\.safetensors: truncated: 5 bytes/],
    [300, /model\.safetensors: truncated inside its header/],
    [length - 1, /model\.safetensors: truncated: tensor lm_head\.weight ends at byte/],
    [length - 9000, /model\.safetensors: truncated: tensor model\.\S+ ends at byte/],
  ] as const) {
    const folder = await savedFolder();
    await truncate(join(folder, 'model.safetensors'), bytes);
    await assertRefused(load(folder), 'checkpoint.invalid', pattern);
  }
});

test('weights in formats that only others read are refused, with what to do', async () => {
  const named = async (file: string, ...gone: string[]) => {
    const folder = await savedFolder();
    for (const name of ['model.safetensors', ...gone]) await rm(join(folder, name));
    await writeFile(join(folder, file), 'GGUF');
    return folder;
  };
  for (const [path, code, pattern, hint] of [
    [
      await named('pytorch_model.bin'),
      'missing',
      /no such file, and pytorch_model.bin is not/,
      /save_pretrained/,
    ],
    [await named('model-q4.gguf'), 'missing', /and model-q4\.gguf is not read/, /gguf_file="model-q4\.gguf"/],
    [join(await named('b.gguf'), 'b.gguf'), 'invalid', /b\.gguf: a file/, /gguf_file="b\.gguf"/],
    [join(await savedFolder(), 'model.safetensors'), 'invalid', /: a file/, /the folder that it is in/],
  ] as const) {
    const error = await assertRefused(load(path), `checkpoint.${code}`, pattern);
    assert.match(error.hint!, hint);
    assert.not.match(error.hint!, /\n/);
  }
});

test('what only has the name of a safetensors file is refused as what it is, with what to do', async () => {
  const path = join(root, 'renamed.safetensors');
  for (const [start, pattern, hint] of [
    ['GGUF\x03\0\0\0', /a GGUF file, whatever its name/, /^Name it model\.gguf\. .*gguf_file="model\.gguf"/],
    ['PK\x03\x04\0\0\x08\x08', /PyTorch's own format/, /^Name it pytorch_model\.bin\. .*save_pretrained/],
    ['version https://git-lfs.github.com/spec/v1', /a pointer of Git LFS/, /git lfs pull/],
    ['<!DOCTYPE html>', /a web page/, /download it again/],
  ] as const) {
    await writeFile(path, start);
    const error = await assertRefused(readSafetensors(path), 'checkpoint.invalid', pattern);
    assert.match(error.hint!, hint);
  }
});

test('weights that cannot fit the heap are refused before any is read, with the size that fits', async () => {
  const folder = await savedFolder();
  const path = join(folder, 'config.json');
  const config = JSON.parse(await readFile(path, 'utf8'));
  const wide = { ...config, hidden_size: 2048, head_dim: 512, intermediate_size: 2 ** 18 };
  await writeFile(path, JSON.stringify(wide));
  const header: Record<string, unknown> = {};
  let end = 0;
  for (const [name, shape] of weightShapes(parseLlamaConfig(wide))) {
    const begin = end;
    end += 2 * shape.reduce((product, n) => product * n, 1);
    header[name] = { dtype: 'BF16', shape, data_offsets: [begin, end] };
  }
  const json = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  const weights = join(folder, 'model.safetensors');
  await writeFile(weights, Buffer.concat([length, json]));
  // A file of nothing but holes behind its header.
  await truncate(weights, 8 + json.length + end);
  const before = process.memoryUsage().rss;
  const error = await assertRefused(
    load(folder),
    'model.failed',
    /3,246 million weights in float32 take 12\.\d GiB/,
  );
  assert.match(error.hint!, /at most 1,0\d\d million weights/);
  assert.ok(process.memoryUsage().rss - before < 2 ** 28);
});

test('frozen weights that fit nowhere are refused with what lies where, and what would fit', () => {
  // Larger than a config.json may be: nothing else is so large that no machine holds it.
  const config = (fields: Partial<LlamaConfig>): LlamaConfig => ({
    ...parseLlamaConfig(tinyConfig),
    ...fields,
  });
  const refusal = (of: LlamaConfig): OptimaError => {
    const matrices = [...weightShapes(of)].filter(([, shape]) => shape.length === 2);
    try {
      requireRoomForWeights(of, 'model', new Map(matrices.map(([name]) => [name, 'bfloat16'])));
    } catch (error) {
      return error as OptimaError;
    }
    throw new Error('It fits.');
  };
  const large = refusal(config({ vocab_size: 2 ** 22, hidden_size: 2 ** 20, head_dim: 16 }));
  assert.is(large.code, 'model.failed');
  assert.match(
    large.message,
    /^model: the frozen matrices of 8,796,\d{3} million weights take 1638[45]\.\d GiB outside /,
  );
  assert.match(large.hint!, /at most [\d,]+ million weights in bfloat16/);
  const long = refusal(config({ hidden_size: 2 ** 22, head_dim: 16, num_hidden_layers: 200 }));
  assert.match(
    long.message,
    /^model: 1,681 million weights in float32, beside the frozen matrices outside, take 6\.4 GiB/,
  );
  assert.not.match(long.hint!, /million/);
});

test('damaged headers are refused', async () => {
  const file = (json: string) => {
    const bytes = Buffer.from(json);
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(bytes.length));
    return Buffer.concat([length, bytes, Buffer.alloc(16)]);
  };
  for (const [content, pattern] of [
    [Buffer.from('this is not a safetensors file'), /header length is implausible/],
    [file('{"a": '), /its header is not JSON/],
    [file('{"a": {"dtype": "F32"}}'), /its header is malformed at a\./],
    [file('{"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 16]}}'), /tensor a .* 12 bytes, not 16/],
    [file('{"a": {"dtype": "I64", "shape": [2], "data_offsets": [0, 16]}}'), /tensor a has dtype I64/],
  ] as const) {
    const path = join(root, 'damaged.safetensors');
    await writeFile(path, content);
    const { hint } = await assertRefused(readSafetensors(path), 'checkpoint.invalid', pattern);
    assert.match(hint!, /I64/.test(pattern.source) ? /float32, float16 or bfloat16/ : /damaged/);
  }
});

test('weights that do not fit the config are refused by name', async () => {
  const changes: [Record<string, unknown>, RegExp][] = [
    [
      { hidden_size: 16, head_dim: 8 },
      /tensor model\.embed_tokens\.weight has shape \[40,32\], .* \[40,16\]/,
    ],
    [{ num_hidden_layers: 3 }, /tensor model\.layers\.2\.input_layernorm\.weight is missing/],
    [{ num_hidden_layers: 1 }, /tensor model\.layers\.1\.\S+ is not part of a decoder of the kind llama/],
    [{ attention_bias: true }, /tensor model\.layers\.0\.self_attn\.q_proj\.bias is missing/],
    [{ mlp_bias: true }, /config\.json: mlp_bias true is not supported/],
  ];
  for (const [change, pattern] of changes) {
    const folder = await savedFolder();
    const path = join(folder, 'config.json');
    await writeFile(path, JSON.stringify({ ...JSON.parse(await readFile(path, 'utf8')), ...change }));
    await assertRefused(load(folder), 'checkpoint.invalid', pattern);
  }
  const folder = await savedFolder();
  await writeFile(join(folder, 'config.json'), '{"hidden_size": 16');
  await assertRefused(load(folder), 'checkpoint.invalid', /config\.json: not JSON/);
});

test('a tokenizer with more tokens than the embedding table is refused', async () => {
  await assertRefused(
    loadPolicy(await savedFolder(), { tokenizer: { ...lettersTokenizer, vocabSize: 41 } }),
    'tokenizer.mismatch',
    /tokenizer has 41 tokens, the model's embedding table only 40 rows/,
  );
  assert.throws(
    () => createPolicy({ ...tinyConfig, vocab_size: 20 }, lettersTokenizer, createRng(1)),
    (error: unknown) => (error as OptimaError).code === 'tokenizer.mismatch',
  );
});

test('a refused checkpoint leaves no tensor behind', async () => {
  const folder = await savedFolder();
  const { numTensors } = tf.memory();
  await assertRefused(
    loadPolicy(folder, { tokenizer: { ...lettersTokenizer, vocabSize: 41 } }),
    'tokenizer.mismatch',
    /41/,
  );
  assert.is(tf.memory().numTensors, numTensors);
});

test('shards listed in an index are read as one checkpoint', async () => {
  const folder = await savedFolder();
  const weights = [...(await readSafetensors(join(folder, 'model.safetensors')))];
  const whole = await load(folder);
  await rm(join(folder, 'model.safetensors'));
  await writeSafetensors(join(folder, 'one.safetensors'), new Map(weights.slice(0, 7)));
  await writeSafetensors(join(folder, 'two.safetensors'), new Map(weights.slice(7)));
  const weight_map = Object.fromEntries(
    weights.map(([name], i) => [name, `${i < 7 ? 'one' : 'two'}.safetensors`]),
  );
  await writeFile(join(folder, 'model.safetensors.index.json'), JSON.stringify({ weight_map }));
  const sharded = await load(folder);
  assert.is(sharded.hash, whole.hash);
  assert.equal(logitsOf(sharded), logitsOf(whole));
  await rm(join(folder, 'two.safetensors'));
  const error = await assertRefused(
    load(folder),
    'checkpoint.missing',
    /two\.safetensors: no such file, one of 2 shards/,
  );
  assert.match(error.hint!, /again: model\.safetensors\.index\.json says/);
  whole.dispose();
  sharded.dispose();
});

test('half-precision tensors are read as the numbers they stand for', async () => {
  const header = {
    half: { dtype: 'F16', shape: [5], data_offsets: [0, 10] },
    brain: { dtype: 'BF16', shape: [3], data_offsets: [10, 16] },
  };
  const json = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  // 1, −2, 2⁻²⁴ (the smallest subnormal), 65504 (the largest), +∞; then 1, −2.5, 3.140625
  const data = Buffer.from(Uint16Array.of(0x3c00, 0xc000, 1, 0x7bff, 0x7c00, 0x3f80, 0xc020, 0x4049).buffer);
  const path = join(root, 'half.safetensors');
  await writeFile(path, Buffer.concat([length, json, data]));
  const tensors = await readSafetensors(path);
  assert.equal([...tensors.get('half')!.values], [1, -2, 2 ** -24, 65504, Number.POSITIVE_INFINITY]);
  assert.equal([...tensors.get('brain')!.values], [1, -2.5, 3.140625]);
});

test('a head that differs from the embedding table that config.json ties it to is refused', async () => {
  const folder = await savedFolder({ tie_word_embeddings: true });
  const path = join(folder, 'model.safetensors');
  const weights = await readSafetensors(path);
  const { shape, values } = weights.get('model.embed_tokens.weight')!;
  const whole = await load(folder);
  const withHead = (head: Float32Array, as = shape) =>
    writeSafetensors(path, new Map([...weights, ['lm_head.weight', { shape: as, values: head }]]));
  await withHead(Float32Array.from(values));
  const same = await load(folder);
  assert.is(same.hash, whole.hash);
  for (const head of [
    values.map((value, index) => (index === values.length - 1 ? value + 1 : value)),
    new Float32Array(3),
  ]) {
    await withHead(head, head.length === 3 ? [3] : shape);
    const { hint } = await assertRefused(
      load(folder),
      'checkpoint.invalid',
      /lm_head\.weight is the embedding table/,
    );
    assert.match(hint!, /"tie_word_embeddings": false/);
  }
  for (const policy of [whole, same]) policy.dispose();
});

test('a generation_config.json is kept as it stands, and its ids end a message', async () => {
  const folder = await savedFolder();
  const generation = { eos_token_id: [8, 9], temperature: 0.6, nested: { a: [1] } };
  const file = join(folder, 'generation_config.json');
  await writeFile(file, JSON.stringify(generation));
  const policy = await load(folder);
  const again = newFolder();
  await policy.save(again);
  assert.equal(JSON.parse(await readFile(join(again, 'generation_config.json'), 'utf8')), generation);
  const requests = [1, 2, 3, 4].map((seed) => ({
    ...{ id: `r${seed}`, seed, messages: [{ role: 'user' as const, content: 'abc' }] },
    sampling: { temperature: 1, topP: 1, topK: 0, maxTokens: 200 },
  }));
  const plain = await load(await savedFolder());
  const longer = (await plain.generate(requests)).map(({ tokenIds }) => tokenIds);
  for (const [index, { tokenIds, finish }] of (await policy.generate(requests)).entries()) {
    const end = longer[index]!.findIndex((id) => [8, 9, plain.tokenizer.endOfTurnId].includes(id));
    assert.equal(tokenIds, longer[index]!.slice(0, end + 1));
    assert.is(finish, 'stop');
  }
  assert.ok(longer.some((ids) => ids.includes(8) || ids.includes(9)));
  for (const eos_token_id of ['3', [40], -1, [1.5]]) {
    await writeFile(file, JSON.stringify({ eos_token_id }));
    await assertRefused(load(folder), 'checkpoint.invalid', /generation_config\.json: eos_token_id .*/);
  }
  for (const one of [policy, plain]) one.dispose();
});

test('tensors longer than a piece are read as they were written, whatever was read ahead', async () => {
  const path = join(root, 'pieces.safetensors');
  const sizes = { long: 2 ** 22 + 3, none: 0, short: 7, piece: 2 ** 21 };
  const tensors = new Map(
    Object.entries(sizes).map(([name, size], i) => [
      name,
      { shape: [size], values: Float32Array.from({ length: size }, (_, at) => at + i / 4) },
    ]),
  );
  await writeSafetensors(path, tensors);
  const file = await SafetensorsFile.open(path);
  for (const [name, next] of [
    ['long', 'none'],
    ['none', 'short'],
    ['short', 'long'],
    ['piece', 'short'],
    ['long', undefined],
    ['short', 'piece'],
  ] as const) {
    const pieces: number[] = [];
    const take = (piece: Float32Array) => {
      for (const number of piece) pieces.push(number);
    };
    await file.read(name, take, next);
    assert.equal(Float32Array.from(pieces), tensors.get(name)!.values, name);
  }
  await file.close();
});

test.run();
