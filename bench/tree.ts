// What a session's memory saves in a search over conversations: two agents with contexts of 512 tokens, messages of 50
// tokens, dialogues of six. Eight times, three new branches grow from a turn to the end: 24 leaves. The same tree is
// grown with the memory and with one that holds nothing.
// node --import tsx bench/tree.ts   (OPTIMA_BACKEND, OPTIMA_MACHINE_CODE and OPTIMA_BLAS choose the engine)
import { createRng } from '../src/domain/rng.ts';
import { DecodeLoop } from '../src/models/llama/generate.ts';
import type { Memory } from '../src/models/llama/memory.ts';
import { startEngine } from '../src/tensor/index.ts';
import { createMemory, createReferencePolicy, randomIds, report, rounded } from './shared.ts';

const [contextTokens, messageTokens, depth, expansions, branches] = [512, 50, 6, 8, 3];

// One thread, as in a worker.
const engine = await startEngine({ threads: 1 });
const rng = createRng(1);
const policy = createReferencePolicy(rng.split('weights'));
const { max_position_embeddings: context } = policy.config;
const contexts = [randomIds(policy, rng, contextTokens), randomIds(policy, rng, contextTokens)];

/** Messages of one branch, from the first turn on. */
type Branch = readonly (readonly number[])[];

/** Writes the next message of each branch; its speaker reads its own context and all messages. */
async function extend(open: readonly Branch[], memory: Memory): Promise<Branch[]> {
  const jobs = open.map((messages, i) => ({
    id: `${i}`,
    promptIds: [...contexts[messages.length % 2]!, ...messages.flat()],
    sampling: { temperature: 0.7, topP: 1, topK: 0, maxTokens: messageTokens },
    seed: messages.length * branches + i,
  }));
  const limits = {
    stopIds: new Set<number>(),
    neverIds: [],
    maxRows: 64,
    tokenBudget: 1024,
    context,
    memory,
  };
  const completions = await new DecodeLoop(limits).complete(jobs);
  return open.map((messages, i) => [...messages, completions[i]!.tokenIds]);
}

async function growTree(memory: Memory) {
  const draw = createRng('tree');
  const nodes: Branch[] = [[]];
  let turns = 0;
  const startedAt = performance.now();
  for (let expansion = 0; expansion < expansions; expansion++) {
    const from = draw.pick(nodes.filter((messages) => messages.length < depth));
    let open: readonly Branch[] = Array.from({ length: branches }, () => from);
    while (open[0]!.length < depth) {
      open = await extend(open, memory);
      turns += open.length;
      nodes.push(...open);
    }
  }
  const seconds = (performance.now() - startedAt) / 1000;
  const leaves = nodes.filter((messages) => messages.length === depth).length;
  return { turns, leaves, seconds, ...memory.statistics };
}

await growTree(createMemory(policy));
const without = await growTree(createMemory(policy, 0));
const memory = await growTree(createMemory(policy));
report({
  bench: 'tree',
  engine,
  turns: memory.turns,
  leaves: memory.leaves,
  tokensWithout: without.computed,
  tokensWith: memory.computed,
  secondsWithout: rounded(without.seconds, 3),
  secondsWith: rounded(memory.seconds, 3),
  hitRate: rounded(memory.reused / (memory.reused + memory.computed - memory.turns * (messageTokens - 1)), 3),
});
