// The bus: validation, order under re-entrancy, and its end.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { createBus } from '../../src/actors/index.ts';
import { OptimaError } from '../../src/domain/errors.ts';
import type { DialogueMessage } from '../../src/domain/messages.ts';
import { closed, nodeAt, requested, taken } from '../support/machines.ts';

const code = (expected: string) => (error: unknown) =>
  error instanceof OptimaError && error.code === expected;

test('every subscriber hears every message in the order of publication', () => {
  const bus = createBus();
  const heard: [string, string][] = [];
  // The first subscriber answers from within the delivery.
  bus.messages$.subscribe((message) => {
    if (message.type !== 'turn.requested') return;
    heard.push(['first', message.nodeId]);
    const index = [0, 1, 2].find((at) => nodeAt(at) === message.nodeId);
    if (index !== undefined) bus.publish(requested(index + 1, 'bob'));
  });
  bus.messages$.subscribe((message) => {
    if (message.type === 'turn.requested') heard.push(['second', message.nodeId]);
  });
  bus.publish(requested(0, 'alice'));
  assert.equal(
    heard,
    [0, 1, 2, 3].flatMap((index) => [
      ['first', nodeAt(index)],
      ['second', nodeAt(index)],
    ]),
  );
});

test('a message of unknown type is refused', () => {
  const bus = createBus();
  assert.throws(() => bus.publish({ type: 'turn.stolen' } as never), code('message.invalid'));
  assert.throws(() => bus.publish({ type: 'constructor' } as never), code('message.invalid'));
});

test('a message with a bad field is refused and heard by nobody', () => {
  const bus = createBus();
  let heard = 0;
  bus.messages$.subscribe(() => heard++);
  const { turn, ...rest } = taken(0, 'alice', 'hi');
  const message = { ...rest, turn: { ...turn, logprobs: [Number.NEGATIVE_INFINITY] } };
  assert.throws(() => bus.publish(message), /turn\.logprobs\.0/);
  assert.is(heard, 0);
  bus.publish(taken(0, 'alice', 'hi'));
  assert.is(heard, 1);
});

test('completion ends the stream, and what comes later is refused', () => {
  const bus = createBus();
  let ended = false;
  bus.messages$.subscribe({ complete: () => (ended = true) });
  bus.complete();
  assert.ok(ended);
  assert.throws(
    () => bus.publish(closed('agreed')),
    (error: OptimaError) =>
      error.code === 'message.invalid' &&
      error.message === "Message dialogue.closed came after the dialogue's end.",
  );
});

test('a bus completed from within a delivery delivers nothing more', () => {
  const bus = createBus();
  const heard: DialogueMessage[] = [];
  bus.messages$.subscribe(() => {
    bus.publish(requested(1, 'bob'));
    bus.complete();
  });
  bus.messages$.subscribe((message) => heard.push(message));
  bus.publish(requested(0, 'alice'));
  assert.equal(heard, []);
});

test.run();
