// The recipe: every number of a training run, typed, documented and settable by `--set key=value`.
import { z } from 'zod';
import { nearest, OptimaError } from '../domain/errors.ts';
import { loraTargets } from '../domain/lora.ts';

const count = (least = 1) => z.int().min(least);
const fraction = z.number().gt(0).max(1);
const temperature = z.number().min(0).max(5).describe('Softmax temperature of the sampled dialogues.');
const keepFraction = fraction.describe('Share of the dialogues above the threshold to keep, best first.');
const samplesPerTask = count().describe('Dialogues per task, N in the paper.');

const seed = count(0).max(0xffffffff).describe('The one seed from which everything random follows.');

const initialization = z.strictObject({
  tasks: count().describe('Training tasks of initialization.'),
  samplesPerTask,
  formats: z.boolean().describe("Draw one of the scenario's format prompts for each dialogue."),
  thetaInit: z.number().describe("Reward that a task's best dialogue must exceed, θ_init in the paper."),
  keepFraction,
  temperature,
});

/** What any training with AdamW under a cosine has beside its rate. */
const optimizer = {
  warmupFraction: z.number().min(0).max(1).describe('Share of the steps with a rising learning rate.'),
  floorFraction: z.number().min(0).max(1).describe('Where the cosine ends, as a share of learningRate.'),
  weightDecay: z.number().min(0).describe('Decoupled weight decay of AdamW, matrices only.'),
  clipNorm: z.number().gt(0).describe('Gradients are scaled down to this global L2 norm.'),
  beta1: z.number().min(0).lt(1).describe('Memory of the mean gradient.'),
  beta2: z.number().min(0).lt(1).describe('Memory of the mean squared gradient.'),
  epsilon: z.number().gt(0).describe('Added to the denominator of AdamW.'),
};

const isft = z.strictObject({
  tasks: count().describe('Training tasks of each iteration, fresh ones every time.'),
  samplesPerTask,
  thetaSft: z.number().describe("Reward that a task's best dialogue must exceed, θ_sft in the paper."),
  keepFraction,
  temperature,
  startFrom: z
    .enum(['previous', 'base'])
    .nullable()
    .describe(
      'The weights each fine-tuning starts from; null: base for debates, where little data would overfit, else previous.',
    ),
});

/** Tree search and preference training (docs/method.md §5). */
const preference = {
  search: z.strictObject({
    tasks: count().describe(
      'Training tasks whose trees are searched in each iteration, fresh ones every time.',
    ),
    expansions: count().describe('Nodes of a tree that are expanded, one after the other.'),
    rolloutsPerExpansion: count().describe('Dialogues that are held from an expanded node to their ends.'),
    minDistance: z
      .number()
      .min(0)
      .max(1)
      .describe('A node nearer than this to one already expanded is not expanded; 0: no diversity filter.'),
    mergeBelow: z.number().min(0).max(1).describe('Sibling turns nearer than this are one node.'),
    candidates: count().describe('The best nodes from which the next to expand is drawn.'),
    policy: z
      .enum(['softmax', 'puct', 'entropy'])
      .describe('Draw it by value, take the best by PUCT, or draw it where the policy is uncertain.'),
    selectionTemperature: z.number().gt(0).describe('Softmax temperature of that draw.'),
    exploration: z.number().min(0).describe('c of PUCT.'),
    backup: z
      .enum(['mean-of-children', 'mean-of-rollouts'])
      .describe("A node's value: the mean of its children's, or of all roll-outs through it."),
    temperature,
    pilotDialogues: count().describe('Fresh dialogues whose lengths give what R_token is taken against.'),
    pilotPercentile: z.number().gt(0).max(100).describe('Of the lengths of the pilot dialogues.'),
    cohort: count().describe('Trees that are searched with one memory: what a resumed run repeats.'),
    together: count().describe('Trees of a cohort that grow at the same time.'),
    cacheMegabytes: count(0).describe(
      'Most memory for keys and values of a cohort, for each of its models, MiB.',
    ),
  }),
  pairs: z.strictObject({
    from: z
      .enum(['all', 'extremes'])
      .describe('Pair all siblings, or the best child of a node with the worst.'),
    values: z
      .enum(['raw', 'per-role'])
      .describe("Take values as they are, or each role's turns on one scale: same mean, same spread."),
    thetaFilter: z.number().describe('Value that the better turn must exceed, θ_dpo-filter in the paper.'),
    thetaDiff: z.number().min(0).describe('By which it must exceed the worse one, θ_dpo-diff in the paper.'),
    keepShare: fraction.describe('Share of the pairs to keep, best values first.'),
    keepPer: z.enum(['task', 'iteration']).describe('Whether that share is of each task or of all.'),
  }),
  dpo: z.strictObject({
    loss: z.enum(['dpo', 'ipo', 'simpo']).describe('The preference loss.'),
    beta: z.number().gt(0).describe('β: how strongly the policy is held to the reference.'),
    alpha: z.number().min(0).describe('α: weight of the chosen turn’s own loss; 0: plain DPO.'),
    simpoGamma: z.number().min(0).describe('Margin that SimPO asks for.'),
    packed: z.boolean().describe('Pairs that share a history share its computation; changes time alone.'),
    learningRate: z.number().gt(0).describe('Peak learning rate of AdamW; it decays as a cosine.'),
    epochs: count().describe('Passes over the pairs.'),
    batchSize: count().describe('Pairs per step.'),
    ...optimizer,
    maxSequenceTokens: count().describe('A pair with a longer view is left out, tokens.'),
    tokensPerPass: count().describe('Tokens of one forward pass: bounds memory.'),
  }),
};

/** Whose weights a training makes: one policy speaks for every role, or each role has its own. */
export const policyKinds = ['shared', 'per-role'] as const;

/** An adapter that is trained in place of all weights; its defaults are those of TRL's command line. */
const lora = z.strictObject({
  rank: count()
    .default(16)
    .describe('r: columns of B and rows of A, of which an adapter has two for each matrix.'),
  alpha: z.number().gt(0).default(32).describe('The adapter’s term is B·A times alpha / rank.'),
  dropout: z
    .number()
    .min(0)
    .lt(1)
    .default(0)
    .describe('Share of the numbers that A reads which are 0 in training.'),
  recompute: z
    .boolean()
    .default(false)
    .describe('Compute layers again in the backward pass: a third more time, less memory; without dropout.'),
  targets: z
    .string()
    .refine((text) => loraTargets(text) !== null)
    .default('all-linear')
    .describe('The matrices of each layer that are adapted.'),
});

/** What every recipe has beside its own. */
const common = {
  policies: z
    .enum(policyKinds)
    .describe('One policy for every role, or one for each, trained on its turns alone.'),
  reward: z.strictObject({
    lambdaToken: z
      .number()
      .min(0)
      .nullable()
      .describe("λ_token, weight of the token share; null: the scenario's own."),
    lambdaLoss: z
      .number()
      .min(0)
      .nullable()
      .describe("λ_loss, weight of the readability; null: the scenario's own."),
    lossFloor: z
      .number()
      .gt(0)
      .describe('Least R_loss, nats per token: a text the base knows by heart earns no more than this.'),
  }),
  eligible: z
    .strictObject({
      emptyMessage: z.boolean().describe('Train on dialogues with an empty message.'),
      repetition: z.boolean().describe('Train on dialogues that repeat a message word for word.'),
      cappedMessage: z.boolean().describe('Train on dialogues with a message cut at its token cap.'),
      turnCap: z.boolean().describe('Train on dialogues that reached the turn cap without agreement.'),
    })
    .describe('Cases the paper leaves open; each is counted, and ranked as any other.'),
  lora: lora
    .optional()
    .describe('Low-rank adaptation: an adapter is trained; where it is not set, all weights are.'),
  sft: z.strictObject({
    learningRate: z.number().gt(0).describe('Peak learning rate of AdamW; it decays as a cosine.'),
    epochs: count().describe('Passes over the selected dialogues.'),
    batchSize: count().describe('Views per step; each dialogue gives one for each agent.'),
    ...optimizer,
    maxSequenceTokens: count().describe('Longer views lose their end, tokens.'),
    tokensPerPass: count().describe('Padded tokens of one forward pass: bounds memory.'),
  }),
  maxMessageTokens: count()
    .nullable()
    .describe("Cap on one message, tokens, its end included; null: the scenario's own."),
  evaluation: z.strictObject({
    tasks: count().describe('Test tasks on which base and trained team are compared, temperature 0.'),
    validationTasks: count(0).describe('Validation tasks after each iteration; 0: none.'),
  }),
  keep: z
    .enum(['last', 'best-validation'])
    .describe('Which policy the run ends with: the last, or the one with the best validation score.'),
  concurrency: count().describe('Dialogues that run together, as one batch of the model.'),
};

/** Iterative SFT (docs/method.md §4): initialization, then iterations on dialogues without a format prompt. */
const isftSchema = z.strictObject({
  recipe: z.literal('isft').describe('The training recipe.'),
  seed,
  iterations: count(0).describe('iSFT iterations after initialization, T in the paper.'),
  initialization,
  isft,
  ...common,
});

/** Iterative DPO (docs/method.md §5): initialization, then iterations on pairs of turns from searched trees. */
const idpoSchema = z.strictObject({
  recipe: z.literal('idpo').describe('The training recipe.'),
  seed,
  iterations: count(0).describe('iDPO iterations after initialization, T in the paper.'),
  initialization,
  ...preference,
  ...common,
});

/** Both in turn (docs/method.md §6): after initialization iSFT, iDPO, iSFT … */
const isftDpoSchema = z.strictObject({
  recipe: z.literal('isft-dpo').describe('The training recipe.'),
  seed,
  iterations: count(0).describe('Iterations after initialization, of iSFT and iDPO in turn.'),
  initialization,
  isft,
  ...preference,
  ...common,
});

export const recipeSchema = z.discriminatedUnion('recipe', [isftSchema, idpoSchema, isftDpoSchema]);

/** All hyper-parameters of a training run: what every recipe has, and its own. */
export type Recipe = Readonly<z.output<typeof recipeSchema>>;
export type RecipeName = Recipe['recipe'];

/** The recipe of a name. */
export type RecipeOf<Name extends RecipeName> = Extract<Recipe, { recipe: Name }>;
/** A recipe with iterations of SFT. */
export type IsftRecipe = Extract<Recipe, { isft: object }>;
/** A recipe that trains by preference. */
export type PreferenceRecipe = Extract<Recipe, { search: object }>;

const schemas = {
  isft: isftSchema,
  idpo: idpoSchema,
  'isft-dpo': isftDpoSchema,
} as const satisfies Record<RecipeName, z.ZodObject>;

export const recipeNames = Object.keys(schemas) as readonly RecipeName[];

export interface RecipeKey {
  /** Dotted path, as `--set` takes it. */
  readonly key: string;
  readonly description: string;
  /** What it may be, in words. */
  readonly type: string;
  readonly schema: z.ZodType;
}

/** Every settable number of a recipe, in order. */
export function recipeKeys(recipe: RecipeName): readonly RecipeKey[] {
  const keys = knownKeys.get(recipe) ?? keysOf(schemas[recipe], '');
  knownKeys.set(recipe, keys);
  return keys;
}
const knownKeys = new Map<RecipeName, readonly RecipeKey[]>();

/**
 * The recipe with `key=value` settings applied in order. Throws `usage` for a setting that names no key (with
 * the nearest one) or whose value the key does not take.
 */
export function applySettings<Given extends Recipe>(recipe: Given, settings: readonly string[]): Given {
  const keys = recipeKeys(recipe.recipe);
  const changed = structuredClone(recipe) as Record<string, unknown>;
  for (const setting of settings) {
    const split = setting.indexOf('=');
    if (split < 0) {
      throw new OptimaError('usage', `--set ${setting}: not of the form key=value.`);
    }
    const name = setting.slice(0, split).trim();
    const found = keys.find(({ key }) => key === name);
    if (found === undefined) {
      throw new OptimaError('usage', `--set ${setting}: the recipe has no key "${name}".`, {
        hint: hintFor(name, keys),
      });
    }
    const result = found.schema.safeParse(parseValue(setting.slice(split + 1).trim()));
    if (!result.success) {
      throw new OptimaError('usage', `--set ${setting}: ${name} must be ${found.type}.`, {
        hint: found.description,
      });
    }
    const path = name.split('.');
    const last = path.pop()!;
    let group = changed;
    for (const part of path) {
      // A group that is optional begins with its first key.
      group[part] ??= {};
      group = group[part] as Record<string, unknown>;
    }
    group[last] = result.data;
  }
  return checkRecipe(recipeSchema.parse(changed)) as Given;
}

/** Conditions between several keys; throws `usage`. */
function checkRecipe(recipe: Recipe): Recipe {
  if (recipe.keep === 'best-validation' && recipe.evaluation.validationTasks === 0) {
    throw new OptimaError('usage', 'keep=best-validation needs evaluation.validationTasks above 0.', {
      hint: 'Add --set evaluation.validationTasks=100.',
    });
  }
  return recipe;
}

function hintFor(name: string, own: readonly RecipeKey[]): string {
  const keys = own.map(({ key }) => key);
  const others = recipeNames.filter((other) => recipeKeys(other).some(({ key }) => key === name));
  if (others.length > 0) return `It is a key of ${others.join(' and ')}: add --recipe ${others[0]}.`;
  const inGroup = keys.filter((key) => key.startsWith(`${name}.`));
  if (inGroup.length > 0) return `It is a group: ${inGroup.join(', ')}.`;
  const lastOf = (key: string) => key.slice(key.lastIndexOf('.') + 1);
  const short = name.includes('.') ? undefined : nearest(name, keys.map(lastOf));
  const guess = nearest(name, keys) ?? keys.find((key) => lastOf(key) === (short ?? name));
  return guess === undefined ? '`optima train --help` lists the keys.' : `Did you mean "${guess}"?`;
}

/** A number, true, false or null where the text is one; else the text itself. */
function parseValue(text: string): unknown {
  if (/^(true|false|null)$/.test(text)) return JSON.parse(text);
  return text !== '' && Number.isFinite(Number(text)) ? Number(text) : text;
}

function keysOf(schema: z.ZodObject, prefix: string): RecipeKey[] {
  return Object.entries(schema.shape).flatMap(([name, given]) => {
    const child = given instanceof z.ZodOptional ? given.unwrap() : given;
    return child instanceof z.ZodObject
      ? keysOf(child, `${prefix}${name}.`)
      : [
          {
            key: prefix + name,
            description: (child as z.ZodType).description ?? '',
            type: typeInWords(child as z.ZodType),
            schema: child as z.ZodType,
          },
        ];
  });
}

function typeInWords(schema: z.ZodType): string {
  if (schema instanceof z.ZodNullable) return `${typeInWords(schema.unwrap() as z.ZodType)}, or null`;
  if (schema instanceof z.ZodDefault) return typeInWords(schema.unwrap() as z.ZodType);
  const json = z.toJSONSchema(schema);
  if (json.const !== undefined) return String(json.const);
  if (json.enum !== undefined) return json.enum.join(' or ');
  if (json.type === 'boolean') return 'true or false';
  if (json.type === 'string') return 'all-linear, attention, or names such as q_proj,v_proj';
  const bounds = [
    json.minimum !== undefined && `of at least ${json.minimum}`,
    json.exclusiveMinimum !== undefined && `above ${json.exclusiveMinimum}`,
    json.exclusiveMaximum !== undefined && `below ${json.exclusiveMaximum}`,
    json.maximum !== undefined && json.maximum < Number.MAX_SAFE_INTEGER && `at most ${json.maximum}`,
  ].filter((bound) => bound !== false);
  return `${json.type === 'integer' ? 'a whole number' : 'a number'} ${bounds.join(' and ')}`.trim();
}
