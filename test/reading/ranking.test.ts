// The reward's terms and the open cases, computed anew from dialogues that were recorded.
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
import type { Outcome, Trajectory, Turn } from '../../src/domain/transcript.ts';
import {
  edgeCasesOf,
  type RankedTrajectory,
  type RankOptions,
  rankTrajectories,
} from '../../src/reading/ranking.ts';
import { tagged } from '../../src/scenario/index.ts';

const read = (name: string) =>
  JSON.parse(fs.readFileSync(new URL(`golden/${name}.json`, import.meta.url), 'utf8'));
/** Written by hand: tokens of each turn and their mean log-probability under the base. */
const written: readonly {
  readonly taskId: TaskId;
  readonly dialogues: readonly {
    readonly score: number;
    readonly turns: readonly { speaker: string; text: string; tokens: number; meanLogprob: number }[];
  }[];
}[] = read('recorded-dialogues');
/** Of a run with the shipped model: what that run's log says of 192 dialogues. */
const logged: readonly (RankedTrajectory & { readonly turns: readonly string[] })[] =
  read('two-hop-qa-dialogues');

const answer = tagged('A');
const options: RankOptions = {
  weights: { lambdaToken: 0.6, lambdaLoss: 0.1 },
  lossFloor: 0.1,
  eligible: { emptyMessage: false, repetition: false, cappedMessage: false, turnCap: true },
  answer,
};

interface Said {
  readonly speaker: string;
  readonly text: string;
  readonly tokens: number;
  readonly finish?: 'stop' | 'length';
}

/** Where turn `index` of a dialogue stands: below the one before, the first below the root of its task's tree. */
function nodeAt(dialogue: DialogueId, index: number): Pick<Turn, 'id' | 'parent'> {
  if (index === 0) return { id: dialogue, parent: dialogue.replace(/\.\d+$/, '') as NodeId };
  const { id: parent } = nodeAt(dialogue, index - 1);
  return { id: childId(parent, 0), parent };
}

function trajectory(id: DialogueId, taskId: TaskId, turns: readonly Said[], score: number): Trajectory {
  return {
    id,
    taskId,
    views: {},
    format: null,
    turns: turns.map(({ speaker, text, tokens, finish = 'stop' }, index) => ({
      ...nodeAt(id, index),
      speaker,
      text,
      tokenIds: Array.from({ length: tokens }, () => 1),
      logprobs: Array.from({ length: tokens }, () => -1),
      finish,
      policyHash: 'p' as PolicyHash,
      seed: 0,
      provenance: 'sampled',
      promptTokens: 10,
    })),
    outcome: 'agreed',
    failure: null,
    verdict: { taskScore: score, exactMatch: score === 1, answer: null },
  };
}
const near = (actual: number, expected: number, what: string) =>
  assert.ok(Math.abs(actual - expected) < 1e-9, `${what}: ${actual}, not ${expected}`);

test('terms and reward of dialogues written down are those computed by hand, wherever the worst turn stands', () => {
  const worstAt = new Set<number>();
  const trajectories: Trajectory[] = [];
  const logprobs = new Map<DialogueId, number[][]>();
  const expected: { task: number; tokenShare: number; loss: number }[] = [];
  for (const { taskId, dialogues } of written) {
    const lengths = dialogues.map(({ turns }) => turns.reduce((sum, { tokens }) => sum + tokens, 0));
    for (const [sample, { score, turns }] of dialogues.entries()) {
      // The turns in every rotation: each of them is once the first, once the last.
      for (let turned = 0; turned < turns.length; turned++) {
        const order = [...turns.slice(turned), ...turns.slice(0, turned)];
        const id = childId(rootId(`rotated-${turned}`, taskId), sample);
        trajectories.push(trajectory(id, taskId, order, score));
        // Tokens around the mean: the mean over a turn's tokens counts, not its worst or last token.
        const spread = ({ tokens, meanLogprob }: (typeof order)[number]) =>
          Array.from({ length: tokens }, (_, k) => meanLogprob * (tokens === 1 ? 1 : (2 * k) / (tokens - 1)));
        logprobs.set(id, order.map(spread));
        const losses = order.map(({ meanLogprob }) => -meanLogprob);
        const loss = Math.max(...losses);
        worstAt.add(losses.indexOf(loss));
        expected.push({ task: score, tokenShare: lengths[sample]! / Math.max(...lengths), loss });
      }
    }
  }
  assert.ok(worstAt.has(0) && worstAt.has(1) && worstAt.has(2));
  const ranking = rankTrajectories(trajectories, logprobs, options);
  assert.is(ranking.length, expected.length);
  for (const [index, ranked] of ranking.entries()) {
    const { dialogueId: id, taskId, tokens, terms, turnLosses, reward, failure } = ranked;
    const { task, tokenShare, loss } = expected[index]!;
    assert.equal([id, taskId, failure], [trajectories[index]!.id, trajectories[index]!.taskId, null]);
    assert.is(tokens, trajectories[index]!.turns.flatMap(({ tokenIds }) => tokenIds).length);
    assert.is(terms!.task, task);
    near(terms!.tokenShare, tokenShare, `${id}: token share`);
    near(terms!.loss, loss, `${id}: loss`);
    near(Math.max(...turnLosses), loss, `${id}: losses by turn`);
    assert.is(turnLosses.length, trajectories[index]!.turns.length);
    near(reward!, task - 0.6 * tokenShare + 0.1 / loss, `${id}: reward`);
  }
});

test('the dialogues of a real run are ranked as its log has them', () => {
  const trajectories = logged.map(({ dialogueId: id, taskId, tokens, terms, edgeCases, turns }) => {
    const said = turns.map((turn, index) => ({
      speaker: turn.slice(0, turn.indexOf(': ')),
      text: turn.slice(turn.indexOf(': ') + 2),
      tokens: index === 0 ? tokens - turns.length + 1 : 1,
    }));
    const outcome: Outcome = edgeCases.includes('turnCap') ? 'turn-cap' : 'agreed';
    return { ...trajectory(id, taskId, said, terms!.task), outcome };
  });
  const logprobs = new Map(
    logged.map(({ dialogueId: id, terms }, index) => [
      id,
      trajectories[index]!.turns.map((turn, place) =>
        turn.tokenIds.map(() => (place === 1 ? -terms!.loss : 0)),
      ),
    ]),
  );
  const rounded = ({ terms, turnLosses: _, ...rest }: RankedTrajectory) => ({
    ...rest,
    terms: terms && { ...terms, tokenShare: terms.tokenShare.toFixed(6), loss: terms.loss.toFixed(6) },
    reward: null,
  });
  assert.equal(
    rankTrajectories(trajectories, logprobs, options).map(rounded),
    logged.map(({ turns, ...recorded }) => rounded({ ...recorded, turnLosses: [], reward: null })),
  );
  assert.ok(logged.some(({ edgeCases, eligible }) => edgeCases.length > 0 && !eligible));
});

const task = 'train-00001' as TaskId;
const idOf = (sample: number) => childId(rootId('p', task), sample);
const say = (text: string, change: Partial<Said> = {}): Said => ({
  speaker: 'a',
  text,
  tokens: 2,
  ...change,
});

test('an empty turn has no loss of its own, and a turn without a token is not the worst', () => {
  const one = trajectory(idOf(0), task, [say('x'), say('', { tokens: 0 }), say('y')], 1);
  const [ranked] = rankTrajectories([one], new Map([[one.id, [[-1, -3], [], [-1, -1]]]]), options);
  assert.equal(ranked!.terms, { task: 1, tokenShare: 1, loss: 2 });
  assert.equal(ranked!.edgeCases, ['emptyMessage']);
  assert.is(ranked!.eligible, false);
});

test('a dialogue of which no turn was scored has no reward, and says so', () => {
  const one = trajectory(idOf(0), task, [say('x')], 1);
  const [ranked] = rankTrajectories([one], new Map(), options);
  assert.equal([ranked!.terms, ranked!.reward, ranked!.eligible], [null, null, false]);
  assert.match(ranked!.failure!, 'no scored token');
});

test('a failed dialogue keeps its place, its tokens and its reason', () => {
  const fine = trajectory(idOf(0), task, [say('x', { tokens: 3 })], 1);
  const failed = {
    ...trajectory(idOf(1), task, [say('x', { tokens: 9 })], 1),
    verdict: null,
    outcome: 'failed' as const,
    failure: 'no words',
  };
  const logprobs = new Map(
    [fine, failed].map(({ id, turns }) => [id, turns.map(({ logprobs }) => logprobs)]),
  );
  const [first, second] = rankTrajectories([failed, fine], logprobs, options);
  assert.equal(first, {
    dialogueId: failed.id,
    taskId: task,
    tokens: 9,
    edgeCases: [],
    terms: null,
    reward: null,
    turnLosses: [],
    eligible: false,
    failure: 'no words',
  });
  assert.is(second!.terms!.tokenShare, 1, 'what failed is not the longest');
  const silent = rankTrajectories([{ ...failed, failure: null }], logprobs, options);
  assert.is(silent[0]!.failure, 'The dialogue has no verdict.');
});

test('each open case is found on whichever turn it lies, and all of them are named', () => {
  const cases = (turns: readonly Said[], outcome: Outcome = 'agreed') =>
    edgeCasesOf({ ...trajectory(idOf(0), task, turns, 1), outcome }, answer);
  for (const place of [0, 1, 2]) {
    const changedThere = (change: Partial<Said>) =>
      ['one', 'two', 'three'].map((text, index) => say(text, index === place ? change : {}));
    assert.equal(cases(changedThere({ finish: 'length' })), ['cappedMessage'], `capped at ${place}`);
    assert.equal(cases(changedThere({ text: ' \n' })), ['emptyMessage'], `empty at ${place}`);
  }
  assert.equal(cases([say('one'), say('two'), say('three')]), []);
  assert.equal(cases([say('one'), say('two')], 'turn-cap'), ['turnCap']);
  assert.equal(cases([say('one')], 'failed'), []);
  assert.equal(cases([say('x', { finish: 'length' }), say(' x\n'), say('')], 'turn-cap'), [
    'emptyMessage',
    'repetition',
    'cappedMessage',
    'turnCap',
  ]);
  assert.equal(cases([say(''), say('')]), ['emptyMessage'], 'two empty messages are no repetition');
});

test('a stated answer may be confirmed by the partner, and by its speaker only where the dialogue ends on it', () => {
  const repeats = (speakers: string, texts: readonly string[], outcome: Outcome = 'agreed') => {
    const turns = texts.map((text, index) => say(text, { speaker: speakers[index]! }));
    return edgeCasesOf({ ...trajectory(idOf(0), task, turns, 1), outcome }, answer).includes('repetition');
  };
  const a = '<A>x</A>';
  assert.not.ok(repeats('aba', [a, a, 'good']));
  assert.ok(repeats('aab', [a, a, 'good']), 'of its own speaker, before the end');
  assert.not.ok(repeats('aba', [a, 'sure?', a]));
  assert.ok(repeats('aba', [a, 'sure?', a], 'turn-cap'));
  assert.ok(repeats('aba', ['hm', 'sure?', 'hm']), 'only an answer is confirmed');
  assert.ok(repeats('abab', [a, 'hm', 'hm', a]), 'another message is repeated');
  assert.ok(repeats('abb', ['hm', 'well', 'hm']), 'not only the message before');
});

test('a dialogue may be trained on when each of its cases may', () => {
  const turns = [say(''), say('x', { finish: 'length' })];
  const one = trajectory(idOf(0), task, turns, 1);
  const logprobs = new Map([[one.id, [[], [-1]]]]);
  const eligible = (change: Partial<RankOptions['eligible']>) =>
    rankTrajectories([one], logprobs, { ...options, eligible: { ...options.eligible, ...change } })[0]!;
  assert.is(eligible({ emptyMessage: true }).eligible, false);
  assert.is(eligible({ cappedMessage: true }).eligible, false);
  assert.is(eligible({ emptyMessage: true, cappedMessage: true }).eligible, true);
  near(eligible({}).reward!, 1 - 0.6 + 0.1, 'the reward is computed all the same');
});

test('tokens are taken against what is given, where something is', () => {
  const one = trajectory(idOf(0), task, [say('x', { tokens: 30 })], 1);
  const other = trajectory(idOf(1), task, [say('x', { tokens: 60 })], 1);
  const logprobs = new Map([one, other].map(({ id, turns }) => [id, turns.map(({ logprobs }) => logprobs)]));
  const shares = rankTrajectories([one, other], logprobs, { ...options, normaliser: 40 });
  assert.equal(
    shares.map(({ terms }) => terms!.tokenShare),
    [0.75, 1.5],
  );
});

test('who speaks at once repeats nobody of the round, and votes that end a dialogue are no repetition', () => {
  const round = ['a', 'b'];
  const repeats = (texts: readonly string[], outcome: Outcome) => {
    const said = texts.map((text, index) => ({ speaker: round[index % 2]!, text, tokens: 3 }));
    const { turns, ...rest } = trajectory(idOf(0), task, said, 1);
    const rounds = turns.map((turn) => ({ ...turn, round }));
    return edgeCasesOf({ ...rest, outcome, turns: rounds }, answer).includes('repetition');
  };
  assert.not(repeats(['hm', 'hm'], 'turn-cap'));
  assert.ok(repeats(['hm', 'ho', 'well', 'hm'], 'turn-cap'));
  const votes = ['<A>1</A>', '<A>2</A>', '<A>1</A>', '<A>2</A>'];
  assert.ok(repeats(votes, 'turn-cap'));
  assert.not(repeats(votes, 'agreed'));
  assert.ok(repeats([...votes, 'so', 'be it'], 'agreed'), 'only those of the last round end it');
});

test.run();
