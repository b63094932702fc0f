// What a run will need by its recipe and its model's config: counted by hand, refused where it cannot fit, with what would.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { OptimaError } from '../../src/domain/errors.ts';
import { parseLlamaConfig } from '../../src/models/llama/config.ts';
import { adapterCount, keyValueBytes, parameterCount, weightBytes } from '../../src/models/llama/size.ts';
import { presetRecipe } from '../../src/recipe/presets.ts';
import { applySettings } from '../../src/recipe/schema.ts';
import { estimateResources, requireRoomForRun, type Undertaking } from '../../src/run/resources.ts';

const config = parseLlamaConfig({
  ...{ vocab_size: 100, hidden_size: 8, intermediate_size: 16, num_hidden_layers: 2 },
  ...{
    num_attention_heads: 2,
    num_key_value_heads: 1,
    max_position_embeddings: 4096,
    tie_word_embeddings: true,
  },
});
/** SmolLM2's shape, and one of a billion weights. */
const shaped = (changes: object) =>
  parseLlamaConfig({ ...config, rope_scaling: null, head_dim: null, ...changes });
const small = shaped({
  ...{ vocab_size: 49_152, hidden_size: 576, intermediate_size: 1536, num_hidden_layers: 30 },
  ...{ num_attention_heads: 9, num_key_value_heads: 3 },
});
const billion = shaped({
  ...{ vocab_size: 128_256, hidden_size: 2048, intermediate_size: 8192, num_hidden_layers: 16 },
  ...{ num_attention_heads: 32, num_key_value_heads: 8 },
});

const undertaking = (changes: Partial<Undertaking> = {}): Undertaking => ({
  scenario: { kind: 'information-exchange', roles: { alice: { sees: () => '' }, bob: { sees: () => '' } } },
  recipe: presetRecipe('quick', 'isft-dpo'),
  config,
  lengths: { dialogue: 400, view: 100, format: 0, context: 500 },
  workers: 2,
  ...changes,
});
const refusalOf = (asked: Undertaking, machine = 2 ** 36): OptimaError => {
  try {
    requireRoomForRun(asked, machine);
  } catch (error) {
    return error as OptimaError;
  }
  throw new Error('it fits');
};

test('weights, adapters, and keys and values are counted by the architecture', () => {
  // A layer: norms 2·8, queries 8·8, keys and values 2·4·8, output 8·8, feed-forward 3·16·8.
  assert.is(parameterCount(config), 100 * 8 + 2 * (16 + 64 + 64 + 64 + 384) + 8);
  assert.is(keyValueBytes(config), 4 * 2 * 2 * 4);
  const lora = { rank: 3, alpha: 6, dropout: 0, targets: ['q_proj', 'down_proj'] } as const;
  assert.is(adapterCount(config, lora), 2 * 3 * (8 + 8 + 8 + 16));
});

test('a plan counts dialogues and tokens of its recipe at most', () => {
  const recipe = applySettings(presetRecipe('quick', 'isft'), [
    ...['iterations=1', 'initialization.tasks=10', 'initialization.samplesPerTask=3', 'isft.tasks=20'],
    ...['isft.samplesPerTask=2', 'evaluation.tasks=5', 'sft.epochs=2', 'initialization.keepFraction=0.5'],
    'isft.keepFraction=1',
  ]);
  const { dialogues, tokens } = estimateResources(undertaking({ recipe }));
  assert.is(dialogues, 5 + 30 + 40 + 5);
  assert.is(tokens.generated, 80 * 400);
  assert.is(tokens.read, (80 + 70) * 2 * 500, 'what is ranked is read once more');
  // Two roles, two epochs, of the ten tasks a half and of the twenty all.
  assert.is(tokens.trained, (5 + 20) * 2 * 2 * 500);
  const formatted = { dialogue: 400, view: 100, format: 20, context: 500 };
  const prompted = estimateResources(undertaking({ recipe, lengths: formatted }));
  assert.is(prompted.tokens.read, tokens.read);
  assert.is(prompted.tokens.trained, (5 + 20) * 2 * 2 * 480, 'a format prompt is not trained on');
});

test('an adapter takes less memory and fewer operations, a worker more of one and none of the other', () => {
  const whole = estimateResources(undertaking({ config: small }));
  const recipe = applySettings(presetRecipe('quick', 'isft-dpo'), ['lora.rank=8']);
  const adapted = estimateResources(undertaking({ config: small, recipe }));
  assert.ok(adapted.peakBytes < whole.peakBytes - 4 * whole.weightBytes);
  assert.ok(adapted.operations.training < 0.7 * whole.operations.training);
  assert.is(adapted.operations.reading, whole.operations.reading);
  const three = estimateResources(undertaking({ config: small, workers: 3 }));
  assert.ok(three.peakBytes > whole.peakBytes + whole.weightBytes);
  assert.equal(three.operations, whole.operations);
  assert.ok(whole.decodingBytes < whole.peakBytes);
});

test('frozen matrices are held once, outside the heaps, as narrow as they are stored', () => {
  const recipe = applySettings(presetRecipe('quick', 'isft'), ['lora.rank=8', 'sft.tokensPerPass=512']);
  const asked = undertaking({ config: billion, recipe });
  const wide = refusalOf(asked, 2 ** 34);
  assert.match(wide.message, /on its heap, which holds 4.0 GiB/);
  const [two, four] = [2, 4].map((bytesPerNumber) => estimateResources({ ...asked, bytesPerNumber }));
  // Sixteen layers have two norms each, and there is one at the end.
  const numbers = parameterCount(billion) - 33 * 2048;
  assert.is(two!.frozenBytes, 2 * numbers);
  assert.is(four!.frozenBytes, 4 * numbers);
  assert.is(four!.peakBytes - two!.peakBytes, 2 * numbers, 'once, whatever the number of threads');
  assert.is(four!.heapBytes, two!.heapBytes);
  assert.ok(two!.heapBytes < 2 ** 32);
  const partner = estimateResources({ ...asked, frozen: [{ config: small, bytesPerNumber: 2 }] });
  assert.is(partner.frozenBytes, 2 * (parameterCount(small) - 61 * 576));
});

test('partners and a judge are held wherever somebody speaks, beside the model and to the end', () => {
  const alone = estimateResources(undertaking());
  const accompanied = estimateResources(undertaking({ frozen: [{ config: small }, { config: small }] }));
  const workers = (part: string) =>
    [alone, accompanied].map((one) => one.parts.find((need) => need.part === part)!.worker);
  for (const part of ['base', 'generate', 'search', 'train']) {
    const [without, within] = workers(part);
    assert.ok(within! - without! >= 2 * weightBytes(small), part);
  }
  // Two roles' contexts in each of the rows are remembered by each, or as many as a session may.
  const [first, behind] = ['base', 'train'].map((part) => workers(part)[1]! - workers(part)[0]!);
  const rows = Math.min(undertaking().recipe.concurrency, 128);
  const remembered = Math.max(rows * 500, Math.min(2 ** 28 / keyValueBytes(small), 2 * rows * 500));
  assert.is(first! - behind!, 2 * remembered * keyValueBytes(small));
  const loading = accompanied.parts.find(({ part }) => part === 'load')!;
  assert.is(loading.main, alone.weightBytes + weightBytes(small), 'they are opened one after the other');
});

test('what the heap or the machine cannot hold is refused, and what is said to fit does', () => {
  assert.is(requireRoomForRun(undertaking(), 2 ** 34).risk, null);
  const asked = undertaking({
    config: small,
    lengths: { dialogue: 400, view: 700, format: 0, context: 1100 },
  });
  const { code, message, hint } = refusalOf(asked);
  assert.is(code, 'model.oversized');
  assert.match(
    message,
    /^The run does not fit: one thread needs [\d.]+ GiB on its heap, which holds 4\.0 GiB\.$/,
  );
  const settings = [...hint!.matchAll(/--set (\S+?)(?=\.?( |$))/g)].map(([, setting]) => setting!);
  const workers = Number(/--workers (\d)/.exec(hint!)?.[1] ?? asked.workers);
  assert.ok(settings.length > 0, hint);
  const smaller = { ...asked, workers, recipe: applySettings(asked.recipe, settings) };
  assert.is(requireRoomForRun(smaller, 2 ** 36).risk, null, hint);
  const onSmallMachine = refusalOf(undertaking({ workers: 4 }), 2 ** 29);
  assert.match(onSmallMachine.message, /it needs [\d.]+ [GM]iB, and this machine has 512 MiB/);
  assert.match(onSmallMachine.hint!, /--workers \d|No setting/);
});

test('a billion weights fit no heap, and the refusal says what size would', () => {
  const { message, hint } = refusalOf(undertaking({ config: billion }));
  assert.match(message, /The run does not fit/);
  assert.match(hint!, /^No setting makes it small enough; a model of about [\d.]+ M parameters would fit\.$/);
});

test('where only the longest messages would not fit, that is a risk and no refusal', () => {
  const recipe = applySettings(presetRecipe('quick', 'isft-dpo'), ['lora.rank=8', 'lora.recompute=true']);
  const asked = undertaking({
    config: small,
    recipe,
    lengths: { dialogue: 4000, view: 60, format: 0, context: 4060 },
  });
  const { risk, resources } = requireRoomForRun(asked, 2 ** 36);
  assert.match(risk!, /^Where every message runs into its cap, one thread needs .* It fits with --set /);
  assert.ok(resources.heapBytes > 2 ** 32);
});

test.run();
