// Counterfactual ranking: with nothing changed it says what the log says, and with other numbers what a run under these does.
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { OptimaError } from '../../src/domain/errors.ts';
import type { RunEventOf, RunEventType } from '../../src/domain/events.ts';
import type { TaskId } from '../../src/domain/ids.ts';
import type { GenerationRequest } from '../../src/domain/model.ts';
import { createRng } from '../../src/domain/rng.ts';
import { RunReader } from '../../src/reading/index.ts';
import type { RankedTrajectory } from '../../src/reading/ranking.ts';
import {
  changesBetween,
  type DialogueFlip,
  type PairFlip,
  type RerankedChoice,
  rerankedLog,
  rerankRecipe,
  rerankRun,
} from '../../src/reading/rerank/index.ts';
import { rerankTrajectory } from '../../src/reading/rerank/ranking.ts';
import { refusalOf } from '../../src/reading/rerank/settings.ts';
import { presetRecipe } from '../../src/recipe/presets.ts';
import {
  applySettings,
  type Recipe,
  type RecipeName,
  recipeKeys,
  recipeNames,
} from '../../src/recipe/schema.ts';
import { answersIn } from '../../src/run/phases/context.ts';
import { choicesIn, planRun } from '../../src/run/plan.ts';
import { trainTeam } from '../../src/run/train.ts';
import type { Scenario } from '../../src/scenario/types.ts';
import { eventsIn, temporaryFolder, writeRandomCheckpoint } from '../support/run.ts';
import { script, spyOn, spyScenario } from '../support/spy.ts';

const root = temporaryFolder('rerank');
test.after(() => fs.rmSync(root, { recursive: true }));
const model = path.join(root, 'model');
test.before(() =>
  writeRandomCheckpoint(model, 'alice bob train validation test number well 0 1 2 3 4 5 6 7 8 9'),
);

/** Each role has a score of its own. */
const seated: Scenario = {
  ...spyScenario,
  metric: {
    name: 'seated',
    score: (answer, answers) => {
      const right = Number(answers.includes(answer ?? ''));
      return { score: right, seats: { alice: 0.7 - right / 2, bob: right } };
    },
  },
} as Scenario;

const settingsOf = (name: RecipeName): string[] => [
  ...[
    'iterations=1',
    'initialization.tasks=4',
    'initialization.samplesPerTask=3',
    'initialization.thetaInit=0.4',
  ],
  ...[
    'evaluation.tasks=1',
    'sft.epochs=1',
    'sft.batchSize=8',
    'maxMessageTokens=50',
    'eligible.repetition=true',
  ],
  ...(name === 'idpo' ? [] : ['isft.tasks=4', 'isft.samplesPerTask=3', 'isft.thetaSft=0.2']),
  ...(name === 'isft'
    ? []
    : ['search.tasks=3', 'search.expansions=3', 'search.rolloutsPerExpansion=3', 'search.pilotDialogues=3']),
  ...(name === 'isft'
    ? []
    : ['search.cohort=2', 'pairs.thetaFilter=-1', 'pairs.thetaDiff=0.01', 'dpo.epochs=1']),
  ...(name === 'isft-dpo' ? ['iterations=2'] : []),
];

interface Made {
  readonly folder: string;
  readonly recipe: Recipe;
  readonly scenario: Scenario;
}

let count = 0;
async function make(
  name: RecipeName,
  settings: readonly string[] = [],
  scenario: Scenario = spyScenario as Scenario,
  reply = script,
): Promise<Made> {
  const recipe: Recipe = applySettings<Recipe>(presetRecipe('quick', name), [
    ...settingsOf(name),
    ...settings,
  ]);
  const folder = path.join(root, `run-${count++}`);
  const { training } = await spyOn({ folder, model, recipe, scenario, reply });
  try {
    await trainTeam(training);
  } finally {
    training.run.close();
  }
  return { folder, recipe, scenario };
}

async function rerank(
  { folder, recipe: before, scenario }: Made,
  settings: readonly string[] = [],
  task?: string,
): Promise<RerankedChoice[]> {
  const after = rerankRecipe(before, settings);
  const plan = planRun(after, scenario);
  const reader = RunReader.open(folder);
  const run = rerankedLog(reader);
  const choices: RerankedChoice[] = [];
  try {
    for await (const choice of rerankRun({
      ...{
        run,
        recipe: { before, after },
        scenario,
        choices: choicesIn(plan),
        task: task as TaskId | undefined,
      },
      answersIn: (search) => answersIn({ scenario, plan, rng: createRng(before.seed) }, search),
    }))
      choices.push(choice);
  } finally {
    reader.close();
  }
  return choices;
}

const eventsOf = <Type extends RunEventType>({ folder }: Made, type: Type) =>
  eventsIn(folder).filter((event): event is RunEventOf<Type> & typeof event => event.type === type);

/** What is chosen after the change: what the run chose, with the flips. */
function chosenAfter(made: Made, { phase, flips }: RerankedChoice): string[] {
  const keyOf = (one: {
    dialogueId?: string;
    role?: string | undefined;
    chosen?: string;
    rejected?: string;
  }) => `${one.dialogueId ?? one.chosen} ${one.role ?? one.rejected ?? ''}`;
  const keys = new Set(chosenIn(made, phase).map(keyOf));
  for (const flip of flips) {
    if (!('pair' in flip)) keys[flip.chosen === 'gained' ? 'add' : 'delete'](keyOf({ ...flip, chosen: '' }));
    else if (flip.pair === 'lost') keys.delete(keyOf(flip));
    else {
      keys.add(keyOf(flip));
      if (flip.pair === 'turned') keys.delete(keyOf({ chosen: flip.rejected, rejected: flip.chosen }));
    }
  }
  return [...keys].sort();
}

const chosenIn = (made: Made, phase: string) => [
  ...eventsOf(made, 'selection.made').flatMap((event) => (event.phase === phase ? event.kept : [])),
  ...eventsOf(made, 'pairs.made').flatMap((event) => (event.phase === phase ? event.pairs : [])),
];

const runs = new Map<string, Made>();
test.before(async () => {
  for (const name of recipeNames) runs.set(name, await make(name));
  runs.set(
    'seats',
    await make('isft-dpo', ['pairs.values=per-role', 'search.backup=mean-of-rollouts'], seated),
  );
});

for (const name of [...recipeNames, 'seats']) {
  test(`with nothing changed all is as the log has it: ${name}`, async () => {
    const made = runs.get(name)!;
    const choices = await rerank(made);
    const chose = planRun(made.recipe, made.scenario).filter(
      ({ kind }) => kind === 'select' || kind === 'pair',
    );
    assert.equal(
      choices.map(({ phase }) => phase),
      chose.map((phase) => phase.name),
    );
    for (const { phase, ranked, changed, kept, moved, dropped, flips, meanReward } of choices) {
      assert.ok(ranked > 0 && kept.before > 0, phase);
      assert.is(kept.before, chosenIn(made, phase).length);
      assert.equal([changed, moved, flips], [0, 0, []]);
      assert.is(kept.after, kept.before);
      assert.equal(dropped.after, dropped.before);
      assert.is(meanReward.after, meanReward.before);
    }
    const ranked = eventsOf(made, 'trajectory.ranked').length;
    assert.is(
      choices.reduce((sum, choice) => sum + choice.ranked, 0),
      ranked,
    );
  });
}

test('under other numbers it chooses what a run under these does, of the same dialogues', async () => {
  const change = [
    'lambdaToken=0.1,lambdaLoss=0',
    'initialization.keepFraction=1',
    'initialization.thetaInit=0.2',
  ];
  const choices = await rerank(runs.get('isft')!, change);
  const full = ['reward.lambdaToken=0.1', 'reward.lambdaLoss=0', ...change.slice(1)];
  const other = await make('isft', [...full, 'iterations=0']);
  const [first] = choices;
  const expected = chosenIn(other, 'init-0/select') as RunEventOf<'selection.made'>['kept'];
  assert.equal(
    chosenAfter(runs.get('isft')!, first!),
    expected.map(({ dialogueId }) => `${dialogueId} `).sort(),
  );
  assert.is(first!.kept.after, expected.length);
  assert.ok(first!.flips.length > 0);
  const ranked = new Map(eventsOf(other, 'trajectory.ranked').map((one) => [one.dialogueId, one.reward]));
  for (const flip of first!.flips as DialogueFlip[]) {
    assert.is(flip.reward.after, ranked.get(flip.dialogueId));
  }
});

test('pairs are those of a run under other numbers, where the search has nothing to choose', async () => {
  // With the root alone expanded, rewards change values and pairs, and no branch.
  const fixed = [
    'initialization.thetaInit=-10',
    'search.expansions=1',
    'search.rolloutsPerExpansion=6',
    'search.pilotDialogues=9',
  ];
  const change = [
    'reward.lambdaToken=5',
    'search.backup=mean-of-rollouts',
    'search.pilotPercentile=20',
    'pairs.keepShare=0.5',
  ];
  const made = await make('idpo', fixed);
  const other = await make('idpo', [...fixed, ...change]);
  const [, choice] = await rerank(made, change);
  const expected = chosenIn(other, 'idpo-1/pair') as RunEventOf<'pairs.made'>['pairs'];
  assert.equal(
    chosenAfter(made, choice!),
    expected.map(({ chosen, rejected }) => `${chosen} ${rejected}`).sort(),
  );
  assert.ok(choice!.flips.length > 0 && choice!.changed > 0);
  const worths = new Map(
    expected.map(({ chosen, rejected, value, gap }) => [`${chosen} ${rejected}`, { value, gap }]),
  );
  for (const flip of choice!.flips as PairFlip[]) {
    assert.equal(flip.worth.after, worths.get(`${flip.chosen} ${flip.rejected}`) ?? null);
    assert.is(flip.worth.before === null, flip.pair === 'gained');
  }
});

/** Two openings, after which two of three answers are right: each opening and each answer is one turn, said by several roll-outs. */
function forked(request: GenerationRequest): string {
  const path = /\.([\d.]+)$/.exec(request.id)![1]!.split('.').map(Number);
  const rollout = path.at(-1)!;
  const heard = request.messages.at(-1)!.content;
  if (path.length === 1)
    return `${rollout % 2 ? 'an apple' : 'some pears'} ${script(request).split(' ').at(-1)}`;
  if (heard.includes('<A>')) return heard;
  const number = Number(heard.split(' ').at(-1));
  return `<A>${rollout % 3 === 0 ? number + 70 : number}</A>`;
}

test('how values are backed up changes values and pairs, and no reward', async () => {
  const settings = ['initialization.thetaInit=-10', 'search.expansions=1', 'search.rolloutsPerExpansion=5'];
  const made = await make('idpo', settings, undefined, forked);
  const choices = await rerank(made, ['search.backup=mean-of-rollouts', 'initialization.thetaInit=-9']);
  const { changed, moved, flips } = choices.at(-1)!;
  assert.is(changed, 0);
  assert.ok(moved + flips.length > 0);
});

test('each role’s selection follows its own rewards', async () => {
  const made = runs.get('seats')!;
  const other = await make('isft-dpo', ['reward.lambdaToken=0', 'iterations=0'], seated);
  const [choice] = await rerank(made, ['reward.lambdaToken=0']);
  const expected = chosenIn(other, 'init-0/select') as RunEventOf<'selection.made'>['kept'];
  assert.equal(
    chosenAfter(made, choice!),
    expected.map(({ dialogueId, role }) => `${dialogueId} ${role}`).sort(),
  );
  assert.ok(expected.some(({ role }) => role === 'bob') && choice!.changed > 0);
});

test('a task is shown with its dialogues in both rankings, and the pairs of either', async () => {
  const made = runs.get('isft-dpo')!;
  const choices = await rerank(made, ['reward.lambdaToken=0.2'], 'train-00008');
  assert.equal(
    choices.map(({ task }) => task?.taskId ?? null),
    [null, null, 'train-00008'],
  );
  const { dialogues, pairs } = choices[2]!.task!;
  assert.is(dialogues.length, 9);
  for (const { before, after } of dialogues) assert.ok(after.reward! > before.reward!);
  assert.ok(pairs.length > 0);
  for (const { texts, speaker } of pairs) assert.ok(texts.chosen !== texts.rejected && speaker.length > 0);
  const [first] = await rerank(made, ['initialization.thetaInit=1000'], 'train-00000');
  const kept = first!.task!.dialogues.map(({ kept }) => kept);
  assert.is(kept.filter(({ before }) => before.includes('all')).length, 1);
  assert.ok(kept.every(({ after }) => after.length === 0));
  assert.is(first!.kept.after, 0);
});

const recorded: RankedTrajectory = {
  ...{ dialogueId: 'p/train-00000.0' as never, taskId: 'train-00000' as TaskId, tokens: 10 },
  terms: { task: 1, tokenShare: 0.5, loss: 0.5 },
  ...{ reward: 0.9, turnLosses: [0.2, 0.3], edgeCases: ['repetition'], eligible: false, failure: null },
};
const rules = {
  weights: { lambdaToken: 1, lambdaLoss: 0.1 },
  ...{ lossFloor: 0.5, recordedFloor: 0.5, normaliser: null },
  eligible: { emptyMessage: false, repetition: true, cappedMessage: false, turnCap: false },
};

test('a floor above the recorded loss lifts it, and one below takes the loss of the turns again', () => {
  assert.equal(rerankTrajectory(recorded, rules).terms, recorded.terms);
  assert.is(rerankTrajectory(recorded, rules).reward, 0.7);
  assert.is(rerankTrajectory(recorded, { ...rules, lossFloor: 0.8 }).terms!.loss, 0.8);
  assert.is(rerankTrajectory(recorded, { ...rules, lossFloor: 0.1 }).terms!.loss, 0.3);
  // It was not held to the floor.
  const free = { ...recorded, terms: { ...recorded.terms!, loss: 0.6 } };
  assert.is(rerankTrajectory(free, { ...rules, lossFloor: 0.1 }).terms!.loss, 0.6);
});

test('what may be trained on follows the open cases, tokens another normaliser, and no number makes a reward that there was not', () => {
  assert.ok(rerankTrajectory(recorded, rules).eligible);
  assert.is(rerankTrajectory(recorded, { ...rules, normaliser: 40 }).terms!.tokenShare, 0.25);
  const failed = { ...recorded, terms: null, reward: null, eligible: false, failure: 'no verdict' };
  assert.equal(rerankTrajectory(failed, rules), failed);
  const infinite = { ...rules, weights: { lambdaToken: 1e308, lambdaLoss: 1e308 }, normaliser: 1e-9 };
  const broken = rerankTrajectory(recorded, infinite);
  assert.is(broken.reward, null);
  assert.match(broken.failure!, 'Reward is');
});

test('keys may be short where one ends so, several settings stand in one text', () => {
  const hybrid = presetRecipe('quick', 'isft-dpo');
  const changed = rerankRecipe(hybrid, ['lambdaToken=0.3, thetaDiff=0.2', 'isft.keepFraction=1']);
  assert.equal(changesBetween(hybrid, changed), [
    { key: 'isft.keepFraction', before: 0.7, after: 1 },
    { key: 'pairs.thetaDiff', before: 0.1, after: 0.2 },
    { key: 'reward.lambdaToken', before: null, after: 0.3 },
  ]);
  assert.equal(changesBetween(hybrid, rerankRecipe(hybrid, [])), []);
});

test('a key that only a model could follow is refused with the reason; so are unknown and unclear ones', () => {
  const hybrid = presetRecipe('quick', 'isft-dpo');
  const failure = (setting: string): OptimaError => {
    try {
      rerankRecipe(hybrid, [setting]);
    } catch (error) {
      return error as OptimaError;
    }
    throw new Error(`${setting} is taken`);
  };
  const cases: [setting: string, message: RegExp, hint?: RegExp][] = [
    [
      'temperature=1',
      /temperature cannot be changed after the run: other dialogues would have been held/,
      /thetaDiff/,
    ],
    ['search.policy=puct', /other branches/],
    ['sft.epochs=3', /training/],
    ['concurrency=3', /nothing/],
    ['keepFraction=1', /initialization\.keepFraction or isft\.keepFraction/],
    ['lambdaTokn=1', /no key "lambdaTokn"/, /Did you mean "reward\.lambdaToken"/],
    ['thetaDiff=-1', /pairs\.thetaDiff must be a number of at least 0/],
    ['lambdaToken', /not of the form/],
  ];
  for (const [setting, message, hint] of cases) {
    const error = failure(setting);
    assert.is(error.code, 'usage');
    assert.match(error.message, message);
    if (hint !== undefined) assert.match(error.hint!, hint);
  }
  assert.throws(() => rerankRecipe(presetRecipe('quick', 'isft'), ['pairs.thetaDiff=1']), /no key/);
});

test('every key of every recipe can be changed or has a reason why not', () => {
  const open = new Set<string>();
  for (const name of recipeNames) {
    for (const { key } of recipeKeys(name)) {
      const refusal = refusalOf(key);
      if (refusal === null) open.add(key);
      else assert.ok(refusal.length > 20, key);
    }
  }
  assert.is(open.size, 19);
});

test.run();
