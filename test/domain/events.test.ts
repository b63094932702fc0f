// The schemas of all that a log may hold: each field of each type, right and wrong.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { OptimaError } from '../../src/domain/errors.ts';
import { isDialogueMessage, parseEvent, runEventSchemas } from '../../src/domain/events.ts';
import { messageSchemas, parseMessage } from '../../src/domain/messages.ts';

type Fields = Readonly<Record<string, unknown>>;

const turn = {
  id: 'test/train-00000/0#1',
  parent: 'test/train-00000/0#0',
  index: 1,
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
const id = { dialogueId: 'test/train-00000/0' };
const task = { ...id, taskId: 'train-00000' };
const phase = { phase: 'iteration-1/train' };

/** One of every type. */
const messages: Readonly<Record<keyof typeof messageSchemas, Fields>> = {
  'dialogue.opened': { ...task, views: { bob: 'x\nterse' }, plainViews: { bob: 'x' }, format: 'terse' },
  'turn.requested': { ...id, index: 1, speaker: 'bob' },
  'turn.taken': { ...id, turn },
  'turn.failed': { ...id, index: 0, speaker: 'bob', reason: 'too long' },
  'dialogue.closed': { ...id, outcome: 'failed', failure: 'too long' },
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
    edgeCases: ['emptyMessage', 'repetition', 'cappedMessage', 'turnCap'],
    eligible: true,
    failure: null,
  },
  'selection.made': {
    ...phase,
    kept: [{ ...task, reward: 0.7 }],
    dropped: { noCandidate: 1, belowThreshold: 2, beyondFraction: 3 },
  },
  'step.trained': {
    ...phase,
    step: 0,
    steps: 9,
    learningRate: 0.001,
    loss: 2.5,
    gradNorm: 1.5,
    tokens: 100,
  },
  'phase.completed': { ...phase, hash: 'abc', output: { kept: 3 } },
  'run.completed': { policy: 'abc' },
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
const kindOf = (type: string) => (type in messages ? 'Message' : 'Event');

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
    { type: 'dialogue.opened', ...messages['dialogue.opened'], format: null },
    { type: 'turn.taken', ...id, turn: { ...turn, parent: null } },
    { type: 'dialogue.closed', ...id, outcome: 'agreed', failure: null },
    { type: 'verdict.given', ...messages['verdict.given'], answer: null },
    {
      type: 'trajectory.ranked',
      ...events['trajectory.ranked'],
      terms: null,
      reward: null,
      failure: 'why',
    },
  ]) {
    assert.equal(parseEvent(event), event);
  }
});

test('a field that is missing is named with its type', () => {
  for (const { type, ...fields } of all) {
    for (const field of Object.keys(fields)) {
      const { [field]: _, ...rest } = fields as Record<string, unknown>;
      const message = refusalOf({ type, ...rest });
      assert.ok(message.startsWith(`${kindOf(type)} ${type}: field ${field}: `), message);
    }
  }
  for (const field of Object.keys(turn)) {
    const { [field]: _, ...rest } = turn as Record<string, unknown>;
    const message = refusalOf({ type: 'turn.taken', ...id, turn: rest });
    assert.ok(message.startsWith(`Message turn.taken: field turn.${field}: `), message);
  }
});

/** What each field may not be; a dot leads into an object, and a number into a list. */
const wrong: readonly (readonly [type: string, field: string, values: readonly unknown[]])[] = [
  ...Object.keys(messages).map((type) => [type, 'dialogueId', ['', 7]] as const),
  ['dialogue.opened', 'taskId', ['', null]],
  ['dialogue.opened', 'views.bob', [7, null]],
  ['dialogue.opened', 'plainViews.bob', [7, null]],
  ['dialogue.opened', 'format', [7]],
  ['turn.requested', 'index', [-1, 0.5, '1']],
  ['turn.requested', 'speaker', [7]],
  ['turn.taken', 'turn.id', ['', 7]],
  ['turn.taken', 'turn.parent', ['', 7]],
  ['turn.taken', 'turn.index', [-1, 0.5]],
  ['turn.taken', 'turn.speaker', [7]],
  ['turn.taken', 'turn.text', [7, null]],
  ['turn.taken', 'turn.tokenIds.1', [-1, 0.5, '1']],
  ['turn.taken', 'turn.logprobs.1', ['1', null, Number.NaN, Number.NEGATIVE_INFINITY]],
  ['turn.taken', 'turn.finish', ['cut', null]],
  ['turn.taken', 'turn.policyHash', ['', 7]],
  ['turn.taken', 'turn.seed', [-1, 0.5]],
  ['turn.taken', 'turn.provenance', ['invented']],
  ['turn.taken', 'turn.promptTokens', [-1, 0.5]],
  ['turn.failed', 'index', [-1, 0.5]],
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
  ['phase.completed', 'hash', [7]],
  ['phase.completed', 'output', [null]],
  ['run.completed', 'policy', ['', 7]],
];

test('a field of the wrong kind is named with its type, however deep it lies', () => {
  for (const [type, field, values] of wrong) {
    for (const value of values) {
      const event = structuredClone(all.find((sample) => sample.type === type)!) as Record<string, unknown>;
      const path = field.split('.');
      let holder = event;
      for (const step of path.slice(0, -1)) holder = holder[step] as Record<string, unknown>;
      holder[path.at(-1)!] = value;
      const message = refusalOf(event);
      assert.ok(message.startsWith(`${kindOf(type)} ${type}: field ${field}: `), `${value}: ${message}`);
      assert.match(message, /: .+\.$/);
    }
  }
});

test('a type that nobody knows is refused by its name', () => {
  for (const type of ['turn.forgotten', 'toString', '', 7, null]) {
    const message = refusalOf({ type, ...id });
    assert.is(message, `Message type ${JSON.stringify(type)} is not one the bus knows.`);
  }
  for (const value of [null, undefined, 7, 'turn.taken', {}]) {
    assert.is(refusalOf(value), 'Message type undefined is not one the bus knows.');
  }
});

test('the bus knows the messages of dialogues and no event of the run', () => {
  for (const event of all) {
    const isMessage = event.type in messages;
    assert.is(isDialogueMessage(event as never), isMessage, event.type);
    if (isMessage) continue;
    assert.throws(
      () => parseMessage(event),
      (error: OptimaError) => error.message === `Message type "${event.type}" is not one the bus knows.`,
    );
  }
});

test.run();
