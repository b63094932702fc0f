// The trainer's statechart: order of phases, and every way a run can end.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { createActor, fromPromise, initialTransition, SimulatedClock, toPromise, transition } from 'xstate';
import { OptimaError } from '../../src/domain/errors.ts';
import type { PhaseKind, PhaseOutput, PhaseOutputOf } from '../../src/domain/events.ts';
import type { PolicyHash } from '../../src/domain/ids.ts';
import {
  type PhaseInput,
  type PlannedPhase,
  type TrainerInput,
  trainerMachine,
} from '../../src/machines/index.ts';

const policy = { bob: 'ab' as PolicyHash };
const metrics: PhaseOutputOf<'evaluate'>['metrics'] = {
  taskScore: 0.5,
  taskScoreInterval: [0, 1],
  exactMatch: 0.5,
  tokens: 30,
  medianTokens: 30,
  p95Tokens: 30,
  shortestRight: null,
  agreement: 1,
  turns: 2,
  n: 2,
  failed: 0,
};
const outputs: { readonly [Kind in PhaseKind]: PhaseOutputOf<Kind> } = {
  generate: { kind: 'generate', dialogues: 4, failed: 0, sampledTokens: 80 },
  rank: {
    kind: 'rank',
    ranked: 4,
    failed: 0,
    meanReward: 0.5,
    meanLoss: 0.7,
    metrics,
    edgeCases: { emptyMessage: 0, repetition: 0, cappedMessage: 0, turnCap: 0 },
  },
  select: { kind: 'select', kept: 2, threshold: 0.4 },
  search: {
    kind: 'search',
    trees: 2,
    dialogues: 6,
    failed: 0,
    merged: 1,
    normaliser: 50,
    meanReward: 0.5,
    meanLoss: 0.7,
    metrics,
    edgeCases: { emptyMessage: 0, repetition: 0, cappedMessage: 0, turnCap: 0 },
    klToBase: 0.1,
    sampledTokens: 90,
  },
  pair: { kind: 'pair', kept: 2, found: 4, meanGap: 0.3 },
  train: { kind: 'train', steps: 3, loss: 1.5, figures: {}, warnings: [], policy },
  evaluate: { kind: 'evaluate', policy, metrics },
};
const kinds = ['generate', 'rank', 'select', 'train', 'evaluate'] as const;

/** What else a phase is told is not the trainer's to read. */
const planned = (kind: PhaseKind, name: string, iteration: number | null) =>
  ({ kind, name, iteration }) as PlannedPhase;
const iterationOf = (index: number, name: string) =>
  kinds.map((kind) => planned(kind, `${name}/${kind}`, index));
const base = planned('evaluate', 'base', null);
const trained = planned('evaluate', 'trained', null);
const plan = [base, ...iterationOf(0, 'init-0'), ...iterationOf(1, 'isft-1'), trained];
const input: TrainerInput = { plan };
const names = plan.map(({ name }) => name);

/** Runs the machine with an actor that notes its calls; `act` may throw, hang or give another output. */
function run(given: TrainerInput, act: (name: string, signal: AbortSignal) => unknown = () => null) {
  const calls: string[] = [];
  const told: PlannedPhase[] = [];
  const clock = new SimulatedClock();
  const carryOut = fromPromise<PhaseOutput, PhaseInput>(async ({ input: { phase }, signal }) => {
    calls.push(phase.name);
    told.push(phase);
    return ((await act(phase.name, signal)) as PhaseOutput | null) ?? outputs[phase.kind];
  });
  const machine = trainerMachine.provide({ actors: { carryOut } });
  const actor = createActor(machine, { input: given, clock });
  const output = toPromise(actor);
  actor.start();
  return { actor, calls, told, clock, output };
}

const done = (actorId: string, output: PhaseOutput) =>
  ({ type: `xstate.done.actor.${actorId}`, actorId, output }) as never;

test('each phase leads to the next one of the plan', () => {
  let [state] = initialTransition(trainerMachine, input);
  const visited: unknown[] = [[state.value, state.context.position]];
  for (const { kind } of plan) {
    [state] = transition(trainerMachine, state, done('carryOut', outputs[kind]));
    visited.push([state.value, state.context.position]);
  }
  const last = plan.length;
  assert.equal(visited, [...plan.map((_, position) => ['carryingOut', position]), ['finished', last]]);
  assert.is(state.status, 'done');
  assert.equal(state.output, { status: 'finished', error: null });
});

test('what a phase rejects with decides how the run ends', () => {
  const [first] = initialTransition(trainerMachine, input);
  const endOf = (error: unknown) =>
    transition(trainerMachine, first, {
      type: 'xstate.error.actor.carryOut',
      actorId: 'carryOut',
      error,
    } as never)[0];
  assert.is(endOf(new Error('x')).value, 'failed');
  assert.is(endOf(new OptimaError('io.write', 'x')).value, 'failed');
  assert.is(endOf(new OptimaError('interrupted', 'x')).value, 'interrupted');
});

test('the done event of another actor moves nothing', () => {
  const [first] = initialTransition(trainerMachine, input);
  const [state] = transition(trainerMachine, first, done('train', outputs.train));
  assert.is(state.value, 'carryingOut');
  assert.is(state.context.position, 0);
});

test('a run carries out every phase of its plan once, and tells each what the plan says', async () => {
  const { calls, told, output } = run(input);
  assert.equal(await output, { status: 'finished', error: null });
  assert.equal(calls, names);
  for (const [index, phase] of told.entries()) assert.is(phase, plan[index]);
});

test('a phase begins when the one before it has ended, not before', async () => {
  let end!: () => void;
  const held = new Promise<void>((resolve) => {
    end = resolve;
  });
  const { calls, output } = run(input, (name) => (name === 'init-0/rank' ? held : null));
  for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
  assert.equal(calls, names.slice(0, 3));
  end();
  await output;
  assert.equal(calls, names);
});

test('the numbers of iterations are names, not places', async () => {
  const later = [...iterationOf(4, 'isft-4'), ...iterationOf(7, 'isft-7'), trained];
  const whole = run({ plan: later });
  await whole.output;
  assert.equal(
    whole.calls,
    later.map(({ name }) => name),
  );
  const empty = { ...outputs.select, kept: 0, threshold: null };
  const { calls, output } = run({ plan: later }, (name) => (name === 'isft-4/select' ? empty : null));
  assert.is((await output).status, 'finished');
  assert.equal(calls, ['isft-4/generate', 'isft-4/rank', 'isft-4/select', 'trained']);
});

test('a selection that keeps a single trajectory goes on', async () => {
  const one = { ...outputs.select, kept: 1, threshold: 0 };
  const { calls, output } = run(input, (name) => (name.endsWith('select') ? one : null));
  await output;
  assert.equal(calls, names);
});

for (const iteration of ['init-0', 'isft-1']) {
  test(`${iteration}: a selection that keeps nothing ends the iterations, and what comes after them is carried out`, async () => {
    const empty = { ...outputs.select, kept: 0, threshold: null };
    const selection = `${iteration}/select`;
    const { calls, output } = run(input, (name) => (name === selection ? empty : null));
    assert.equal(await output, { status: 'finished', error: null });
    assert.equal(calls, [...names.slice(0, names.indexOf(selection) + 1), 'trained']);
  });
}

test('a choice of pairs that keeps none of its own goes on where there are pairs of forks, and only there', async () => {
  const paired = [base, planned('pair', 'idpo-1/pair', 1), planned('train', 'idpo-1/train', 1), trained];
  for (const [forks, expected] of [
    [undefined, ['base', 'idpo-1/pair', 'trained']],
    [0, ['base', 'idpo-1/pair', 'trained']],
    [2, ['base', 'idpo-1/pair', 'idpo-1/train', 'trained']],
  ] as const) {
    const none = {
      kind: 'pair' as const,
      kept: 0,
      ...(forks !== undefined && { forks }),
      found: 0,
      meanGap: 0,
    };
    const { calls, output } = run({ plan: paired }, (name) => (name === 'idpo-1/pair' ? none : null));
    assert.is((await output).status, 'finished');
    assert.equal(calls, expected, `${forks}`);
  }
});

test('a selection that keeps nothing ends a run with nothing behind its iterations', async () => {
  const empty = { ...outputs.select, kept: 0, threshold: null };
  const { actor, calls, output } = run({ plan: plan.slice(0, -1) }, (name) =>
    name === 'init-0/select' ? empty : null,
  );
  assert.is((await output).status, 'finished');
  assert.is(calls.at(-1), 'init-0/select');
  assert.is(actor.getSnapshot().context.position, plan.length - 1);
});

test('a selection that keeps nothing outside of the iterations leads to the next phase outside of them', async () => {
  const empty = { ...outputs.select, kept: 0, threshold: null };
  const odd = [planned('select', 'early', null), ...iterationOf(0, 'init-0'), base, trained];
  const { calls, output } = run({ plan: odd }, (name) => (name === 'early' ? empty : null));
  await output;
  assert.equal(calls, ['early', 'base', 'trained']);
});

test('a run without phases is finished at once', async () => {
  const { calls, output } = run({ plan: [] });
  assert.equal(await output, { status: 'finished', error: null });
  assert.equal(calls, []);
});

for (const { name } of [base, ...iterationOf(1, 'isft-1'), trained]) {
  const before = names.slice(0, names.indexOf(name));

  test(`${name} that throws fails the run with what it threw, and one that was interrupted interrupts it`, async () => {
    for (const [error, status] of [
      [new Error('no disk'), 'failed'],
      [new OptimaError('io.write', 'No space left.'), 'failed'],
      [new OptimaError('interrupted', 'Stopped by SIGINT.'), 'interrupted'],
    ] as const) {
      const { actor, calls, output } = run(input, (call) => {
        if (call === name) throw error;
        return null;
      });
      const result = await output;
      assert.is(result.status, status);
      assert.is(actor.getSnapshot().value, status);
      assert.is(result.error, error);
      assert.equal(calls, [...before, name]);
    }
  });

  test(`${name} that hangs is aborted and fails the run after its time-out`, async () => {
    let hanging!: () => void;
    const hangs = new Promise<void>((resolve) => {
      hanging = resolve;
    });
    let aborted = false;
    const { calls, clock, output } = run({ ...input, phaseTimeoutMs: 1000 }, (call, signal) => {
      if (call !== name) return null;
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
    const { status, error } = await output;
    assert.is(status, 'failed');
    assert.instance(error, OptimaError);
    assert.is((error as OptimaError).code, 'timeout');
    assert.is((error as OptimaError).message, `Phase ${name} took more than 1000 ms.`);
    assert.is((error as OptimaError).hint, 'Resume the run: it continues at this phase.');
    assert.equal(calls, [...before, name]);
    assert.ok(aborted);
  });
}

test('each phase has the whole time for itself', async () => {
  const ends = new Map<string, () => void>();
  const { clock, calls, output } = run({ plan: plan.slice(0, 3), phaseTimeoutMs: 1000 }, (name) => {
    return new Promise<void>((resolve) => ends.set(name, resolve));
  });
  for (const name of names.slice(0, 3)) {
    assert.is(calls.at(-1), name);
    clock.increment(999);
    ends.get(name)!();
    await new Promise((resolve) => setImmediate(resolve));
  }
  assert.is((await output).status, 'finished');
});

test('an actor that was not provided is named', async () => {
  const actor = createActor(trainerMachine, { input });
  const output = toPromise(actor);
  actor.start();
  const result = await output;
  assert.is(result.status, 'failed');
  assert.is((result.error as Error).message, 'Actor "carryOut" was not provided.');
});

test('a phase may take 24 days, as long as a timer can wait', async () => {
  let aborted = false;
  const { clock, output } = run(input, (_, signal) => {
    signal.addEventListener('abort', () => {
      aborted = true;
    });
    return new Promise(() => {});
  });
  clock.increment(2 ** 31 - 2);
  assert.not.ok(aborted);
  clock.increment(1);
  assert.is((await output).status, 'failed');
  assert.ok(aborted);
});

test('pairs of which none is kept end the iterations, too', async () => {
  const none = { ...outputs.pair, kept: 0 };
  const odd = [base, planned('pair', 'idpo-1/pair', 1), planned('train', 'idpo-1/train', 1), trained];
  const { calls, output } = run({ plan: odd }, (name) => (name === 'idpo-1/pair' ? none : null));
  assert.equal(await output, { status: 'finished', error: null });
  assert.equal(calls, ['base', 'idpo-1/pair', 'trained']);
  const kept = run({ plan: odd });
  await kept.output;
  assert.equal(kept.calls, ['base', 'idpo-1/pair', 'idpo-1/train', 'trained']);
});

test.run();
