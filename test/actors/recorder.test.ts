// The fold: messages of many dialogues, interleaved, back into trajectories.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { createBus, createRecorder, Dialogues, foldDialogues } from '../../src/actors/index.ts';
import { OptimaError } from '../../src/domain/errors.ts';
import type { DialogueId, TaskId } from '../../src/domain/ids.ts';
import type { DialogueMessage } from '../../src/domain/messages.ts';
import { closed, requested, taken, turnOf } from '../support/machines.ts';

const [a, b] = ['p/t/0', 'p/t/1'] as unknown as [DialogueId, DialogueId];
const views = { alice: 'A\nBe terse.', bob: 'B' };
const plainViews = { alice: 'A', bob: 'B' };

const opened = (dialogueId: DialogueId): DialogueMessage => ({
  type: 'dialogue.opened',
  dialogueId,
  taskId: 't' as TaskId,
  views,
  plainViews,
  format: 'terse',
});
const verdict = (dialogueId: DialogueId): DialogueMessage => ({
  type: 'verdict.given',
  dialogueId,
  taskScore: 0.5,
  exactMatch: false,
  answer: 'x',
});
const of = (dialogueId: DialogueId, message: DialogueMessage): DialogueMessage => ({
  ...message,
  dialogueId,
});

test('interleaved dialogues come out in the order in which they were opened', () => {
  const trajectories = foldDialogues([
    opened(a),
    opened(b),
    of(a, requested(0, 'alice')),
    of(a, taken(0, 'alice', 'hi')),
    of(b, taken(0, 'alice', 'ho')),
    of(b, closed('turn-cap')),
    verdict(b),
    of(a, closed('agreed')),
    verdict(a),
  ]);
  const common = { taskId: 't', views, plainViews, format: 'terse', failure: null };
  const given = { taskScore: 0.5, exactMatch: false, answer: 'x' };
  assert.equal(trajectories, [
    { id: a, ...common, turns: [turnOf(0, 'alice', 'hi')], outcome: 'agreed', verdict: given },
    { id: b, ...common, turns: [turnOf(0, 'alice', 'ho')], outcome: 'turn-cap', verdict: given },
  ]);
});

test('a dialogue under way, or not yet judged, is left out', () => {
  assert.equal(foldDialogues([opened(a), of(a, taken(0, 'alice', 'hi'))]), []);
  assert.equal(foldDialogues([opened(a), of(a, closed('agreed'))]), []);
});

test('a failed dialogue has a reason and no verdict', () => {
  const [trajectory] = foldDialogues([opened(a), of(a, closed('failed', 'no GPU'))]);
  assert.is(trajectory!.outcome, 'failed');
  assert.is(trajectory!.failure, 'no GPU');
  assert.is(trajectory!.verdict, null);
});

test('a failed verdict fails the dialogue', () => {
  const [trajectory] = foldDialogues([
    opened(a),
    of(a, closed('agreed')),
    { type: 'verdict.failed', dialogueId: a, reason: 'metric threw' },
  ]);
  assert.is(trajectory!.outcome, 'failed');
  assert.is(trajectory!.failure, 'metric threw');
  assert.is(trajectory!.verdict, null);
});

test('a dialogue that is opened again starts anew, behind those opened before', () => {
  const trajectories = foldDialogues([
    opened(a),
    of(a, taken(0, 'alice', 'lost')),
    opened(b),
    of(b, closed('agreed')),
    verdict(b),
    opened(a),
    of(a, taken(0, 'alice', 'kept')),
    of(a, closed('agreed')),
    verdict(a),
  ]);
  assert.equal(
    trajectories.map(({ id }) => id),
    [b, a],
  );
  assert.equal(
    trajectories[1]!.turns.map(({ text }) => text),
    ['kept'],
  );
});

test('a message without its opening is a corrupt log', () => {
  assert.throws(
    () => foldDialogues([closed('agreed')]),
    (error: OptimaError) => error.code === 'run.corrupt',
  );
});

test('a conversation under way is known as each role sees it', () => {
  const dialogues = new Dialogues();
  for (const message of [
    opened(a),
    opened(b),
    of(a, taken(0, 'alice', 'one two')),
    of(b, taken(0, 'alice', 'not this')),
    of(a, taken(1, 'bob', 'three')),
  ]) {
    dialogues.hear(message);
  }
  assert.equal(dialogues.turnsOf(a), [turnOf(0, 'alice', 'one two'), turnOf(1, 'bob', 'three')]);
  assert.equal(dialogues.viewOf(a, 'alice'), [
    { role: 'system', content: 'A\nBe terse.' },
    { role: 'assistant', content: 'one two', tokenIds: [3, 3] },
    { role: 'user', content: 'three' },
  ]);
  assert.equal(dialogues.viewOf(a, 'bob'), [
    { role: 'system', content: 'B' },
    { role: 'user', content: 'one two' },
    { role: 'assistant', content: 'three', tokenIds: [5] },
  ]);
});

test('a sink that throws stops the recorder and is reported once', () => {
  const bus = createBus();
  const failures: unknown[] = [];
  const full = new OptimaError('io.write', 'No space left.');
  let calls = 0;
  const recorder = createRecorder(
    () => {
      if (++calls === 2) throw full;
    },
    (error) => failures.push(error),
  );
  recorder.record(bus);
  bus.publish(opened(a));
  for (let index = 0; index < 4; index++) bus.publish(of(a, taken(index, 'alice', 'hi')));
  assert.is(calls, 2);
  assert.equal(failures, [full]);
  assert.equal(recorder.dialogues.turnsOf(a), []);
});

test.run();
