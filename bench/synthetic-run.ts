// Writes a run that nobody trained, as long as it is asked for: a log that RunFolder.read accepts, whose trees are real searches.
// It measures what reading it through an index takes, in a process of its own.
//   node --import tsx bench/synthetic-run.ts <events> [folder]
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { keepMemorySmall } from '../src/cli/reader.ts';
import type { PhaseOutput, RunEvent } from '../src/domain/events.ts';
import { hash6 } from '../src/domain/hash.ts';
import {
  childId,
  type DialogueId,
  type NodeId,
  type PolicyHash,
  type RunId,
  rootId,
  type TaskId,
  taskId,
} from '../src/domain/ids.ts';
import { computeReward } from '../src/domain/reward.ts';
import { createRng, type Rng } from '../src/domain/rng.ts';
import { RunReader } from '../src/reading/index.ts';
import { searchConfigOf } from '../src/reading/pairing.ts';
import { presetRecipe } from '../src/recipe/presets.ts';
import { keepPairs, pairsOf, Search } from '../src/search/index.ts';
import { formatVersion, type Manifest, writeManifest } from '../src/store/manifest.ts';

const base = 'c122d40464d0ebe4' as PolicyHash;
const trained = '22eeb2508bf7e90e' as PolicyHash;
const team = { alice: trained, bob: trained };
const roles = ['alice', 'bob'] as const;
const words = [
  'mayor',
  'of',
  'Baldale',
  'is',
  'Kenron',
  'spouse',
  'founder',
  'who',
  'Tuk',
  'Gug',
  'river',
  'yes',
  'film',
];
const weights = { lambdaToken: 0.6, lambdaLoss: 1 };
/** Lines are written so many bytes at a time. */
const bufferBytes = 4 << 20;

/** A log in the making: its lines, chained as the log's own. */
class Writer {
  readonly #descriptor: number;
  #lines: string[] = [];
  #held = 0;
  #sum = '------';
  events = 0;

  constructor(file: string) {
    this.#descriptor = fs.openSync(file, 'wx');
  }

  get end() {
    return { events: this.events, sum: this.#sum };
  }

  write(event: RunEvent): void {
    const body = JSON.stringify(event);
    this.#sum = hash6(this.#sum + body);
    const at = new Date(Date.UTC(2026, 0, 1) + this.events).toISOString();
    const line = `{"seq":${this.events++},"at":"${at}","sum":"${this.#sum}",${body.slice(1)}\n`;
    this.#lines.push(line);
    this.#held += line.length;
    if (this.#held > bufferBytes) this.flush();
  }

  flush(): void {
    fs.writeSync(this.#descriptor, this.#lines.join(''));
    this.#lines = [];
    this.#held = 0;
  }

  close(): void {
    this.flush();
    fs.closeSync(this.#descriptor);
  }
}

const metricsOf = (n: number) => ({
  ...{
    taskScore: 0.5,
    taskScoreInterval: [0.4, 0.6] as const,
    exactMatch: 0.5,
    tokens: 30,
    medianTokens: 29,
  },
  ...{ p95Tokens: 48, shortestRight: 14, agreement: 0.9, turns: 3.5, n, failed: 0 },
});
const noCases = { emptyMessage: 0, repetition: 0, cappedMessage: 0, turnCap: 0 };

/** Writes a run of about so many events, at least a few thousand, into a folder that is not there; returns how many it has. */
export function writeSyntheticRun(folder: string, events: number, { seed = 1 } = {}): number {
  const recipe = { ...presetRecipe('quick', 'idpo'), iterations: 1, seed };
  fs.mkdirSync(folder, { recursive: true });
  const log = new Writer(path.join(folder, 'events.jsonl'));
  const root = createRng(seed);
  const dealt = new Set<TaskId>();
  const say = (rng: Rng) => Array.from({ length: 2 + rng.int(6) }, () => rng.pick(words)).join(' ');
  const deal = (task: TaskId) => {
    if (dealt.has(task)) return;
    dealt.add(task);
    const facts = (role: string) =>
      `You are ${role}. Each knows different facts.\nFind the mayor of ${task}.`;
    log.write({ type: 'task.dealt', taskId: task, views: { alice: facts('alice'), bob: facts('bob') } });
  };
  const turnOf = (id: NodeId, parent: NodeId, depth: number, rng: Rng, policyHash: PolicyHash) => {
    const text = say(rng);
    const tokenIds = text.split(' ').flatMap((word) => [words.indexOf(word) + 4, 2]);
    const logprobs = tokenIds.map(() => Math.round(-1e6 * rng.next()) / 1e6);
    const speaker = roles[depth % 2]!;
    const rest = {
      finish: 'stop',
      policyHash,
      seed: rng.seed32(),
      provenance: 'sampled',
      promptTokens: 100,
    } as const;
    return { id, parent, speaker, text, tokenIds, logprobs, ...rest };
  };
  const close = (dialogueId: DialogueId, score: number) => {
    log.write({ type: 'dialogue.closed', dialogueId, outcome: 'agreed', failure: null });
    log.write({
      type: 'verdict.given',
      dialogueId,
      taskScore: score,
      exactMatch: score === 1,
      answer: 'Kenron',
    });
  };
  const rankedOf = (
    dialogueId: DialogueId,
    task: TaskId,
    tokens: number,
    score: number,
    losses: number[],
  ) => {
    const terms = { task: score, tokenShare: Math.min(1, tokens / 60), loss: Math.max(0.1, ...losses) };
    return {
      type: 'trajectory.ranked',
      ...{
        dialogueId,
        taskId: task,
        tokens,
        terms,
        reward: computeReward(terms, weights),
        turnLosses: losses,
      },
      ...{ edgeCases: [], eligible: true, failure: null },
    } as const;
  };

  /** Dialogues from the root, in cohorts; gives how they rank. */
  const hold = function* (
    phase: string,
    tasks: Iterable<number>,
    split: string,
    samples: number,
    policy: PolicyHash,
  ) {
    let [held, cohort] = [0, 0];
    for (const index of tasks) {
      const task = taskId(split, index);
      const tree = rootId(phase, task);
      for (let sample = 0; sample < samples; sample++) {
        const dialogueId = childId(tree, sample);
        const rng = root.split(dialogueId);
        deal(task);
        log.write({ type: 'dialogue.opened', dialogueId, taskId: task, tree, parent: null, format: null });
        let [parent, tokens] = [tree, 0];
        const losses: number[] = [];
        for (let depth = 0, turns = 2 + rng.int(4); depth < turns; depth++) {
          const id = childId(parent, depth === 0 ? sample : 0);
          log.write({ type: 'turn.requested', nodeId: id, speaker: roles[depth % 2]! });
          const turn = turnOf(id, parent, depth, rng, policy);
          log.write({ type: 'turn.taken', dialogueId, turn });
          [parent, tokens] = [id, tokens + turn.tokenIds.length];
          losses.push(0.5 + rng.next());
        }
        const score = rng.int(2);
        close(dialogueId, score);
        yield rankedOf(dialogueId, task, tokens, score, losses);
        if (++held % recipe.concurrency === 0)
          log.write({ type: 'cohort.completed', phase, cohort: cohort++ });
      }
    }
    if (held % recipe.concurrency > 0) log.write({ type: 'cohort.completed', phase, cohort });
  };
  /** One task's search, as `src/rollouts/explore.ts` has it in the log, a roll-out after the other; gives its pairs. */
  const searchTree = (phase: string, index: number) => {
    const task = taskId('train', index);
    const tree = rootId(phase, task);
    const search = new Search(tree, searchConfigOf(recipe), root.split('search').split(tree));
    const tokensAt = new Map<NodeId, number>([[tree, 0]]);
    deal(task);
    for (let expansion = search.ask(); expansion !== null; expansion = search.ask()) {
      const told: (() => void)[] = [];
      for (const rollout of expansion.rollouts) {
        let at = expansion.node;
        const dialogueId = childId(at, rollout);
        const rng = root.split(dialogueId);
        const parent = at === tree ? null : at;
        log.write({ type: 'dialogue.opened', dialogueId, taskId: task, tree, parent, format: null });
        const first = search.tree.nodes.get(at)!.depth;
        for (let depth = first; depth < Math.max(first + 1, 4 + rng.int(2)); depth++) {
          const id = childId(at, rollout);
          log.write({ type: 'turn.requested', nodeId: id, speaker: roles[depth % 2]! });
          // What opens a dialogue is often the same.
          const turn = turnOf(id, at, depth, depth < 2 ? root.split(depth * 4 + rng.int(4)) : rng, base);
          const { text, tokenIds, promptTokens, speaker } = turn;
          const into = search.place({ id, parent: at, text, meanLogprob: -rng.next() });
          if (into === id) log.write({ type: 'turn.taken', dialogueId, turn });
          else
            log.write({
              type: 'turn.merged',
              dialogueId,
              nodeId: id,
              speaker,
              into,
              text,
              tokenIds,
              promptTokens,
            });
          tokensAt.set(into, tokensAt.get(into) ?? tokensAt.get(at)! + tokenIds.length);
          at = into;
        }
        const score = rng.int(2);
        close(dialogueId, score);
        const losses = Array.from({ length: search.tree.nodes.get(at)!.depth }, () => 0.5 + rng.next());
        const ranked = rankedOf(dialogueId, task, tokensAt.get(at)!, score, losses);
        const leaf = at;
        told.push(() => {
          log.write(ranked);
          search.tell(rollout, leaf, ranked.reward);
        });
      }
      for (const tell of told) tell();
    }
    const { from, keepShare: share, keepPer: per, values: _, ...thresholds } = recipe.pairs;
    const { pairs, dropped } = pairsOf(search.tree, { pairs: from, ...thresholds });
    const kept = keepPairs([pairs], { share, per })[0]!;
    return { tree, taskId: task, pairs: kept, dropped: { ...dropped, worse: pairs.length - kept.length } };
  };
  const phase = (name: string, work: () => PhaseOutput) => {
    log.write({ type: 'phase.started', phase: name });
    log.write({ type: 'phase.completed', phase: name, output: work() });
  };
  const evaluate = (name: string, policy: PolicyHash) =>
    phase(name, () => {
      const { length: n } = [...hold(name, numbers(0, 100), 'test', 1, policy)];
      return { kind: 'evaluate', policy: { alice: policy, bob: policy }, metrics: metricsOf(n) };
    });
  const train = (name: string, steps: number) =>
    phase(name, () => {
      const step = { learningRate: 1e-4, gradNorm: 1, tokens: 2000, figures: {} };
      for (let at = 0; at < steps; at++)
        log.write({ type: 'step.trained', phase: name, step: at, steps, loss: 1 / (at + 1), ...step });
      return { kind: 'train', steps, loss: 1 / steps, figures: {}, warnings: [], policy: team };
    });

  log.write({ type: 'run.started', scenario: 'synthetic', seed, base, recipe: { ...recipe } });
  evaluate('base', base);
  const ranking: ReturnType<typeof rankedOf>[] = [];
  let tasks = 0;
  const until = function* (most: number) {
    while (log.events < most) yield tasks++;
  };
  phase('init-0/generate', () => {
    for (const ranked of hold('init-0/generate', until(0.42 * events), 'train', 8, base))
      ranking.push(ranked);
    return { kind: 'generate', dialogues: ranking.length, failed: 0, sampledTokens: 0 };
  });
  phase('init-0/rank', () => {
    for (const ranked of ranking) log.write(ranked);
    const found = { ranked: ranking.length, failed: 0, meanReward: 0.5, meanLoss: 1.2 };
    return { kind: 'rank', ...found, metrics: metricsOf(ranking.length), edgeCases: noCases };
  });
  phase('init-0/select', () => {
    const kept = ranking
      .filter((_, place) => place % 8 === 0)
      .map(({ dialogueId, taskId: task, reward }) => ({ dialogueId, taskId: task, reward }));
    const dropped = { noCandidate: 0, belowThreshold: 0, beyondFraction: 0 };
    log.write({ type: 'selection.made', phase: 'init-0/select', kept, dropped });
    return { kind: 'select', kept: kept.length, threshold: 0.4 };
  });
  train('init-0/train', 200);
  const from = tasks;
  phase('idpo-1/pilot', () => {
    const { length } = [...hold('idpo-1/pilot', numbers(from, 100), 'train', 1, trained)];
    return { kind: 'generate', dialogues: length, failed: 0, sampledTokens: 0 };
  });
  const made: ReturnType<typeof searchTree>[] = [];
  phase('idpo-1/search', () => {
    const { cohort, expansions, rolloutsPerExpansion } = recipe.search;
    for (let cohorts = 0; log.events < 0.97 * events; cohorts++) {
      for (let tree = 0; tree < cohort; tree++) made.push(searchTree('idpo-1/search', from + made.length));
      log.write({ type: 'cohort.completed', phase: 'idpo-1/search', cohort: cohorts });
    }
    const dialogues = made.length * expansions * rolloutsPerExpansion;
    return {
      kind: 'search',
      ...{ trees: made.length, dialogues, failed: 0, merged: 0, sampledTokens: 0, normaliser: 60 },
      ...{ meanReward: 0.5, meanLoss: 1.2, metrics: metricsOf(dialogues), edgeCases: noCases, klToBase: 0 },
    };
  });
  phase('idpo-1/pair', () => {
    for (const pairs of made) log.write({ type: 'pairs.made', phase: 'idpo-1/pair', ...pairs });
    const kept = made.reduce((sum, { pairs }) => sum + pairs.length, 0);
    return { kind: 'pair', kept, found: kept, meanGap: 0.4 };
  });
  train('idpo-1/train', 100);
  evaluate('trained', trained);
  log.write({ type: 'run.completed', policy: team });
  log.close();
  const manifest: Manifest = {
    ...{
      format: formatVersion,
      version: '0.1.0',
      node: process.version,
      run: path.basename(folder) as RunId,
    },
    command: ['train', 'synthetic'],
    scenario: { name: 'synthetic', file: 'synthetic.ts', hash: '0', tasks: '0' },
    ...{ preset: 'quick', recipe: { ...recipe }, engine: 'none', base: { folder: 'base', hash: base } },
    ...{ seconds: log.events / 1000, log: log.end },
  };
  writeManifest(folder, manifest);
  return log.events;
}

const numbers = (from: number, count: number) => Array.from({ length: count }, (_, i) => from + i);

/** In a process of its own, so that memory is what it takes: `open` makes the index or uses it, then trees are read. */
function measure(folder: string): void {
  keepMemorySmall();
  const begun = performance.now();
  const reader = RunReader.open(folder);
  const open = performance.now() - begun;
  const trees = [...reader.trees({ phase: 'idpo-1/search' })];
  const listed = performance.now() - begun - open;
  const times = numbers(0, 20).map((place) => {
    const { root } = trees[Math.floor((place / 20) * trees.length)]!;
    const from = performance.now();
    reader.tree(root);
    return performance.now() - from;
  });
  times.sort((a, b) => a - b);
  process.stdout.write(
    `${JSON.stringify({
      ...{ openMs: Math.round(open), listMs: Math.round(listed), trees: trees.length },
      ...{ treeMedianMs: Math.round(times[10]!), treeWorstMs: Math.round(times.at(-1)!) },
      ...{ index: `${(fs.statSync(path.join(folder, 'events.index')).size / 2 ** 20).toFixed(1)} MiB` },
      memory: `${(process.resourceUsage().maxRSS / 1024).toFixed(0)} MiB at most`,
    })}\n`,
  );
  reader.close();
}

const [file, events = '100000', given] = process.argv.slice(1);
if (file === fileURLToPath(import.meta.url)) {
  if (events === 'measure') measure(given!);
  else {
    const folder = given ?? fs.mkdtempSync(path.join(os.tmpdir(), 'optima-synthetic-'));
    const begun = performance.now();
    if (!fs.existsSync(path.join(folder, 'manifest.json'))) {
      const count = writeSyntheticRun(folder, Number(events));
      const bytes = fs.statSync(path.join(folder, 'events.jsonl')).size;
      const seconds = ((performance.now() - begun) / 1000).toFixed(1);
      process.stdout.write(
        `${folder}: ${count} events, ${(bytes / 2 ** 20).toFixed(0)} MiB in ${seconds} s\n`,
      );
    }
    fs.rmSync(path.join(folder, 'events.index'), { force: true });
    for (const what of ['index made', 'index used']) {
      process.stdout.write(`${what}: `);
      spawnSync(process.execPath, [...process.execArgv, file, 'measure', folder], { stdio: 'inherit' });
    }
  }
}
