// The fold: messages of many dialogues, interleaved, into trees of turns, and back into trajectories.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import {
  type ConversationTree,
  type Earlier,
  Forest,
  growTree as growInPlace,
  pathTo,
} from '../../src/domain/conversation-tree.ts';
import { OptimaError } from '../../src/domain/errors.ts';
import { childId, type DialogueId, type NodeId, rootId, taskId } from '../../src/domain/ids.ts';
import type { DialogueMessage, MessageOf } from '../../src/domain/messages.ts';
import type { Turn } from '../../src/domain/transcript.ts';
import { closed, requested, taken, turnOf } from '../support/machines.ts';

const task = taskId('train', 0);
const root = rootId('p', task);
/** Dialogues at the root, and one on from the first's first turn. */
const [a, b] = [childId(root, 0), childId(root, 1)];
const branch = childId(a, 1);
const views = { alice: 'A', bob: 'B' };

const dealt = { type: 'task.dealt', taskId: task, views } as const;
const terse = { type: 'format.dealt', format: 'terse', prompt: 'Be terse.', roles: ['alice'] } as const;
const opened = (dialogueId: DialogueId, parent: NodeId | null = null, format: string | null = null) =>
  ({ type: 'dialogue.opened', dialogueId, taskId: task, tree: root, parent, format }) as const;
const turn = (id: NodeId, parent: NodeId, text: string, speaker = 'alice'): Turn => ({
  ...turnOf(0, speaker, text),
  id,
  parent,
});
const said = (dialogueId: DialogueId, ...rest: Parameters<typeof turn>) =>
  ({ type: 'turn.taken', dialogueId, turn: turn(...rest) }) as const;
const of = <Message extends DialogueMessage>(dialogueId: DialogueId, message: Message): Message => ({
  ...message,
  dialogueId,
});
const given = { taskScore: 0.5, exactMatch: false, answer: 'x' };
const verdict = (dialogueId: DialogueId): MessageOf<'verdict.given'> => ({
  type: 'verdict.given',
  dialogueId,
  ...given,
});
const unjudged = (dialogueId: DialogueId, reason: string): MessageOf<'verdict.failed'> => ({
  type: 'verdict.failed',
  dialogueId,
  reason,
});
const ended = (dialogueId: DialogueId) => [of(dialogueId, closed('agreed')), verdict(dialogueId)];

function hear(messages: readonly DialogueMessage[], forest = new Forest()): Forest {
  for (const message of messages) forest.hear(message);
  return forest;
}
const fold = (messages: readonly DialogueMessage[]) => hear(messages).trajectories();

function refusal(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    assert.instance(error, OptimaError);
    assert.is((error as OptimaError).code, 'run.corrupt');
    return (error as OptimaError).message;
  }
  return assert.unreachable('nothing was thrown') as never;
}

const seedling: ConversationTree = { root, taskId: task, turns: {}, dialogues: {} };

/** A copy of a tree, with what a message adds to it. */
function growTree(tree: ConversationTree, message: Parameters<typeof growInPlace>[1]): ConversationTree {
  const copy = structuredClone(tree);
  growInPlace(copy, message);
  return copy;
}

const grow = (messages: readonly Parameters<typeof growTree>[1][], tree = seedling) =>
  messages.reduce(growTree, tree);

test('a tree holds each turn once, and its dialogues are walks down from where they were opened', () => {
  const hi = said(a, a, root, 'hi');
  const ho = said(a, childId(a, 0), a, 'ho', 'bob');
  const hm = said(branch, branch, a, 'hm', 'bob');
  const tree = grow([opened(a, null, 'terse'), hi, ho, opened(branch, a), hm]);
  assert.equal(tree, {
    root,
    taskId: task,
    turns: { [a]: hi.turn, [childId(a, 0)]: ho.turn, [branch]: hm.turn },
    dialogues: {
      [a]: { id: a, format: 'terse', leaf: childId(a, 0), closed: null, verdict: null },
      [branch]: { id: branch, format: null, leaf: branch, closed: null, verdict: null },
    },
  });
  const end = closed('turn-cap');
  const over = grow([of(a, end), verdict(a), of(branch, end), unjudged(branch, 'threw')], tree);
  assert.equal(over.dialogues[a], {
    ...tree.dialogues[a]!,
    closed: of(a, end),
    verdict: verdict(a),
  });
  assert.equal(over.dialogues[branch], {
    ...tree.dialogues[branch]!,
    closed: of(branch, end),
    verdict: unjudged(branch, 'threw'),
  });
});

test('a message that does not fit into its tree is a corrupt log', () => {
  const tree = grow([opened(a), said(a, a, root, 'hi'), opened(branch, a)]);
  const after = childId(a, 0);
  const stranger = childId(root, 7);
  for (const [message, problem] of [
    [opened(a), `dialogue.opened of dialogue ${a} comes a second time`],
    [opened(a, a), `dialogue.opened of dialogue ${a} comes a second time`],
    [opened(b, stranger), `dialogue.opened of dialogue ${b} opens it below ${stranger}, which is not there`],
    [opened(b, b), `dialogue.opened of dialogue ${b} opens it below ${b}, which is not there`],
    [said(a, after, root, 'x'), `turn.taken of dialogue ${a} is a turn below ${root}, not ${a}`],
    [said(a, after, stranger, 'x'), `turn.taken of dialogue ${a} is a turn below ${stranger}, not ${a}`],
    [said(branch, branch, root, 'x'), `turn.taken of dialogue ${branch} is a turn below ${root}, not ${a}`],
    [said(a, a, a, 'x'), `turn.taken of dialogue ${a} is a turn ${a}, which is there already`],
    [said(a, root, a, 'x'), `turn.taken of dialogue ${a} is a turn ${root}, which is there already`],
  ] as const) {
    const before = structuredClone(tree);
    assert.is(
      refusal(() => growInPlace(tree, message)),
      `Message ${problem}.`,
    );
    assert.equal(tree, before);
  }
  const taken = grow([said(branch, branch, a, 'x', 'bob')], tree);
  assert.is(
    refusal(() => growInPlace(taken, said(a, branch, a, 'y', 'bob'))),
    `Message turn.taken of dialogue ${a} is a turn ${branch}, which is there already.`,
  );
});

test('names that every object knows are no nodes and no dialogues', () => {
  const named = (name: string) => name as NodeId;
  for (const name of ['toString', 'constructor', '__proto__'].map(named)) {
    assert.is(
      refusal(() => growInPlace(seedling, opened(a, name))),
      `Message dialogue.opened of dialogue ${a} opens it below ${name}, which is not there.`,
    );
  }
  const tree = grow([opened(named('toString')), said(named('toString'), named('valueOf'), root, 'hi')]);
  assert.is(tree.dialogues[named('toString')]!.leaf, 'valueOf');
});

test('a path leads from the root to a node, and to nothing else', () => {
  const deep = childId(childId(a, 0), 0);
  const tree = grow([
    opened(a),
    said(a, a, root, 'one'),
    said(a, childId(a, 0), a, 'two'),
    said(a, deep, childId(a, 0), 'three'),
    opened(branch, a),
    said(branch, branch, a, 'other'),
  ]);
  const texts = (node: NodeId) => pathTo(tree, node).map(({ text }) => text);
  assert.equal(texts(deep), ['one', 'two', 'three']);
  assert.equal(texts(childId(a, 0)), ['one', 'two']);
  assert.equal(texts(branch), ['one', 'other']);
  assert.equal(texts(root), []);
  assert.is(pathTo(tree, deep)[0], pathTo(tree, branch)[0]);
});

test('interleaved dialogues come out in the order in which they were opened', () => {
  const trajectories = fold([
    dealt,
    opened(a, null, 'terse'),
    opened(b),
    requested(0, 'alice'),
    said(a, a, root, 'hi'),
    said(b, b, root, 'ho'),
    of(b, closed('turn-cap')),
    verdict(b),
    ...ended(a),
  ]);
  const common = { taskId: task, views, failure: null, verdict: given };
  assert.equal(trajectories, [
    { id: a, ...common, format: 'terse', turns: [turn(a, root, 'hi')], outcome: 'agreed' },
    { id: b, ...common, format: null, turns: [turn(b, root, 'ho')], outcome: 'turn-cap' },
  ]);
});

test('the dialogues of several trees come out tree by tree', () => {
  const second = taskId('train', 1);
  const far = rootId('p', second);
  const elsewhere = { ...opened(childId(far, 0)), tree: far, taskId: second };
  const trajectories = fold([
    dealt,
    opened(b),
    { ...dealt, taskId: second, views: { alice: 'C', bob: 'D' } },
    elsewhere,
    opened(a),
    ...[elsewhere.dialogueId, a, b].flatMap(ended),
  ]);
  assert.equal(
    trajectories.map(({ id, taskId, views }) => [id, taskId, views.alice]),
    [
      [b, task, 'A'],
      [a, task, 'A'],
      [elsewhere.dialogueId, second, 'C'],
    ],
  );
});

test('a dialogue opened at a turn has all that was said before, and shares it', () => {
  const [first, second] = fold([
    dealt,
    opened(a),
    said(a, a, root, 'hi'),
    said(a, childId(a, 0), a, 'ho', 'bob'),
    opened(branch, a),
    said(branch, branch, a, 'hm', 'bob'),
    ...ended(a),
    ...ended(branch),
  ]);
  assert.equal(
    [first, second].map((dialogue) => dialogue!.turns.map(({ text }) => text)),
    [
      ['hi', 'ho'],
      ['hi', 'hm'],
    ],
  );
  assert.is(first!.turns[0], second!.turns[0]);
});

test('a planted tree has the turns that it was planted with, beside those that it has already', () => {
  const [first, second] = [childId(a, 0), childId(childId(a, 0), 3)];
  const history = [turn(a, root, 'hi'), turn(first, a, 'ho', 'bob')];
  const forest = new Forest();
  forest.plant(root, task, history.slice(0, 1));
  forest.plant(root, taskId('train', 9), []);
  hear([dealt, opened(branch, a)], forest);
  assert.equal(forest.turnsOf(branch), history.slice(0, 1));
  assert.is(forest.leafOf(branch), a);
  // Deeper, while a dialogue is under way; what is known of it stays as it is.
  hear([said(branch, branch, a, 'hm', 'bob')], forest);
  forest.plant(root, task, [turn(a, root, 'another'), ...history.slice(1)]);
  hear([opened(second, first)], forest);
  assert.equal(forest.turnsOf(second), history);
  assert.equal(
    forest.turnsOf(branch).map(({ text }) => text),
    ['hi', 'hm'],
  );
  hear(ended(branch), forest);
  const [trajectory, ...rest] = forest.trajectories();
  assert.equal(rest, []);
  assert.equal([trajectory!.id, trajectory!.taskId], [branch, task]);
  assert.equal(trajectory!.turns, [history[0], turn(branch, a, 'hm', 'bob')]);
});

test('a dialogue under way, or not yet judged, is left out', () => {
  assert.equal(fold([dealt, opened(a), said(a, a, root, 'hi')]), []);
  assert.equal(fold([dealt, opened(a), of(a, closed('agreed'))]), []);
  assert.equal(fold([dealt, opened(a), of(a, closed('turn-cap'))]), []);
});

test('a failed dialogue has a reason and no verdict', () => {
  const [trajectory] = fold([dealt, opened(a), said(a, a, root, 'hi'), of(a, closed('failed', 'no GPU'))]);
  assert.equal(trajectory, {
    id: a,
    taskId: task,
    views,
    format: null,
    turns: [turn(a, root, 'hi')],
    outcome: 'failed',
    failure: 'no GPU',
    verdict: null,
  });
  const [refused] = fold([dealt, opened(a), of(a, closed('failed', 'too long', 'bob'))]);
  assert.equal([refused!.failure, refused!.refusedBy], ['too long', 'bob']);
});

test('a failed verdict fails the dialogue', () => {
  const messages = [dealt, opened(a), of(a, closed('agreed')), unjudged(a, 'metric threw')];
  const [trajectory] = fold(messages);
  assert.is(trajectory!.outcome, 'failed');
  assert.is(trajectory!.failure, 'metric threw');
  assert.is(trajectory!.verdict, null);
  assert.equal(trajectory!.views, views);
});

/** Knows nothing of what was said before. */
const nothingEarlier: Earlier = { dealOf: () => null, format: () => null, turnsBefore: () => [] };

test('a format that was dealt before is asked for, and one that nobody dealt is a corrupt log', () => {
  const forest = new Forest({
    ...nothingEarlier,
    format: (name) => (name === 'terse' ? { ...terse, prompt: 'Be brief.' } : null),
  });
  hear([dealt, opened(a, null, 'terse'), opened(b, null, 'loud')], forest);
  assert.is(forest.viewOf(a, 'alice')[0]!.content, 'A\nBe brief.');
  assert.is(
    refusal(() => forest.viewOf(b, 'alice')),
    'No format.dealt says what format loud is.',
  );
});

test('the turns that a dialogue goes on from are asked for where they were said before, and only there', () => {
  const asked: string[] = [];
  const forest = new Forest({
    ...nothingEarlier,
    turnsBefore({ dialogueId }) {
      asked.push(dialogueId);
      return [turn(a, root, 'hi')];
    },
  });
  hear([dealt, opened(branch, a), opened(childId(a, 6), a), opened(b)], forest);
  assert.equal(asked, [branch]);
  assert.equal(
    forest.turnsOf(branch).map(({ text }) => text),
    ['hi'],
  );
  assert.is(
    refusal(() => new Forest().hear(opened(branch, a))),
    `Message dialogue.opened of dialogue ${branch} opens it below ${a}, which is not there.`,
  );
});

test('what comes after the end of a dialogue is a corrupt log, and so is a second verdict', () => {
  const tree = { root, taskId: task, turns: {}, dialogues: {} };
  const [late, end] = [said(a, a, root, 'hi'), of(a, closed('agreed'))];
  assert.match(
    refusal(() => growInPlace(tree, late)),
    'comes before its dialogue.opened',
  );
  const over = growTree(growTree(tree, opened(a)), end);
  for (const message of [late, end])
    assert.match(
      refusal(() => growInPlace(over, message)),
      'after its end',
    );
  const verdict = { type: 'verdict.failed' as const, dialogueId: a, reason: 'no metric' };
  const judged = growTree(over, verdict);
  assert.match(
    refusal(() => growInPlace(judged, verdict)),
    'after its end',
  );
});

test('where dealing the views failed there are none, unless they had been dealt before', () => {
  const messages = [opened(a), of(a, closed('failed', 'Dealing the views failed: boom'))];
  const [alone] = fold(messages);
  assert.equal([alone!.outcome, alone!.views], ['failed', {}]);
  const [before] = hear(
    messages,
    new Forest({ ...nothingEarlier, dealOf: (asked) => (asked === task ? { views } : null) }),
  ).trajectories();
  assert.equal([before!.outcome, before!.views], ['failed', views]);
});

test('a dialogue that is opened again is a corrupt log', () => {
  const forest = hear([dealt, opened(a), said(a, a, root, 'kept'), opened(b)]);
  assert.is(
    refusal(() => forest.hear(opened(a))),
    `Message dialogue.opened of dialogue ${a} comes a second time.`,
  );
  assert.equal(
    forest.turnsOf(a).map(({ text }) => text),
    ['kept'],
  );
});

test('a message without its opening is a corrupt log', () => {
  const failed = { type: 'turn.failed', dialogueId: a, nodeId: a, speaker: 'bob', reason: 'x' } as const;
  const others = [said(a, a, root, 'hi'), failed, unjudged(a, 'x')];
  for (const message of [...others, ...ended(a)]) {
    assert.is(
      refusal(() => hear([dealt, opened(b), message])),
      `Message ${message.type} of dialogue ${a} comes before its dialogue.opened.`,
    );
  }
});

test('what the roles were told must have been said: of a conversation, and of one that was judged', () => {
  const missing = `No task.dealt says what the roles were told of ${task}.`;
  const other = { ...dealt, taskId: taskId('train', 1) };
  assert.is(
    refusal(() => hear([other, opened(a)]).viewOf(a, 'alice')),
    missing,
  );
  assert.is(
    refusal(() => fold([other, opened(a), ...ended(a)])),
    missing,
  );
});

test('a dialogue may be opened below the root by its name', () => {
  assert.equal(grow([opened(a, root)]), grow([opened(a, null)]));
});

test('a turn that was asked for or that failed changes nothing', () => {
  const failed = { type: 'turn.failed', dialogueId: a, nodeId: a, speaker: 'alice', reason: 'x' } as const;
  const before = [dealt, opened(a), said(a, a, root, 'hi')];
  const forest = hear([...before, requested(5, 'bob'), failed]);
  assert.is(forest.leafOf(a), a);
  assert.equal(forest.turnsOf(a), hear(before).turnsOf(a));
});

test('a conversation under way is known as each role sees it', () => {
  const forest = hear([
    dealt,
    opened(a),
    opened(b),
    said(a, a, root, 'one two'),
    said(b, b, root, 'not this'),
    said(a, childId(a, 0), a, 'three', 'bob'),
  ]);
  assert.equal(forest.turnsOf(a), [turn(a, root, 'one two'), turn(childId(a, 0), a, 'three', 'bob')]);
  assert.is(forest.leafOf(a), childId(a, 0));
  assert.equal(forest.viewOf(a, 'alice'), [
    { role: 'system', content: 'A' },
    { role: 'assistant', content: 'one two', tokenIds: [3, 3] },
    { role: 'user', content: 'three' },
  ]);
  assert.equal(forest.viewOf(a, 'bob'), [
    { role: 'system', content: 'B' },
    { role: 'user', content: 'one two' },
    { role: 'assistant', content: 'three', tokenIds: [5] },
  ]);
});

test('a format prompt stands below the view of the roles that it is for, in the dialogues that drew it', () => {
  const list = { ...terse, format: 'list', prompt: 'Write a list.', roles: ['alice', 'bob'] };
  const third = childId(root, 2);
  const forest = hear([
    dealt,
    terse,
    opened(a, null, 'terse'),
    opened(b),
    list,
    opened(third, null, 'list'),
    opened(childId(root, 3), null, 'unheard-of'),
  ]);
  const systems = (dialogue: DialogueId) =>
    ['alice', 'bob'].map((role) => forest.viewOf(dialogue, role)[0]!.content);
  assert.equal(systems(a), ['A\nBe terse.', 'B']);
  assert.equal(systems(b), ['A', 'B']);
  assert.equal(systems(third), ['A\nWrite a list.', 'B\nWrite a list.']);
});

/** Two cohorts of one task: in the second one the task is not dealt any more. */
const cohort = (number: number) => ({ type: 'cohort.completed', phase: 'p', cohort: number }) as const;

test('the dialogues of a phase are given a cohort at a time, in order', () => {
  const forest = new Forest();
  const first = [dealt, opened(a), said(a, a, root, 'hi'), opened(b), ...ended(b), ...ended(a)];
  for (const event of first) assert.equal(forest.take(event), []);
  assert.equal(
    forest.take(cohort(0)).map(({ id }) => id),
    [a, b],
  );
  assert.equal(forest.take(cohort(1)), []);
  const next = childId(root, 2);
  for (const event of [dealt, opened(next), ...ended(next)]) assert.equal(forest.take(event), []);
  assert.equal(
    forest.take(cohort(2)).map(({ id }) => id),
    [next],
  );
});

test('events of the run itself are passed over', () => {
  const forest = new Forest();
  const started = { type: 'phase.started', phase: 'p' } as const;
  for (const event of [started, dealt, opened(a), started, ...ended(a)]) {
    assert.equal(forest.take(event), []);
  }
  assert.is(forest.take(cohort(0)).length, 1);
});

test('what a cohort has said is forgotten with it: dialogues, trees and views', () => {
  const forest = new Forest();
  for (const event of [dealt, opened(a), said(a, a, root, 'hi'), ...ended(a)]) forest.take(event);
  forest.take(cohort(0));
  assert.equal(forest.trajectories(), []);
  assert.is(
    refusal(() => forest.take(said(a, childId(a, 0), a, 'ho'))),
    `Message turn.taken of dialogue ${a} comes before its dialogue.opened.`,
  );
  assert.is(
    refusal(() => forest.take(opened(branch, a))),
    `Message dialogue.opened of dialogue ${branch} opens it below ${a}, which is not there.`,
  );
  forest.take(opened(a));
  assert.is(
    refusal(() => forest.viewOf(a, 'alice')),
    `No task.dealt says what the roles were told of ${task}.`,
  );
});

test('a format that was dealt once stays known, as a log keeps its first deal alone', () => {
  const forest = new Forest();
  for (const event of [dealt, terse, opened(a, null, 'terse'), ...ended(a), cohort(0)]) forest.take(event);
  for (const event of [dealt, opened(b, null, 'terse')]) forest.take(event);
  assert.is(forest.viewOf(b, 'alice')[0]!.content, 'A\nBe terse.');
});

test('what was dealt before is asked for where a task was not dealt again', () => {
  const asked: string[] = [];
  const forest = new Forest({
    ...nothingEarlier,
    dealOf(task) {
      asked.push(task);
      return { views: { alice: 'long ago', bob: 'B' } };
    },
  });
  for (const event of [dealt, opened(a)]) forest.take(event);
  assert.is(forest.viewOf(a, 'alice')[0]!.content, 'A');
  for (const event of ended(a)) forest.take(event);
  assert.equal(forest.take(cohort(0))[0]!.views, views);
  assert.equal(asked, [], 'what was dealt in the cohort is known');
  forest.take(opened(b));
  assert.is(forest.viewOf(b, 'alice')[0]!.content, 'long ago');
  for (const event of ended(b)) forest.take(event);
  assert.equal(forest.take(cohort(1))[0]!.views, { alice: 'long ago', bob: 'B' });
  assert.equal([...new Set(asked)], [task]);
});

test('a conversation in words of the support is read as one', () => {
  // The same nodes as the other tests of dialogues have.
  const { turn } = taken(0, 'alice', 'hi');
  const forest = hear([
    { ...dealt },
    { ...opened(turn.id), tree: turn.parent },
    taken(0, 'alice', 'hi'),
    taken(1, 'bob', 'ho'),
    taken(2, 'alice', 'hm'),
  ]);
  assert.equal(forest.turnsOf(turn.id), [
    turnOf(0, 'alice', 'hi'),
    turnOf(1, 'bob', 'ho'),
    turnOf(2, 'alice', 'hm'),
  ]);
});

const mergedInto = (dialogueId: DialogueId, nodeId: NodeId, into: NodeId): MessageOf<'turn.merged'> => ({
  type: 'turn.merged',
  ...{ dialogueId, nodeId, speaker: 'alice', into, text: 'hi!', tokenIds: [3], promptTokens: 1 },
});

test('a dialogue whose turn became one with another goes on below that one, and has it', () => {
  const below = childId(a, 5);
  const forest = hear([
    dealt,
    opened(a),
    said(a, a, root, 'hi'),
    opened(b),
    mergedInto(b, b, a),
    said(b, below, a, 'ho', 'bob'),
    ...ended(b),
  ]);
  assert.is(forest.leafOf(b), below);
  assert.equal(forest.turnOf(b, a).text, 'hi');
  const trajectory = forest.trajectoryOf(b)!;
  assert.equal([trajectory.id, ...trajectory.turns.map(({ text }) => text)], [b, 'hi', 'ho']);
  assert.is(forest.trajectoryOf(a), null, 'that one is under way');
  assert.equal(
    forest.trees().map((tree) => [tree.root, Object.keys(tree.turns)]),
    [[root, [a, below]]],
  );
  assert.equal(forest.dealOf(task), { views });
});

test('a turn becomes one with a child of where its dialogue is, and with nothing else', () => {
  const grown = grow([opened(a), said(a, a, root, 'hi'), said(a, childId(a, 0), a, 'ho', 'bob'), opened(b)]);
  for (const into of [childId(a, 0), childId(root, 9), root, 'toString' as NodeId]) {
    assert.match(
      refusal(() => growInPlace(grown, mergedInto(b, b, into))),
      `goes on from ${into}, not below ${root}`,
    );
  }
  assert.is(growTree(grown, mergedInto(b, b, a)).dialogues[b]!.leaf, a);
});

const observed = (dialogueId: DialogueId, nodeId: NodeId, text = 'yes'): MessageOf<'observation.given'> => ({
  type: 'observation.given',
  dialogueId,
  nodeId,
  observations: [{ text, to: ['bob'] }],
});

test('what the environment said is kept with the turn that it follows, for all dialogues that come by', () => {
  const hi = said(a, a, root, 'hi');
  const tree = grow([opened(a), hi, observed(a, a), opened(branch, a)]);
  assert.equal(tree.turns[a], { ...hi.turn, observed: [{ text: 'yes', to: ['bob'] }] });
  assert.is(pathTo(tree, a)[0], tree.turns[a]);
  const forest = hear([dealt, opened(a), hi, observed(a, a), opened(branch, a)]);
  assert.equal(forest.viewOf(branch, 'bob').at(-1), { role: 'user', content: 'hi\nyes' });
  assert.is(forest.viewOf(branch, 'alice').length, 2);
});

test('an observation belongs to the last turn of its dialogue, and comes once', () => {
  const tree = grow([opened(a), said(a, a, root, 'hi'), opened(b)]);
  assert.equal(
    [observed(a, b), observed(b, root), observed(branch, a)].map((message) =>
      refusal(() => growInPlace(tree, message)),
    ),
    [
      `Message observation.given of dialogue ${a} follows ${b}, not its last turn ${a}.`,
      `Message observation.given of dialogue ${b} follows ${root}, not its last turn ${root}.`,
      `Message observation.given of dialogue ${branch} comes before its dialogue.opened.`,
    ],
  );
  const twice = growTree(tree, observed(a, a));
  assert.match(
    refusal(() => growInPlace(twice, observed(a, a, 'no'))),
    'which one follows already',
  );
  const over = growTree(tree, of(a, closed('agreed')));
  assert.match(
    refusal(() => growInPlace(over, observed(a, a))),
    'comes after its end',
  );
});

test('what the environment opened with is a part of the deal, and of every dialogue of the task', () => {
  const opening = [{ text: 'begin' }];
  const messages = [{ ...dealt, opening }, opened(a), said(a, a, root, 'hi'), ...ended(a)];
  const forest = hear(messages);
  assert.equal(forest.dealOf(task), { views, opening });
  assert.equal(forest.viewOf(a, 'bob').at(-1), { role: 'user', content: 'begin\nhi' });
  assert.equal(fold(messages)[0]!.opening, opening);
  assert.not('opening' in fold([dealt, ...messages.slice(1)])[0]!);
  const failed = fold([{ ...dealt, opening }, opened(a), of(a, closed('failed', 'x'))]);
  assert.equal(failed[0]!.opening, opening);
});

test('a forest leaves the messages that it hears as they were', () => {
  const messages = [
    ...[dealt, opened(a), said(a, a, root, 'hi'), observed(a, a), opened(b), mergedInto(b, b, a)],
    ...[said(b, childId(a, 0), a, 'ho', 'bob'), ...ended(a), ...ended(b), opened(branch, a)],
  ];
  const before = structuredClone(messages);
  const forest = hear(messages);
  assert.equal(messages, before);
  assert.is.not(forest.turnOf(a, a).observed, undefined);
});

test.run();
