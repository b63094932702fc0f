// The schemas of all that a log may hold: each field of each type, and of each phase's output, right and wrong.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { OptimaError } from '../../src/domain/errors.ts';
import {
  isDialogueMessage,
  type PhaseKind,
  parseEvent,
  phaseOutputSchemas,
  runEventSchemas,
} from '../../src/domain/events.ts';
import { messageSchemas, parseMessage } from '../../src/domain/messages.ts';

type Fields = Readonly<Record<string, unknown>>;

const turn = {
  id: 'init-0/generate/train-00000.0.0',
  parent: 'init-0/generate/train-00000.0',
  speaker: 'bob',
  text: 'x: 1',
  tokenIds: [7, 0, 1],
  logprobs: [-0.5, -1, 0],
  finish: 'stop',
  policyHash: '0123456789abcdef',
  seed: 4294967295,
  provenance: 'sampled',
  promptTokens: 12,
};
const id = { dialogueId: 'init-0/generate/train-00000.0' };
const node = { nodeId: 'init-0/generate/train-00000.0.0', speaker: 'bob' };
const task = { ...id, taskId: 'train-00000' };
const phase = { phase: 'isft-1/train' };
const team = { alice: 'abc', bob: 'def' };
const metrics = {
  taskScore: 0.5,
  taskScoreInterval: [0.25, 0.75],
  exactMatch: 0.5,
  tokens: 40.5,
  medianTokens: 33,
  p95Tokens: 80,
  shortestRight: null,
  agreement: 1,
  turns: 2.5,
  n: 4,
  failed: 1,
};

/** What each kind of phase hands on. */
const outputs: Readonly<Record<PhaseKind, Fields>> = {
  generate: { dialogues: 6, failed: 1, sampledTokens: 300 },
  rank: {
    ranked: 5,
    failed: 1,
    meanReward: -0.5,
    meanLoss: 0.7,
    metrics,
    edgeCases: { emptyMessage: 0, repetition: 1, cappedMessage: 2, turnCap: 3 },
  },
  select: { kept: 2, threshold: 0.5 },
  search: {
    trees: 2,
    dialogues: 6,
    failed: 1,
    merged: 3,
    sampledTokens: 400,
    normaliser: 50.5,
    meanReward: -0.5,
    meanLoss: 0.7,
    metrics,
    edgeCases: { emptyMessage: 0, repetition: 1, cappedMessage: 2, turnCap: 3 },
    klToBase: 0.25,
  },
  pair: { kept: 2, found: 5, meanGap: 0.3 },
  train: {
    steps: 3,
    loss: 1.5,
    figures: { 'rewards/margins': 0.5 },
    warnings: ['too few pairs'],
    policy: team,
  },
  evaluate: { policy: team, metrics },
};
const kinds = Object.keys(outputs) as PhaseKind[];
const completed = (kind: PhaseKind, change: Fields = {}) => ({
  type: 'phase.completed',
  ...phase,
  output: { kind, ...outputs[kind], ...change },
});

/** One of every type. */
const messages: Readonly<Record<keyof typeof messageSchemas, Fields>> = {
  'task.dealt': { taskId: 'train-00000', views: { alice: 'y', bob: 'x' } },
  'format.dealt': { format: 'terse', prompt: 'Be terse.', roles: ['bob'] },
  'dialogue.opened': {
    ...task,
    tree: 'init-0/generate/train-00000',
    parent: 'init-0/generate/train-00000.1',
    format: 'terse',
  },
  'turn.requested': node,
  'turn.taken': { ...id, turn },
  'turn.merged': {
    ...{ ...id, ...node, into: 'init-0/generate/train-00000.1.0', text: 'Rome', tokenIds: [4, 2] },
    promptTokens: 7,
  },
  'observation.given': {
    ...id,
    nodeId: 'init-0/generate/train-00000.1',
    observations: [{ text: 'wrong', to: ['bob'] }],
  },
  'turn.failed': { ...id, ...node, reason: 'too long' },
  'dialogue.closed': { ...id, outcome: 'failed', failure: 'too long' },
  'judge.asked': {
    ...{ ...id, question: 0, prompt: 'Who was right?', reply: 'bob', tokenIds: [7, 2], finish: 'stop' },
    ...{ policyHash: 'abc', seed: 3, promptTokens: 4 },
  },
  'verdict.given': { ...id, taskScore: 0.5, exactMatch: false, answer: 'Rome' },
  'verdict.failed': { ...id, reason: 'not a number' },
};
const events: Readonly<Record<keyof typeof runEventSchemas, Fields>> = {
  'run.started': { scenario: 'two-hop-qa', seed: -1, base: 'abc', recipe: { samples: 2 } },
  'phase.started': phase,
  'cohort.completed': { ...phase, cohort: 0 },
  'trajectory.ranked': {
    ...task,
    tokens: 12,
    terms: { task: 1, tokenShare: 0.5, loss: 2 },
    reward: 0.7,
    turnLosses: [1.5, 2],
    edgeCases: ['emptyMessage', 'repetition', 'cappedMessage', 'turnCap'],
    eligible: true,
    failure: null,
  },
  'selection.made': {
    ...phase,
    kept: [{ ...task, reward: 0.7 }],
    dropped: { noCandidate: 1, belowThreshold: 2, beyondFraction: 3 },
  },
  'pairs.made': {
    ...phase,
    taskId: 'train-00000',
    tree: 'idpo-1/search/train-00000',
    pairs: [{ parent: 'p', chosen: 'p.0', rejected: 'p.1', value: 0.75, gap: 0.5 }],
    dropped: { belowFilter: 1 },
  },
  'step.trained': {
    ...phase,
    step: 0,
    steps: 9,
    learningRate: 0.001,
    loss: 2.5,
    gradNorm: 1.5,
    tokens: 100,
    figures: { nll: 2.25 },
  },
  'fork.begun': {
    ...{ ...task, ...phase, fork: 0, tree: 't', at: 'after', node: 't.0', sibling: null, beside: 't.0' },
    ...{ said: 'written', policy: { alice: 'abc' }, own: true, temperature: 0.7, normaliser: 31 },
  },
  'pair.kept': {
    ...{ fork: 0, taskId: 'train-00000', tree: 't', parent: 't.0', speaker: 'alice', value: 1, gap: 0.5 },
    view: [{ role: 'system', content: 'You are Alice.' }],
    chosen: { id: 't.0.f0', text: 'a', tokenIds: [1], policyHash: 'person', provenance: 'human' },
    rejected: { id: 't.0.1', text: 'b', tokenIds: [2], policyHash: 'abc', provenance: 'sampled' },
  },
  'forks.taken': {
    ...phase,
    pairs: [{ fork: 0, chosen: 't.0.f0', rejected: 't.0.1' }],
    log: { events: 9, sum: 'abcdef' },
  },
  'phase.completed': { ...phase, output: { kind: 'select', ...outputs.select } },
  'run.completed': { policy: team },
};
const all = Object.entries({ ...messages, ...events }).map(([type, fields]) => ({ type, ...fields }));

const refusalOf = (value: unknown): string => {
  try {
    parseEvent(value);
  } catch (error) {
    assert.instance(error, OptimaError);
    assert.is((error as OptimaError).code, 'message.invalid');
    return (error as OptimaError).message;
  }
  return `accepted: ${JSON.stringify(value)}`;
};

test('the samples cover every type there is', () => {
  assert.equal(
    all.map(({ type }) => type),
    [...Object.keys(messageSchemas), ...Object.keys(runEventSchemas)],
  );
});

test('what is right comes back as it was', () => {
  for (const event of all) assert.equal(parseEvent(event), event);
  for (const [type, fields] of Object.entries(messages)) {
    assert.equal(parseMessage({ type, ...fields }), { type, ...fields });
  }
});

test('what a schema does not know is left out', () => {
  for (const event of all) assert.equal(parseEvent({ ...event, mood: 'good' }), event);
  const taken = { type: 'turn.taken', ...id, turn };
  assert.equal(parseMessage({ ...taken, turn: { ...turn, mood: 'good' } }), taken);
});

test('null stands where there is nothing to say', () => {
  for (const event of [
    { type: 'dialogue.opened', ...messages['dialogue.opened'], parent: null, format: null },
    { type: 'dialogue.closed', ...id, outcome: 'agreed', failure: null },
    { type: 'verdict.given', ...messages['verdict.given'], answer: null },
    {
      type: 'trajectory.ranked',
      ...events['trajectory.ranked'],
      terms: null,
      reward: null,
      failure: 'why',
    },
    completed('select', { kept: 0, threshold: null }),
  ]) {
    assert.equal(parseEvent(event), event);
  }
});

test('a step says whose policy it trained where each role has its own', () => {
  const step = { type: 'step.trained', ...events['step.trained'] };
  assert.equal(parseEvent({ ...step, role: 'bob' }), { ...step, role: 'bob' });
  assert.match(refusalOf({ ...step, role: 7 }), 'Event step.trained: field role: ');
});

test('a field that is missing is named with its type', () => {
  for (const { type, ...fields } of all) {
    for (const field of Object.keys(fields)) {
      const { [field]: _, ...rest } = fields as Record<string, unknown>;
      const message = refusalOf({ type, ...rest });
      assert.ok(message.startsWith(`Event ${type}: field ${field}: `), message);
    }
  }
  for (const field of Object.keys(turn)) {
    const { [field]: _, ...rest } = turn as Record<string, unknown>;
    const message = refusalOf({ type: 'turn.taken', ...id, turn: rest });
    assert.ok(message.startsWith(`Event turn.taken: field turn.${field}: `), message);
  }
});

/** What each field may not be; a dot leads into an object, and a number into a list. */
const wrong: readonly (readonly [type: string, field: string, values: readonly unknown[]])[] = [
  ...Object.keys(messages)
    .filter((type) => !/\.(dealt|requested)$/.test(type))
    .map((type) => [type, 'dialogueId', ['', 7]] as const),
  ['task.dealt', 'taskId', ['', null]],
  ['task.dealt', 'views', [null, 'x']],
  ['task.dealt', 'views.bob', [7, null]],
  ['format.dealt', 'format', [7, null]],
  ['format.dealt', 'prompt', [7, null]],
  ['format.dealt', 'roles', ['bob', null]],
  ['format.dealt', 'roles.0', [7, null]],
  ['dialogue.opened', 'taskId', ['', null]],
  ['dialogue.opened', 'tree', ['', null]],
  ['dialogue.opened', 'parent', ['', 7]],
  ['dialogue.opened', 'format', [7]],
  ['turn.requested', 'nodeId', ['', 7, null]],
  ['turn.requested', 'speaker', [7]],
  ['turn.taken', 'turn.id', ['', 7]],
  ['turn.taken', 'turn.parent', ['', 7, null]],
  ['turn.taken', 'turn.speaker', [7]],
  ['turn.taken', 'turn.text', [7, null]],
  ['turn.taken', 'turn.tokenIds.1', [-1, 0.5, '1']],
  ['turn.taken', 'turn.logprobs.1', ['1', null, Number.NaN, Number.NEGATIVE_INFINITY]],
  ['turn.taken', 'turn.finish', ['cut', null]],
  ['turn.taken', 'turn.policyHash', ['', 7]],
  ['turn.taken', 'turn.seed', [-1, 0.5]],
  ['turn.taken', 'turn.provenance', ['invented']],
  ['turn.taken', 'turn.promptTokens', [-1, 0.5]],
  ['turn.failed', 'nodeId', ['', 7, null]],
  ['turn.failed', 'speaker', [7]],
  ['turn.failed', 'reason', [null]],
  ['dialogue.closed', 'outcome', ['capped', null]],
  ['dialogue.closed', 'failure', [7]],
  ['verdict.given', 'taskScore', [-0.1, 1.1, Number.NaN, '1']],
  ['verdict.given', 'exactMatch', [1, null]],
  ['verdict.given', 'answer', [7]],
  ['verdict.failed', 'reason', [null]],
  ['run.started', 'scenario', [7]],
  ['run.started', 'seed', [0.5, '1']],
  ['run.started', 'base', ['', 7]],
  ['run.started', 'recipe', [null, 'quick']],
  ...['phase.started', 'cohort.completed', 'selection.made', 'step.trained', 'phase.completed'].map(
    (type) => [type, 'phase', [7, null]] as const,
  ),
  ['cohort.completed', 'cohort', [-1, 0.5]],
  ['trajectory.ranked', 'dialogueId', ['', 7]],
  ['trajectory.ranked', 'taskId', ['', 7]],
  ['trajectory.ranked', 'tokens', [-1, 0.5]],
  ['trajectory.ranked', 'terms.task', ['1', null, Number.NaN]],
  ['trajectory.ranked', 'terms.tokenShare', ['1', null]],
  ['trajectory.ranked', 'terms.loss', ['1', null]],
  ['trajectory.ranked', 'reward', ['1', Number.NaN]],
  ['trajectory.ranked', 'edgeCases.0', ['boredom']],
  ['trajectory.ranked', 'eligible', [1, null]],
  ['trajectory.ranked', 'failure', [7]],
  ['selection.made', 'kept.0.dialogueId', ['', 7]],
  ['selection.made', 'kept.0.taskId', ['', 7]],
  ['selection.made', 'kept.0.reward', ['1', null]],
  ['selection.made', 'dropped.noCandidate', [0.5, null]],
  ['selection.made', 'dropped.belowThreshold', [0.5, null]],
  ['selection.made', 'dropped.beyondFraction', [0.5, null]],
  ['step.trained', 'step', [-1, 0.5]],
  ['step.trained', 'steps', [0.5]],
  ['step.trained', 'learningRate', ['1', Number.NaN]],
  ['step.trained', 'loss', [null, Number.NaN]],
  ['step.trained', 'gradNorm', [null, Number.POSITIVE_INFINITY]],
  ['step.trained', 'tokens', [0.5]],
  ['step.trained', 'figures', [null, 7]],
  ['step.trained', 'figures.nll', ['1', null, Number.NaN]],
  ['phase.completed', 'output', [null, 'select']],
  ['run.completed', 'policy', ['', 7, null]],
  ['run.completed', 'policy.bob', ['', 7]],
];

/** The sample with another value in one field. */
function changed(sample: object, field: string, value: unknown): Record<string, unknown> {
  const event = structuredClone(sample) as Record<string, unknown>;
  const path = field.split('.');
  let holder = event;
  for (const step of path.slice(0, -1)) holder = holder[step] as Record<string, unknown>;
  holder[path.at(-1)!] = value;
  return event;
}

test('a field of the wrong kind is named with its type, however deep it lies', () => {
  for (const [type, field, values] of wrong) {
    for (const value of values) {
      const message = refusalOf(changed(all.find((sample) => sample.type === type)!, field, value));
      assert.ok(message.startsWith(`Event ${type}: field ${field}: `), `${value}: ${message}`);
      assert.match(message, /: .+\.$/);
    }
  }
});

test('what every kind of phase hands on comes back as it was, and no more than that', () => {
  assert.equal(kinds, Object.keys(phaseOutputSchemas));
  for (const kind of kinds) {
    assert.equal(parseEvent(completed(kind)), completed(kind));
    assert.equal(parseEvent(completed(kind, { mood: 'good' })), completed(kind));
  }
});

test('an output that is not of its kind is refused', () => {
  for (const kind of kinds) {
    for (const field of Object.keys(outputs[kind])) {
      const event = completed(kind);
      delete (event.output as Record<string, unknown>)[field];
      const message = refusalOf(event);
      assert.ok(message.startsWith(`Event phase.completed: field output.${field}: `), message);
    }
    for (const stranger of ['sleep', 'toString', '', null, 7, undefined]) {
      const message = refusalOf(changed(completed(kind), 'output.kind', stranger));
      assert.ok(message.startsWith('Event phase.completed: field output.kind: '), message);
    }
  }
});

const wrongMetrics: readonly (readonly [field: string, values: readonly unknown[]])[] = [
  ['taskScore', ['1', null, Number.NaN]],
  ['taskScoreInterval', [null, [0.5], [0, 0.5, 1]]],
  ['taskScoreInterval.0', ['1', null]],
  ['taskScoreInterval.1', ['1', Number.NaN]],
  ['exactMatch', ['1', true]],
  ['tokens', ['1', null]],
  ['medianTokens', ['1', null]],
  ['p95Tokens', ['1', null]],
  ['shortestRight', ['1', -1, 0.5]],
  ['agreement', ['1', null]],
  ['turns', ['1', null]],
  ['n', [-1, 0.5]],
  ['failed', [-1, 0.5]],
];
/** What each field of an output may not be. */
const wrongOutputs: readonly (readonly [kind: PhaseKind, field: string, values: readonly unknown[]])[] = [
  ['generate', 'dialogues', [-1, 0.5, '1']],
  ['generate', 'failed', [-1, 0.5]],
  ['generate', 'sampledTokens', [-1, 0.5]],
  ['search', 'sampledTokens', [-1, 0.5]],
  ['rank', 'ranked', [-1, 0.5]],
  ['rank', 'failed', [-1, 0.5]],
  ['rank', 'meanReward', ['1', null, Number.NaN]],
  ['rank', 'meanLoss', ['1', null, Number.NaN]],
  ['search', 'meanLoss', ['1', null]],
  ['rank', 'metrics', [null, 7]],
  ['rank', 'edgeCases.repetition', [-1, 0.5, null]],
  ['rank', 'edgeCases.turnCap', [-1, 0.5, null]],
  ['select', 'kept', [-1, 0.5]],
  ['select', 'threshold', ['1', Number.NaN]],
  ['train', 'steps', [-1, 0.5]],
  ['train', 'loss', ['1', null, Number.NaN]],
  ['train', 'policy', ['abc', null]],
  ['train', 'policy.alice', ['', 7]],
  ['evaluate', 'policy', ['abc', null]],
  ['evaluate', 'policy.bob', ['', 7]],
  ['evaluate', 'metrics', [null, 7]],
  ...(['rank', 'evaluate'] as const).flatMap((kind) =>
    wrongMetrics.map(([field, values]) => [kind, `metrics.${field}`, values] as const),
  ),
];

test('a field of an output that is of the wrong kind is named, however deep it lies', () => {
  for (const [kind, field, values] of wrongOutputs) {
    for (const value of values) {
      const message = refusalOf(changed(completed(kind), `output.${field}`, value));
      const named = message.startsWith(`Event phase.completed: field output.${field}: `);
      assert.ok(named, `${kind} ${JSON.stringify(value)}: ${message}`);
    }
  }
});

test('open cases are counted by name, each of them and no other', () => {
  const { edgeCases } = outputs.rank as { edgeCases: Record<string, number> };
  const { turnCap: _, ...rest } = edgeCases;
  for (const wrong of [rest, { ...edgeCases, boredom: 1 }]) {
    const message = refusalOf(completed('rank', { edgeCases: wrong }));
    assert.ok(message.startsWith('Event phase.completed: field output.edgeCases'), message);
  }
});

test('a type that nobody knows is refused by its name', () => {
  for (const type of ['turn.forgotten', 'toString', '', 7, null]) {
    const message = refusalOf({ type, ...id });
    assert.is(message, `Type ${JSON.stringify(type)} is not one of an event.`);
  }
  for (const value of [null, undefined, 7, 'turn.taken', {}]) {
    assert.is(refusalOf(value), 'Type undefined is not one of an event.');
  }
});

test('the bus knows the messages of dialogues and no event of the run', () => {
  for (const event of all) {
    const isMessage = event.type in messages;
    assert.is(isDialogueMessage(event as never), isMessage, event.type);
    if (isMessage) continue;
    assert.throws(
      () => parseMessage(event),
      (error: OptimaError) => error.message === `Type "${event.type}" is not one of an event.`,
    );
  }
});

test.run();
