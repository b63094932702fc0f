// Pairs of a real run's search: what they become in token space, and that the log alone gives them again.
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { systemClock } from '../../src/domain/clock.ts';
import { pathTo } from '../../src/domain/conversation-tree.ts';
import type { OptimaError } from '../../src/domain/errors.ts';
import type { RunEventOf } from '../../src/domain/events.ts';
import type { NodeId, PolicyHash } from '../../src/domain/ids.ts';
import { mean, percentile, standardDeviation } from '../../src/domain/metrics.ts';
import { silent } from '../../src/domain/progress.ts';
import { createRng } from '../../src/domain/rng.ts';
import { messageTokens, viewOf } from '../../src/domain/transcript.ts';
import { type LlamaPolicy, loadPolicy } from '../../src/models/llama/index.ts';
import {
  mayChoose,
  scaleByRole,
  searchConfigOf,
  searchedTrees,
  valuedTurns,
} from '../../src/reading/pairing.ts';
import type { PreferenceRecipe } from '../../src/recipe/schema.ts';
import type { PhaseContext } from '../../src/run/phases/context.ts';
import { pair } from '../../src/run/phases/pair.ts';
import { planRun } from '../../src/run/plan.ts';
import { loadScenario } from '../../src/scenario/load.ts';
import { keepPairs, pairsOf } from '../../src/search/index.ts';
import { RunFolder } from '../../src/store/run-folder.ts';
import { preferenceExample } from '../../src/training/dpo/examples.ts';
import {
  optimaHere,
  smallHybridRun,
  temporaryFolder,
  writeRandomCheckpoint,
  writeSmallScenario,
} from '../support/run.ts';
import { wordPairs } from '../support/scenarios.ts';

const folder = temporaryFolder('pairing');
test.after(() => fs.rmSync(folder, { recursive: true }));
const model = path.join(folder, 'model');
const phase = 'idpo-2/search';
let run: RunFolder;
let policy: LlamaPolicy;
let recipe: PreferenceRecipe;

test.before(async () => {
  await writeRandomCheckpoint(model);
  const out = path.join(folder, 'run');
  // A random model's turns are unlike each other: these become one where half of them differs.
  const settings = [
    ...['search.expansions=4', 'search.rolloutsPerExpansion=4', 'search.mergeBelow=0.7'],
    ...['maxMessageTokens=4', 'pairs.keepShare=0.5'],
  ].flatMap((setting) => ['--set', setting]);
  const args = [
    'train',
    writeSmallScenario(folder),
    '--model',
    model,
    ...smallHybridRun,
    ...settings,
    '--workers',
    '0',
  ];
  const { code, stdout } = await optimaHere([...args, '--json', '--out', out]);
  assert.is(code, 0, stdout);
  run = RunFolder.open(out, systemClock);
  recipe = run.manifest.recipe as PreferenceRecipe;
  const { policy: team } = run.outputOf({ name: 'isft-1/train', kind: 'train' })!;
  policy = await loadPolicy(run.checkpointFolder(team.alice!));
});
test.after(() => {
  run.close();
  policy.dispose();
});

const madePairs = () =>
  new Map(
    [...run.eventsOf('idpo-2/pair')].flatMap((event) =>
      event.type === 'pairs.made' ? [[event.tree, event]] : [],
    ),
  );
const examples = () => {
  const made = madePairs();
  return [...run.treesOf(phase)].flatMap(({ conversation, dealOf }) =>
    made.get(conversation.root)!.pairs.map((pair) => ({
      ...{ conversation, deal: dealOf(), pair },
      example: preferenceExample(conversation, dealOf(), pair, policy, policy.hash),
    })),
  );
};

test('a pair’s prompt is what its speaker read, and its turns are what was sampled, by ids', () => {
  assert.ok(examples().length > 5);
  for (const { conversation, deal, pair, example } of examples()) {
    const [chosen, rejected] = [pair.chosen, pair.rejected].map((node) => conversation.turns[node]!);
    assert.is(chosen!.speaker, rejected!.speaker);
    const { speaker, promptTokens } = chosen!;
    const read = viewOf(speaker, deal, pathTo(conversation, pair.parent));
    assert.equal(example.promptIds, policy.tokenizer.encodeChat(read, true).tokenIds);
    assert.is(example.promptIds.length, promptTokens);
    assert.equal(example.chosenIds, chosen!.tokenIds);
    assert.equal(example.rejectedIds, rejected!.tokenIds);
    assert.is(example.group, conversation.root);
    for (const [turn, ids] of [
      [chosen!, example.chosenIds],
      [rejected!, example.rejectedIds],
    ] as const) {
      const ends = ids.filter((id) => id === policy.tokenizer.endOfTurnId).length;
      assert.is(ends, turn.finish === 'stop' ? 1 : 0);
      if (ends === 1) assert.is(ids.at(-1), policy.tokenizer.endOfTurnId);
    }
  }
});

test('reference log-probabilities are those of the policy that was searched with', async () => {
  for (const { conversation, deal, pair, example } of examples()) {
    const turns = pathTo(conversation, pair.chosen);
    const { speaker } = turns.at(-1)!;
    const messages = viewOf(speaker, deal, turns);
    const [[logprobs]] = (await policy.score([{ id: 'chosen', messages, last: 1 }])) as [[number[]]];
    const sum = logprobs.reduce((total, logprob) => total + logprob, 0);
    assert.ok(Math.abs(example.refChosen - sum) < 1e-4, `${example.refChosen} is not ${sum}`);
    assert.is(conversation.turns[pair.rejected]!.policyHash, policy.hash);
    assert.ok(example.refRejected < 0);
  }
});

test('a turn that another policy said is refused', () => {
  const [{ conversation, deal, pair }] = examples() as [ReturnType<typeof examples>[0]];
  assert.throws(
    () => preferenceExample(conversation, deal, pair, policy, '0123456789abcdef' as PolicyHash),
    (error: OptimaError) => error.code === 'run.corrupt' && error.message.includes(pair.chosen),
  );
});

test('the log alone gives the pairs again, and says of every other one why it is none', () => {
  const made = madePairs();
  const trees = [...searchedTrees(run.treesOf(phase), searchConfigOf(recipe), createRng(recipe.seed))];
  assert.is(trees.length, 3);
  for (const { conversation, search } of trees) {
    const may = mayChoose(conversation, recipe.eligible, wordPairs().answer);
    const { from: pairs, keepShare: share, keepPer: per, ...thresholds } = recipe.pairs;
    const found = pairsOf(search.tree, { pairs, ...thresholds }, may);
    const { pairs: logged, dropped } = made.get(conversation.root)!;
    assert.equal(keepPairs([found.pairs], { share, per })[0], logged);
    assert.equal(dropped, { ...found.dropped, worse: found.pairs.length - logged.length });
  }
  const output = run.outputOf({ name: phase, kind: 'search' })!;
  assert.ok(output.merged > 0);
  assert.is(output.dialogues, 3 * 4 * 4);
  assert.is(output.trees, 3);
  const pairing = run.outputOf({ name: 'idpo-2/pair', kind: 'pair' })!;
  const all = [...made.values()];
  assert.is(
    pairing.kept,
    all.reduce((sum, { pairs }) => sum + pairs.length, 0),
  );
  assert.is(pairing.found, pairing.kept + all.reduce((sum, { dropped }) => sum + dropped.worse!, 0));
  const gaps = all.flatMap(({ pairs }) => pairs.map(({ gap }) => gap));
  assert.ok(Math.abs(pairing.meanGap - gaps.reduce((a, b) => a + b, 0) / gaps.length) < 1e-9);
});

test('rewards are taken against the pilot, and the divergence from the base is the mean over what was said', () => {
  const lengths = [...run.dialoguesOf('idpo-2/pilot')].map(({ turns }) => messageTokens(turns));
  const output = run.outputOf({ name: phase, kind: 'search' })!;
  assert.is(output.normaliser, percentile(lengths, 85) + 1);
  const ranked = [...run.eventsOf(phase)].flatMap((event) =>
    event.type === 'trajectory.ranked' ? [event] : [],
  );
  assert.is(ranked.length, output.dialogues);
  for (const { terms, tokens } of ranked) assert.is(terms!.tokenShare, tokens / output.normaliser);
  const losses = new Map(ranked.map(({ dialogueId, turnLosses }) => [dialogueId, turnLosses]));
  let [sum, count] = [0, 0];
  for (const { id, turns } of run.dialoguesOf(phase)) {
    for (const [index, { logprobs }] of turns.entries()) {
      sum += logprobs.reduce((total, logprob) => total + logprob + losses.get(id)![index]!, 0);
      count += logprobs.length;
    }
  }
  assert.ok(Math.abs(output.klToBase - sum / count) < 1e-9);
  assert.ok(Math.abs(output.meanLoss - mean(ranked.map(({ terms }) => terms!.loss))) < 1e-12);
  const sampled = [...run.eventsOf(phase)].flatMap((event) => {
    if (event.type === 'turn.merged') return event.tokenIds;
    return event.type === 'turn.taken' ? event.turn.tokenIds : [];
  });
  assert.is(output.sampledTokens, sampled.length);
  // What branches share was sampled once.
  assert.ok(output.sampledTokens < output.metrics.tokens * output.metrics.n);
});

test('on one scale each role’s values have the mean and the spread of all, in the order they had', () => {
  const trees = [...searchedTrees(run.treesOf(phase), searchConfigOf(recipe), createRng(recipe.seed))];
  const scale = scaleByRole(trees.flatMap(valuedTurns));
  const valued = trees.flatMap(({ conversation, search }) =>
    Object.values(conversation.turns).flatMap(({ id, speaker }) => {
      const { value } = search.tree.nodes.get(id)!;
      return value === null ? [] : [{ speaker, value, scaled: scale(value, speaker) }];
    }),
  );
  const all = valued.map(({ value }) => value);
  for (const role of ['alice', 'bob']) {
    const own = valued.filter(({ speaker }) => speaker === role);
    const scaled = own.map((each) => each.scaled);
    assert.ok(own.length > 3);
    assert.ok(Math.abs(mean(own.map(({ value }) => value)) - mean(all)) > 1e-6);
    assert.ok(Math.abs(mean(scaled) - mean(all)) < 1e-9);
    assert.ok(Math.abs(standardDeviation(scaled) - standardDeviation(all)) < 1e-9);
    const byValue = own.toSorted((a, b) => a.value - b.value);
    for (const [index, { scaled }] of byValue.entries())
      assert.ok(index === 0 || scaled >= byValue[index - 1]!.scaled);
  }
  // A role whose turns are all worth the same, but for rounding, stands in the middle.
  const flat = scaleByRole([
    { speaker: 'alice', value: 0.3 },
    { speaker: 'alice', value: 0.1 + 0.2 },
    { speaker: 'bob', value: 0 },
    { speaker: 'bob', value: 1 },
  ]);
  for (const value of [0.3, 0.1 + 0.2]) assert.ok(Math.abs(flat(value, 'alice') - 0.4) < 1e-6);
});

test('a recipe that asks for it pairs turns by their values on one scale', async () => {
  const { scenario } = await loadScenario('two-hop-qa');
  const pairsWith = async (values: PreferenceRecipe['pairs']['values']) => {
    const made: RunEventOf<'pairs.made'>['pairs'][number][] = [];
    const context = {
      run: {
        outputOf: run.outputOf.bind(run),
        eventsOf: run.eventsOf.bind(run),
        treesOf: run.treesOf.bind(run),
        record: (event: RunEventOf<'pairs.made'>) => made.push(...event.pairs),
      },
      ...{ scenario, plan: planRun(recipe, scenario), progress: silent, rng: createRng(recipe.seed) },
      recipe: { ...recipe, pairs: { ...recipe.pairs, values } },
    } as unknown as PhaseContext;
    await pair(context, { kind: 'pair', name: 'idpo-2/pair', iteration: 2, search: phase });
    return made;
  };
  const raw = await pairsWith('raw');
  assert.equal(
    raw,
    [...madePairs().values()].flatMap(({ pairs }) => pairs),
  );
  const searched = [...searchedTrees(run.treesOf(phase), searchConfigOf(recipe), createRng(recipe.seed))];
  const scale = scaleByRole(searched.flatMap(valuedTurns));
  const rawValue = (node: NodeId) =>
    searched.flatMap(({ search }) => search.tree.nodes.get(node)?.value ?? [])[0]!;
  const trees = [...run.treesOf(phase)];
  const speakerOf = (node: NodeId) =>
    trees.flatMap(({ conversation }) => conversation.turns[node]?.speaker ?? [])[0]!;
  const scaled = await pairsWith('per-role');
  assert.ok(scaled.length > 3);
  for (const { chosen, rejected, value, gap } of scaled) {
    assert.is(value, scale(rawValue(chosen), speakerOf(chosen)));
    assert.ok(Math.abs(gap - (value - scale(rawValue(rejected), speakerOf(rejected)))) < 1e-12);
  }
  assert.not.equal(scaled, raw);
});

test('a turn may be chosen where no case that the recipe excludes is on the way to it', () => {
  const { answer } = wordPairs();
  const [{ conversation }] = [...run.treesOf(phase)] as [
    ReturnType<typeof run.treesOf> extends Generator<infer T> ? T : never,
  ];
  const all = { emptyMessage: true, repetition: true, cappedMessage: true, turnCap: true };
  const none = mayChoose(conversation, { ...all, cappedMessage: false }, answer);
  const any = mayChoose(conversation, all, answer);
  for (const { id } of Object.values(conversation.turns)) {
    assert.ok(any(id));
    assert.is(
      none(id),
      pathTo(conversation, id).every(({ finish }) => finish === 'stop'),
    );
  }
  assert.ok(Object.values(conversation.turns).some(({ finish }) => finish === 'length'));
});

test('the last turn of a dialogue at the turn cap may be chosen where the recipe lets such dialogues through', () => {
  const [{ conversation }] = examples() as [ReturnType<typeof examples>[0]];
  const all = { emptyMessage: true, repetition: true, cappedMessage: true, turnCap: true };
  const may = mayChoose(conversation, { ...all, turnCap: false }, wordPairs().answer);
  const capped = Object.values(conversation.dialogues).filter(({ closed }) => closed!.outcome === 'turn-cap');
  assert.ok(capped.length > 0);
  const leaves = new Set(capped.map(({ leaf }) => leaf));
  for (const { id } of Object.values(conversation.turns)) assert.is(may(id), !leaves.has(id));
});

test.run();
