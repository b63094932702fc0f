// What `estimateResources` asks of a checkpoint and a scenario: its architecture, and how long dialogues may be in its tokens.
import fs from 'node:fs';
import { createRng } from '../domain/rng.ts';
import { modelFolderOf } from '../models/llama/adapter-header.ts';
import { readConfig } from '../models/llama/checkpoint.ts';
import { bytesFrozen } from '../models/llama/size.ts';
import { hasWeights, StoredWeights } from '../models/llama/stored-weights.ts';
import { type ChatTokenizer, loadTokenizer } from '../models/tokenizer/index.ts';
import type { Recipe } from '../recipe/schema.ts';
import { Course } from '../scenario/course.ts';
import { loadTasks } from '../scenario/tasks.ts';
import { messageCap, type Scenario } from '../scenario/types.ts';
import { canFreeze } from '../tensor/index.ts';
import type { DialogueLengths, Frozen, Undertaking } from './resources.ts';

/** Tasks whose views are measured. */
const sampledTasks = 20;

/**
 * Reads config.json, the tokenizer and what weights say of themselves; of the models in `beside`, partners and judge, no tokenizer.
 * The engine runs. Rejects as `readConfig`, `StoredWeights.open`, `loadTokenizer` and the scenario's source do.
 */
export async function undertakingOf(
  folder: string,
  scenario: Scenario,
  recipe: Recipe,
  beside: readonly string[] = [],
): Promise<Omit<Undertaking, 'workers'>> {
  const model = await modelFolderOf({ folder });
  const tokenizer = await loadTokenizer(model);
  // One of the model's own folder is the same policy, and a module has no weights.
  const isFolder = (one: string) => fs.existsSync(one) && fs.statSync(one).isDirectory();
  const others = new Set(beside.filter(isFolder).map((one) => fs.realpathSync(one)));
  others.delete(fs.realpathSync(folder));
  const frozen: Frozen[] = [];
  for (const other of others) frozen.push(await frozenOf(await modelFolderOf({ folder: other })));
  const lengths = await measureLengths(scenario, recipe, tokenizer);
  return { scenario, recipe, ...(await frozenOf(model)), frozen, lengths };
}

/** A checkpoint, and how its matrices are frozen by the engine that runs. */
async function frozenOf(folder: string): Promise<Frozen> {
  const config = await readConfig(folder);
  if (!canFreeze() || !(await hasWeights(folder))) return { config };
  const weights = await StoredWeights.open(folder, config);
  try {
    const formats = weights.matrixFormats();
    const numbers = bytesFrozen(config, new Map([...formats.keys()].map((name) => [name, 'float32']))) / 4;
    return { config, bytesPerNumber: bytesFrozen(config, formats) / numbers };
  } finally {
    await weights.close();
  }
}

async function measureLengths(
  scenario: Scenario,
  recipe: Recipe,
  tokenizer: Pick<ChatTokenizer, 'encode' | 'encodeChat'>,
): Promise<DialogueLengths> {
  const { maxTurns } = scenario.protocol;
  const dialogue = maxTurns * messageCap(scenario, recipe.maxMessageTokens);
  const count = (text: string) => tokenizer.encode(text).length;
  const longest = (texts: readonly string[]) => Math.max(0, ...texts.map(count));
  const tasks = await loadTasks(scenario, 'train', { from: 0, count: sampledTasks }, createRng(recipe.seed));
  const views = tasks.flatMap(({ task }) => Object.values(new Course(scenario, task).deal().views));
  const formats = recipe.initialization.formats ? scenario.formats.map(({ prompt }) => prompt) : [];
  // What a chat template writes around a message.
  const said = ['user', 'assistant', 'user', 'assistant'] as const;
  const framed = tokenizer.encodeChat(
    said.map((role) => ({ role, content: 'a' })),
    false,
  ).tokenIds.length;
  const frame = Math.max(0, Math.ceil(framed / said.length) - count('a'));
  const format = longest(formats);
  const view = longest(views) + format + (maxTurns + 1) * frame;
  return { dialogue, view, format, context: view + dialogue };
}
