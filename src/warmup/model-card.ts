// The card of a base model made by `optima warmup`: how to make it again, and how it talks before any training.
import path from 'node:path';
import type { PolicyHash } from '../domain/ids.ts';
import type { TeamMetrics } from '../domain/metrics.ts';
import type { Progress } from '../domain/progress.ts';
import { createRng } from '../domain/rng.ts';
import type { LlamaPolicy } from '../models/llama/index.ts';
import { evaluateTeam } from '../rollouts/evaluate.ts';
import { type FormatPrompt, messageCap, type Scenario } from '../scenario/types.ts';
import { writeFileAtomic } from '../store/files.ts';

export interface WarmupStep {
  readonly step: number;
  readonly steps: number;
  /** Whether it was a step of the first lessons. */
  readonly echo: boolean;
  /** Mean negative log-likelihood per trained token, nats. */
  readonly loss: number;
  readonly learningRate: number;
  /** Loss on held-out dialogues (validation split), measured at every save; else null. */
  readonly validationLoss: number | null;
}

export interface ModelCard {
  readonly policy: LlamaPolicy;
  readonly scenarios: readonly Scenario[];
  readonly seed: number;
  /** The command line that made the model. */
  readonly command: string;
  /** The engine's one-line description, and what else is to be said of the machine. */
  readonly engine: string;
  readonly log: readonly WarmupStep[];
  /** The weights that it went on from; null for new ones. */
  readonly startedAs: PolicyHash | null;
  readonly signal?: AbortSignal;
  readonly progress?: Progress;
}

/** One row of the held-out table. */
interface Row {
  readonly scenario: string;
  readonly prompt: string;
  readonly metrics: TeamMetrics;
}

/** Dialogues behind a figure under the plain prompt, and under each format prompt. */
const plainTasks = 200;
const formatTasks = 50;

/** Measures the model on validation tasks at temperature 0 and writes `README.md` into its folder. */
export async function writeModelCard(folder: string, card: ModelCard): Promise<void> {
  const rows: Row[] = [];
  for (const scenario of card.scenarios) {
    for (const format of [null, ...scenario.formats]) rows.push(await measure(card, scenario, format));
  }
  writeFileAtomic(path.join(folder, 'README.md'), cardText(card, rows));
}

async function measure(
  { policy, seed, signal, progress }: ModelCard,
  scenario: Scenario,
  format: FormatPrompt | null,
): Promise<Row> {
  const prompt = format?.name ?? '(plain)';
  const { metrics } = await evaluateTeam({
    phase: `card/${scenario.name}/${format?.name ?? 'plain'}`,
    scenario,
    models: [policy],
    split: 'validation',
    count: format === null ? plainTasks : formatTasks,
    format,
    maxMessageTokens: messageCap(scenario, null),
    concurrency: 64,
    rng: createRng(seed),
    progress,
    signal,
  });
  return { scenario: scenario.name, prompt, metrics };
}

function cardText(card: ModelCard, rows: readonly Row[]): string {
  const { config } = card.policy;
  const numbersOf = (weights: LlamaPolicy['weights']) =>
    [...weights.values()]
      .reduce((sum, { shape }) => sum + shape.reduce((size, n) => size * n, 1), 0)
      .toLocaleString('en');
  const { lora, parameters, weights } = card.policy;
  const share = (value: number) => `${(100 * value).toFixed(0)} %`;
  const saves = card.log.filter(({ validationLoss }) => validationLoss !== null);
  const every = Math.ceil(saves.length / 20);
  const shown = saves.filter((_, index) => index % every === every - 1 || index === saves.length - 1);
  return `# The embedded base model

A Llama-family decoder made ${card.startedAs === null ? 'from scratch' : `from \`${card.startedAs}\``} by \`optima warmup\` on dialogues that the demonstrators of
${card.scenarios.map(({ name }) => `\`${name}\``).join(', ')} wrote. It stands for an untrained team member: asked
plainly it is long-winded and hasty; asked for a compact format it uses it. It knows nothing but these scenarios.
${lora === null ? 'Files are in the Hugging Face layout; any tool that reads Llama checkpoints reads them.' : `Files are a LoRA adapter in PEFT's layout, of the base \`${card.policy.base.hash}\`, which it cannot do without.`}

| | |
|---|---|
| parameters | ${lora === null ? '' : `${numbersOf(parameters)} of rank ${lora.rank} over `}${numbersOf(weights)} (float32), embeddings ${config.tie_word_embeddings ? 'tied' : 'untied'} |
| architecture | ${config.num_hidden_layers} layers, width ${config.hidden_size}, ${config.num_attention_heads} heads (${config.num_key_value_heads} for keys and values), feed-forward ${config.intermediate_size} |
| vocabulary, context | ${config.vocab_size} tokens (byte-level BPE), ${config.max_position_embeddings} tokens |
| content hash | \`${card.policy.hash}\` |
| licence | MIT, as the code that wrote its data |

## How it was made

\`\`\`sh
${card.command}
\`\`\`

Seed ${card.seed}; ${card.engine}.${card.startedAs === null ? '' : ` It went on from the weights \`${card.startedAs}\`, with their tokenizer.`} Names in the validation and test splits never appear in what it was trained on.
The same command on the same machine and engine gives the same weights; elsewhere rounding differs.

## Held-out figures

Validation tasks, temperature 0, the model in every role; ${plainTasks} dialogues under the plain prompt, ${formatTasks} under each
format prompt.

| scenario | prompt | F1 | 95 % interval | exact match | tokens / dialogue | agreement | turns |
|---|---|---|---|---|---|---|---|
${rows
  .map(
    ({ scenario, prompt, metrics: m }) =>
      `| ${scenario} | ${prompt} | ${m.taskScore.toFixed(3)} | ${m.taskScoreInterval.map((x) => x.toFixed(3)).join(' – ')} | ${share(m.exactMatch)} | ${m.tokens.toFixed(1)} | ${share(m.agreement)} | ${m.turns.toFixed(2)} |`,
  )
  .join('\n')}

## Training log

Loss in nats per token of the agents' own messages; held out: demonstrations on validation tasks. In the first steps
(echo) the model only learns to copy; from then on one lesson in looking lines up stands beside every dialogue. The
whole log is in \`training.json\`.

| step | learning rate | loss | held out | |
|---|---|---|---|---|
${shown
  .map(
    ({ step, learningRate, loss, validationLoss, echo }) =>
      `| ${step} | ${learningRate.toExponential(2)} | ${loss.toFixed(3)} | ${validationLoss!.toFixed(3)} | ${echo ? 'echo' : ''} |`,
  )
  .join('\n')}
`;
}
