import fs from 'node:fs';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import {
  childId,
  type DialogueId,
  type NodeId,
  type PolicyHash,
  rootId,
  type TaskId,
} from '../../src/domain/ids.ts';
import type { RewardWeights } from '../../src/domain/reward.ts';
import type { Outcome, Trajectory, Turn } from '../../src/domain/transcript.ts';
import {
  edgeCasesOf,
  type RankedTrajectory,
  type RankOptions,
  rankTrajectories,
} from '../../src/reading/ranking.ts';
import { selectTrajectories } from '../../src/reading/selection.ts';
import { tagged } from '../../src/scenario/index.ts';

interface RecordedTurn {
  readonly speaker: string;
  readonly text: string;
  readonly tokens: number;
  readonly meanLogprob: number;
}
interface RecordedTask {
  readonly taskId: TaskId;
  readonly dialogues: readonly { kind: string; score: number; turns: readonly RecordedTurn[] }[];
}

const recorded: readonly RecordedTask[] = JSON.parse(
  fs.readFileSync(new URL('./golden/recorded-dialogues.json', import.meta.url), 'utf8'),
);
const answer = tagged('A');
const options: RankOptions = {
  weights: { lambdaToken: 0.6, lambdaLoss: 1 },
  lossFloor: 0.1,
  eligible: { emptyMessage: false, repetition: false, cappedMessage: false, turnCap: true },
  answer,
};

/** Where turn `index` of a dialogue stands: below the one before, the first below the root of its task's tree. */
function nodeAt(dialogue: DialogueId, index: number): Pick<Turn, 'id' | 'parent'> {
  if (index === 0) return { id: dialogue, parent: dialogue.replace(/\.\d+$/, '') as NodeId };
  const { id: parent } = nodeAt(dialogue, index - 1);
  return { id: childId(parent, 0), parent };
}

function trajectory(
  id: DialogueId,
  taskId: TaskId,
  turns: readonly Omit<RecordedTurn, 'meanLogprob'>[],
  verdict: { taskScore: number } | null,
  change: { outcome?: Outcome; finish?: 'stop' | 'length' } = {},
): Trajectory {
  return {
    id,
    taskId,
    views: {},
    format: null,
    turns: turns.map(({ speaker, text, tokens }, index) => ({
      ...nodeAt(id, index),
      speaker,
      text,
      tokenIds: Array.from({ length: tokens }, () => 1),
      logprobs: Array.from({ length: tokens }, () => -1),
      finish: change.finish ?? 'stop',
      policyHash: 'p' as PolicyHash,
      seed: 0,
      provenance: 'sampled',
      promptTokens: 10,
    })),
    outcome: verdict === null ? 'failed' : (change.outcome ?? 'agreed'),
    failure: verdict === null ? 'no model' : null,
    verdict: verdict && { ...verdict, exactMatch: verdict.taskScore === 1, answer: null },
  };
}

/** The recorded dialogues under other weights: which kind is chosen for each task, in order of the tasks. */
function chosenKinds(weights: RewardWeights, scoreWeight = 1) {
  const kinds = new Map<DialogueId, string>();
  const tokens = new Map<DialogueId, number>();
  const scores = new Map<DialogueId, number>();
  const logprobs = new Map<DialogueId, number[][]>();
  const trajectories = recorded.flatMap(({ taskId, dialogues }) =>
    dialogues.map(({ kind, score, turns }, sample) => {
      const id = childId(rootId('recorded', taskId), sample);
      kinds.set(id, kind);
      scores.set(id, score);
      tokens.set(
        id,
        turns.reduce((sum, turn) => sum + turn.tokens, 0),
      );
      logprobs.set(
        id,
        turns.map((turn) => Array.from({ length: turn.tokens }, () => turn.meanLogprob)),
      );
      return trajectory(id, taskId, turns, { taskScore: score * scoreWeight });
    }),
  );
  const ranking = rankTrajectories(trajectories, logprobs, { ...options, weights });
  const { kept } = selectTrajectories(ranking, { threshold: -10, keepFraction: 1 });
  const mean = (values: ReadonlyMap<DialogueId, number>) =>
    kept.reduce((sum, { dialogueId }) => sum + values.get(dialogueId)!, 0) / kept.length;
  return {
    kinds: [...new Set(kept.map(({ dialogueId }) => kinds.get(dialogueId)!))].sort(),
    tokens: mean(tokens),
    score: mean(scores),
  };
}

test('with all three terms the short and readable right dialogue is chosen', () => {
  assert.equal(chosenKinds(options.weights).kinds, ['compact']);
});

test('without the token term long dialogues are chosen: tokens rise several times', () => {
  const whole = chosenKinds(options.weights);
  const without = chosenKinds({ lambdaToken: 0, lambdaLoss: 1 });
  assert.equal(without.kinds, ['verbose']);
  assert.ok(without.tokens > 2 * whole.tokens);
});

test('without the loss term over-terse dialogues are chosen, and the score falls', () => {
  const whole = chosenKinds(options.weights);
  const without = chosenKinds({ lambdaToken: 0.6, lambdaLoss: 0 });
  assert.equal(without.kinds, ['cryptic']);
  assert.ok(without.tokens < whole.tokens / 2);
  assert.ok(without.score < whole.score);
});

test('without the task score quick wrong answers are chosen', () => {
  const without = chosenKinds(options.weights, 0);
  assert.equal(without.kinds, ['hasty']);
  assert.is(without.score, 0);
});

const task = 'train-00007' as TaskId;
const idOf = (sample: number) => childId(rootId('p', task), sample);
const say = (speaker: string, text: string, tokens = 2) => ({ speaker, text, tokens });
const logprobsOf = (trajectories: readonly Trajectory[], value = -2) =>
  new Map(trajectories.map(({ id, turns }) => [id, turns.map((turn) => turn.tokenIds.map(() => value))]));

test('the reward is the hand-computed one', () => {
  const one = trajectory(idOf(0), task, [say('a', 'x', 3), say('b', 'y', 1)], { taskScore: 0.5 });
  const two = trajectory(idOf(1), task, [say('a', 'x', 8)], { taskScore: 1 });
  const logprobs = new Map([
    // Means 1 and 2: the worse turn counts.
    [one.id, [[-0.5, -1, -1.5], [-2]]],
    [two.id, [Array.from({ length: 8 }, () => -0.01)]],
  ]);
  const [first, second] = rankTrajectories([one, two], logprobs, options);
  assert.equal(first!.terms, { task: 0.5, tokenShare: 0.5, loss: 2 });
  assert.ok(Math.abs(first!.reward! - (0.5 - 0.6 * 0.5 + 1 / 2)) < 1e-12);
  // A loss of 0.01 counts as the floor of 0.1.
  assert.ok(Math.abs(second!.reward! - (1 - 0.6 + 1 / 0.1)) < 1e-12);
});

test('the token share is taken within a task, and failed dialogues do not set it', () => {
  const other = 'train-00008' as TaskId;
  const trajectories = [
    trajectory(idOf(0), task, [say('a', 'x', 5)], { taskScore: 1 }),
    trajectory(idOf(1), task, [say('a', 'x', 10)], { taskScore: 1 }),
    trajectory(idOf(2), task, [say('a', 'x', 100)], null),
    trajectory(childId(rootId('p', other), 0), other, [say('a', 'x', 40)], { taskScore: 1 }),
  ];
  const shares = rankTrajectories(trajectories, logprobsOf(trajectories), options).map(
    ({ terms }) => terms?.tokenShare ?? null,
  );
  assert.equal(shares, [0.5, 1, null, 1]);
});

test('a dialogue that failed or has no finite reward is counted with its reason, never as 0', () => {
  const trajectories = [
    trajectory(idOf(0), task, [say('a', 'x')], null),
    trajectory(idOf(1), task, [say('a', 'x')], { taskScore: Number.NaN }),
    trajectory(idOf(2), task, [], { taskScore: 1 }),
  ];
  const ranking = rankTrajectories(trajectories, logprobsOf(trajectories), options);
  assert.equal(
    ranking.map(({ reward, eligible }) => ({ reward, eligible })),
    [0, 1, 2].map(() => ({ reward: null, eligible: false })),
  );
  assert.is(ranking[0]!.failure, 'no model');
  assert.match(ranking[1]!.failure!, 'NaN');
  assert.match(ranking[2]!.failure!, 'no scored token');
});

test('the cases the paper leaves open are named', () => {
  const cases = (turns: Parameters<typeof trajectory>[2], change = {}) =>
    edgeCasesOf(trajectory(idOf(0), task, turns, { taskScore: 1 }, change), answer);
  assert.equal(cases([say('a', 'hello'), say('b', ' ')]), ['emptyMessage']);
  assert.equal(cases([say('a', 'hello'), say('b', 'well'), say('a', 'hello')]), ['repetition']);
  assert.equal(cases([say('a', 'hello'), say('b', 'hello')]), ['repetition']);
  assert.equal(cases([say('a', 'hello')], { finish: 'length' }), ['cappedMessage']);
  assert.equal(cases([say('a', 'hello')], { outcome: 'turn-cap' }), ['turnCap']);
});

test('confirming an answer is no repetition, going on about it is', () => {
  const cases = (turns: Parameters<typeof trajectory>[2], outcome: Outcome) =>
    edgeCasesOf(trajectory(idOf(0), task, turns, { taskScore: 1 }, { outcome }), answer);
  assert.equal(cases([say('a', '<A>x</A>'), say('b', '<A>x</A>')], 'agreed'), []);
  // A solver ends a debate by repeating its answer after the critic.
  assert.equal(cases([say('a', '<A>x</A>'), say('b', 'sure?'), say('a', '<A>x</A>')], 'agreed'), []);
  assert.equal(cases([say('a', '<A>x</A>'), say('b', 'sure?'), say('a', '<A>x</A>')], 'turn-cap'), [
    'repetition',
    'turnCap',
  ]);
});

test('eligibility follows the policy, and the reward is computed all the same', () => {
  const trajectories = [
    trajectory(idOf(0), task, [say('a', '')], { taskScore: 1 }),
    trajectory(idOf(1), task, [say('a', 'x')], { taskScore: 1 }, { outcome: 'turn-cap' }),
  ];
  const eligible = (policy: Partial<RankOptions['eligible']>) =>
    rankTrajectories(trajectories, logprobsOf(trajectories), {
      ...options,
      eligible: { ...options.eligible, ...policy },
    }).map((ranked) => ranked.eligible && ranked.reward !== null);
  assert.equal(eligible({}), [false, true]);
  assert.equal(eligible({ emptyMessage: true, turnCap: false }), [true, false]);
});

const ranked = (taskNumber: number, sample: number, reward: number | null, eligible = true) => {
  const taskId = `train-0000${taskNumber}` as TaskId;
  const place = { dialogueId: childId(rootId('p', taskId), sample), taskId, tokens: 1, edgeCases: [] };
  return {
    ...place,
    terms: null,
    reward,
    turnLosses: [],
    eligible,
    failure: null,
  } satisfies RankedTrajectory;
};

test('selection takes the best of each task above the threshold, then the top share', () => {
  const ranking = [
    ...[ranked(0, 0, 0.1), ranked(0, 1, 0.9), ranked(0, 2, 0.8)],
    ...[ranked(1, 0, 0.7), ranked(1, 1, 2, false)],
    ...[ranked(2, 0, 0.5)],
    ...[ranked(3, 0, null), ranked(3, 1, 3, false)],
    ...[ranked(4, 0, 0.6)],
    ...[ranked(5, 0, 0.55)],
  ];
  const { kept, dropped } = selectTrajectories(ranking, { threshold: 0.5, keepFraction: 0.7 });
  assert.equal(
    kept.map(({ dialogueId, reward }) => [dialogueId, reward]),
    [
      ['p/train-00000.1', 0.9],
      ['p/train-00001.0', 0.7],
      ['p/train-00004.0', 0.6],
    ],
  );
  // Task 3 has no candidate, task 2 only equals the threshold, task 5 is the last of four.
  assert.equal(dropped, { noCandidate: 1, belowThreshold: 1, beyondFraction: 1 });
});

test('ties go to the dialogue that stands first', () => {
  const ranking = [ranked(0, 0, 1), ranked(0, 1, 1), ranked(1, 0, 1), ranked(2, 0, 1)];
  const { kept } = selectTrajectories(ranking, { threshold: 0, keepFraction: 0.67 });
  assert.equal(
    kept.map(({ dialogueId }) => dialogueId),
    ['p/train-00000.0', 'p/train-00001.0'],
  );
});

test('a selection of nothing is empty, and of something never is', () => {
  assert.is(selectTrajectories([ranked(0, 0, 0.2)], { threshold: 0.5, keepFraction: 0.7 }).kept.length, 0);
  const three = [0.9, 0.8, 0.7].map((reward, task) => ranked(task, 0, reward));
  assert.is(selectTrajectories(three, { threshold: 0.5, keepFraction: 0.1 }).kept.length, 1);
});

test('between tasks too a tie goes to the dialogue that stands first, wherever its task began', () => {
  const ranking = [ranked(0, 0, 0.5), ranked(1, 0, 1), ranked(0, 1, 1), ranked(2, 0, 2)];
  const { kept } = selectTrajectories(ranking, { threshold: 0, keepFraction: 1 });
  assert.equal(
    kept.map(({ dialogueId }) => dialogueId),
    ['p/train-00002.0', 'p/train-00001.0', 'p/train-00000.1'],
  );
});

test('a ranking may be a generator: it is gone through once, and what is kept names dialogue, task and reward alone', () => {
  const ranking = [
    ranked(0, 0, 0.1),
    ranked(1, 0, 0.7),
    ranked(0, 1, 0.9),
    ranked(2, 0, null),
    ranked(3, 0, 0.2, false),
    ranked(1, 1, 0.7),
    ranked(4, 0, 0.3),
  ];
  let given = 0;
  function* one() {
    for (const each of ranking) {
      given++;
      yield each;
    }
  }
  const options = { threshold: 0.5, keepFraction: 0.7 };
  const selection = selectTrajectories(one(), options);
  assert.is(given, 7);
  assert.equal(selection, {
    kept: [{ dialogueId: 'p/train-00000.1', taskId: 'train-00000', reward: 0.9 }],
    dropped: { noCandidate: 2, belowThreshold: 1, beyondFraction: 1 },
    ranked: 7,
  });
  assert.equal(selection, selectTrajectories(ranking, options));
  assert.equal(selectTrajectories([], options), {
    kept: [],
    dropped: { noCandidate: 0, belowThreshold: 0, beyondFraction: 0 },
    ranked: 0,
  });
});

test.run();
