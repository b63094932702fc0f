// What a run will need, before anything is allocated: memory by phase and thread, tokens, operations. From the plan, the recipe
// and the architecture alone. Upper bounds where the run decides: messages are as long as they may be, all that may be kept is.
import { OptimaError } from '../domain/errors.ts';
import type { LoraConfig } from '../domain/lora.ts';
import type { PlannedPhase } from '../machines/index.ts';
import type { LlamaConfig } from '../models/llama/config.ts';
import {
  adapterCount,
  forwardOperations,
  heapBytesAtMost,
  keyValueBytes,
  machineBytes,
  parameterCount,
  passBytes,
  policyDefaults,
  readingBytes,
  readingWork,
  splitFrozen,
  weightBytes,
} from '../models/llama/size.ts';
import { loraOf } from '../recipe/lora.ts';
import { applySettings, type Recipe } from '../recipe/schema.ts';
import { type Scenario, trainedRoles } from '../scenario/types.ts';
import { dialoguesOf, planRun } from './plan.ts';

/** Tokens of a scenario's dialogues under a tokenizer, at most. */
export interface DialogueLengths {
  /** Messages of one dialogue. */
  readonly dialogue: number;
  /** What a role reads: its view and all messages. */
  readonly context: number;
  /** Of this the view, and what is written around messages: what a role reads at least. */
  readonly view: number;
  /** And of that the longest format prompt: what is trained on has none. */
  readonly format: number;
}

/** A checkpoint whose weights are not trained. */
export interface Frozen {
  readonly config: LlamaConfig;
  /** Of its matrices outside the heap; absent: they are on it, in float32. */
  readonly bytesPerNumber?: number;
}

/** What is to be run, and with what. */
export interface Undertaking extends Frozen {
  readonly scenario: Pick<Scenario, 'kind' | 'roles'>;
  readonly recipe: Recipe;
  /** Checkpoints beside the model, each once: partners that are not trained, the judge. */
  readonly frozen?: readonly Frozen[];
  readonly lengths: DialogueLengths;
  /** Worker threads; 0: all is computed on the main thread. */
  readonly workers: number;
}

/** Bytes that the main thread holds in a part of the run, and each worker. */
export interface PartNeed {
  readonly part: 'load' | 'base' | 'generate' | 'search' | 'train';
  readonly main: number;
  readonly worker: number;
}

export interface Resources {
  readonly parameters: number;
  readonly weightBytes: number;
  /** Matrices outside all heaps, which threads share: the model's, and those beside it. */
  readonly frozenBytes: number;
  readonly keyValueBytesPerToken: number;
  readonly parts: readonly PartNeed[];
  /** Most on one thread's wasm heap. */
  readonly heapBytes: number;
  /** Most that the process holds: heaps never shrink, so that each thread's peak counts. */
  readonly peakBytes: number;
  /** The same while the base is measured, before anything is trained. */
  readonly decodingBytes: number;
  readonly dialogues: number;
  readonly tokens: { readonly generated: number; readonly read: number; readonly trained: number };
  /** Floating-point operations. */
  readonly operations: { readonly reading: number; readonly training: number };
}

/** Bytes of a process with its engine before any model, and of each worker (measured: bench/plan.ts). */
const [processBytes, workerBytes] = [230 * 2 ** 20, 110 * 2 ** 20];
const { memoryBytes: sessionBytes, tokenBudget: readTokens, maxRows: decodeRows } = policyDefaults;

export function estimateResources({
  scenario,
  recipe,
  config,
  bytesPerNumber,
  frozen = [],
  lengths,
  workers,
}: Undertaking): Resources {
  const plan = planRun(recipe, scenario);
  const roles = Object.keys(scenario.roles).length;
  const trainees = recipe.policies === 'per-role' ? trainedRoles(scenario).length : 1;
  const whole = weightBytes(config);
  const base = heldBytes({ config, bytesPerNumber });
  const context = Math.min(lengths.context, config.max_position_embeddings);
  const trainedContext = Math.min(lengths.context - lengths.format, config.max_position_embeddings);
  const perToken = keyValueBytes(config);

  const lora = loraOf(recipe);
  const trains = plan.filter((phase) => phase.kind === 'train');
  // Beside the base the latest policy, of each role where it has its own. An adapter has its factors, and twice more as they are read.
  const other =
    lora === undefined
      ? readingBytes(config, readTokens)
      : 4 * 3 * adapterCount(config, lora) + readingWork(config, readTokens);
  const others = (trains.length > 0 ? trainees : 0) * other;
  /** Keys and values of rows at once, and of what is remembered beside them. */
  const remembered = (rows: number, budget: number, each = perToken) =>
    Math.max(rows * context * each, Math.min(budget, roles * rows * context * each));

  const dialogues = plan.map((phase) => dialoguesOf(phase, recipe));
  const rows = Math.min(recipe.concurrency, decodeRows, Math.max(...dialogues));
  const measuring = base.reading + remembered(rows, sessionBytes);
  const generate = measuring + others;
  // They stay from the first dialogue on, and remember while dialogues are held.
  const held = frozen.map(heldBytes);
  const beside = sum(held.map(({ reading }) => reading));
  const speaking =
    beside + sum(frozen.map((one) => remembered(rows, sessionBytes, keyValueBytes(one.config))));
  const frozenBytes = base.outside + sum(held.map(({ outside }) => outside));
  const search =
    'search' in recipe
      ? base.reading +
        others +
        remembered(
          Math.min(decodeRows, recipe.search.together * recipe.search.rolloutsPerExpansion),
          recipe.search.cacheMegabytes * 2 ** 20,
        ) +
        // The base scores turns in a session of its own.
        recipe.search.cacheMegabytes * 2 ** 20
      : 0;

  const passes = trains.map((phase) => passOf(phase, recipe, trainedContext, lengths.dialogue / roles));
  const pass = Math.max(0, ...passes.map((size) => passBytes(config, { ...size, lora })));
  const trained = 4 * (lora === undefined ? parameterCount(config) : adapterCount(config, lora));
  // The trainee, what it was before, and the optimizer's two moments.
  const training = passes.length === 0 ? 0 : 4 * trained;
  const alone = workers === 0;
  // Gradients and what is trained on their way between threads, or of one pass and the sum of all.
  const shared = passes.length === 0 ? 0 : (alone ? 2 : 2 + workers) * trained;

  const parts: PartNeed[] = [
    // The main thread opens one after the other, to see what they are.
    {
      part: 'load',
      main: base.inside + Math.max(0, ...held.map(({ inside }) => inside)),
      worker: base.inside,
    },
    { part: 'base', main: alone ? measuring + speaking : base.inside, worker: measuring + speaking },
    { part: 'generate', main: alone ? generate + speaking : base.inside, worker: generate + speaking },
    ...(search > 0
      ? [
          {
            part: 'search',
            main: alone ? search + speaking : base.inside,
            worker: search + speaking,
          } as const,
        ]
      : []),
    ...(trains.length > 0
      ? [
          {
            part: 'train',
            main: (alone ? base.reading + others + beside + pass : base.inside) + training,
            worker: base.reading + others + beside + (lora === undefined ? whole : 4 * trained) + pass,
          } as const,
        ]
      : []),
  ];
  const most = (side: 'main' | 'worker', among: readonly PartNeed[] = parts) =>
    Math.max(...among.map((part) => part[side]));
  const heapBytes = Math.max(most('main'), alone ? 0 : most('worker'));
  const together = (among: readonly PartNeed[]) =>
    processBytes + frozenBytes + most('main', among) + workers * (workerBytes + most('worker', among));

  const total = sum(dialogues);
  const ranked = plan.reduce(
    (sum, phase, i) => sum + (phase.kind === 'generate' || phase.kind === 'search' ? dialogues[i]! : 0),
    0,
  );
  const read = (total + ranked) * roles * context;
  const trainedTokens = trains.reduce(
    (sum, phase) => sum + trainedOn(phase, plan, recipe, scenario) * trainedContext,
    0,
  );
  const operationsIn = (length: number) => forwardOperations(config, length / 2);
  return {
    parameters: parameterCount(config),
    weightBytes: base.inside + base.outside,
    frozenBytes,
    keyValueBytesPerToken: perToken,
    parts: alone ? parts.map((part) => ({ ...part, worker: 0 })) : parts,
    heapBytes,
    peakBytes: together(parts) + shared,
    decodingBytes: together(parts.slice(0, 2)),
    dialogues: total,
    tokens: { generated: total * lengths.dialogue, read, trained: trainedTokens },
    operations: {
      reading: read * operationsIn(context),
      training: passCost(lora) * trainedTokens * operationsIn(trainedContext),
    },
  };
}

/** Bytes of a frozen checkpoint, outside the heaps and on each; and there of what reads with it. */
function heldBytes({ config, bytesPerNumber }: Frozen) {
  if (bytesPerNumber === undefined) {
    return { outside: 0, inside: weightBytes(config), reading: readingBytes(config, readTokens) };
  }
  const { outside, inside } = splitFrozen(config, bytesPerNumber);
  return { outside, inside, reading: inside + readingWork(config, readTokens) };
}

const sum = (numbers: readonly number[]): number => numbers.reduce((all, one) => all + one, 0);

/** Forward passes that a training step costs: without gradients of weights a third less. */
const passCost = (lora: LoraConfig | undefined): number => (lora === undefined ? 3 : lora.recompute ? 3 : 2);

type TrainPhase = Extract<PlannedPhase, { kind: 'train' }>;

/** The largest pass of a training: see `planPasses` in src/training/batches.ts. */
function passOf({ on }: TrainPhase, recipe: Recipe, context: number, own: number) {
  const { batchSize, tokensPerPass, maxSequenceTokens } =
    on.method === 'dpo' && 'dpo' in recipe ? recipe.dpo : recipe.sft;
  const time = Math.min(context, maxSequenceTokens);
  const sequences = on.method === 'dpo' ? 2 * batchSize : batchSize;
  const perPass = Math.max(1, Math.floor(tokensPerPass / time));
  const fewest = Math.ceil(sequences / perPass);
  // Where there are several they come in fours, or pairs in twos, as equal as can be.
  const multiple = on.method === 'dpo' ? 2 : 4;
  const count = fewest <= 1 ? 1 : Math.ceil(fewest / multiple) * multiple;
  const rows = Math.ceil(sequences / count);
  return { rows, time, counted: rows * Math.min(own, time) };
}

/** Sequences that a training reads in all its epochs, at most. */
function trainedOn(
  { on, iteration }: TrainPhase,
  plan: readonly PlannedPhase[],
  recipe: Recipe,
  scenario: Undertaking['scenario'],
): number {
  const beside = plan.filter((phase) => phase.iteration === iteration);
  if (on.method === 'dpo' && 'dpo' in recipe) {
    const { tasks, expansions, rolloutsPerExpansion: n } = recipe.search;
    const pairs = tasks * expansions * ((n * (n - 1)) / 2) * recipe.pairs.keepShare;
    return 2 * pairs * recipe.dpo.epochs;
  }
  const select = beside.find((phase) => phase.kind === 'select');
  const generate = beside.find((phase) => phase.kind === 'generate');
  const kept = Math.max(1, Math.round((select?.keepFraction ?? 1) * (generate?.tasks.count ?? 0)));
  return kept * trainedRoles(scenario).length * recipe.sft.epochs;
}

/** What stands in the way of a run; null where it fits. */
function shortage({ heapBytes, peakBytes }: Resources, machine: number): string | null {
  if (heapBytes > heapBytesAtMost) {
    return `one thread needs ${gigabytes(heapBytes)} on its heap, which holds ${gigabytes(heapBytesAtMost)}`;
  }
  return peakBytes > machine
    ? `it needs ${gigabytes(peakBytes)}, and this machine has ${gigabytes(machine)}`
    : null;
}

/** A change that makes a run smaller, as it is said on the command line. */
interface Change {
  readonly said: string;
  readonly workers?: number;
  readonly setting?: string;
}

/**
 * Throws `model.oversized` where the run does not fit the engine's heap or the machine even if every message is short, with what
 * would fit. `risk`: in words, that it does not where every message runs into its cap; null where it does.
 */
export function requireRoomForRun(
  undertaking: Undertaking,
  machine = machineBytes(),
): { readonly resources: Resources; readonly risk: string | null } {
  const resources = estimateResources(undertaking);
  const most = shortage(resources, machine);
  if (most === null) return { resources, risk: null };
  const { view } = undertaking.lengths;
  const short = { ...undertaking, lengths: { ...undertaking.lengths, dialogue: 0, context: view } };
  const least = shortage(estimateResources(short), machine);
  const fitting = whatFits(undertaking, machine);
  const hint =
    fitting === null
      ? `No setting makes it small enough; a model of about ${millions(largest(undertaking, machine))} would fit.`
      : `It fits with ${fitting.map(({ said }) => said).join(' ')}.`;
  if (least !== null) throw new OptimaError('model.oversized', `The run does not fit: ${least}.`, { hint });
  return { resources, risk: `Where every message runs into its cap, ${most}. ${hint}` };
}

/** The fewest changes, of those tried, with which the run fits; null where none do. */
function whatFits(undertaking: Undertaking, machine: number): readonly Change[] | null {
  const { recipe, workers } = undertaking;
  const setting = (key: string, value: number | boolean): Change => ({
    said: `--set ${key}=${value}`,
    setting: `${key}=${value}`,
  });
  const trainings = 'dpo' in recipe ? ['sft', 'dpo'] : ['sft'];
  const levels: Change[][] = [
    ...(recipe.lora === undefined ? [[setting('lora.rank', 16)]] : []),
    ...[1024, 512, 256].map((tokens) => trainings.map((name) => setting(`${name}.tokensPerPass`, tokens))),
    ...[512, 256].map((tokens) => trainings.map((name) => setting(`${name}.maxSequenceTokens`, tokens))),
    ...(recipe.lora?.recompute === false && recipe.lora.dropout === 0
      ? [[setting('lora.recompute', true)]]
      : []),
    ...[16, 4].map((count) => [setting('concurrency', count)]),
    ...('search' in recipe ? [[setting('search.together', 4), setting('search.cacheMegabytes', 64)]] : []),
    ...[2, 1, 0]
      .filter((count) => count < workers)
      .map((count) => [{ said: `--workers ${count}`, workers: count }]),
  ];
  const fits = (changes: readonly Change[]) =>
    shortage(estimateResources(changed(undertaking, changes)), machine) === null;
  for (const level of levels) if (fits(level)) return level;
  // All of them, the later ones of a kind in place of the earlier.
  const all = new Map<string, Change>();
  for (const change of levels.flat()) {
    all.set(change.setting?.split('=')[0] ?? 'workers', change);
    if (!fits([...all.values()])) continue;
    // Those that it fits without are not asked for.
    for (const [key, change] of [...all].reverse()) {
      all.delete(key);
      if (!fits([...all.values()])) all.set(key, change);
    }
    return [...all.values()];
  }
  return null;
}

function changed(undertaking: Undertaking, changes: readonly Change[]): Undertaking {
  const settings = changes.flatMap(({ setting }) => setting ?? []);
  const workers = changes.reduce((count, change) => change.workers ?? count, undertaking.workers);
  return { ...undertaking, workers, recipe: applySettings(undertaking.recipe, settings) };
}

/** Weights of the largest model of this depth and shape with which the run, all changes made, would fit. */
function largest(undertaking: Undertaking, machine: number): number {
  const { config } = undertaking;
  const least = { ...undertaking, workers: 0 };
  const of = (share: number): LlamaConfig => ({
    ...config,
    num_hidden_layers: Math.max(1, Math.round(share * config.num_hidden_layers)),
  });
  for (let share = 1; share > 0; share -= 0.05) {
    const smaller = of(share);
    if (shortage(estimateResources({ ...least, config: smaller }), machine) === null)
      return parameterCount(smaller);
  }
  return parameterCount(of(0));
}

export const gigabytes = (bytes: number): string =>
  bytes < 2 ** 30 ? `${Math.round(bytes / 2 ** 20)} MiB` : `${(bytes / 2 ** 30).toFixed(1)} GiB`;

export const millions = (numbers: number): string =>
  numbers < 1e9 ? `${(numbers / 1e6).toFixed(1)} M parameters` : `${(numbers / 1e9).toFixed(2)} B parameters`;
