// How a base model is made: which lessons a step has, what is measured and saved when, and what is left behind. The
// model is of a few hundred weights; where a test needs it, its losses are as the test says.
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { OptimaError } from '../../src/domain/errors.ts';
import type { ChatMessage, ScoreRequest } from '../../src/domain/model.ts';
import { createRng, type Rng } from '../../src/domain/rng.ts';
import { createPolicy, LlamaPolicy, loadPolicy } from '../../src/models/llama/index.ts';
import { openModel } from '../../src/models/open.ts';
import { scriptedModel } from '../../src/models/scripted/index.ts';
import { tokenizerFrom, trainTokenizer } from '../../src/models/tokenizer/index.ts';
import {
  agreement,
  defineScenario,
  dialogue,
  exactMatch,
  generated,
  tagged,
} from '../../src/scenario/index.ts';
import { isFrozen, startEngine, tf } from '../../src/tensor/index.ts';
import { sftObjective } from '../../src/training/sft/index.ts';
import { onThisThread } from '../../src/training/step.ts';
import { demonstrateDialogues, textsOf, viewsOf } from '../../src/warmup/demonstrations.ts';
import type { WarmupStep } from '../../src/warmup/model-card.ts';
import { risingSteps, tinyArchitecture, type WarmupOptions, warmUp } from '../../src/warmup/warmup.ts';
import { temporaryFolder } from '../support/run.ts';

const root = temporaryFolder('warmup');
test.after(() => fs.rmSync(root, { recursive: true }));
test.before(async () => {
  await startEngine({ backend: 'wasm' });
});

const nouns = ['oak', 'elm', 'fir', 'ash', 'yew', 'bay', 'fig', 'box'];
/** Lines of which some share two words with another; the two speakers' own begin with words of their own. */
const linesFor = (rng: Rng, beginnings: readonly string[]) =>
  Array.from({ length: 7 }, () => `${rng.pick(beginnings)} ${rng.pick(nouns)} ${rng.pick(nouns)}`);

/** Two speakers with seven lines of their own, and a third who is told only what all are told. */
const scenario = defineScenario({
  name: 'lines',
  kind: 'debate',
  description: '',
  tasks: generated((rng) => ({
    alice: linesFor(rng, ['art', 'bow', 'cup']),
    bob: linesFor(rng, ['day', 'ear', 'fan']),
  })),
  roles: {
    alice: { sees: (task) => ['Be brief.', ...task.alice].join('\n') },
    bob: { sees: (task) => ['Be brief.', ...task.bob].join('\n') },
    carol: { sees: () => 'Be brief.' },
  },
  protocol: dialogue({ order: ['alice', 'bob', 'carol'], maxTurns: 3, until: agreement() }),
  answer: tagged('A'),
  answers: (task) => [task.alice[0]!],
  metric: exactMatch,
  reward: { lambdaToken: 0.6, lambdaLoss: 1 },
  formats: [],
  demonstrate: (task, rng) => ({
    format: null,
    turns: [
      { speaker: 'alice', text: `${rng.pick(task.alice)} ${rng.pick(nouns)} ${rng.pick(nouns)}` },
      { speaker: 'bob', text: rng.pick(task.bob) },
    ],
  }),
});

const architecture = {
  vocabSize: 300,
  hiddenSize: 8,
  feedForwardSize: 12,
  layers: 1,
  heads: 2,
  keyValueHeads: 1,
  contextTokens: 640,
};
let folders = 0;
const options = (change: Partial<WarmupOptions> = {}): WarmupOptions => ({
  scenarios: [scenario],
  seed: 4,
  steps: 3,
  dialoguesPerStep: 2,
  echoSteps: 0,
  learningRate: 0,
  out: path.join(root, `made-${folders++}`, 'model'),
  saveEvery: 2,
  tokenizerDialogues: 200,
  architecture,
  command: 'optima warmup --seed 4',
  engine: 'wasm',
  ...change,
});

/** What `warmUp` did, in order: texts for steps and saves, the views it encoded for each step, what it had scored. */
interface Watched {
  readonly did: string[];
  readonly lessons: ChatMessage[][][];
  readonly scored: (readonly ScoreRequest[])[];
  readonly steps: WarmupStep[];
}

/** Runs with other methods of the policy. */
async function withMethods<Result>(
  stand: Partial<LlamaPolicy> & ThisType<LlamaPolicy>,
  run: () => Promise<Result>,
): Promise<Result> {
  const names = Object.keys(stand) as (keyof LlamaPolicy)[];
  const real = Object.fromEntries(names.map((name) => [name, LlamaPolicy.prototype[name]]));
  Object.assign(LlamaPolicy.prototype, stand);
  try {
    return await run();
  } finally {
    Object.assign(LlamaPolicy.prototype, real);
  }
}

const { encode, save, openSession } = LlamaPolicy.prototype;
/** A quick speaker for the model card. */
const speakQuickly: Partial<LlamaPolicy> & ThisType<LlamaPolicy> = {
  openSession() {
    const session = openSession.call(this);
    const { generate } = scriptedModel({ reply: () => '<A>oak</A>' });
    return { ...session, generate, statistics: session.statistics };
  },
};

/** Warms up a policy whose loss in step k is `losses[k]` (the last one, from there on) and whose tokens score as said. */
async function watch(change: Partial<WarmupOptions>, losses: readonly number[], score = -0.5) {
  const watched: Watched = { did: [], lessons: [[]], scored: [], steps: [] };
  const stand: Partial<LlamaPolicy> & ThisType<LlamaPolicy> = {
    ...speakQuickly,
    encode(messages) {
      watched.lessons.at(-1)!.push([...messages]);
      return encode.call(this, messages);
    },
    save(folder) {
      watched.did.push(`save ${folder.endsWith('model')}`);
      return save.call(this, folder);
    },
    score: async (requests) => {
      watched.did.push('measure');
      watched.scored.push(requests);
      return requests.map((_, index) => [[score, 3 * score], index === 0 ? [score] : []]);
    },
    computeLogits(ids, positions) {
      const [, time] = ids.shape;
      const tokens = ids.dataSync();
      const { padId, endOfTurnId, vocabSize } = this.tokenizer;
      // The last token of a view is the end of a turn, and is not among the inputs.
      const labels = [...positions!.dataSync()].map((at) =>
        (at + 1) % time === 0 || tokens[at + 1] === padId ? endOfTurnId : tokens[at + 1]!,
      );
      const loss = losses[watched.steps.length] ?? losses.at(-1)!;
      const height = Math.log((vocabSize - 1) / Math.expm1(loss));
      const logits = tf.mul(tf.oneHot(tf.tensor1d(labels, 'int32'), vocabSize), height);
      const [weights] = this.parameters.values();
      return tf.add(logits, tf.mul(tf.sum(weights!), 0));
    },
  };
  const onStep = (step: WarmupStep) => {
    watched.steps.push(step);
    watched.lessons.push([]);
    watched.did.push(`step ${step.step}`);
  };
  const settings = options({ ...change, onStep });
  const policy = await withMethods(stand, () => warmUp(settings));
  policy.dispose();
  return { ...watched, out: settings.out, policy };
}

const rngOf = (seed: number) => createRng(seed).split('warmup');

test('a model that was made is left whole: weights, tokenizer, log and card, with the held-out loss of its last save', async () => {
  const settings = options({ learningRate: 1e-2, steps: 2, dialoguesPerStep: 1, saveEvery: 5 });
  const steps: WarmupStep[] = [];
  const onStep = (step: WarmupStep) => steps.push(step);
  const made = await withMethods(speakQuickly, () => warmUp({ ...settings, onStep }));
  const { out } = settings;
  assert.equal(
    steps.map(({ validationLoss }) => validationLoss !== null),
    [false, true],
  );
  const loaded = await loadPolicy(out);
  assert.is(loaded.hash, made.hash);
  const heldOut = await demonstrateDialogues([scenario], 'validation', 128, rngOf(4).split('held-out'));
  const scores = await loaded.score(
    heldOut.flatMap(viewsOf).map((messages, id) => ({ id: `${id}`, messages })),
  );
  const tokens = scores.flat(2);
  const loss = -tokens.reduce((sum, token) => sum + token, 0) / tokens.length;
  assert.ok(Math.abs(steps[1]!.validationLoss! - loss) < 1e-9, `${steps[1]!.validationLoss}, not ${loss}`);
  assert.is(
    fs.readFileSync(path.join(out, 'training.json'), 'utf8'),
    `${JSON.stringify({ seed: 4, steps: 2, log: [steps[1]] }, null, 1)}\n`,
  );
  const card = fs.readFileSync(path.join(out, 'README.md'), 'utf8');
  for (const part of ['optima warmup --seed 4', 'Seed 4; wasm.', made.hash, '| lines | (plain) |']) {
    assert.match(card, part);
  }
  loaded.dispose();
  made.dispose();
});

/** A run without first lessons, two dialogues a step. */
let long: ReturnType<typeof watch>;

test('a step is measured, told and then saved; every hundredth is logged as well', async () => {
  long = watch({ steps: 102, saveEvery: 40, learningRate: 2e-3 }, [1], -0.5);
  const { did, scored, steps, out, lessons } = await long;
  const measured = [40, 80, 102];
  assert.equal(
    did,
    Array.from({ length: 102 }, (_, index) => index + 1).flatMap((step) =>
      measured.includes(step) ? ['measure', `step ${step}`, 'save true'] : [`step ${step}`],
    ),
  );
  const heldOut = await demonstrateDialogues([scenario], 'validation', 128, rngOf(4).split('held-out'));
  assert.equal(
    scored[0]!.map(({ messages }) => messages),
    heldOut.flatMap(viewsOf),
  );
  // 0.5 and 1.5 nats for every view, and 0.5 once more: a mean over tokens, not over views.
  const views = 3 * 128;
  const validationLoss = (2 * views + 0.5) / (2 * views + 1);
  for (const { step, steps: all, echo, loss, learningRate, validationLoss: held } of steps) {
    assert.equal([all, echo], [102, false]);
    assert.ok(Math.abs(loss - 1) < 1e-5);
    assert.ok(learningRate > 0 && learningRate <= 2e-3);
    assert.is(held, measured.includes(step) ? validationLoss : null);
  }
  assert.is(steps[33]!.learningRate, (2e-3 * 34) / 35, 'the rate rises for a third of them');
  assert.ok(steps[35]!.learningRate < 2e-3, 'and falls then');
  assert.equal([1, 60, 300, 4000].map(risingSteps), [1, 20, 100, 100]);
  const { log } = JSON.parse(fs.readFileSync(path.join(out, 'training.json'), 'utf8'));
  assert.equal(
    log,
    [39, 79, 99, 101].map((index) => steps[index]),
  );
  // Steps 0, 49, 50 and 101 are of three chunks of fifty, each written and shuffled from its own generators.
  const rng = rngOf(4).split('dialogues');
  for (const step of [0, 49, 50, 101]) {
    const chunk = Math.floor(step / 50);
    const written = await demonstrateDialogues([scenario], 'train', 100, rng.split(chunk));
    const order = rng.split(`order/${chunk}`).shuffle(written);
    const dialogues = order.slice(2 * (step % 50), 2 * (step % 50) + 2);
    assert.equal(lessons[step]!.slice(0, 6), dialogues.flatMap(viewsOf), `step ${step}`);
  }
});

/** The lines a lesson is about. */
const linesOf = ({ content }: ChatMessage) => content.split('\n');

test('a lookup lesson stands beside each dialogue: a cue of two words, and the one line of the view that has them', async () => {
  const { lessons } = await long;
  const rng = rngOf(4).split('dialogues');
  const written = await demonstrateDialogues([scenario], 'train', 100, rng.split(0));
  const order = rng.split('order/0').shuffle(written);
  let [known, unknown, cues, without, longest] = [0, 0, 0, 0, 0];
  const places = new Set<string>();
  for (const [step, views] of lessons.slice(0, 50).entries()) {
    const dialogues = order.slice(2 * step, 2 * step + 2);
    assert.equal(views.slice(0, 6), dialogues.flatMap(viewsOf));
    const lookups = views.slice(6);
    // Carol knows nothing of her own: no lesson where she was drawn.
    without += 2 - lookups.length;
    let next = 0;
    for (const [system, ...pairs] of lookups) {
      const own = linesOf(system!);
      const holds = ({ views: roles }: (typeof dialogues)[number]) =>
        Object.values(roles).indexOf(`Be brief.\n${own.join('\n')}`);
      while (holds(dialogues[next]!) < 0) next++;
      const partner = Object.values(dialogues[next]!.views)[1 - holds(dialogues[next]!)]!;
      const foreign = partner.split('\n').slice(1);
      next++;
      longest = Math.max(longest, pairs.length / 2);
      for (let pair = 0; pair < pairs.length; pair += 2) {
        const [cue, reply] = [pairs[pair]!, pairs[pair + 1]!];
        assert.equal([cue.role, reply.role], ['user', 'assistant']);
        assert.match(cue.content, /^\? \w+ \w+$/);
        const span = cue.content.slice(2);
        const holders = own.filter((line) => line.includes(span));
        assert.ok(holders.length <= 1, `"${span}" has several lines`);
        assert.is(reply.content, holders[0] ?? '?');
        const line = [...own, ...foreign].find((other) => other.includes(span))!;
        places.add(String(line.slice(0, line.indexOf(span)).split(' ').length - 1));
        if (holders.length === 1) known++;
        else unknown++;
        cues++;
      }
    }
  }
  assert.is(longest, 4);
  assert.equal([...places].sort(), ['0', '1']);
  // A third of 100 dialogues has no lesson; three cues in ten come from the partner; some of one's own have several lines and are left out.
  assert.ok(without > 20 && without < 50, `${without} dialogues without a lesson`);
  assert.ok(unknown > 0.25 * cues && unknown < 0.42 * cues, `${known} known, ${unknown} unknown of ${cues}`);
});

/** A run in which every lesson is learnt in one step, with a learning rate of 0. */
let learntFast: ReturnType<typeof watch>;

test('the first lessons repeat lines in another order, one line more once a lesson is learnt, and then end', async () => {
  // 0.46 after the second step (0.8 · 0.5 + 0.2 · 0.3) is not learnt yet, 0.428 is; then each lesson starts afresh.
  const losses = [0.5, 0.3, 0.3, 0.6, 0.44, 0.2, 0.449, 0.4, 0.4, 1];
  const { steps, lessons } = await watch({ steps: 8, echoSteps: 99, saveEvery: 99 }, losses);
  assert.equal(
    steps.map(({ echo }) => echo),
    [true, true, true, true, true, true, true, true],
  );
  // The average of 0.6 and 0.44 is 0.568, then 0.494, then 0.485, 0.468, 0.454.
  const linesIn = (lesson: readonly ChatMessage[][]) =>
    Math.max(...lesson.map(([system]) => linesOf(system!).length));
  assert.equal(lessons.slice(0, 8).map(linesIn), [2, 2, 2, 3, 3, 3, 3, 3]);
  assert.equal(
    lessons.slice(0, 4).map(({ length }) => length),
    [90, 90, 90, 60],
  );
  learntFast = watch({ steps: 7, echoSteps: 99, saveEvery: 99 }, [0.44]);
  const learnt = await learntFast;
  assert.equal(
    learnt.steps.map(({ echo }) => echo),
    [true, true, true, true, true, false, false],
  );
  assert.equal(learnt.lessons.slice(0, 5).map(linesIn), [2, 3, 4, 5, 6]);
  assert.equal(
    learnt.lessons.slice(0, 5).map(({ length }) => length),
    [90, 60, 45, 36, 30],
  );
});

test('tokenizer and first weights follow from the seed, the architecture is the one asked for', async () => {
  const { policy: made } = await learntFast;
  const rng = rngOf(4);
  const texts = (await demonstrateDialogues([scenario], 'train', 200, rng.split('tokenizer'))).flatMap(
    textsOf,
  );
  const { tokenizerJson, tokenizerConfig } = trainTokenizer(texts, { vocabSize: 300 });
  const tokenizer = tokenizerFrom(tokenizerJson, tokenizerConfig);
  assert.equal(made.tokenizer.files, tokenizer.files);
  const config = {
    vocab_size: tokenizer.vocabSize,
    hidden_size: 8,
    intermediate_size: 12,
    num_hidden_layers: 1,
    num_attention_heads: 2,
    num_key_value_heads: 1,
    initializer_range: 1 / Math.sqrt(8),
    max_position_embeddings: 640,
    tie_word_embeddings: true,
    eos_token_id: tokenizer.endOfTurnId,
    pad_token_id: tokenizer.padId,
  };
  const expected = createPolicy(config, tokenizer, rng.split('weights'));
  assert.equal(made.config, expected.config);
  // With a learning rate of 0 the weights are the first ones.
  assert.is(made.hash, expected.hash);
  expected.dispose();
});

test('a lesson tells lines that one role alone is told, each once, and its answer is they and nothing else', async () => {
  const { lessons } = await learntFast;
  const written = await demonstrateDialogues([scenario], 'train', 100, rngOf(4).split('dialogues').split(0));
  let reordered = 0;
  let empty = 0;
  const told = new Set<string>();
  for (const [system, answer, ...more] of lessons[0]!) {
    assert.equal([system!.role, answer!.role, more], ['system', 'assistant', []]);
    assert.equal(linesOf(answer!).sort(), linesOf(system!).sort());
    assert.not.ok(system!.content.includes('Be brief.'));
    if (system!.content === '') empty++;
    else if (system!.content !== answer!.content) reordered++;
    const holder = written.find(({ views }) =>
      Object.values(views).some((view) => linesOf(system!).every((line) => view.split('\n').includes(line))),
    );
    assert.ok(holder !== undefined || system!.content === '');
    told.add(system!.content);
  }
  assert.ok(told.size > 40, 'the lessons are of many dialogues');
  assert.ok(reordered > 15 && empty < 50, `${reordered} of 90 in another order, ${empty} empty`);
});

test('the first lessons end after as many steps as they are given, and are those of the seed', async () => {
  const { steps, lessons } = await watch({ steps: 4, echoSteps: 2, saveEvery: 99 }, [1]);
  assert.equal(lessons[0], (await learntFast).lessons[0]);
  assert.equal(
    steps.map(({ echo }) => echo),
    [true, true, false, false],
  );
  assert.equal(
    lessons.slice(0, 4).map((views) => views.length >= 30),
    [true, true, false, false],
  );
  assert.not.equal(lessons[0], lessons[1]);
  assert.not.equal(lessons[2]!.slice(6), lessons[3]!.slice(6));
});

test('a warm-up goes on from weights that are there, with their tokenizer', async () => {
  const first = options({ learningRate: 1e-2 });
  const made = await withMethods(speakQuickly, () => warmUp(first));
  const second = options({ initFrom: await loadPolicy(first.out), seed: 9, learningRate: 1e-30 });
  const again = await withMethods(speakQuickly, () => warmUp(second));
  assert.equal(again.tokenizer.files, made.tokenizer.files);
  assert.is(again.hash, made.hash);
  assert.match(
    fs.readFileSync(path.join(second.out, 'README.md'), 'utf8'),
    `went on from the weights \`${made.hash}\``,
  );
  const third = options({ initFrom: await loadPolicy(first.out), learningRate: 1e-2 });
  const trained = await withMethods(speakQuickly, () => warmUp(third));
  assert.is.not(trained.hash, made.hash);
  for (const policy of [made, again, trained]) policy.dispose();
});

test('a warm-up of an adapter leaves the weights that it went on from alone, and goes on from one', async () => {
  const first = options({ learningRate: 1e-2 });
  const made = await withMethods(speakQuickly, () => warmUp(first));
  const lora = { rank: 2, alpha: 4, dropout: 0.1, targets: ['q_proj', 'down_proj'] } as const;
  const base = await loadPolicy(first.out);
  const link = path.join(root, 'link');
  fs.symlinkSync(first.out, link);
  for (const out of [first.out, link]) {
    try {
      await warmUp(options({ initFrom: base, lora, out }));
      assert.unreachable();
    } catch (error) {
      assert.is((error as OptimaError).code, 'usage');
      assert.match((error as OptimaError).message, 'an adapter would replace its own base there');
    }
  }
  const second = options({ initFrom: base, lora, learningRate: 1e-2 });
  const adapted = await withMethods(speakQuickly, () => warmUp(second));
  assert.is(base.refreshHash(), made.hash);
  assert.equal(adapted.lora, lora);
  assert.is(adapted.base, base);
  const { policy: adapter } = (await openModel(second.out, { training: { dropout: 0.5, recompute: false } }))
    .trains!;
  assert.equal(adapter.lora, { ...lora, dropout: 0.5, recompute: false });
  const third = options({ initFrom: adapter, lora, learningRate: 1e-2 });
  const on = await withMethods(speakQuickly, () => warmUp(third));
  assert.is.not(on.hash, adapted.hash);
  assert.is(on.base.hash, made.hash);
  assert.match(fs.readFileSync(path.join(third.out, 'README.md'), 'utf8'), `from \`${adapted.hash}\``);
  // Each base goes with its adapter.
  for (const policy of [made, adapted, on]) policy.dispose();
  assert.ok([...base.weights.values()].every((weight) => isFrozen(weight) || weight.isDisposed));
});

test('gradients may be computed elsewhere', async () => {
  const usual = await withMethods(speakQuickly, () => warmUp(options({ learningRate: 1e-2 })));
  let passes = 0;
  const gradientsOf: WarmupOptions['gradientsOf'] = async (policy) => {
    const compute = onThisThread(policy, sftObjective);
    return (...pass) => {
      passes++;
      return compute(...pass);
    };
  };
  const made = await withMethods(speakQuickly, () => warmUp(options({ learningRate: 1e-2, gradientsOf })));
  assert.equal([made.hash, passes], [usual.hash, 3]);
  for (const policy of [usual, made]) policy.dispose();
});

test('a folder that cannot be written, and an abort, end it', async () => {
  const failureOf = (settings: WarmupOptions) =>
    warmUp(settings).then(
      () => null,
      (error: OptimaError) => error,
    );
  const file = path.join(root, 'file');
  fs.writeFileSync(file, '');
  assert.is((await failureOf(options({ out: path.join(file, 'model') })))?.code, 'io.write');
  const { accessSync } = fs;
  fs.accessSync = (folder, mode) => {
    assert.equal([folder, mode], [root, fs.constants.W_OK]);
    throw Object.assign(new Error('access'), { code: 'EACCES' });
  };
  try {
    const error = await failureOf(options({ out: path.join(root, 'denied') }));
    assert.is(error?.message, `Cannot write ${root}: permission denied.`);
  } finally {
    fs.accessSync = accessSync;
  }
  const settings = options({ signal: AbortSignal.abort() });
  assert.is((await failureOf(settings))?.code, 'interrupted');
  assert.not.ok(fs.existsSync(settings.out));
  const later = new AbortController();
  const saving = options({
    ...{ signal: later.signal, out: path.join(root, 'saving'), steps: 4, saveEvery: 2 },
    onStep: ({ step }) => {
      if (step === 3) later.abort();
    },
  });
  const error = await failureOf(saving);
  assert.is(error?.code, 'interrupted');
  assert.match(error?.hint ?? '', /^The weights of step 2 are in .*saving: /u);
  assert.ok(fs.existsSync(path.join(saving.out, 'model.safetensors')));
});

test('the architecture of the shipped model is that of its checkpoint', () => {
  const config = JSON.parse(
    fs.readFileSync(new URL('../../models/tiny/config.json', import.meta.url), 'utf8'),
  );
  assert.equal(tinyArchitecture, {
    // A bound: fewer were worth a token of their own.
    vocabSize: 1024,
    hiddenSize: config.hidden_size,
    feedForwardSize: config.intermediate_size,
    layers: config.num_hidden_layers,
    heads: config.num_attention_heads,
    keyValueHeads: config.num_key_value_heads,
    contextTokens: config.max_position_embeddings,
  });
});

test.run();
