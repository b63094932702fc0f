// Rolling out: which dialogues there are, what is asked of the models, and in which order events come, side by side.
import { from, lastValueFrom, type Observable, tap, toArray } from 'rxjs';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { everyRole, runCohort } from '../../src/actors/index.ts';
import { chunk } from '../../src/domain/chunk.ts';
import { Forest } from '../../src/domain/conversation-tree.ts';
import { OptimaError } from '../../src/domain/errors.ts';
import { childId, rootId, taskId } from '../../src/domain/ids.ts';
import type { GenerationRequest, LanguageModel } from '../../src/domain/model.ts';
import { createRng } from '../../src/domain/rng.ts';
import { scriptedModel } from '../../src/models/scripted/index.ts';
import {
  castsOf,
  type EpisodesPlan,
  episodesOf,
  foldDialogues,
  type RolloutEvent,
  type RolloutPlan,
  rollOut,
  tellingEnds,
  trajectoriesOf,
} from '../../src/rollouts/executor.ts';
import type { FormatPrompt } from '../../src/scenario/index.ts';
import { chatter, refusing, solveWordPair, wordPairEpisodes, wordPairs } from '../support/scenarios.ts';

const words = ['oak', 'elm', 'fir', 'ash', 'yew', 'bay'];
const tasksOf = (count: number) =>
  Array.from({ length: count }, (_, index) => ({
    id: taskId('train', index),
    task: { left: words[index % 6]!, right: words[(index + 1) % 6]! },
  }));
const solver = scriptedModel({ reply: solveWordPair });
const talker = scriptedModel({ reply: chatter });
const rng = createRng(5);
const phase = 'init-0/generate';

const episodes = (change: Partial<EpisodesPlan> = {}) =>
  episodesOf({ phase, tasks: tasksOf(3), samplesPerTask: 1, formats: [], rng, ...change });

type Change = Partial<RolloutPlan> & { readonly models?: readonly LanguageModel[]; readonly count?: number };

/** Cohorts of two dialogues, three tasks unless told otherwise. */
function plan({ models = [solver], count = 3, scenario = wordPairs(), ...change }: Change = {}): RolloutPlan {
  return {
    phase,
    scenario,
    casts: castsOf(scenario, models),
    cohorts: chunk(episodes({ tasks: tasksOf(count) }), 2),
    temperature: 0.7,
    maxMessageTokens: 20,
    rng,
    ...change,
  };
}
const eventsOf = (change: Change = {}): Promise<RolloutEvent[]> =>
  lastValueFrom(rollOut(plan(change)).pipe(toArray()), { defaultValue: [] });
const dialoguesOf = (change: Change = {}) =>
  lastValueFrom(rollOut(plan(change)).pipe(foldDialogues(), toArray()));

/** The scripted model, with what it was asked. */
function listening(model: LanguageModel = solver) {
  const requests: GenerationRequest[] = [];
  const heard: LanguageModel = {
    ...model,
    generate(asked, options) {
      requests.push(...asked);
      return model.generate(asked, options);
    },
  };
  return { model: heard, requests };
}

/** Enough turns of the event loop for anything that is due. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
}

async function rejection(promise: Promise<unknown>): Promise<OptimaError> {
  try {
    await promise;
  } catch (error) {
    assert.instance(error, OptimaError);
    return error as OptimaError;
  }
  return assert.unreachable('resolved') as never;
}

test('every task has its samples, in order, as the first branches of its tree', () => {
  const tasks = tasksOf(2);
  assert.equal(
    [...episodes({ tasks, samplesPerTask: 3 })],
    tasks.flatMap(({ id, task }) =>
      [0, 1, 2].map((sample) => ({
        id: `init-0/generate/${id}.${sample}`,
        tree: `init-0/generate/${id}`,
        taskId: id,
        task,
        format: null,
      })),
    ),
  );
  assert.equal([...episodes({ tasks: [] })], []);
});

const formats: FormatPrompt[] = ['terse', 'table', 'code'].map((name) => ({ name, prompt: `As ${name}.` }));

test('each dialogue draws its format from its own generator, and every format occurs', () => {
  const drawn = [...episodes({ formats, tasks: tasksOf(4), samplesPerTask: 3 })];
  for (const { id, format } of drawn)
    assert.is(format, createRng(5).split('formats').split(id).pick(formats));
  const names = drawn.map(({ format }) => format!.name);
  assert.equal([...new Set(names)].sort(), ['code', 'table', 'terse']);
  assert.ok(new Set(names.slice(0, 3)).size > 1, 'samples of a task draw for themselves');
});

test('a format that was drawn is asked for, and is not in the views', async () => {
  const { model, requests } = listening();
  const cohorts = chunk(episodes({ formats, tasks: tasksOf(4), samplesPerTask: 2 }), 3);
  for (const { id, format, views } of await dialoguesOf({ models: [model], cohorts })) {
    const { prompt } = formats.find(({ name }) => name === format)!;
    assert.match(views.alice!, /^word: \w+$/);
    const first = requests.find((request) => request.id === id)!;
    assert.is(first.messages[0]!.content, `${views.alice}\n${prompt}`);
  }
});

test('dialogues come out cohort by cohort, each with its answer', async () => {
  const cohorts = chunk(episodes({ tasks: tasksOf(2), samplesPerTask: 3 }), 4);
  const dialogues = await dialoguesOf({ cohorts });
  assert.equal(
    dialogues.map(({ id, verdict }) => `${id}: ${verdict!.answer}`),
    [
      ...[0, 1, 2].map((sample) => `init-0/generate/train-00000.${sample}: oak elm`),
      ...[0, 1, 2].map((sample) => `init-0/generate/train-00001.${sample}: elm fir`),
    ],
  );
});

test('a turn is asked for with the plan’s sampling and the seed of its node', async () => {
  const { model, requests } = listening();
  await eventsOf({ models: [model], temperature: 0.3, maxMessageTokens: 17 });
  assert.is(requests.length, 9);
  for (const { id, sampling, seed } of requests) {
    assert.equal(sampling, { temperature: 0.3, topP: 1, topK: 0, maxTokens: 17 });
    assert.is(seed, createRng(5).split('nodes').split(id).seed32());
  }
  assert.is(new Set(requests.map(({ seed }) => seed)).size, 9);
});

test('no call of a model runs into a time-out that the clock of a slow machine could reach', async () => {
  const { setTimeout } = globalThis;
  const waits: unknown[] = [];
  globalThis.setTimeout = ((run: () => void, ms: number) => {
    waits.push(ms);
    return setTimeout(run, ms);
  }) as typeof setTimeout;
  try {
    await eventsOf({ count: 1 });
  } finally {
    globalThis.setTimeout = setTimeout;
  }
  assert.equal(waits, [2_147_483_647, 2_147_483_647, 2_147_483_647]);
});

test('a cohort’s messages are those that it says alone, and behind them stands that it is complete', async () => {
  const expected: RolloutEvent[] = [];
  for (const [index, cohort] of [...chunk(episodes({ tasks: tasksOf(5) }), 2)].entries()) {
    const scenario = wordPairs();
    const options = {
      scenario,
      cast: everyRole(scenario, solver),
      sampling: { temperature: 0.7, topP: 1, topK: 0, maxTokens: 20 },
      rng: createRng(5).split('nodes'),
    };
    expected.push(...(await lastValueFrom(runCohort(cohort, options).pipe(toArray()))));
    expected.push({ type: 'cohort.completed', phase, cohort: index });
  }
  assert.equal(await eventsOf({ count: 5 }), expected);
  assert.equal(await eventsOf({ count: 5, models: [solver, solver, solver] }), expected);
});

test('cohorts are counted on from the first', async () => {
  const numbers = (events: readonly RolloutEvent[]) =>
    events.flatMap((event) => (event.type === 'cohort.completed' ? [event.cohort] : []));
  assert.equal(numbers(await eventsOf({ count: 5 })), [0, 1, 2]);
  assert.equal(numbers(await eventsOf({ count: 5, first: 7 })), [7, 8, 9]);
});

test('without cohorts there is nothing, and no model is asked', async () => {
  const { model, requests } = listening();
  assert.equal(await eventsOf({ cohorts: [], models: [model] }), []);
  assert.equal(requests, []);
});

/** A model whose calls are answered when the test says so, with its sessions; `called` resolves with the next call. */
function controlled(model: LanguageModel = talker) {
  const calls: { ids: string; signal: AbortSignal; answer(): void; fail(error: unknown): void }[] = [];
  const sessions = { opened: 0, closed: 0 };
  let seen = 0;
  let wake = () => {};
  const session: LanguageModel = {
    ...model,
    generate: (requests, options) =>
      new Promise((resolve, reject) => {
        calls.push({
          ids: requests.map(({ id }) => id.match(/train-0000(\d)/)![1]).join(''),
          signal: options!.signal!,
          answer: () => void model.generate(requests).then(resolve, reject),
          fail: reject,
        });
        wake();
      }),
  };
  const controlledModel: LanguageModel = {
    ...model,
    generate: () => assert.unreachable('the model itself was called') as never,
    openSession() {
      sessions.opened++;
      return { ...session, close: () => void sessions.closed++ };
    },
  };
  const called = async () => {
    while (calls.length <= seen) {
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
    return calls[seen++]!;
  };
  return { model: controlledModel, calls, sessions, called };
}

/** One message a dialogue: a cohort is one call. */
const short = wordPairs({ protocol: { ...wordPairs().protocol, maxTurns: 1 } });

/** All that an observable says, in words: dialogues that open, by the number of their task, and cohorts that are complete. */
function told(events: Observable<RolloutEvent>) {
  const lines: string[] = [];
  const all: RolloutEvent[] = [];
  const subscription = events.pipe(tap((event) => all.push(event))).subscribe({
    next: (event) => {
      if (event.type === 'dialogue.opened') lines.push(event.taskId.slice(-1));
      if (event.type === 'cohort.completed') lines.push(`cohort ${event.cohort}`);
    },
    error: (error) => lines.push(`error: ${error.message}`),
    complete: () => lines.push('complete'),
  });
  return { lines, all, subscription };
}

test('cohorts side by side come one after the other, whichever ends first', async () => {
  const change = { scenario: short, count: 7 };
  const [x, y] = [controlled(), controlled()];
  const { lines, all } = told(rollOut(plan({ ...change, models: [x.model, y.model] })));
  const [slow, quick] = [await x.called(), await y.called()];
  assert.equal([slow.ids, quick.ids], ['01', '23']);
  assert.equal(lines, ['0', '1'], 'the first cohort is heard as it goes');
  quick.answer();
  const third = await y.called();
  assert.is(third.ids, '45');
  assert.equal(lines, ['0', '1'], 'the second cohort has ended, and waits for the first');
  slow.answer();
  const last = await x.called();
  assert.is(last.ids, '6');
  assert.equal(lines, ['0', '1', 'cohort 0', '2', '3', 'cohort 1', '4', '5']);
  last.answer();
  await settle();
  assert.is(lines.at(-1), '5', 'the last one has ended before the third');
  third.answer();
  await settle();
  assert.equal(lines.slice(7), ['5', 'cohort 2', '6', 'cohort 3', 'complete']);
  assert.equal(all, await eventsOf({ ...change, models: [talker] }));
});

test('several cohorts that waited come together', async () => {
  const lanes = [controlled(), controlled(), controlled()];
  const cohorts = chunk(episodes({ tasks: tasksOf(4) }), 1);
  cohorts.next();
  const change = { scenario: short, first: 1 };
  const { lines } = told(rollOut(plan({ ...change, cohorts, models: lanes.map(({ model }) => model) })));
  const calls = await Promise.all(lanes.map(({ called }) => called()));
  assert.equal(
    calls.map(({ ids }) => ids),
    ['1', '2', '3'],
  );
  for (const call of calls.slice(1).reverse()) call.answer();
  await settle();
  assert.equal(lines, ['1']);
  calls[0]!.answer();
  await settle();
  assert.equal(lines, ['1', 'cohort 1', '2', 'cohort 2', '3', 'cohort 3', 'complete']);
});

test('a cohort is asked for when a cast is free for it', async () => {
  const asked: number[] = [];
  function* cohorts() {
    for (const cohort of chunk(episodes({ tasks: tasksOf(5) }), 1)) {
      asked.push(asked.length);
      yield cohort;
    }
  }
  const [x, y] = [controlled(), controlled()];
  const { lines, subscription } = told(
    rollOut(plan({ scenario: short, cohorts: cohorts(), models: [x.model, y.model] })),
  );
  const first = await x.called();
  await settle();
  assert.equal(asked, [0, 1]);
  first.answer();
  await x.called();
  assert.equal(asked, [0, 1, 2]);
  assert.equal(
    [x, y].map(({ sessions }) => sessions.opened - sessions.closed),
    [1, 1],
  );
  assert.equal(lines, ['0', 'cohort 0', '1']);
  subscription.unsubscribe();
});

test('every cohort has one session of each model, closed before the next one’s is opened', async () => {
  const moves: string[] = [];
  const sessionOf = (name: string): LanguageModel => ({
    ...solver,
    generate: () => assert.unreachable('the model itself was called') as never,
    openSession() {
      moves.push(`open ${name}`);
      return {
        ...solver,
        generate: (requests, options) => {
          moves.push(`ask ${name}`);
          return solver.generate(requests, options);
        },
        close: () => void moves.push(`close ${name}`),
      };
    },
  });
  await eventsOf({ models: [sessionOf('x')], count: 3 });
  const cohort = ['open x', 'ask x', 'ask x', 'ask x', 'close x'];
  assert.equal(moves.splice(0), [...cohort, ...cohort]);
  const casts = castsOf(wordPairs(), [{ alice: sessionOf('a'), bob: sessionOf('b') }]);
  await eventsOf({ casts, count: 1 });
  assert.equal(moves, ['open a', 'open b', 'ask a', 'ask b', 'ask a', 'close a', 'close b']);
});

/** Two cohorts under way out of three, side by side; none has been answered. */
async function underWay(signal?: AbortSignal) {
  const lanes = [controlled(), controlled()] as const;
  const models = lanes.map(({ model }) => model);
  const rollout = rollOut(plan({ scenario: short, count: 6, models, signal }));
  return { lanes, rollout, calls: () => Promise.all(lanes.map(({ called }) => called())) };
}
type Lanes = Awaited<ReturnType<typeof underWay>>['lanes'];

/** Whether every call was aborted or answered, no cohort was begun anew, and each session was closed once. */
function assertAllEnded(lanes: Lanes, begun = [1, 1]): void {
  assert.equal(
    lanes.map(({ calls }) => calls.length),
    begun,
  );
  assert.equal(
    lanes.map(({ sessions }) => sessions),
    begun.map((count) => ({ opened: count, closed: count })),
  );
}

test('who unsubscribes stops all cohorts: the calls are aborted and the sessions closed', async () => {
  const { lanes, rollout, calls } = await underWay();
  const { lines, subscription } = told(rollout);
  const running = await calls();
  subscription.unsubscribe();
  assert.ok(running.every(({ signal }) => signal.aborted));
  for (const call of running) call.answer();
  await settle();
  assertAllEnded(lanes);
  assert.equal(lines, ['0', '1']);
});

test('who unsubscribes at the end of a cohort begins no other one', async () => {
  const { lanes, rollout, calls } = await underWay();
  const { lines, subscription } = told(
    rollout.pipe(
      tap((event) => {
        if (event.type === 'cohort.completed') subscription.unsubscribe();
      }),
    ),
  );
  const [first, second] = await calls();
  first!.answer();
  await settle();
  assert.ok(second!.signal.aborted);
  assert.not(first!.signal.aborted);
  assertAllEnded(lanes);
  assert.equal(lines, ['0', '1']);
});

for (const signal of [undefined, new AbortController().signal]) {
  const interruptible = signal === undefined ? '' : ', in a phase that can be interrupted';
  test(`a listener that throws aborts the other cohorts, and no further one is begun${interruptible}`, async () => {
    const { lanes, rollout, calls } = await underWay(signal);
    let full = false;
    const lost = rejection(
      rollout.forEach(() => {
        if (full) throw new OptimaError('io.write', 'No space left.');
      }),
    );
    const [failing, other] = await calls();
    full = true;
    failing!.answer();
    assert.is((await lost).code, 'io.write');
    await settle();
    assert.ok(other!.signal.aborted);
    assertAllEnded(lanes);
  });
}

test('an interruption ends all cohorts under way, once', async () => {
  const interrupt = new AbortController();
  const { lanes, rollout, calls } = await underWay(interrupt.signal);
  const { lines } = told(rollout);
  const running = await calls();
  interrupt.abort();
  assert.ok(running.every(({ signal }) => signal.aborted));
  await settle();
  assertAllEnded(lanes);
  assert.equal(lines, ['0', '1', 'error: The dialogues were interrupted.']);
});

test('an interruption before the first cohort opens no session', async () => {
  const { lanes, rollout } = await underWay(AbortSignal.abort());
  assert.is((await rejection(rollout.forEach(() => {}))).code, 'interrupted');
  assertAllEnded(lanes, [0, 0]);
});

test('a model that fails ends all cohorts, and no dialogue for it', async () => {
  const { lanes, rollout, calls } = await underWay();
  const { lines, all } = told(rollout);
  const [failing, other] = await calls();
  failing!.fail(new Error('down'));
  await settle();
  assert.ok(other!.signal.aborted);
  assertAllEnded(lanes);
  assert.equal(lines.slice(0, 2), ['0', '1']);
  assert.match(lines[2]!, /^error: Model \S+ failed: down$/);
  assert.not.ok(all.some(({ type }) => type === 'dialogue.closed'));
});

test('cohorts that cannot be given end those under way', async () => {
  const lanes = [controlled(), controlled()] as const;
  function* broken() {
    yield* chunk(episodes({ tasks: tasksOf(2) }), 2);
    throw new OptimaError('data.invalid', 'no more tasks');
  }
  const models = lanes.map(({ model }) => model);
  const { lines } = told(rollOut(plan({ scenario: short, cohorts: broken(), models })));
  assert.equal(lines, ['0', '1', 'error: no more tasks']);
  assert.ok(lanes[0].calls.every(({ signal }) => signal.aborted));
  assert.equal(lanes[0].sessions, { opened: 1, closed: 1 });
  assert.equal(lanes[1].sessions, { opened: 0, closed: 0 });
});

test('a cast is one model for every role, or one for each by its name', () => {
  const [one, two] = [listening().model, listening().model];
  const sampled = (model: LanguageModel) => ({ model, provenance: 'sampled' });
  const casts = castsOf(wordPairs(), [one, { alice: two, bob: one }]);
  assert.equal(
    casts.map((cast) => Object.entries(cast).map(([role, { provenance }]) => [role, provenance])),
    [
      [
        ['alice', 'sampled'],
        ['bob', 'sampled'],
      ],
      [
        ['alice', 'sampled'],
        ['bob', 'sampled'],
      ],
    ],
  );
  assert.equal(casts[0], everyRole(wordPairs(), one));
  assert.is(casts[0]!.alice!.model, one);
  assert.is(casts[0]!.bob!.model, one);
  assert.is(casts[1]!.alice!.model, two);
  assert.is(casts[1]!.bob!.model, one);
  assert.equal(casts[1]!.bob, sampled(one));
  assert.equal(castsOf(wordPairs(), []), []);
});

test('each role is spoken for by its own model', async () => {
  const [alice, bob] = [listening(), listening(scriptedModel({ reply: solveWordPair, hash: 'other' }))];
  const casts = castsOf(wordPairs(), [{ alice: alice.model, bob: bob.model }]);
  for (const { turns } of await dialoguesOf({ casts })) {
    assert.equal(
      turns.map(({ speaker, policyHash }) => [speaker, policyHash]),
      [
        ['alice', 'scripted'],
        ['bob', 'other'],
        ['alice', 'scripted'],
      ],
    );
  }
  assert.equal([alice.requests.length, bob.requests.length], [6, 3]);
});

test('dialogues are given when their cohort is complete, not before', async () => {
  const [x, y] = [controlled(), controlled()];
  const given: string[] = [];
  rollOut(plan({ scenario: short, count: 4, models: [x.model, y.model] }))
    .pipe(foldDialogues())
    .subscribe(({ taskId }) => given.push(taskId.slice(-1)));
  const [first, second] = [await x.called(), await y.called()];
  second.answer();
  await settle();
  assert.equal(given, []);
  first.answer();
  await settle();
  assert.equal(given, ['0', '1', '2', '3']);
});

test('dialogues are folded into the forest that is given', async () => {
  const views = { alice: 'long ago', bob: 'long ago' };
  const undealt = rollOut(plan({ count: 1 }));
  const events = (await lastValueFrom(undealt.pipe(toArray()))).filter(({ type }) => type !== 'task.dealt');
  const forest = new Forest({ dealOf: () => ({ views }), format: () => null, turnsBefore: () => [] });
  const dialogues = await lastValueFrom(from(events).pipe(foldDialogues(forest), toArray()));
  assert.equal(
    dialogues.map((dialogue) => dialogue.views),
    [views],
  );
});

test('a watcher hears of each dialogue that closed, counted on from those done before', async () => {
  let ends = 0;
  const failing = refusing(
    scriptedModel({ reply: solveWordPair }),
    (id) => id.includes('train-00002') && 'no words',
  );
  const models = [failing];
  const events = await lastValueFrom(
    rollOut(plan({ models })).pipe(
      tellingEnds(() => void ends++),
      toArray(),
    ),
  );
  assert.is(ends, 3, 'failed ones, too');
  assert.equal(events, await eventsOf({ models }), 'what passes is not changed');
});

test('the dialogues of one cohort come when it has ended; its errors come through', async () => {
  const scenario = wordPairs();
  const options = {
    scenario,
    cast: everyRole(scenario, solver),
    sampling: { temperature: 0.7, topP: 1, topK: 0, maxTokens: 20 },
    rng,
  };
  const dialogues = await trajectoriesOf(runCohort(wordPairEpisodes(2), options));
  assert.equal(
    dialogues.map(({ id, outcome }) => [id, outcome]),
    [0, 1].map((task) => [childId(rootId('test', taskId('train', task)), 0), 'agreed']),
  );
  const interrupted = runCohort(wordPairEpisodes(2), { ...options, signal: AbortSignal.abort() });
  assert.is((await rejection(trajectoriesOf(interrupted))).code, 'interrupted');
});

test.run();
