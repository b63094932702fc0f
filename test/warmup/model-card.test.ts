// The model card: which dialogues its figures come from, and what it says.
import fs from 'node:fs';
import path from 'node:path';
import { lastValueFrom, toArray } from 'rxjs';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { PolicyHash } from '../../src/domain/ids.ts';
import type { TeamMetrics } from '../../src/domain/metrics.ts';
import type { GenerationRequest } from '../../src/domain/model.ts';
import { createRng } from '../../src/domain/rng.ts';
import type { LlamaPolicy } from '../../src/models/llama/index.ts';
import { scriptedModel } from '../../src/models/scripted/index.ts';
import { castsOf, episodesOf, foldDialogues, rollOut } from '../../src/rollouts/executor.ts';
import { loadTasks } from '../../src/scenario/tasks.ts';
import { type ModelCard, writeModelCard } from '../../src/warmup/model-card.ts';
import { measureTeam } from '../support/metrics.ts';
import { temporaryFolder } from '../support/run.ts';
import { solveWordPair, wordPairs } from '../support/scenarios.ts';

const root = temporaryFolder('card');
test.after(() => fs.rmSync(root, { recursive: true }));

const formats = ['terse', 'table'].map((name) => ({ name, prompt: `As ${name}.` }));
const first = wordPairs({ formats });
const second = wordPairs({ name: 'other-pairs', formats: [] });
const requests: GenerationRequest[] = [];
/** Wrong about tasks of some numbers under the plain prompt, and silent about none under a format. */
const speaker = scriptedModel({
  reply: (request) => {
    requests.push(request);
    return /-\d*[02468]\.0/.test(request.id) && !request.messages[0]!.content.includes('As ')
      ? '<A>oak</A>'
      : solveWordPair(request);
  },
  hash: 'c4rd',
});
const config = {
  tie_word_embeddings: true,
  num_hidden_layers: 3,
  hidden_size: 40,
  num_attention_heads: 5,
  num_key_value_heads: 1,
  intermediate_size: 77,
  vocab_size: 321,
  max_position_embeddings: 640,
};
const parameters = new Map([
  ['a', { shape: [1000, 1000] }],
  ['b', { shape: [234] }],
]);
const policy = { ...speaker, config, parameters, weights: parameters, lora: null } as unknown as LlamaPolicy;

/** A log of this many saves at steps 10, 20 …, each followed by a step that was not saved. */
const log = (saves: number): ModelCard['log'] =>
  Array.from({ length: saves }, (_, index) => [
    {
      step: 10 * (index + 1),
      steps: 999,
      echo: index < 2,
      loss: 2 - index / 100,
      learningRate: 0.00123,
      validationLoss: 3 - index / 100,
    },
    { step: 10 * index + 15, steps: 999, echo: false, loss: 9, learningRate: 1, validationLoss: null },
  ]).flat();

const card = (change: Partial<ModelCard> = {}): ModelCard => ({
  policy,
  scenarios: [first, second],
  seed: 6,
  command: 'npx optima warmup word-pairs',
  engine: 'wasm, one thread',
  log: log(3),
  startedAs: null,
  ...change,
});

async function textOf(change: Partial<ModelCard> = {}): Promise<string> {
  await writeModelCard(root, card(change));
  return fs.readFileSync(path.join(root, 'README.md'), 'utf8');
}

test('the figures are of 200 validation tasks played plainly, and of 50 under each format', async () => {
  requests.length = 0;
  await textOf();
  const opened = requests.filter(({ id }) => /-\d+\.\d+$/.test(id));
  const played = new Map<string, string[]>();
  for (const { id } of opened) {
    const [, phase, task] = id.match(/^(.*)\/(validation-\d+)\.0$/)!;
    played.set(phase!, [...(played.get(phase!) ?? []), task!]);
  }
  assert.equal(
    [...played].map(([phase, tasks]) => [phase, tasks.length, new Set(tasks).size, tasks.sort()[0]]),
    [
      ['card/word-pairs/plain', 200, 200, 'validation-00000'],
      ['card/word-pairs/terse', 50, 50, 'validation-00000'],
      ['card/word-pairs/table', 50, 50, 'validation-00000'],
      ['card/other-pairs/plain', 200, 200, 'validation-00000'],
    ],
  );
  for (const { id, messages, sampling } of opened) {
    const prompt = /\/(terse|table)\//.exec(id)?.[1];
    assert.is(messages[0]!.content.includes('As '), prompt !== undefined, id);
    if (prompt) assert.match(messages[0]!.content, `\nAs ${prompt}.`);
    assert.equal(sampling, { temperature: 0, topP: 1, topK: 0, maxTokens: 96 });
  }
});

/** A row's figures, from dialogues held once more. */
async function figures(scenario: typeof first, count: number, format: number | null): Promise<TeamMetrics> {
  const rng = createRng(6);
  const phase = `card/${scenario.name}/${format === null ? 'plain' : formats[format]!.name}`;
  const tasks = await loadTasks(scenario, 'validation', { from: 0, count }, rng);
  const prompts = format === null ? [] : [formats[format]!];
  // One at a time: how many are held together must not matter.
  const cohorts = [...episodesOf({ phase, tasks, samplesPerTask: 1, formats: prompts, rng })].map((one) => [
    one,
  ]);
  const casts = castsOf(scenario, [speaker]);
  const events = rollOut({ phase, scenario, casts, cohorts, temperature: 0, maxMessageTokens: 96, rng });
  const trajectories = await lastValueFrom(events.pipe(foldDialogues(), toArray()));
  return measureTeam(trajectories, rng.split('bootstrap').split(phase));
}

test('the card of a model that went on from another says from which', async () => {
  const text = await textOf({ startedAs: 'ba5e' as PolicyHash });
  assert.match(text, /^A Llama-family decoder made from `ba5e` by `optima warmup`/m);
  assert.match(text, /one thread\. It went on from the weights `ba5e`, with their tokenizer\. Names/);
});

test('the card is this text', async () => {
  const row = (scenario: string, prompt: string, m: TeamMetrics) =>
    `| ${scenario} | ${prompt} | ${m.taskScore.toFixed(3)} | ${m.taskScoreInterval[0].toFixed(3)} – ${m.taskScoreInterval[1].toFixed(3)} | ${(100 * m.exactMatch).toFixed(0)} % | ${m.tokens.toFixed(1)} | ${(100 * m.agreement).toFixed(0)} % | ${m.turns.toFixed(2)} |`;
  const plain = await figures(first, 200, null);
  assert.is(plain.taskScore, 0.5);
  assert.is.not(plain.taskScoreInterval[0], plain.taskScoreInterval[1]);
  assert.is(
    await textOf(),
    `# The embedded base model

A Llama-family decoder made from scratch by \`optima warmup\` on dialogues that the demonstrators of
\`word-pairs\`, \`other-pairs\` wrote. It stands for an untrained team member: asked
plainly it is long-winded and hasty; asked for a compact format it uses it. It knows nothing but these scenarios.
Files are in the Hugging Face layout; any tool that reads Llama checkpoints reads them.

| | |
|---|---|
| parameters | 1,000,234 (float32), embeddings tied |
| architecture | 3 layers, width 40, 5 heads (1 for keys and values), feed-forward 77 |
| vocabulary, context | 321 tokens (byte-level BPE), 640 tokens |
| content hash | \`c4rd\` |
| licence | MIT, as the code that wrote its data |

## How it was made

\`\`\`sh
npx optima warmup word-pairs
\`\`\`

Seed 6; wasm, one thread. Names in the validation and test splits never appear in what it was trained on.
The same command on the same machine and engine gives the same weights; elsewhere rounding differs.

## Held-out figures

Validation tasks, temperature 0, the model in every role; 200 dialogues under the plain prompt, 50 under each
format prompt.

| scenario | prompt | F1 | 95 % interval | exact match | tokens / dialogue | agreement | turns |
|---|---|---|---|---|---|---|---|
${row('word-pairs', '(plain)', plain)}
${row('word-pairs', 'terse', await figures(first, 50, 0))}
${row('word-pairs', 'table', await figures(first, 50, 1))}
${row('other-pairs', '(plain)', await figures(second, 200, null))}

## Training log

Loss in nats per token of the agents' own messages; held out: demonstrations on validation tasks. In the first steps
(echo) the model only learns to copy; from then on one lesson in looking lines up stands beside every dialogue. The
whole log is in \`training.json\`.

| step | learning rate | loss | held out | |
|---|---|---|---|---|
| 10 | 1.23e-3 | 2.000 | 3.000 | echo |
| 20 | 1.23e-3 | 1.990 | 2.990 | echo |
| 30 | 1.23e-3 | 1.980 | 2.980 |  |
`,
  );
});

/** Steps in the card's table. */
const stepsIn = (text: string) =>
  text
    .slice(text.indexOf('| step |'))
    .split('\n')
    .slice(2)
    .flatMap((line) => (line === '' ? [] : Number(line.split(' | ')[0]!.slice(2))));

test('the card of an adapter says of which base it is, and counts its numbers apart', async () => {
  const lora = { rank: 4, alpha: 8, dropout: 0, targets: ['q_proj'] as const };
  const own = { parameters: new Map([['a', { shape: [2, 2839] }]]), lora, base: { hash: 'ba5e' } };
  const text = await textOf({ policy: { ...policy, ...own } as unknown as LlamaPolicy });
  assert.match(text, "Files are a LoRA adapter in PEFT's layout, of the base `ba5e`");
  assert.match(text, '| parameters | 5,678 of rank 4 over 1,000,234 (float32)');
});

test('of a long log about twenty saves are shown, evenly, and the last', async () => {
  const few = { scenarios: [] };
  assert.equal(
    stepsIn(await textOf({ ...few, log: log(20) })),
    Array.from({ length: 20 }, (_, index) => 10 * (index + 1)),
  );
  assert.equal(stepsIn(await textOf({ ...few, log: log(43) })), [
    ...Array.from({ length: 14 }, (_, index) => 30 * (index + 1)),
    430,
  ]);
  const untied = { ...policy, config: { ...config, tie_word_embeddings: false } } as unknown as LlamaPolicy;
  assert.match(await textOf({ ...few, policy: untied }), '1,000,234 (float32), embeddings untied |');
});

test('an abort ends it before the card is written', async () => {
  fs.rmSync(path.join(root, 'README.md'), { force: true });
  const error = await writeModelCard(root, card({ signal: AbortSignal.abort() })).then(
    () => null,
    (thrown) => thrown,
  );
  assert.is(error?.code, 'interrupted');
  assert.equal(fs.readdirSync(root), []);
});

test.run();
