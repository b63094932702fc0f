// The trainer's statechart: order of phases, resume, and every way a run can end.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { createActor, fromPromise, initialTransition, SimulatedClock, toPromise, transition } from 'xstate';
import { OptimaError } from '../../src/domain/errors.ts';
import type { PolicyHash } from '../../src/domain/ids.ts';
import {
  type CompletedPhase,
  type PhaseInput,
  type PhaseName,
  type PhaseOutputs,
  phaseNames,
  type TrainerInput,
  trainerMachine,
} from '../../src/machines/index.ts';

const outputs: PhaseOutputs = {
  generate: { dialogues: 4, failed: 0 },
  rank: { ranked: 4, failed: 0, meanReward: 0.5 },
  select: { kept: 2, threshold: 0.4 },
  train: { steps: 3, loss: 1.5, policy: 'ab' as PolicyHash },
  evaluate: { tasks: 2, taskScore: 0.5, tokens: 30 },
};

const iterations = [
  { index: 0, kind: 'init' },
  { index: 1, kind: 'isft' },
] as const;

const input: TrainerInput = { iterations, completed: [], validate: true };

const completed = (iteration: number, phases: readonly PhaseName[]) =>
  phases.map((phase) => ({ iteration, phase, output: outputs[phase] }) as CompletedPhase);

/** Runs the machine with actors that note their calls; `act` may throw, hang or give another output. */
function run(given: TrainerInput, act: (call: string, signal: AbortSignal) => unknown = () => null) {
  const calls: string[] = [];
  const clock = new SimulatedClock();
  const phase = <P extends PhaseName>(name: P) =>
    fromPromise<PhaseOutputs[P], PhaseInput>(async ({ input, signal }) => {
      const call = `${input.iteration.kind}${input.iteration.index}.${name}`;
      calls.push(call);
      return ((await act(call, signal)) as PhaseOutputs[P] | null) ?? outputs[name];
    });
  const machine = trainerMachine.provide({
    actors: {
      generate: phase('generate'),
      rank: phase('rank'),
      select: phase('select'),
      train: phase('train'),
      evaluate: phase('evaluate'),
    },
  });
  const actor = createActor(machine, { input: given, clock });
  const output = toPromise(actor);
  actor.start();
  return { actor, calls, clock, output };
}

test('each phase leads to the next one', () => {
  let [state] = initialTransition(trainerMachine, input);
  const visited = [state.value];
  for (const phase of phaseNames) {
    [state] = transition(trainerMachine, state, {
      type: `xstate.done.actor.${phase}`,
      actorId: phase,
      output: outputs[phase],
    } as never);
    visited.push(state.value);
  }
  assert.equal(visited, ['generating', 'ranking', 'selecting', 'training', 'validating', 'generating']);
  assert.equal(state.context.completed, completed(0, phaseNames));
  assert.is(state.context.position, 1);
});

test('what a phase rejects with decides how the run ends', () => {
  const [first] = initialTransition(trainerMachine, input);
  const endOf = (error: unknown) =>
    transition(trainerMachine, first, {
      type: 'xstate.error.actor.generate',
      actorId: 'generate',
      error,
    })[0];
  assert.is(endOf(new Error('x')).value, 'failed');
  assert.is(endOf(new OptimaError('io.write', 'x')).value, 'failed');
  assert.is(endOf(new OptimaError('interrupted', 'x')).value, 'interrupted');
});

test('the done event of another phase moves nothing', () => {
  const [first] = initialTransition(trainerMachine, input);
  const [state] = transition(trainerMachine, first, {
    type: 'xstate.done.actor.train',
    actorId: 'train',
    output: outputs.train,
  });
  assert.is(state.value, 'generating');
  assert.equal(state.context.completed, []);
});

test('a run carries out every phase of every iteration once', async () => {
  const { calls, output } = run(input);
  const { status, completed: done } = await output;
  assert.is(status, 'finished');
  assert.equal(calls, [
    ...phaseNames.map((phase) => `init0.${phase}`),
    ...phaseNames.map((phase) => `isft1.${phase}`),
  ]);
  assert.equal(done, [...completed(0, phaseNames), ...completed(1, phaseNames)]);
});

test('a run without validation leaves evaluate out', async () => {
  const { calls, output } = run({ ...input, validate: false });
  assert.is((await output).status, 'finished');
  assert.not.ok(calls.some((call) => call.endsWith('evaluate')));
  assert.is(calls.length, 8);
});

test('a resumed run goes on at the first phase that is missing', async () => {
  for (let done = 0; done <= phaseNames.length * 2; done++) {
    const all = [...completed(0, phaseNames), ...completed(1, phaseNames)];
    const { calls, output } = run({ ...input, completed: all.slice(0, done) });
    const result = await output;
    assert.is(result.status, 'finished');
    assert.equal(result.completed, all);
    assert.is(calls.length, all.length - done);
  }
});

test('a resumed run without validation misses no evaluation', async () => {
  const phases = phaseNames.filter((phase) => phase !== 'evaluate');
  const resumed = run({ ...input, validate: false, completed: completed(0, phases) });
  assert.is((await resumed.output).status, 'finished');
  assert.equal(
    resumed.calls,
    phases.map((phase) => `isft1.${phase}`),
  );
});

test('iterations go by the index that they were given, also when resumed', async () => {
  const later = [
    { index: 4, kind: 'isft' },
    { index: 7, kind: 'isft' },
  ] as const;
  const first = run({ ...input, iterations: later });
  const all = [...completed(4, phaseNames), ...completed(7, phaseNames)];
  assert.equal((await first.output).completed, all);
  assert.is(first.calls[5], 'isft7.generate');
  const resumed = run({ ...input, iterations: later, completed: all.slice(0, 7) });
  assert.equal((await resumed.output).completed, all);
  assert.equal(resumed.calls, ['isft7.select', 'isft7.train', 'isft7.evaluate']);
});

test('an iteration that keeps a single trajectory goes on', async () => {
  const one = { kept: 1, threshold: 0 };
  const { calls, output } = run(input, (call) => (call.endsWith('select') ? one : null));
  const { completed: done } = await output;
  assert.is(calls.length, 10);
  const resumed = run({ ...input, completed: done.slice(0, 3) });
  await resumed.output;
  assert.is(resumed.calls.length, 7);
});

test('an iteration that keeps nothing ends the run, also when it is resumed', async () => {
  const empty = { kept: 0, threshold: null };
  const { calls, output } = run(input, (call) => (call === 'isft1.select' ? empty : null));
  const { status, error, completed: done } = await output;
  assert.is(status, 'finished');
  assert.is(error, null);
  assert.is(calls.at(-1), 'isft1.select');
  assert.equal(done.at(-1), { iteration: 1, phase: 'select', output: empty });

  const resumed = run({ ...input, completed: done });
  assert.is((await resumed.output).status, 'finished');
  assert.equal(resumed.calls, []);
});

test('a run without iterations is finished at once', async () => {
  assert.is((await run({ ...input, iterations: [] }).output).status, 'finished');
});

for (const phase of phaseNames) {
  const place = phaseNames.indexOf(phase);
  const before = [...completed(0, phaseNames), ...completed(1, phaseNames.slice(0, place))];

  test(`${phase} that throws fails the run with what it threw, and one that was interrupted interrupts it`, async () => {
    for (const [error, status] of [
      [new Error('no disk'), 'failed'],
      [new OptimaError('io.write', 'No space left.'), 'failed'],
      [new OptimaError('interrupted', 'Stopped by SIGINT.'), 'interrupted'],
    ] as const) {
      const { actor, calls, output } = run(input, (call) => {
        if (call === `isft1.${phase}`) throw error;
        return null;
      });
      const result = await output;
      assert.is(result.status, status);
      assert.is(actor.getSnapshot().value, status);
      assert.is(result.error, error);
      assert.is(calls.at(-1), `isft1.${phase}`);
      assert.equal(result.completed, before);
    }
  });

  test(`${phase} that hangs is aborted and fails the run after its time-out`, async () => {
    let hanging!: () => void;
    const hangs = new Promise<void>((resolve) => {
      hanging = resolve;
    });
    let aborted = false;
    const { clock, output } = run({ ...input, phaseTimeoutMs: 1000 }, (call, signal) => {
      if (call !== `isft1.${phase}`) return null;
      signal.addEventListener('abort', () => {
        aborted = true;
      });
      hanging();
      return new Promise(() => {});
    });
    await hangs;
    clock.increment(999);
    await new Promise((resolve) => setImmediate(resolve));
    assert.not.ok(aborted);
    clock.increment(1);
    const { status, error, completed: done } = await output;
    assert.is(status, 'failed');
    assert.instance(error, OptimaError);
    assert.is((error as OptimaError).code, 'timeout');
    assert.is((error as OptimaError).message, `Iteration 1: phase ${phase} took more than 1000 ms.`);
    assert.equal(done, before);
    assert.ok(aborted);
  });

  test(`${phase} that was not provided is named`, async () => {
    const actor = createActor(trainerMachine, {
      input: { ...input, completed: completed(0, phaseNames.slice(0, place)) },
    });
    const output = toPromise(actor);
    actor.start();
    const result = await output;
    assert.is(result.status, 'failed');
    assert.is((result.error as Error).message, `Actor "${phase}" was not provided.`);
  });
}

test('a phase may take a day', async () => {
  let aborted = false;
  const { clock, output } = run(input, (_, signal) => {
    signal.addEventListener('abort', () => {
      aborted = true;
    });
    return new Promise(() => {});
  });
  clock.increment(86_399_999);
  assert.not.ok(aborted);
  clock.increment(1);
  assert.is((await output).status, 'failed');
  assert.ok(aborted);
});

test.run();
