// What a run does, seen by spies: which policy speaks, what it is asked, what is ranked, chosen and trained on.
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { Forest } from '../../src/domain/conversation-tree.ts';
import {
  isDialogueMessage,
  type PhaseKind,
  type PhaseOutputOf,
  type RunEventOf,
  type RunEventType,
} from '../../src/domain/events.ts';
import type { PolicyHash, TeamPolicy } from '../../src/domain/ids.ts';
import { createRng } from '../../src/domain/rng.ts';
import { type Trajectory, viewOf } from '../../src/domain/transcript.ts';
import { type ChatTokenizer, loadTokenizer } from '../../src/models/tokenizer/index.ts';
import { planIterations } from '../../src/run/plan.ts';
import { type TrainingResult, trainTeam } from '../../src/run/train.ts';
import { emptyLog } from '../../src/store/event-log.ts';
import { tf } from '../../src/tensor/index.ts';
import { measureTeam } from '../support/metrics.ts';
import { phaseOf } from '../support/plan.ts';
import { changeManifest, temporaryFolder, writeRandomCheckpoint } from '../support/run.ts';
import {
  type Spied,
  type SpyOptions,
  script,
  spiedLoss,
  spyFormats,
  spyOn,
  spyRecipe,
  spyScenario,
} from '../support/spy.ts';

const root = temporaryFolder('phases');
test.after(() => fs.rmSync(root, { recursive: true }));
const model = path.join(root, 'model');
let count = 0;
const fresh = () => path.join(root, `run-${count++}`);

interface Ran extends Spied {
  readonly result: TrainingResult;
}

/** Carries out a spied run from its start to its end, and closes it. */
async function carryOut(settings: readonly string[] = [], options: Partial<SpyOptions> = {}): Promise<Ran> {
  const spied = await spyOn({ folder: fresh(), model, recipe: spyRecipe(...settings), ...options });
  try {
    return { ...spied, result: await trainTeam(spied.training) };
  } finally {
    spied.training.run.close();
  }
}

let usual: Ran;
let tokenizer: ChatTokenizer;
test.before(async () => {
  await writeRandomCheckpoint(model, 'alice bob train validation test number well 0 1 2 3 4 5 6 7 8 9');
  tokenizer = await loadTokenizer(model);
  usual = await carryOut();
});

const logOf = ({ training }: Spied) =>
  fs
    .readFileSync(path.join(training.run.path, 'events.jsonl'), 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line));
const eventsOf = <Type extends RunEventType>(run: Spied, type: Type): RunEventOf<Type>[] =>
  logOf(run).filter((event) => event.type === type);
/** A phase's kind is the last part of its name, or it is an evaluation. */
type KindOf<Phase extends string> = Phase extends `${string}/${infer Kind extends PhaseKind}`
  ? Kind
  : 'evaluate';
function outputOf<Phase extends string>(run: Spied, phase: Phase): PhaseOutputOf<KindOf<Phase>> {
  const { output } = eventsOf(run, 'phase.completed').find((event) => event.phase === phase)!;
  assert.is(output.kind, phase.split('/')[1] ?? 'evaluate');
  return output as never;
}
const dialoguesOf = (run: Spied): Map<string, Trajectory> => {
  const forest = new Forest();
  for (const message of logOf(run).filter(isDialogueMessage)) forest.hear(message);
  return new Map(forest.trajectories().map((dialogue) => [dialogue.id, dialogue]));
};
/** The dialogue of a node: all further branches of the script's dialogues are the first. */
const dialogueOf = (node: string) => node.replace(/(\.\d+)(\.0)*$/, '$1');
const unique = <T>(items: readonly T[]): T[] => [...new Set(items)];
const everyRole = (hash: PolicyHash): TeamPolicy => ({ alice: hash, bob: hash });
function trainedBy(run: Spied, iteration: string): PolicyHash {
  const { policy } = outputOf(run, `${iteration}/train`);
  assert.equal(policy, everyRole(policy.alice!));
  return policy.alice!;
}
const speakers = ({ calls }: Spied, kind: 'generate' | 'score', phase: string) =>
  unique(calls.filter((call) => call.kind === kind && call.phase === phase).map(({ hash }) => hash));

test('the phases come one after the other, each closed before the next begins', () => {
  const bounds = logOf(usual).filter(({ type }) => /^phase\./.test(type));
  assert.equal(
    bounds.map(({ type, phase }) => `${phase} ${type}`),
    [
      'base',
      ...['init-0', 'isft-1', 'isft-2'].flatMap((iteration) =>
        ['generate', 'rank', 'select', 'train', 'evaluate'].map((phase) => `${iteration}/${phase}`),
      ),
      'trained',
    ].flatMap((phase) => [`${phase} phase.started`, `${phase} phase.completed`]),
  );
  assert.is(logOf(usual)[0].type, 'run.started');
  assert.equal(eventsOf(usual, 'run.started')[0]!.recipe, usual.training.recipe);
  assert.is(eventsOf(usual, 'run.started')[0]!.base, usual.training.run.manifest.base.hash);
  assert.equal(logOf(usual).at(-1).policy, usual.result.policy);
});

test('every iteration generates with the policy that the one before it trained', () => {
  const base = usual.training.run.manifest.base.hash;
  const trained = ['init-0', 'isft-1', 'isft-2'].map((iteration) => trainedBy(usual, iteration));
  assert.is(new Set([base, ...trained]).size, 4, 'each training should give another policy');
  const expected: [string, PolicyHash][] = [
    ['base', base],
    ['init-0/generate', base],
    ['init-0/evaluate', trained[0]!],
    ['isft-1/generate', trained[0]!],
    ['isft-1/evaluate', trained[1]!],
    ['isft-2/generate', trained[1]!],
    ['isft-2/evaluate', trained[2]!],
    ['trained', trained[2]!],
  ];
  assert.equal(
    unique(usual.calls.filter(({ kind }) => kind === 'generate').map(({ phase }) => phase)),
    expected.map(([phase]) => phase),
  );
  for (const [phase, hash] of expected) assert.equal(speakers(usual, 'generate', phase), [hash], phase);
  for (const { policyHash } of [...dialoguesOf(usual).values()].flatMap(({ turns }) => turns)) {
    assert.ok([base, ...trained].includes(policyHash));
  }
  assert.equal(usual.result.policy, everyRole(trained[2]!));
});

test('readability is measured under the frozen base, in plain views, for every dialogue of the iteration', () => {
  const scored = usual.calls.filter(({ kind }) => kind === 'score');
  assert.equal(unique(scored.map(({ hash }) => hash)), [usual.training.run.manifest.base.hash]);
  const generated = usual.calls.filter(
    ({ kind, phase }) => kind === 'generate' && phase.endsWith('/generate'),
  );
  assert.equal(
    unique(scored.map(({ id }) => id.split(':')[0])),
    unique(generated.map(({ id }) => dialogueOf(id))),
  );
  for (const { system } of scored) assert.not.match(system, '\n');
  // The worst turn is the third: 0.5 nats, and a quarter more for each turn.
  for (const { terms } of eventsOf(usual, 'trajectory.ranked')) assert.is(terms!.loss, 1);
});

test('training starts from the policy before, the first from the base', () => {
  const base = usual.training.run.manifest.base.hash;
  assert.equal(
    usual.trainings.map(({ source }) => source.hash),
    [base, trainedBy(usual, 'init-0'), trainedBy(usual, 'isft-1')],
  );
  assert.is(usual.trainings[0]!.source.folder, model);
  assert.is(
    usual.trainings[1]!.source.folder,
    usual.training.run.checkpointFolder(trainedBy(usual, 'init-0')),
  );
});

test('initialization trains from the base whatever the recipe says of iterations', () => {
  const [first, second] = planIterations(spyRecipe('isft.startFrom=previous'), { kind: 'debate' });
  assert.is(phaseOf(first!, 'train').startFrom, 'base');
  assert.is(phaseOf(second!, 'train').startFrom, 'latest');
});

for (const [what, settings, scenario, fromBase] of [
  ['the recipe says base', ['isft.startFrom=base'], spyScenario, true],
  ['it is a debate', [], { ...spyScenario, kind: 'debate' }, true],
  [
    'it is a debate whose recipe says previous',
    ['isft.startFrom=previous'],
    { ...spyScenario, kind: 'debate' },
    false,
  ],
] as const) {
  test(`training starts from ${fromBase ? 'the base' : 'the policy before'} where ${what}`, async () => {
    const ran = await carryOut(['iterations=1', ...settings], { scenario });
    const base = ran.training.run.manifest.base.hash;
    const start = fromBase ? base : trainedBy(ran, 'init-0');
    assert.equal(
      ran.trainings.map(({ source }) => source.hash),
      [base, start],
    );
    // The script trains alike each time: from one start with one number of steps come the same weights.
    assert.is(trainedBy(ran, 'isft-1') === trainedBy(ran, 'init-0'), fromBase);
    assert.equal(speakers(ran, 'generate', 'isft-1/generate'), [trainedBy(ran, 'init-0')]);
  });
}

test('training sees the selected dialogues alone, each as every role sees it without a format prompt', () => {
  const dialogues = dialoguesOf(usual);
  const selections = eventsOf(usual, 'selection.made');
  assert.is(selections.length, 3);
  for (const [index, { kept, phase }] of selections.entries()) {
    assert.is(kept.length, 2);
    assert.ok(kept.every(({ dialogueId }) => dialogueId.startsWith(phase.replace('select', 'generate'))));
    const expected = kept.flatMap(({ dialogueId }) => {
      const { views, turns } = dialogues.get(dialogueId)!;
      return ['alice', 'bob'].map((role) => sequenceOf(role, views[role]!, turns));
    });
    const trained = usual.trainings[index]!.steps.flat().map(({ tokenIds }) => tokenIds.join());
    assert.equal(trained.toSorted(), expected.toSorted(), phase);
    const { steps, loss } = outputOf(usual, phase.replace('select', 'train') as `${string}/train`);
    assert.is(steps, 2);
    assert.is(loss, spiedLoss);
  }
});

/** A view up to the last token that the role wrote, as training cuts it. */
function sequenceOf(role: string, system: string, turns: Trajectory['turns']): string {
  const { tokenIds, lossMask } = tokenizer.encodeChat(
    viewOf(role, { views: { [role]: system } }, turns),
    false,
  );
  return tokenIds.slice(0, lossMask.lastIndexOf(1) + 1).join();
}

test('each training deals its sequences in an order of its own', async () => {
  const ran = await carryOut(['sft.epochs=2', 'sft.batchSize=1', 'initialization.tasks=6', 'iterations=0']);
  const order = ran.trainings[0]!.steps.map(([sequence]) => sequence!.tokenIds.join());
  assert.is(order.length, 24);
  assert.equal(order.slice(0, 12).toSorted(), order.slice(12).toSorted());
  assert.not.equal(order.slice(0, 12), order.slice(12));
});

test('each phase has tasks of its split, and no iteration those of another', () => {
  const tasksOf = (phase: string) =>
    unique(
      usual.calls
        .filter((call) => call.kind === 'generate' && call.phase === phase)
        .map(({ system }) => system),
    ).map((system) => /^(alice|bob) (\w+ \d+)/.exec(system)![2]);
  const tasks = (phase: string) => unique(tasksOf(phase)).sort();
  assert.equal(tasks('base'), ['test 0', 'test 1']);
  assert.equal(tasks('trained'), ['test 0', 'test 1']);
  assert.equal(tasks('init-0/generate'), ['train 0', 'train 1']);
  assert.equal(tasks('isft-1/generate'), ['train 2', 'train 3']);
  assert.equal(tasks('isft-2/generate'), ['train 4', 'train 5']);
  for (const iteration of ['init-0', 'isft-1', 'isft-2']) {
    assert.equal(tasks(`${iteration}/evaluate`), ['validation 0']);
  }
});

test('samples, temperature and cap are those of the recipe; evaluation takes the likeliest tokens, once', () => {
  const askedIn = (phase: string) =>
    usual.calls.filter((call) => call.kind === 'generate' && call.phase === phase);
  const samplesOf = (phase: string) => unique(askedIn(phase).map(({ id }) => dialogueOf(id))).length;
  for (const [phase, temperature, samples] of [
    ['base', 0, 2],
    ['init-0/generate', 0.4, 6],
    ['init-0/evaluate', 0, 1],
    ['isft-1/generate', 0.9, 4],
    ['isft-2/generate', 0.9, 4],
    ['trained', 0, 2],
  ] as const) {
    assert.equal(
      unique(askedIn(phase).map(({ sampling }) => JSON.stringify(sampling))),
      [JSON.stringify({ temperature, topP: 1, topK: 0, maxTokens: 50 })],
      phase,
    );
    assert.is(samplesOf(phase), samples, phase);
  }
  assert.is(outputOf(usual, 'init-0/generate').dialogues, 6);
  assert.is(outputOf(usual, 'init-0/generate').failed, 0);
});

test('format prompts are drawn in initialization alone, one for both sides of each dialogue', async () => {
  const ran = await carryOut(['initialization.tasks=4', 'iterations=1']);
  const prompts = spyFormats.map(({ prompt }) => prompt);
  const seen: string[] = [];
  const asked = new Map<string, string>();
  for (const { kind, id, system } of ran.calls) if (kind === 'generate') asked.set(id, system);
  for (const { id, format, views, turns } of dialoguesOf(ran).values()) {
    for (const view of Object.values(views)) assert.not.match(view, '\n');
    if (!id.startsWith('init-0/generate')) {
      assert.is(format, null, id);
      continue;
    }
    const { prompt } = spyFormats.find(({ name }) => name === format)!;
    for (const turn of turns) assert.is(asked.get(turn.id), `${views[turn.speaker]}\n${prompt}`);
    seen.push(prompt);
  }
  assert.is(seen.length, 12);
  assert.equal(unique(seen).sort(), prompts.toSorted());
  for (const { phase, system } of ran.calls.filter(({ kind }) => kind === 'generate')) {
    assert.is(system.includes('\n'), phase === 'init-0/generate', phase);
  }
  const plain = await carryOut(['initialization.formats=false', 'iterations=0']);
  assert.ok(plain.calls.every(({ system }) => !system.includes('\n')));
});

/** Reward of the script's dialogues: task score, share of the longest one's tokens, the worst turn's loss. */
const rewardOf = (terms: { task: number; tokenShare: number; loss: number }, token: number, loss: number) =>
  terms.task - token * terms.tokenShare + loss / terms.loss;

test('rewards follow the weights of the recipe, and those of the scenario where it names none', async () => {
  for (const [settings, token, loss] of [
    [[], 0.6, 0.1],
    [['reward.lambdaToken=0.25', 'reward.lambdaLoss=0'], 0.25, 0],
    [['reward.lambdaToken=0'], 0, 0.1],
  ] as const) {
    const ran = settings.length === 0 ? usual : await carryOut(['iterations=0', ...settings]);
    const ranking = eventsOf(ran, 'trajectory.ranked').slice(0, 6);
    assert.equal(
      ranking.map(({ terms }) => terms!.task),
      [1, 0, 1, 1, 0, 1],
    );
    for (const [index, { reward, terms, tokens }] of ranking.entries()) {
      const most = Math.max(
        ...ranking
          .slice(index < 3 ? 0 : 3)
          .slice(0, 3)
          .map((rival) => rival.tokens),
      );
      assert.is(terms!.tokenShare, tokens / most);
      assert.is(reward, rewardOf(terms!, token, loss));
    }
    const mean = ranking.reduce((sum, { reward }) => sum + reward!, 0) / 6;
    assert.ok(Math.abs(outputOf(ran, 'init-0/rank').meanReward! - mean) < 1e-12);
    const meanLoss = ranking.reduce((sum, { terms }) => sum + terms!.loss, 0) / 6;
    assert.ok(Math.abs(outputOf(ran, 'init-0/rank').meanLoss! - meanLoss) < 1e-12);
    const said = ranking.reduce((sum, { tokens }) => sum + tokens, 0);
    assert.is(outputOf(ran, 'init-0/generate').sampledTokens, said);
    assert.is(outputOf(ran, 'init-0/rank').ranked, 6);
    assert.is(outputOf(ran, 'init-0/rank').metrics.taskScore, 4 / 6);
  }
  const floored = await carryOut(['iterations=0', 'reward.lossFloor=2']);
  assert.equal(unique(eventsOf(floored, 'trajectory.ranked').map(({ terms }) => terms!.loss)), [2]);
});

test('the intervals of a phase are drawn by a generator of its own', async () => {
  const metric = {
    name: 'share',
    score: (answer: string | null) => ({ score: Math.sqrt(Number(answer) / 20), exactMatch: false }),
  };
  const ran = await carryOut(['iterations=0', 'initialization.tasks=9', 'evaluation.tasks=12'], {
    scenario: { ...spyScenario, metric },
  });
  const bootstrap = createRng(ran.training.recipe.seed).split('bootstrap');
  for (const [phase, figures] of [
    ['init-0/generate', 'init-0/rank'],
    ['base', 'base'],
    ['trained', 'trained'],
  ] as const) {
    const dialogues = [...dialoguesOf(ran).values()].filter(({ id }) => id.startsWith(`${phase}/`));
    const { metrics } = outputOf(ran, figures);
    assert.equal(metrics, measureTeam(dialogues, bootstrap.split(figures)), phase);
    assert.not.equal(
      metrics,
      measureTeam(dialogues, bootstrap),
      'another generator should give another interval',
    );
  }
});

test('selection keeps what exceeds the threshold of its kind of iteration, and the share of it', async () => {
  const rewards = eventsOf(usual, 'selection.made').map(({ kept }) => kept.map(({ reward }) => reward));
  const [best, second] = rewards[0]!;
  assert.ok(best! > second!);
  const between = (best! + second!) / 2;
  const keptOf = (run: Spied) => eventsOf(run, 'selection.made').map(({ kept }) => kept.length);
  assert.equal(keptOf(usual), [2, 2, 2]);
  const init = await carryOut(['iterations=1', `initialization.thetaInit=${between}`]);
  assert.equal(keptOf(init), [1, 2]);
  assert.equal(eventsOf(init, 'selection.made')[0]!.dropped, {
    noCandidate: 0,
    belowThreshold: 1,
    beyondFraction: 0,
  });
  assert.equal(outputOf(init, 'init-0/select'), { kind: 'select', kept: 1, threshold: best });
  const later = await carryOut(['iterations=1', 'isft.keepFraction=0.5']);
  assert.equal(keptOf(later), [2, 1]);
  const both = await carryOut(['iterations=1', 'initialization.keepFraction=0.5', 'isft.thetaSft=0.2']);
  assert.equal(keptOf(both), [1, 2]);
});

test('what may not be trained on is not selected, and is counted', async () => {
  const capped = await carryOut(['iterations=0', 'maxMessageTokens=16', 'eligible.turnCap=false'], {
    reply: (request) =>
      dialogueOf(request.id).endsWith('.2') ? `${script(request)} ${'well '.repeat(20)}` : script(request),
  });
  const ranking = eventsOf(capped, 'trajectory.ranked').slice(0, 6);
  const kept = eventsOf(capped, 'selection.made')[0]!.kept.map(({ dialogueId }) => dialogueId);
  const cut = ranking.filter(({ edgeCases }) => edgeCases.includes('cappedMessage'));
  assert.ok(cut.length > 0 && cut.length < 6);
  for (const { dialogueId, eligible } of cut) {
    assert.not(eligible);
    assert.not(kept.includes(dialogueId));
  }
  const counts = outputOf(capped, 'init-0/rank').edgeCases;
  assert.is(counts.cappedMessage, cut.length);
  assert.is(counts.turnCap, ranking.filter(({ edgeCases }) => edgeCases.includes('turnCap')).length);
  assert.is(counts.emptyMessage, 0);
});

test('what a view states itself is no answer to confirm: who says it again repeats, as the verdict has it', async () => {
  const { sees } = spyScenario.roles.bob!;
  const scenario: typeof spyScenario = {
    ...spyScenario,
    roles: { ...spyScenario.roles, bob: { sees: (task) => `${sees(task)}, end with <A>number</A>` } },
  };
  const run = await carryOut(['iterations=0'], {
    scenario,
    reply: (request) => {
      if (!dialogueOf(request.id).endsWith('.2')) return script(request);
      // The first two say the same.
      const { length } = request.messages.filter(({ role }) => role !== 'system');
      return ['<A>number</A>', '<A>number</A>', 'well', 'well well'][length] ?? 'well';
    },
  });
  for (const { dialogueId, edgeCases } of eventsOf(run, 'trajectory.ranked')) {
    const { verdict } = dialoguesOf(run).get(dialogueId)!;
    const quotes = dialogueOf(dialogueId).endsWith('.2');
    assert.is(verdict!.answer === null, quotes);
    assert.is(edgeCases.includes('repetition'), quotes, dialogueId);
  }
});

test('a first selection of nothing is an error that names the key, and nothing is trained', async () => {
  const spied = await spyOn({
    folder: fresh(),
    model,
    recipe: spyRecipe('initialization.thetaInit=50', 'initialization.tasks=3'),
  });
  const tensors = tf.memory().numTensors - spied.base.parameters.size;
  const error = await trainTeam(spied.training).then(
    () => null,
    (reason) => reason,
  );
  assert.is(error.code, 'selection.empty');
  assert.match(
    error.message,
    'init-0/select: nothing to train on: 0 tasks have no eligible dialogue, 3 none',
  );
  assert.match(error.message, 'above 50');
  assert.match(error.hint, '--set initialization.thetaInit=');
  assert.is(spied.trainings.length, 0);
  assert.ok(tf.memory().numTensors <= tensors, 'the base is disposed');
  spied.training.run.close();
});

test('a later selection of nothing ends the run with the policy before', async () => {
  const ran = await carryOut(['isft.thetaSft=50']);
  assert.equal(
    eventsOf(ran, 'phase.completed').map(({ phase }) => phase),
    [
      'base',
      ...['generate', 'rank', 'select', 'train', 'evaluate'].map((phase) => `init-0/${phase}`),
      ...['generate', 'rank', 'select'].map((phase) => `isft-1/${phase}`),
      'trained',
    ],
  );
  assert.equal(ran.result.policy, everyRole(trainedBy(ran, 'init-0')));
  assert.is(ran.result.iterations.length, 1);
  assert.equal(speakers(ran, 'generate', 'trained'), [trainedBy(ran, 'init-0')]);
  assert.equal(outputOf(ran, 'isft-1/select'), { kind: 'select', kept: 0, threshold: null });
  assert.ok(ran.stages.some((stage) => /^isft-1\/select: nothing to train on.*the run ends/.test(stage)));
});

test('the run ends with the policy that did best on validation where the recipe says so', async () => {
  // Only the policy of isft-1 talks little; all are right.
  const ran = await carryOut(['keep=best-validation', 'evaluation.validationTasks=2'], {
    reply: (request) => {
      const brief = request.id.startsWith('isft-1/evaluate') || !/evaluate|trained/.test(request.id);
      return brief || request.id !== dialogueOf(request.id) ? script(request) : `well ${script(request)}`;
    },
  });
  const best = trainedBy(ran, 'isft-1');
  assert.equal(ran.result.policy, everyRole(best));
  assert.equal(speakers(ran, 'generate', 'trained'), [best]);
});

test('figures of evaluations and iterations are told once, written and returned', () => {
  const { result, rows, training } = usual;
  const written = fs
    .readFileSync(path.join(training.run.path, 'metrics.jsonl'), 'utf8')
    .trimEnd()
    .split('\n');
  assert.equal(
    written.map((line) => JSON.parse(line)),
    JSON.parse(JSON.stringify(rows)),
  );
  assert.equal(
    rows.map(({ event, phase, iteration }) => [event, phase ?? iteration]),
    [
      ['evaluation', 'base'],
      ['iteration', 0],
      ['iteration', 1],
      ['iteration', 2],
      ['evaluation', 'trained'],
    ],
  );
  assert.equal(
    result.iterations.map(({ kind, kept, loss }) => [kind, kept, loss]),
    [
      ['init', 2, spiedLoss],
      ['isft', 2, spiedLoss],
      ['isft', 2, spiedLoss],
    ],
  );
  assert.equal(
    result.iterations.map(({ policy }) => policy),
    [trainedBy(usual, 'init-0'), trainedBy(usual, 'isft-1'), trainedBy(usual, 'isft-2')].map(everyRole),
  );
  assert.is(result.iterations[1]!.generated.n, 4);
  assert.is(result.iterations[1]!.validation!.n, 1);
  assert.is(result.base.n, 2);
  assert.is(rows[0]!.policy, training.run.manifest.base.hash);
  assert.is(rows[4]!.policy, result.policy.alice);
  assert.equal(outputOf(usual, 'base').metrics, result.base);
  assert.equal(outputOf(usual, 'trained').metrics, result.trained);
  assert.equal(outputOf(usual, 'trained').policy, result.policy);
  assert.is(rows[4]!.f1, result.trained.taskScore);
  assert.ok(result.trained.tokens < result.base.tokens);
  assert.is(outputOf(usual, 'isft-1/evaluate').metrics.n, 1);
});

test('the samples show the same tasks before and after', () => {
  const { samples } = usual.result;
  assert.is(samples.length, 2);
  for (const { before, after } of samples) {
    assert.is(before.taskId, after.taskId);
    assert.match(before.id, /^base\//);
    assert.match(after.id, /^trained\//);
  }
});

test('without validation tasks no iteration is validated, and each still counts', async () => {
  const ran = await carryOut(['iterations=1', 'evaluation.validationTasks=0']);
  assert.ok(ran.calls.every(({ phase }) => !phase.endsWith('evaluate')));
  assert.equal(
    ran.result.iterations.map(({ validation }) => validation),
    [null, null],
  );
});

test('a run that is opened again repeats nothing, and one that was cut off goes on where it was', async () => {
  const { folder, ...options } = { folder: fresh(), model, recipe: spyRecipe() };
  const whole = logOf(usual).map(({ at, ...event }) => event);
  let calls = 0;
  // Cut at the ends of some phases and inside others, from the last to the first.
  const ends = whole.flatMap(({ type }, index) => (type === 'phase.completed' ? [index + 1] : []));
  const lines = fs.readFileSync(path.join(usual.training.run.path, 'events.jsonl'), 'utf8').split('\n');
  fs.cpSync(usual.training.run.path, folder, { recursive: true });
  const cuts = ends.toReversed().flatMap((end, index) => (index % 4 === 1 ? [end, end - 3] : []));
  for (const end of [whole.length, ...cuts]) {
    fs.writeFileSync(
      path.join(folder, 'events.jsonl'),
      lines
        .slice(0, end)
        .map((line) => `${line}\n`)
        .join(''),
    );
    changeManifest(folder, () => ({ log: emptyLog }));
    const spied = await spyOn({ ...options, folder, resume: true });
    const result = await trainTeam(spied.training);
    spied.training.run.close();
    assert.equal(
      logOf(spied).map(({ at, ...event }) => event),
      whole,
      `cut after line ${end}`,
    );
    assert.equal(result, usual.result);
    assert.ok(spied.calls.length >= calls && (end === whole.length) === (spied.calls.length === 0));
    // What was told before is not told again.
    assert.is(spied.rows.length, usual.rows.length - toldBefore(whole.slice(0, end)));
    calls = spied.calls.length;
  }
});

function toldBefore(events: readonly { type: string; phase: string }[]): number {
  const done = events.filter(({ type }) => type === 'phase.completed').map(({ phase }) => phase);
  return done.filter((phase) => /^(base|trained)$|evaluate$/.test(phase)).length;
}

test('without workers a run computes here, each phase with its policy, and frees what it loaded', async () => {
  const before = tf.memory().numTensors;
  const anything = ['cappedMessage', 'emptyMessage', 'repetition'].map((name) => `eligible.${name}=true`);
  const recipe = spyRecipe(
    'iterations=1',
    'maxMessageTokens=4',
    'initialization.thetaInit=-100',
    ...anything,
  );
  const spied = await spyOn({ folder: fresh(), model, recipe });
  const { policy } = await trainTeam({ ...spied.training, workers: undefined });
  spied.training.run.close();
  assert.equal([spied.calls, spied.trainings], [[], []]);
  assert.equal(policy, everyRole(trainedBy(spied, 'isft-1')));
  for (const [phase, hash] of [
    ['init-0/generate', spied.training.run.manifest.base.hash],
    ['isft-1/generate', trainedBy(spied, 'init-0')],
    ['trained', policy.alice!],
  ]) {
    const turns = [...dialoguesOf(spied).values()].filter(({ id }) => id.startsWith(`${phase}/`));
    assert.equal(unique(turns.flatMap((dialogue) => dialogue.turns.map((turn) => turn.policyHash))), [hash]);
  }
  assert.is(tf.memory().numTensors, before);
});

test('policies are disposed at the end of a run, and when it fails', async () => {
  const before = tf.memory().numTensors;
  await carryOut();
  assert.is(tf.memory().numTensors, before);
  const spied = await spyOn({ folder: fresh(), model, recipe: spyRecipe() });
  const failing = {
    ...spied.training,
    workers: {
      ...spied.training.workers!,
      gradientsOf: () => () => Promise.reject(new Error('no gradient today')),
      stop: async () => assert.unreachable('the caller stops its host'),
    },
  };
  const error = await trainTeam(failing).then(
    () => null,
    (reason) => reason,
  );
  spied.training.run.close();
  assert.match(error.message, 'no gradient today');
  assert.is(tf.memory().numTensors, before);
});

test('an interrupted run stops in its phase, which is not completed, and goes on to the same end', async () => {
  for (const phase of ['isft-1/generate', 'isft-1/train']) {
    const folder = fresh();
    const controller = new AbortController();
    const spied = await spyOn({
      folder,
      model,
      recipe: spyRecipe(),
      signal: controller.signal,
      reply: (request) => {
        if (request.id.startsWith(phase)) controller.abort();
        return script(request);
      },
    });
    const progress = {
      ...spied.training.progress,
      advance() {
        if (phase.endsWith('train') && spied.stages.at(-1) === phase) controller.abort();
      },
    };
    const error = await trainTeam({ ...spied.training, progress }).then(
      () => null,
      (reason) => reason,
    );
    spied.training.run.close();
    assert.is(error?.code, 'interrupted', phase);
    assert.is(eventsOf(spied, 'phase.started').at(-1)!.phase, phase);
    assert.is(
      eventsOf(spied, 'phase.completed').some((event) => event.phase === phase),
      false,
    );
    const again = await spyOn({ folder, model, recipe: spyRecipe(), resume: true });
    assert.equal(await trainTeam(again.training), usual.result);
    again.training.run.close();
  }
});

test.run();
