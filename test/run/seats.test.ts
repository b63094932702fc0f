// Where a metric scores seats: rewards, selection, search values and pairs of each role by its own score.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { ConversationTree } from '../../src/domain/conversation-tree.ts';
import { childId, type DialogueId, type NodeId, rootId, type TaskId, taskId } from '../../src/domain/ids.ts';
import { createRng } from '../../src/domain/rng.ts';
import type { Trajectory, Verdict } from '../../src/domain/transcript.ts';
import { valuedTurns } from '../../src/reading/pairing.ts';
import { type RankedTrajectory, rankTrajectories } from '../../src/reading/ranking.ts';
import { selectTrajectories } from '../../src/reading/selection.ts';
import { tagged } from '../../src/scenario/index.ts';
import { pairsOf, Search, type SearchConfig, valueTo } from '../../src/search/index.ts';
import { turnOf } from '../support/machines.ts';
import { measureTeam } from '../support/metrics.ts';

const seats = (buyer: number, seller: number): Verdict => ({
  ...{ taskScore: (buyer + seller) / 2, exactMatch: false, answer: null },
  seats: { buyer, seller },
});
const ofTeam: Verdict = { taskScore: 0.5, exactMatch: false, answer: null };

/** A dialogue of two turns of two tokens each. */
const dialogue = (task: number, branch: number, verdict: Verdict): Trajectory => {
  const id = taskId('train', task);
  return {
    ...{ id: childId(rootId('p', id), branch), taskId: id, views: {}, format: null },
    turns: [turnOf(0, 'buyer', 'two words'), turnOf(1, 'seller', 'no deal')],
    ...{ outcome: 'agreed', failure: null, verdict },
  };
};

function rank(dialogues: readonly Trajectory[]): RankedTrajectory[] {
  const logprobs = new Map<DialogueId, number[][]>(
    dialogues.map(({ id }) => [
      id,
      [
        [-1, -1],
        [-2, -2],
      ],
    ]),
  );
  return rankTrajectories(dialogues, logprobs, {
    weights: { lambdaToken: 0.25, lambdaLoss: 0.5 },
    lossFloor: 0.1,
    eligible: { emptyMessage: true, repetition: true, cappedMessage: true, turnCap: true },
    answer: tagged('A'),
  });
}

test('the reward of a role has its own score, and the tokens and the readability of the dialogue', () => {
  const [both, team] = rank([dialogue(0, 0, seats(0.75, 0.25)), dialogue(1, 0, ofTeam)]);
  // R_token is 1, R_loss 2.
  assert.is(both!.reward, 0.5);
  assert.equal(both!.seats, { buyer: 0.75, seller: 0.25 });
  assert.equal(Object.keys(team!), Object.keys(both!).slice(0, -1));
});

test('each role keeps the dialogues that are best for it; without seats nothing is by role', () => {
  const dialogues = [
    dialogue(0, 0, seats(0.9, 0.1)),
    dialogue(0, 1, seats(0.2, 0.6)),
    dialogue(1, 0, seats(0.3, 0.3)),
    dialogue(1, 1, ofTeam),
  ];
  const options = { threshold: 0.4, keepFraction: 1, roles: ['buyer', 'seller'] };
  const { kept, dropped } = selectTrajectories(rank(dialogues), options);
  assert.equal(
    kept.map(({ role, dialogueId, reward }) => [role, dialogueId, reward]),
    [
      ['buyer', 'p/train-00000.0', 0.9],
      ['buyer', 'p/train-00001.1', 0.5],
      ['seller', 'p/train-00000.1', 0.6],
      ['seller', 'p/train-00001.1', 0.5],
    ],
  );
  assert.equal(dropped, { noCandidate: 0, belowThreshold: 0, beyondFraction: 0 });
  const strict = selectTrajectories(rank(dialogues), { ...options, threshold: 0.55 });
  assert.equal(strict.dropped, { noCandidate: 0, belowThreshold: 2, beyondFraction: 0 });
  // A role that is not trained has none.
  const one = selectTrajectories(rank(dialogues), { ...options, roles: ['seller'] });
  assert.equal(
    one.kept.map(({ role }) => role),
    ['seller', 'seller'],
  );
  const plain = selectTrajectories(rank([dialogue(0, 0, ofTeam)]), options);
  assert.equal(plain.kept, [{ dialogueId: 'p/train-00000.0', taskId: 'train-00000' as TaskId, reward: 0.5 }]);
});

const config: SearchConfig = {
  ...{ expansions: 1, rolloutsPerExpansion: 2, minDistance: 0, mergeBelow: 0, candidates: 10 },
  ...{ temperature: 1, policy: 'softmax', exploration: 1, backup: 'mean-of-children' },
};

/** Buyer's turn with two answers of the seller, of which each likes another. */
function searched(backup: SearchConfig['backup']) {
  const root = rootId('s', taskId('train', 0));
  const search = new Search(root, { ...config, backup }, createRng(1));
  search.ask();
  const place = (parent: NodeId, branch: number, text: string) =>
    search.place({ id: childId(parent, branch), parent, text, meanLogprob: -1 });
  const offer = place(root, 0, 'ten');
  const [yes, no] = [place(offer, 0, 'yes'), place(offer, 1, 'no')];
  search.tell(0, yes, 0.5, { buyer: 0.9, seller: 0.1 });
  search.tell(1, no, 0.4, { buyer: 0.1, seller: 0.7 });
  return { search, root, offer, yes, no };
}

for (const backup of ['mean-of-children', 'mean-of-rollouts'] as const) {
  test(`a node has a value for each role, and a pair compares by its speaker's (${backup})`, () => {
    const { search, root, offer, yes, no } = searched(backup);
    const { nodes } = search.tree;
    assert.equal(nodes.get(root)!.seats, { buyer: 0.5, seller: (0.1 + 0.7) / 2 });
    assert.equal(nodes.get(offer)!.seats, nodes.get(root)!.seats);
    assert.is(nodes.get(offer)!.value, 0.45);
    const thresholds = { pairs: 'all', thetaFilter: -1, thetaDiff: 0 } as const;
    const worth = (_: number, node: NodeId) => valueTo('seller', nodes.get(node)!)!;
    const [pair] = pairsOf(search.tree, thresholds, undefined, worth).pairs;
    assert.equal([pair!.chosen, pair!.rejected, pair!.value], [no, yes, 0.7]);
    assert.is(pairsOf(search.tree, thresholds).pairs[0]!.chosen, yes);
    const conversation = {
      turns: Object.fromEntries([
        [offer, { id: offer, speaker: 'buyer' }],
        [yes, { id: yes, speaker: 'seller' }],
      ]),
    } as unknown as ConversationTree;
    assert.equal(valuedTurns({ conversation, tree: search.tree }), [
      { speaker: 'buyer', value: 0.5 },
      { speaker: 'seller', value: 0.1 },
    ]);
  });
}

test('a roll-out without seats counts for every role as for the team; one that failed for none', () => {
  const root = rootId('s', taskId('train', 0));
  const search = new Search(root, { ...config, rolloutsPerExpansion: 3 }, createRng(1));
  search.ask();
  search.tell(0, root, 0.5, { buyer: 1, seller: 0 });
  search.tell(1, root, 0.5);
  search.tell(2, root, null);
  assert.equal(search.tree.root.seats, { buyer: 0.75, seller: 0.25 });
  assert.is(search.tree.root.value, 0.5);
});

test('figures have the mean score of each seat, where there are seats', () => {
  const dialogues = [dialogue(0, 0, seats(1, 0)), dialogue(0, 1, seats(0.5, 0.5))];
  assert.equal(measureTeam(dialogues, createRng(1)).seats, { buyer: 0.75, seller: 0.25 });
  assert.not.ok('seats' in measureTeam([dialogue(0, 0, ofTeam)], createRng(1)));
});

test.run();
