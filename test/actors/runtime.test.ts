// Whole dialogues through real actors: outcomes, failures, interruption, determinism, scale, no leaks.
import { getEventListeners } from 'node:events';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import {
  cohortsOf,
  type DialogueOptions,
  everyRole,
  foldDialogues,
  runCohort,
  runDialogues,
} from '../../src/actors/index.ts';
import { OptimaError } from '../../src/domain/errors.ts';
import type { PolicyHash } from '../../src/domain/ids.ts';
import { type DialogueMessage, parseMessage } from '../../src/domain/messages.ts';
import type { GenerationRequest, LanguageModel } from '../../src/domain/model.ts';
import { createRng } from '../../src/domain/rng.ts';
import type { Trajectory } from '../../src/domain/transcript.ts';
import { scriptedModel } from '../../src/models/scripted/index.ts';
import type { Scenario } from '../../src/scenario/index.ts';
import { chatter, solveWordPair, type WordPair, wordPairEpisodes, wordPairs } from '../support/scenarios.ts';

const solver = scriptedModel({ reply: solveWordPair, logprob: -1 / 3 });

function options(overrides: Partial<DialogueOptions> & { model?: LanguageModel } = {}): DialogueOptions {
  const { model = solver, scenario = wordPairs(), ...rest } = overrides;
  return {
    scenario,
    speakers: everyRole(scenario, model),
    sampling: { temperature: 0.7, topP: 1, topK: 0, maxTokens: 32 },
    rng: createRng(1),
    ...rest,
  };
}

async function hold(count: number, overrides: Parameters<typeof options>[0] = {}) {
  const messages: DialogueMessage[] = [];
  const trajectories: Trajectory[] = [];
  const sink = (message: DialogueMessage) => void messages.push(message);
  for await (const trajectory of runDialogues(wordPairEpisodes(count), options({ sink, ...overrides }))) {
    trajectories.push(trajectory);
  }
  return { messages, trajectories };
}

async function rejection(promise: Promise<unknown>): Promise<unknown> {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  return assert.unreachable('resolved');
}

/** A model whose `generate` is replaced. */
const modelWith = (generate: LanguageModel['generate']): LanguageModel => ({ ...solver, generate });

test('a team that agrees solves its task in three turns', async () => {
  const { messages, trajectories } = await hold(1);
  assert.equal(
    messages.map((message) => message.type),
    [
      'dialogue.opened',
      ...['turn.requested', 'turn.taken', 'turn.requested', 'turn.taken', 'turn.requested', 'turn.taken'],
      'dialogue.closed',
      'verdict.given',
    ],
  );
  const [{ turns, outcome, verdict }] = trajectories as [Trajectory];
  assert.equal(
    turns.map(({ speaker, text }) => `${speaker}: ${text}`),
    ['alice: mine is oak', 'bob: <A>oak elm</A>', 'alice: <A>oak elm</A>'],
  );
  assert.is(outcome, 'agreed');
  assert.equal(verdict, { taskScore: 1, exactMatch: true, answer: 'oak elm' });
});

test('each cohort talks through one session of each model', async () => {
  const sessions: string[][] = [];
  const model: LanguageModel = {
    ...modelWith(async () => assert.unreachable('the model itself was called') as never),
    openSession() {
      const asked: string[] = [];
      sessions.push(asked);
      const session = modelWith((requests, options) => {
        asked.push(...requests.map(({ id }) => id));
        return solver.generate(requests, options);
      });
      return { ...session, close: () => asked.push('closed') };
    },
  };
  const { trajectories } = await hold(5, { model, concurrency: 3 });
  assert.ok(trajectories.every(({ outcome }) => outcome === 'agreed'));
  assert.equal(
    sessions.map((asked) => asked.length),
    [3 * 3 + 1, 2 * 3 + 1],
  );
  assert.ok(sessions.every((asked) => asked.at(-1) === 'closed'));
});

test('a turn records where it came from and hangs on the turn before it', async () => {
  const { trajectories } = await hold(1);
  const [first, second] = trajectories[0]!.turns;
  assert.is(first!.parent, null);
  assert.is(second!.parent, first!.id);
  assert.is(second!.id, 'test/train-00000/0#1');
  assert.is(second!.policyHash, 'scripted');
  assert.is(second!.provenance, 'sampled');
  assert.is(second!.seed, createRng(1).split('test/train-00000/0').split(1).seed32());
  assert.equal(second!.logprobs, [-0.333333, -0.333333, -0.333333]);
  assert.is(second!.promptTokens, 5);
});

test('a model is asked with the view, the sampling and the seed of the turn', async () => {
  const asked: GenerationRequest[] = [];
  const model = modelWith((requests, call) => {
    asked.push(...requests);
    return solver.generate(requests, call);
  });
  const { sampling } = options();
  const { trajectories } = await hold(1, { model });
  const { turns, views } = trajectories[0]!;
  const [, second] = asked;
  assert.equal(second, {
    id: 'test/train-00000/0#1',
    messages: [
      { role: 'system', content: views.bob },
      { role: 'user', content: turns[0]!.text },
    ],
    sampling,
    seed: turns[1]!.seed,
  });
  assert.equal(
    asked.map(({ id, seed }) => [id, seed]),
    turns.map(({ id, seed }) => [id, seed]),
  );
});

test('a log-probability that rounds to nothing is 0, never the -0 that JSON loses', async () => {
  const model = scriptedModel({ reply: solveWordPair, logprob: -1e-9 });
  const { trajectories } = await hold(1, { model });
  assert.ok(Object.is(trajectories[0]!.turns[0]!.logprobs[0], 0));
});

test('a team that never agrees ends at the cap and is judged all the same', async () => {
  const { trajectories } = await hold(2, { model: scriptedModel({ reply: chatter }) });
  for (const { outcome, turns, verdict } of trajectories) {
    assert.is(outcome, 'turn-cap');
    assert.is(turns.length, 8);
    assert.equal(verdict, { taskScore: 0, exactMatch: false, answer: null });
  }
});

test('a model that fails fails the dialogues of its call, with the reason', async () => {
  const model = scriptedModel({
    reply: (request) => {
      if (request.id.endsWith('#1')) throw new Error('server gone');
      return chatter(request);
    },
  });
  const { messages, trajectories } = await hold(2, { model });
  for (const { outcome, failure, turns, verdict } of trajectories) {
    assert.is(outcome, 'failed');
    assert.match(failure!, /Turn 1 of bob failed: .*server gone/);
    assert.is(turns.length, 1);
    assert.is(verdict, null);
  }
  assert.is(messages.filter(({ type }) => type === 'turn.failed').length, 2);
  assert.is(messages.filter(({ type }) => type.startsWith('verdict')).length, 0);
});

test('one model’s failure leaves the dialogues of another model alone', async () => {
  const scenario = wordPairs();
  const broken = modelWith(async () => {
    throw new Error('down');
  });
  // Bob fails from his first turn on; a dialogue that agreed before has no such turn.
  const protocol = { ...scenario.protocol, next: () => 'alice', agreed: () => true };
  const speakers = { ...everyRole(scenario, solver), bob: { model: broken, provenance: 'sampled' as const } };
  const one = await runCohort(wordPairEpisodes(2), options({ scenario, speakers }));
  assert.equal(
    one.map(({ outcome, turns }) => [outcome, turns.length]),
    [
      ['failed', 1],
      ['failed', 1],
    ],
  );
  const two = await runCohort(wordPairEpisodes(2), options({ scenario: wordPairs({ protocol }), speakers }));
  assert.equal(
    two.map(({ outcome }) => outcome),
    ['agreed', 'agreed'],
  );
});

test('a model that answers nonsense fails the dialogue, not the run', async () => {
  const nonsense = [
    { text: 7 },
    { logprobs: [Number.NaN] },
    { tokenIds: [-1] },
    { finish: 'maybe' },
  ] as const;
  for (const part of nonsense) {
    const model = modelWith(async (requests) => {
      const generations = await solver.generate(requests);
      return generations.map((generation) => ({ ...generation, ...part }) as never);
    });
    const { trajectories } = await hold(1, { model });
    assert.is(trajectories[0]!.outcome, 'failed');
    assert.match(trajectories[0]!.failure!, 'Message turn.taken: field turn.');
  }
});

test('a metric that throws fails its dialogue and no other', async () => {
  const scenario: Scenario<WordPair> = wordPairs({
    answers: (task) => {
      if (task.left === 'elm') throw new Error('no key');
      return [`${task.left} ${task.right}`];
    },
  });
  const { messages, trajectories } = await hold(3, { scenario });
  assert.equal(
    trajectories.map(({ outcome }) => outcome),
    ['agreed', 'failed', 'agreed'],
  );
  assert.match(trajectories[1]!.failure!, 'Scenario "word-pairs": metric exact-match threw: no key');
  assert.is(messages.filter(({ type }) => type === 'verdict.failed').length, 1);
});

test('code of the scenario cannot rewrite what was said', async () => {
  const { protocol } = wordPairs();
  const agreed = ((turns: { text: string }[]) => {
    turns.at(-1)!.text = 'I said nothing';
    return false;
  }) as unknown as typeof protocol.agreed;
  const scenario = wordPairs({ protocol: { ...protocol, agreed } });
  const { messages, trajectories } = await hold(1, { scenario });
  assert.is(trajectories[0]!.outcome, 'failed');
  assert.match(trajectories[0]!.failure!, 'Protocol failed at turn 1');
  assert.equal(trajectories, foldDialogues(JSON.parse(JSON.stringify(messages))));
});

test('a view that cannot be dealt fails its dialogue', async () => {
  const roles = {
    ...wordPairs().roles,
    bob: { sees: (task: WordPair) => `word: ${task.left.at(9)!.at(0)}` },
  };
  const { trajectories } = await hold(1, { scenario: wordPairs({ roles }) });
  assert.is(trajectories[0]!.outcome, 'failed');
  assert.match(trajectories[0]!.failure!, 'Dealing the views failed');
});

test('a model that hangs is aborted and times its dialogues out', async () => {
  let aborted = false;
  const model = modelWith(
    (_, call) =>
      new Promise(() => {
        call!.signal!.addEventListener('abort', () => {
          aborted = true;
        });
      }),
  );
  const { trajectories } = await hold(2, { model, turnTimeoutMs: 20 });
  for (const { outcome, failure } of trajectories) {
    assert.is(outcome, 'failed');
    assert.is(failure, 'Turn 0 of alice failed: No message within 20 ms.');
  }
  assert.ok(aborted);
});

test('an abort interrupts the run at once and aborts the model’s call', async () => {
  const controller = new AbortController();
  let calls = 0;
  let callAborted = false;
  const model = modelWith((requests, call) => {
    if (++calls < 2) return solver.generate(requests);
    call!.signal!.addEventListener('abort', () => {
      callAborted = true;
    });
    setImmediate(() => controller.abort());
    return new Promise(() => {});
  });
  const messages: DialogueMessage[] = [];
  const sink = (message: DialogueMessage) => void messages.push(message);
  const error = await rejection(
    runCohort(wordPairEpisodes(3), options({ model, sink, signal: controller.signal })),
  );
  assert.is((error as OptimaError).code, 'interrupted');
  assert.ok(callAborted);
  assert.is(calls, 2);
  const recorded = messages.length;
  for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
  assert.is(messages.length, recorded);
  assert.not.ok(messages.some(({ type }) => type === 'turn.failed' || type === 'dialogue.closed'));
  assert.equal(getEventListeners(controller.signal, 'abort'), []);
});

test('a run that is aborted before it begins calls no model', async () => {
  const model = modelWith(() => assert.unreachable() as never);
  const error = await rejection(
    runCohort(wordPairEpisodes(1), options({ model, signal: AbortSignal.abort() })),
  );
  assert.is((error as OptimaError).code, 'interrupted');
});

test('a sink that throws ends the run with what it threw', async () => {
  for (const limit of [1, 2, 5, 9]) {
    const full = new OptimaError('io.write', 'No space left.');
    let written = 0;
    const sink = () => {
      if (++written === limit) throw full;
    };
    const { signal } = new AbortController();
    assert.is(await rejection(runCohort(wordPairEpisodes(3), options({ sink, signal }))), full);
    assert.is(written, limit);
    assert.equal(getEventListeners(signal, 'abort'), []);
  }
});

test('no dialogue is begun any more when the first one’s sink has thrown', async () => {
  let dealt = 0;
  const { roles } = wordPairs();
  const sees = (task: WordPair) => {
    dealt++;
    return `word: ${task.left}`;
  };
  const scenario = wordPairs({ roles: { ...roles, alice: { sees } } });
  const sink = () => {
    throw new OptimaError('io.write', 'No space left.');
  };
  await rejection(runCohort(wordPairEpisodes(3), options({ scenario, sink })));
  assert.is(dealt, 1);
});

test('a role without a speaker, and two dialogues of one name, are refused', async () => {
  const { bob: _, ...speakers } = everyRole(wordPairs(), solver);
  const nobody = await rejection(runCohort(wordPairEpisodes(1), options({ speakers })));
  assert.match((nobody as Error).message, 'nobody speaks for role "bob"');
  const twice = await rejection(runCohort([...wordPairEpisodes(1), ...wordPairEpisodes(1)], options()));
  assert.match((twice as Error).message, 'are called test/train-00000/0');
});

test('a person may speak for a role', async () => {
  const scenario = wordPairs();
  const person = scriptedModel({ reply: () => '<A>oak elm</A>', hash: 'human' });
  const speakers = { ...everyRole(scenario, solver), bob: { model: person, provenance: 'human' as const } };
  const [trajectory] = await runCohort(wordPairEpisodes(1), options({ scenario, speakers }));
  assert.equal(
    trajectory!.turns.map(({ provenance, policyHash }) => [provenance, policyHash]),
    [
      ['sampled', 'scripted'],
      ['human', 'human' as PolicyHash],
      ['sampled', 'scripted'],
    ],
  );
});

/** A model whose words depend on the seed of each request, and whose answers take their time. */
const seeded = modelWith(async (requests) => {
  for (let turn = 0; turn < requests.length % 3; turn++)
    await new Promise((resolve) => setImmediate(resolve));
  const reply = ({ id, seed, messages }: GenerationRequest) =>
    seed % 3 === 0 ? solveWordPair({ messages }) : chatter({ id });
  return scriptedModel({ reply }).generate(requests);
});

test('the same seed gives the same messages in the same order', async () => {
  const first = await hold(30, { model: seeded, concurrency: 7 });
  const second = await hold(30, { model: seeded, concurrency: 7 });
  assert.is(JSON.stringify(first.messages), JSON.stringify(second.messages));
  assert.equal(first.trajectories, second.trajectories);
  const other = await hold(30, { model: seeded, concurrency: 7, rng: createRng(2) });
  assert.is.not(JSON.stringify(first.messages), JSON.stringify(other.messages));
});

test('a cohort held alone, as a resumed run holds it, gives the same messages', async () => {
  const whole = await hold(20, { model: seeded, concurrency: 8 });
  const messages: DialogueMessage[] = [];
  const [, second] = cohortsOf(wordPairEpisodes(20), 8);
  await runCohort(
    second!,
    options({ model: seeded, concurrency: 8, sink: (message) => void messages.push(message) }),
  );
  const ids = new Set(second!.map(({ id }) => id));
  assert.equal(
    messages,
    whole.messages.filter(({ dialogueId }) => ids.has(dialogueId)),
  );
});

test('the trajectories are a fold of the log as it is written', async () => {
  const { messages, trajectories } = await hold(12, { model: seeded });
  const log = messages.map((message) => JSON.stringify(message)).join('\n');
  const read = log.split('\n').map((line) => parseMessage(JSON.parse(line)));
  assert.equal(foldDialogues(read), trajectories);
});

test('a call of a model may take ten minutes', async () => {
  const { setTimeout: original } = globalThis;
  const delays: (number | undefined)[] = [];
  globalThis.setTimeout = ((run: () => void, delay?: number) => {
    delays.push(delay);
    return original(run, delay);
  }) as typeof setTimeout;
  try {
    await hold(1);
    await hold(1, { turnTimeoutMs: 5000 });
  } finally {
    globalThis.setTimeout = original;
  }
  // One call for each of the three turns.
  assert.equal(delays, [600_000, 600_000, 600_000, 5000, 5000, 5000]);
});

test('without episodes there is nothing to wait for', async () => {
  assert.equal(await runCohort([], options()), []);
  assert.equal((await hold(0)).trajectories, []);
});

test('cohorts keep the order and leave no episode out', () => {
  const episodes = wordPairEpisodes(10);
  const cohorts = cohortsOf(episodes, 4);
  assert.equal(
    cohorts.map((cohort) => cohort.length),
    [4, 4, 2],
  );
  assert.equal(cohorts.flat(), episodes);
  assert.equal(cohortsOf([], 4), []);
});

test('three hundred dialogues run in cohorts, one batch per round', async () => {
  const sizes: number[] = [];
  const model = modelWith((requests) => {
    sizes.push(requests.length);
    return solver.generate(requests);
  });
  const controller = new AbortController();
  const { messages, trajectories } = await hold(300, { model, signal: controller.signal });
  assert.equal(sizes, [96, 96, 96, 96, 96, 96, 96, 96, 96, 12, 12, 12]);
  assert.is(trajectories.length, 300);
  assert.ok(trajectories.every(({ outcome }) => outcome === 'agreed'));
  assert.equal(
    trajectories.map(({ id }) => id),
    wordPairEpisodes(300).map(({ id }) => id),
  );
  assert.is(messages.length, 300 * 9);
  assert.equal(getEventListeners(controller.signal, 'abort'), []);
});

test.run();
