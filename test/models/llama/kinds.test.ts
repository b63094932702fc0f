// Every kind of checkpoint against Transformers: logits, greedy text, and a step of training. The checkpoints are made by
// tools/fixtures/make_checkpoint_fixtures.py; KINDS names a folder of others that it made.
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { TrainingSequence } from '../../../src/domain/model.ts';
import { createBlockDecoder } from '../../../src/models/llama/block-decoder.ts';
import { toConfigJson } from '../../../src/models/llama/config.ts';
import type { Decoder } from '../../../src/models/llama/forward.ts';
import { type LlamaPolicy, loadPolicy } from '../../../src/models/llama/index.ts';
import { RotaryTable } from '../../../src/models/llama/rotary.ts';
import { readSafetensors } from '../../../src/models/llama/safetensors.ts';
import { TensorDecoder } from '../../../src/models/llama/tensor-decoder.ts';
import { arrangeWeights, type NamedArray } from '../../../src/models/llama/weights.ts';
import { type BlockDecoder, blockTokens, tf } from '../../../src/tensor/index.ts';
import { createAdamW } from '../../../src/training/adamw.ts';
import { defaultDpoConfig, dpoObjective, type PreferenceExample } from '../../../src/training/dpo/index.ts';
import type { Objective } from '../../../src/training/objective.ts';
import { defaultSftConfig, sftObjective } from '../../../src/training/sft/index.ts';
import { takeStep } from '../../../src/training/step.ts';
import { lettersTokenizer } from '../../support/letters.ts';
import { products, skipMissing } from '../../tensor/compare.ts';

const root = process.env.KINDS ?? fileURLToPath(new URL('./kinds', import.meta.url));
const kinds = fs.readdirSync(root).sort();

interface Case {
  readonly ids: number[];
  readonly greedy: number[];
}
interface Training {
  readonly learningRate: number;
  readonly beta: number;
  readonly epsilon: number;
  readonly batch: TrainingSequence[];
  readonly pairs: PreferenceExample[];
  readonly sft: { readonly loss: number; readonly gradNorm: number };
  readonly dpo: { readonly loss: number; readonly gradNorm: number };
}
interface Reference {
  readonly cases: Case[];
  readonly training?: Training;
  readonly tensors: Map<string, NamedArray>;
}

async function referenceOf(kind: string): Promise<Reference> {
  const text = fs.readFileSync(path.join(root, kind, 'reference.json'), 'utf8');
  return {
    ...JSON.parse(text),
    tensors: await readSafetensors(path.join(root, kind, 'reference.safetensors')),
  };
}

const sequenceOf = ({ cases }: Reference, index: number): number[] => [
  ...cases[index]!.ids,
  ...cases[index]!.greedy,
];

const open = (kind: string, frozen = false) =>
  loadPolicy(path.join(root, kind), { tokenizer: lettersTokenizer, frozen });

/** Asserts that logits are those of Transformers for the tokens of a case from `from` on. */
function assertLogits(
  { tensors }: Reference,
  index: number,
  from: number,
  actual: ArrayLike<number>,
  what: string,
): void {
  const { shape, values } = tensors.get(`logits.${index}`)!;
  const start = from * shape[1]!;
  for (let i = 0; i < actual.length; i++) {
    const off = Math.abs(actual[i]! - values[start + i]!);
    if (!(off < 1e-4)) assert.unreachable(`${what}, case ${index}, number ${start + i}: off by ${off}`);
  }
}

function argmax(values: Float32Array): number {
  let best = 0;
  for (let id = 1; id < values.length; id++) if (values[id]! > values[best]!) best = id;
  return best;
}

/** Reads all cases, or one, with a block decoder: the prompts, and then, token by token, what greedy decoding adds to them. */
function decodeGreedily(
  decoder: BlockDecoder,
  cases: readonly Case[],
  seen: (row: number, at: number, logits: Float32Array) => void,
): number[][] {
  const rows = cases.map(({ ids, greedy }) => ({
    ids: [...ids],
    blocks: Array.from({ length: Math.ceil((ids.length + greedy.length) / blockTokens) }, () =>
      decoder.allocate(),
    ),
    start: 0,
  }));
  for (let step = 0; step < cases[0]!.greedy.length; step++) {
    decoder.read(
      rows.map(({ ids, start, blocks }) => ({
        ...{ ids: ids.slice(start), start },
        blocks: blocks.slice(0, Math.ceil(ids.length / blockTokens)),
      })),
    );
    let last = -1;
    const ends = rows.map(({ ids, start }) => (last += ids.length - start));
    decoder.logits(ends).forEach(({ values }, row) => {
      const { ids } = rows[row]!;
      seen(row, ids.length - 1, values);
      rows[row]!.start = ids.length;
      ids.push(argmax(values));
    });
  }
  for (const { blocks } of rows) for (const block of blocks) decoder.free(block);
  return rows.map(({ ids }, row) => ids.slice(cases[row]!.ids.length));
}

/** Reads cases in pieces, side by side. */
function decodeInPieces(decoder: BlockDecoder, reference: Reference, cases: readonly number[]): void {
  const sequences = cases.map((index) => sequenceOf(reference, index));
  const blocks = sequences.map(({ length }) =>
    Array.from({ length: Math.ceil(length / blockTokens) }, () => decoder.allocate()),
  );
  let starts = sequences.map(() => 0);
  for (const count of [1, 40, 100]) {
    const spans = sequences
      .map((all, row) => ({ row, start: starts[row]!, ids: all.slice(starts[row]!, starts[row]! + count) }))
      .filter(({ ids }) => ids.length > 0);
    decoder.read(
      spans.map(({ row, start, ids }) => ({
        ...{ ids, start },
        blocks: blocks[row]!.slice(0, Math.ceil((start + ids.length) / blockTokens)),
      })),
    );
    let at = 0;
    for (const { row, start, ids } of spans) {
      const rows = ids.map((_, i) => at + i);
      decoder.logits(rows).forEach(({ values }, i) => {
        assertLogits(reference, cases[row]!, start + i, values, 'in pieces');
      });
      at += ids.length;
    }
    starts = starts.map((start) => start + count);
  }
  for (const block of blocks.flat()) decoder.free(block);
}

const decoderOf = ({ config, weights }: LlamaPolicy): Decoder => ({
  config,
  weights: arrangeWeights(config, weights),
  rotary: new RotaryTable(config),
});

/** Whole sequences, as training reads them, side by side and padded. */
function assertWhole(policy: LlamaPolicy, reference: Reference, cases: readonly number[]): void {
  const sequences = cases.map((index) => sequenceOf(reference, index));
  const time = Math.max(...sequences.map(({ length }) => length));
  const padded = sequences.map((all) => [...all, ...Array<number>(time - all.length).fill(0)]);
  const logits = tf.tidy(() =>
    policy.computeLogits(tf.tensor2d(padded, [cases.length, time], 'int32')).dataSync<'float32'>(),
  );
  const { vocab_size: vocab } = policy.config;
  sequences.forEach((all, row) => {
    const own = logits.subarray(row * time * vocab, (row * time + all.length) * vocab);
    assertLogits(reference, cases[row]!, 0, own, 'whole');
  });
}

/** Each kind of product, and those that read frozen matrices. */
const ways = products.flatMap(({ name, install }) => [
  { name, install, frozen: false },
  ...(name === 'in machine code' ? [{ name: `${name}, frozen`, install, frozen: true }] : []),
]);

for (const kind of kinds) {
  for (const { name, install, frozen } of ways) {
    test(`${kind} ${name}: logits and greedy text of Transformers, whole and cached, alone and batched`, async () => {
      await install();
      const reference = await referenceOf(kind);
      const policy = await open(kind, frozen);
      assert.is(policy.shared !== null, frozen);
      const all = reference.cases.map((_, index) => index);
      for (const some of [all, ...all.map((index) => [index])]) assertWhole(policy, reference, some);
      const decoder = createBlockDecoder(decoderOf(policy));
      assert.is(decoder instanceof TensorDecoder, policy.config.head_dim % 8 !== 0);
      const { cases } = reference;
      for (const rows of [all, [cases.length - 1]]) {
        const text = decodeGreedily(
          decoder,
          rows.map((row) => cases[row]!),
          (row, at, logits) => assertLogits(reference, rows[row]!, at, logits, 'cached'),
        );
        assert.equal(
          text,
          rows.map((row) => cases[row]!.greedy),
        );
      }
      decodeInPieces(decoder, reference, all);
      decoder.dispose();
      policy.dispose();
    });
  }

  test(`${kind} on the cpu backend: the logits of Transformers`, async () => {
    await tf.setBackend('cpu');
    const reference = await referenceOf(kind);
    const policy = await open(kind);
    // Two of them: it is slow.
    assertWhole(policy, reference, [1]);
    decodeInPieces(createBlockDecoder(decoderOf(policy)), reference, [0]);
    policy.dispose();
  });

  test(`${kind} is written as it was read, in its own kind's words`, async () => {
    await products[0]!.install();
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'optima-kinds-'));
    const policy = await open(kind);
    await policy.save(folder);
    const again = await loadPolicy(folder, { tokenizer: lettersTokenizer, hash: policy.hash });
    assert.equal(again.config, policy.config);
    const [theirs, ours] = [path.join(root, kind), folder].map((at) =>
      JSON.parse(fs.readFileSync(path.join(at, 'config.json'), 'utf8')),
    );
    assert.equal(ours, JSON.parse(JSON.stringify(toConfigJson(policy.config))));
    for (const field of [
      'architectures',
      'model_type',
      'attention_bias',
      'head_dim',
      'tie_word_embeddings',
    ]) {
      assert.equal(ours[field], theirs[field], field);
    }
    fs.rmSync(folder, { recursive: true });
    for (const one of [policy, again]) one.dispose();
  });
}

/** A step from a checkpoint, and its weights after it. */
async function assertStep<Example>(
  kind: string,
  objective: Objective<Example>,
  examples: readonly Example[],
  { name, training, reference }: { name: 'sft' | 'dpo'; training: Training; reference: Reference },
): Promise<void> {
  const policy = await open(kind);
  const config = {
    ...(name === 'sft' ? defaultSftConfig : defaultDpoConfig),
    weightDecay: 0,
    clipNorm: 1,
    epsilon: training.epsilon,
  };
  const optimizer = createAdamW(policy.parameters, config);
  const result = await takeStep(policy, objective, optimizer, examples, {
    learningRate: training.learningRate,
    tokensPerPass: 4096,
  });
  const expected = training[name];
  assert.ok(Math.abs(result.loss - expected.loss) < 1e-4, `${result.loss} is not ${expected.loss}`);
  assert.ok(Math.abs(result.gradNorm - expected.gradNorm) < 1e-4 * expected.gradNorm);
  for (const [weight, variable] of policy.parameters) {
    const { values } = reference.tensors.get(`${name}.${weight}`)!;
    variable.dataSync<'float32'>().forEach((value, place) => {
      assert.ok(
        Math.abs(value - values[place]!) < 1e-4,
        `${weight} ${place}: ${value} is not ${values[place]}`,
      );
    });
  }
  optimizer.dispose();
  policy.dispose();
}

for (const kind of kinds) {
  const text = fs.readFileSync(path.join(root, kind, 'reference.json'), 'utf8');
  if (!('training' in JSON.parse(text))) continue;
  for (const { name, install } of products) {
    test(`${kind} ${name}: a step of SFT and one of DPO give PyTorch's weights`, async () => {
      await install();
      const reference = await referenceOf(kind);
      const training = reference.training!;
      await assertStep(kind, sftObjective, training.batch, { name: 'sft', training, reference });
      for (const packed of [true, false]) {
        const objective = dpoObjective({ ...defaultDpoConfig, beta: training.beta, alpha: 1, packed });
        const pairs = training.pairs.map((pair) => ({ ...pair, group: 'one' }));
        await assertStep(kind, objective, pairs, { name: 'dpo', training, reference });
      }
    });
  }
}

skipMissing(test);

test.run();
