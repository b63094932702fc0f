// Whole dialogues through real actors: outcomes, failures, interruption, determinism, scale, no leaks.
import { getEventListeners } from 'node:events';
import { lastValueFrom, tap, toArray } from 'rxjs';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type CohortOptions, type Episode, everyRole, runCohort } from '../../src/actors/index.ts';
import { chunk } from '../../src/domain/chunk.ts';
import { Forest } from '../../src/domain/conversation-tree.ts';
import { OptimaError } from '../../src/domain/errors.ts';
import { childId, type NodeId, type PolicyHash } from '../../src/domain/ids.ts';
import { type DialogueMessage, parseMessage } from '../../src/domain/messages.ts';
import type { GenerationRequest, LanguageModel } from '../../src/domain/model.ts';
import { createRng, hash32 } from '../../src/domain/rng.ts';
import type { Trajectory, Turn } from '../../src/domain/transcript.ts';
import { scriptedModel } from '../../src/models/scripted/index.ts';
import { trajectoriesOf } from '../../src/rollouts/executor.ts';
import type { Metric, Scenario } from '../../src/scenario/index.ts';
import {
  chatter,
  refusing,
  solveWordPair,
  type WordPair,
  wordPairEpisodes,
  wordPairs,
} from '../support/scenarios.ts';

const solver = scriptedModel({ reply: solveWordPair, logprob: -1 / 3 });

type Overrides = Partial<CohortOptions> & { readonly model?: LanguageModel };

function options({ model = solver, scenario = wordPairs(), ...rest }: Overrides = {}): CohortOptions {
  return {
    scenario,
    cast: everyRole(scenario, model),
    sampling: { temperature: 0.7, topP: 1, topK: 0, maxTokens: 32 },
    rng: createRng(1),
    ...rest,
  };
}

/** Holds episodes in cohorts, one after the other: what each said, and the dialogues of all. */
async function holdAll(episodes: readonly Episode[], overrides: Overrides & { readonly size?: number } = {}) {
  const { size = 96, ...rest } = overrides;
  const cohorts: DialogueMessage[][] = [];
  const trajectories: Trajectory[] = [];
  for (const cohort of chunk(episodes, size)) {
    const messages: DialogueMessage[] = [];
    cohorts.push(messages);
    const forest = new Forest();
    for (const { tree, taskId, history = [] } of cohort) forest.plant(tree, taskId, history);
    const heard = runCohort(cohort, options(rest)).pipe(tap((message) => messages.push(message)));
    await heard.forEach((message) => {
      forest.hear(message);
    });
    trajectories.push(...forest.trajectories());
  }
  return { cohorts, messages: cohorts.flat(), trajectories };
}
const hold = (count: number, overrides: Parameters<typeof holdAll>[1] = {}) =>
  holdAll(wordPairEpisodes(count), overrides);

async function rejection(promise: Promise<unknown>): Promise<unknown> {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  return assert.unreachable('resolved');
}

/** What a cohort that errors said before, and its error; what it says afterwards fails the test. */
async function broken(count: number, overrides: Overrides) {
  const messages: DialogueMessage[] = [];
  let over = false;
  const heard = runCohort(wordPairEpisodes(count), options(overrides)).forEach((message) => {
    assert.not.ok(over);
    messages.push(message);
  });
  const error = (await rejection(heard)) as OptimaError;
  over = true;
  await settle();
  return { messages, error };
}

/** Enough turns of the event loop for anything that is due. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
}

/** A model whose `generate` is replaced. */
const modelWith = (generate: LanguageModel['generate']): LanguageModel => ({ ...solver, generate });

test('a team that agrees solves its task in three turns', async () => {
  const { messages, trajectories } = await hold(1);
  assert.equal(
    messages.map((message) => message.type),
    [
      ...['task.dealt', 'dialogue.opened'],
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
  const { trajectories } = await hold(5, { model, size: 3 });
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
  assert.is(first!.id, 'test/train-00000.0');
  assert.is(first!.parent, 'test/train-00000');
  assert.is(second!.parent, first!.id);
  assert.is(second!.id, 'test/train-00000.0.0');
  assert.is(second!.policyHash, 'scripted');
  assert.is(second!.provenance, 'sampled');
  assert.is(first!.seed, createRng(1).split('test/train-00000.0').seed32());
  assert.is(second!.seed, createRng(1).split('test/train-00000.0.0').seed32());
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
    id: 'test/train-00000.0.0',
    messages: [
      { role: 'system', content: views.bob! },
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

test('a request that its model refuses fails its dialogue, with the reason, and the others go on', async () => {
  const model = refusing(solver, (id) => id === 'test/train-00001.0.0' && `${id} is too long.`);
  const { messages, trajectories } = await hold(3, { model });
  assert.equal(
    trajectories.map(({ outcome }) => outcome),
    ['agreed', 'failed', 'agreed'],
  );
  const { failure, turns, verdict } = trajectories[1]!;
  assert.is(failure, 'Turn 1 of bob failed: test/train-00001.0.0 is too long.');
  assert.is(turns.length, 1);
  assert.is(verdict, null);
  assert.is(messages.filter(({ type }) => type === 'turn.failed').length, 1);
  assert.is(messages.filter(({ type }) => type.startsWith('verdict')).length, 2);
});

test('a model that fails ends all dialogues with its error, and nothing of it is said', async () => {
  const down = new Error('server gone');
  const full = new OptimaError('checkpoint.missing', 'There is no checkpoint.');
  for (const [thrown, code, message] of [
    [down, 'model.failed', 'Model scripted failed: server gone'],
    [full, 'checkpoint.missing', 'There is no checkpoint.'],
  ] as const) {
    const model = modelWith(async (requests, options) => {
      if (requests[0]!.id.endsWith('.0.0')) throw thrown;
      return solver.generate(requests, options);
    });
    const { error, messages } = await broken(2, { model });
    assert.is(error.code, code);
    assert.is(error.message, message);
    assert.is(error.cause, thrown === down ? down : undefined);
    assert.equal(
      messages.slice(-4).map(({ type }) => type),
      ['turn.taken', 'turn.requested', 'turn.taken', 'turn.requested'],
    );
  }
});

test('one model’s failure ends the dialogues of another model, too; one that is never asked ends none', async () => {
  const scenario = wordPairs();
  const down = modelWith(async () => {
    throw new Error('down');
  });
  const cast = { ...everyRole(scenario, solver), bob: { model: down, provenance: 'sampled' as const } };
  assert.is((await broken(2, { scenario, cast })).error.message, 'Model scripted failed: down');
  const protocol = { ...scenario.protocol, next: () => 'alice', agreed: () => true };
  const { trajectories } = await hold(2, { scenario: wordPairs({ protocol }), cast });
  assert.equal(
    trajectories.map(({ outcome }) => outcome),
    ['agreed', 'agreed'],
  );
});

test('a model that answers nonsense has failed: nothing of it is said', async () => {
  const nonsense: [unknown, string][] = [
    [{ text: 7 }, 'Event turn.taken: field turn.'],
    [{ logprobs: [Number.NaN] }, 'Event turn.taken: field turn.'],
    [{ tokenIds: [-1] }, 'Event turn.taken: field turn.'],
    [{ finish: 'maybe' }, 'Event turn.taken: field turn.'],
    [null, 'gave null for request test/train-00001.0.'],
  ];
  for (const [part, reason] of nonsense) {
    const model = modelWith(async (requests) => {
      const generations = await solver.generate(requests);
      return generations.map((generation, row) =>
        row === 0 ? generation : part === null ? (null as never) : { ...generation, ...(part as object) },
      );
    });
    const { error, messages } = await broken(2, { model });
    assert.match(error.message, reason);
    assert.is(messages.filter(({ type }) => type === 'dialogue.closed').length, 0);
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
  const forest = new Forest();
  for (const message of JSON.parse(JSON.stringify(messages))) forest.hear(message);
  assert.equal(trajectories, forest.trajectories());
});

test('nor can its metric, what the environment said after it included', async () => {
  const rewrite = (turns: readonly object[]) => {
    for (const turn of turns) Object.assign(turn, { text: 'I said nothing' });
    return 1;
  };
  for (const environment of [undefined, { respond: () => 'noted' }]) {
    const metric: Metric = {
      name: 'rewriting',
      score: (_answer, _answers, { turns }) => rewrite(turns),
    };
    const scenario = wordPairs({ metric, ...(environment && { environment }) });
    const { trajectories } = await hold(1, { scenario });
    assert.match(trajectories[0]!.failure!, 'read only');
    for (const { text } of trajectories[0]!.turns) assert.is.not(text, 'I said nothing');
  }
});

test('a view that cannot be dealt fails its dialogue', async () => {
  const roles = {
    ...wordPairs().roles,
    bob: { sees: (task: WordPair) => `word: ${task.left.at(9)!.at(0)}` },
  };
  const { messages, trajectories } = await hold(1, { scenario: wordPairs({ roles }) });
  assert.equal(
    messages.map(({ type }) => type),
    ['dialogue.opened', 'dialogue.closed'],
  );
  assert.is(trajectories[0]!.outcome, 'failed');
  assert.match(trajectories[0]!.failure!, 'Dealing the views failed');
  assert.equal(trajectories[0]!.views, {});
});

test('a model that hangs is aborted, and has failed', async () => {
  let aborted = false;
  const model = modelWith(
    (_, call) =>
      new Promise(() => {
        call!.signal!.addEventListener('abort', () => {
          aborted = true;
        });
      }),
  );
  const { error, messages } = await broken(2, { model, turnTimeoutMs: 20 });
  assert.is(error.code, 'model.failed');
  assert.is(error.message, 'Model scripted gave no message within 20 ms.');
  assert.ok(aborted);
  assert.is(messages.at(-1)!.type, 'turn.requested');
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
  const { signal } = controller;
  const error = await rejection(
    runCohort(wordPairEpisodes(3), options({ model, signal })).forEach(
      (message) => void messages.push(message),
    ),
  );
  assert.is((error as OptimaError).code, 'interrupted');
  assert.is((error as OptimaError).message, 'The dialogues were interrupted.');
  assert.ok(callAborted);
  assert.is(calls, 2);
  const recorded = messages.length;
  await settle();
  assert.is(messages.length, recorded);
  assert.not.ok(messages.some(({ type }) => type === 'turn.failed' || type === 'dialogue.closed'));
  assert.equal(getEventListeners(signal, 'abort'), []);
});

test('who unsubscribes stops the dialogues, and the calls of their models', async () => {
  let signal: AbortSignal | undefined;
  const model = modelWith((_, call) => {
    signal = call!.signal;
    return new Promise(() => {});
  });
  const controller = new AbortController();
  const messages: DialogueMessage[] = [];
  const ends: unknown[] = [];
  const subscription = runCohort(
    wordPairEpisodes(2),
    options({ model, signal: controller.signal }),
  ).subscribe({
    next: (message) => messages.push(message),
    error: (error) => ends.push(error),
    complete: () => ends.push('complete'),
  });
  assert.not.ok(signal!.aborted);
  assert.is(getEventListeners(controller.signal, 'abort').length, 1);
  const said = messages.length;
  subscription.unsubscribe();
  assert.ok(signal!.aborted);
  assert.equal(getEventListeners(controller.signal, 'abort'), []);
  await settle();
  controller.abort();
  assert.is(messages.length, said);
  assert.equal(ends, []);
});

test('dialogues begin when somebody subscribes, and are held anew for each who does', async () => {
  let dealt = 0;
  const { roles } = wordPairs();
  const sees = (task: WordPair) => {
    dealt++;
    return `word: ${task.left}`;
  };
  const scenario = wordPairs({ roles: { ...roles, alice: { sees } } });
  const messages$ = runCohort(wordPairEpisodes(1), options({ scenario }));
  assert.is(dealt, 0);
  assert.equal(await trajectoriesOf(messages$), await trajectoriesOf(messages$));
  assert.is(dealt, 2);
});

test('a run that is aborted before it begins calls no model', async () => {
  const model = modelWith(() => assert.unreachable() as never);
  const messages$ = runCohort(wordPairEpisodes(1), options({ model, signal: AbortSignal.abort() }));
  const error = await rejection(messages$.forEach(() => void assert.unreachable()));
  assert.is((error as OptimaError).code, 'interrupted');
});

test('a listener that throws ends the run with what it threw', async () => {
  for (const limit of [1, 2, 5, 9]) {
    const full = new OptimaError('io.write', 'No space left.');
    let written = 0;
    const write = () => {
      if (++written === limit) throw full;
    };
    const { signal } = new AbortController();
    const messages$ = () => runCohort(wordPairEpisodes(3), options({ signal }));
    assert.is(await rejection(messages$().forEach(write)), full);
    assert.is(written, limit);
    assert.equal(getEventListeners(signal, 'abort'), []);
    written = 0;
    assert.is(await rejection(trajectoriesOf(messages$().pipe(tap(write)))), full);
    await settle();
    assert.is(written, limit);
    assert.equal(getEventListeners(signal, 'abort'), []);
  }
});

test('no dialogue is begun any more when the first one’s listener has thrown', async () => {
  let dealt = 0;
  const { roles } = wordPairs();
  const sees = (task: WordPair) => {
    dealt++;
    return `word: ${task.left}`;
  };
  const scenario = wordPairs({ roles: { ...roles, alice: { sees } } });
  const full = new OptimaError('io.write', 'No space left.');
  const messages$ = runCohort(wordPairEpisodes(3), options({ scenario }));
  const write = () => {
    throw full;
  };
  assert.is(await rejection(messages$.forEach(write)), full);
  assert.is(dealt, 1);
});

test('a role without a speaker, and two dialogues of one name, are refused', async () => {
  const { bob: _, ...cast } = everyRole(wordPairs(), solver);
  const nobody = (await rejection(hold(1, { cast }))) as OptimaError;
  assert.is(nobody.code, 'usage');
  assert.is(nobody.message, 'Scenario "word-pairs": nobody speaks for role "bob".');
  const twice = await rejection(holdAll([...wordPairEpisodes(1), ...wordPairEpisodes(1)]));
  assert.is((twice as OptimaError).code, 'usage');
  assert.is((twice as Error).message, 'Two dialogues of one cohort are called test/train-00000.0.');
});

test('a person may speak for a role', async () => {
  const scenario = wordPairs();
  const person = scriptedModel({ reply: () => '<A>oak elm</A>', hash: 'human' });
  const cast = { ...everyRole(scenario, solver), bob: { model: person, provenance: 'human' as const } };
  const { trajectories } = await hold(1, { scenario, cast });
  assert.equal(
    trajectories[0]!.turns.map(({ provenance, policyHash }) => [provenance, policyHash]),
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
  const first = await hold(30, { model: seeded, size: 7 });
  const second = await hold(30, { model: seeded, size: 7 });
  assert.is(JSON.stringify(first.messages), JSON.stringify(second.messages));
  assert.equal(first.trajectories, second.trajectories);
  const other = await hold(30, { model: seeded, size: 7, rng: createRng(2) });
  assert.is.not(JSON.stringify(first.messages), JSON.stringify(other.messages));
});

test('a cohort held alone, as a resumed run holds it, gives the same messages', async () => {
  const whole = await hold(20, { model: seeded, size: 8 });
  const [, second] = chunk(wordPairEpisodes(20), 8);
  const alone = await holdAll(second!, { model: seeded });
  assert.equal(alone.messages, whole.cohorts[1]);
  assert.equal(alone.trajectories, whole.trajectories.slice(8, 16));
});

test('the trajectories are a fold of the log as it is written', async () => {
  const { messages, trajectories } = await hold(12, { model: seeded });
  const log = messages.map((message) => JSON.stringify(message)).join('\n');
  const forest = new Forest();
  for (const line of log.split('\n')) forest.hear(parseMessage(JSON.parse(line)));
  assert.equal(forest.trajectories(), trajectories);
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
  const model: LanguageModel = { ...solver, openSession: () => assert.unreachable() as never };
  assert.equal(await trajectoriesOf(runCohort([], options({ model }))), []);
  assert.equal((await hold(0)).trajectories, []);
  // Unless the cast is wrong, which is said all the same.
  const error = await rejection(trajectoriesOf(runCohort([], options({ cast: {} }))));
  assert.is((error as OptimaError).code, 'usage');
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
  assert.is(messages.length, 300 * 10);
  assert.equal(getEventListeners(controller.signal, 'abort'), []);
});

/** Says what follows from seed, id and messages of each request, and from nothing else. Some turns state an answer. */
const oracle = modelWith(async (requests) =>
  requests.map(({ id, seed, messages, sampling }) => {
    const draw = createRng(JSON.stringify([id, seed, messages, sampling]));
    const words = Array.from({ length: 1 + draw.int(6) }, () => `w${draw.int(1000)}`);
    const text = draw.next() < 0.3 ? `<A>${words.join(' ')}</A>` : words.join(' ');
    const logprobs = words.map(() => -draw.next());
    const tokenIds = words.map((word) => 1 + (hash32(word) % 1000));
    return { text, tokenIds, logprobs, finish: 'stop', promptTokens: messages.length };
  }),
);

const format = { name: 'terse', prompt: 'Be terse.' };
const [plain] = wordPairEpisodes(1) as [Episode];
const { tree, taskId: theTask } = plain;
/** A dialogue from the root, of eight turns. */
const rooted: Episode = { ...plain, format };
const branchless = { ...wordPairs().protocol, agreed: () => false };
const endless = wordPairs({ protocol: branchless });

/** Goes on from the last turn of `history` as its branch `k`. */
const continuation = (history: readonly Turn[], k: number): Episode => ({
  ...rooted,
  id: childId(history.at(-1)!.id, k),
  history,
});
const branch = { model: oracle, scenario: endless };

test('a branch opened later draws what it would have drawn at once', async () => {
  const main = await holdAll([rooted], branch);
  const { turns } = main.trajectories[0]!;
  assert.is(turns.length, 8);
  for (const depth of [1, 2, 7]) {
    const history = structuredClone(turns.slice(0, depth));
    const before = structuredClone(history);
    const held = await Promise.all([0, 1, 2].map((k) => holdAll([continuation(history, k)], branch)));
    const branches = held.map(({ trajectories }) => trajectories[0]!);

    // Branch 0 is what the first dialogue said from there: ids, parents, seeds, words, log-probabilities.
    assert.equal(branches[0]!.turns, turns);
    const { id: _, ...rest } = branches[0]!;
    const { id: __, ...first } = main.trajectories[0]!;
    assert.equal(rest, first);
    assert.is(branches[0]!.id, turns[depth]!.id);
    const from = main.messages.findIndex(
      (message) => message.type === 'turn.requested' && message.nodeId === turns[depth]!.id,
    );
    const withoutName = (messages: readonly DialogueMessage[]) =>
      messages.map((message) => ({ ...message, dialogueId: null }));
    assert.equal(held[0]!.messages[0], main.messages[0]);
    assert.equal(held[0]!.messages[1], main.messages[1]);
    assert.equal(held[0]!.messages[2], {
      ...{ type: 'dialogue.opened', dialogueId: turns[depth]!.id, taskId: theTask, tree },
      ...{ parent: turns[depth - 1]!.id, format: 'terse' },
    });
    assert.equal(withoutName(held[0]!.messages.slice(3)), withoutName(main.messages.slice(from)));

    // Each other branch is what a dialogue from the root says that takes it on its way.
    for (const k of [1, 2]) {
      const way = [...Array(depth - 1).fill(0), k];
      const whole = await holdAll([{ ...rooted, branches: way }], branch);
      assert.equal(branches[k]!.turns, whole.trajectories[0]!.turns);
      assert.equal(branches[k]!.verdict, whole.trajectories[0]!.verdict);
      assert.is(branches[k]!.id, `${history.at(-1)!.id}.${k}`);
    }

    // Siblings share the way to their parent, and nothing behind it.
    for (let index = depth; index < 8; index++) {
      for (const part of ['id', 'seed', 'text'] as const) {
        assert.is(new Set(branches.map((one) => one.turns[index]![part])).size, 3, `${index} ${part}`);
      }
    }
    assert.equal(history, before);
  }
});

test('an own branch may be given for every turn, and where none is given it is the first', async () => {
  const { trajectories } = await holdAll([{ ...rooted, branches: [2, 0, 7] }], branch);
  const ids = ['.0', '.0.2', '.0.2.0', '.0.2.0.7', '.0.2.0.7.0', '.0.2.0.7.0.0'];
  assert.equal(
    trajectories[0]!.turns.slice(0, 6).map(({ id }) => id),
    ids.map((way) => `${tree}${way}`),
  );
  const history = trajectories[0]!.turns.slice(0, 2);
  const later = await holdAll([{ ...continuation(history, 4), branches: [3] }], branch);
  assert.equal(
    later.trajectories[0]!.turns.slice(2, 5).map(({ id }) => id),
    ['.0.2.4', '.0.2.4.3', '.0.2.4.3.0'].map((way) => `${tree}${way}`),
  );
});

test('branches are the same in one cohort or in several, and in any order', async () => {
  const { turns } = (await holdAll([rooted], branch)).trajectories[0]!;
  const history = turns.slice(0, 3);
  const episodes = [0, 1, 2].map((k) => continuation(history, k));
  const alone = await holdAll(episodes, { ...branch, size: 1 });
  for (const order of [
    [0, 1, 2],
    [2, 0, 1],
    [2, 1, 0],
  ]) {
    const shuffled = order.map((k) => episodes[k]!);
    for (const size of [1, 2, 3]) {
      const { trajectories } = await holdAll(shuffled, { ...branch, size });
      assert.equal(
        trajectories,
        order.map((k) => alone.trajectories[k]),
      );
    }
  }
});

test('branches of one tree at several nodes are held in one cohort, whichever comes first', async () => {
  const { turns } = (await holdAll([rooted], branch)).trajectories[0]!;
  const episodes: Episode[] = [
    { ...rooted, id: childId(tree, 1) },
    ...[1, 3, 6].map((depth) => continuation(turns.slice(0, depth), 1)),
  ];
  const alone = await holdAll(episodes, { ...branch, size: 1 });
  for (const order of [
    [3, 2, 1, 0],
    [0, 1, 2, 3],
    [1, 3, 0, 2],
  ]) {
    const shuffled = order.map((k) => episodes[k]!);
    const heard = await lastValueFrom(runCohort(shuffled, options(branch)).pipe(toArray()));
    for (const k of order) {
      const said = heard.flatMap((message) =>
        message.type === 'turn.taken' && message.dialogueId === episodes[k]!.id ? [message.turn] : [],
      );
      assert.equal(said, alone.trajectories[k]!.turns.slice(-said.length), order.join());
      assert.is(said.length, 8 - (episodes[k]!.history?.length ?? 0));
    }
  }
});

test('branches beside dialogues of other tasks say the same', async () => {
  const [, other] = wordPairEpisodes(2);
  const { turns } = (await holdAll([rooted], branch)).trajectories[0]!;
  const episodes = [0, 1].map((k) => continuation(turns.slice(0, 3), k));
  const alone = await holdAll(episodes, branch);
  const beside = await holdAll([other!, ...episodes], branch);
  assert.equal(beside.trajectories.slice(1), alone.trajectories);
});

test('another seed of the run is another branch', async () => {
  const { turns } = (await holdAll([rooted], branch)).trajectories[0]!;
  const episode = continuation(turns.slice(0, 2), 0);
  const other = await holdAll([episode], { ...branch, rng: createRng(2) });
  assert.equal(other.trajectories[0]!.turns.slice(0, 2), turns.slice(0, 2));
  assert.is(other.trajectories[0]!.turns[2]!.id, turns[2]!.id);
  assert.is.not(other.trajectories[0]!.turns[2]!.text, turns[2]!.text);
});

test('a branch reads what was said before it, each role as its own or as the others’, under its format', async () => {
  const { turns } = (await hold(1, { model: scriptedModel({ reply: chatter }) })).trajectories[0]!;
  const asked: GenerationRequest[] = [];
  const model = modelWith((requests, call) => {
    asked.push(...requests);
    return solver.generate(requests, call);
  });
  await holdAll([continuation(turns.slice(0, 2), 1)], { model, scenario: endless });
  assert.equal(asked[0]!.messages, [
    { role: 'system', content: 'word: oak\nBe terse.' },
    { role: 'assistant', content: turns[0]!.text, tokenIds: turns[0]!.tokenIds },
    { role: 'user', content: turns[1]!.text },
  ]);
  assert.equal(asked[1]!.messages.slice(0, 3), [
    { role: 'system', content: 'word: elm\nBe terse.' },
    { role: 'user', content: turns[0]!.text },
    { role: 'assistant', content: turns[1]!.text, tokenIds: turns[1]!.tokenIds },
  ]);
});

/** A dialogue from the root in which these texts are said, one after the other. */
async function say(...texts: string[]): Promise<readonly Turn[]> {
  const model = modelWith((requests) =>
    scriptedModel({ reply: ({ messages }) => texts[messages.length - 1]! }).generate(requests),
  );
  const protocol = { ...branchless, maxTurns: texts.length };
  return (await holdAll([plain], { model, scenario: wordPairs({ protocol }) })).trajectories[0]!.turns;
}

/** A branch in which nobody states an answer. */
const evasive = { model: scriptedModel({ reply: chatter }) };

test('the verdict on a branch counts what was said before it', async () => {
  const right = await holdAll([continuation(await say('hm', '<A>oak elm</A>'), 0)], evasive);
  assert.equal(right.trajectories[0]!.verdict, { taskScore: 1, exactMatch: true, answer: 'oak elm' });
  assert.is(right.trajectories[0]!.turns.length, 8);
  const wrong = await holdAll([continuation(await say('<A>oak elm</A>', '<A>elm</A>', 'hm'), 0)], evasive);
  assert.equal(wrong.trajectories[0]!.verdict, { taskScore: 0, exactMatch: false, answer: 'elm' });
});

test('agreement counts what was said before: one who repeats an answer of the history ends the branch', async () => {
  const history = await say('<A>oak elm</A>');
  const model = scriptedModel({ reply: () => '<A>oak elm</A>' });
  const { trajectories } = await holdAll([continuation(history, 1)], { model });
  assert.equal([trajectories[0]!.outcome, trajectories[0]!.turns.length], ['agreed', 2]);
});

/** Counts calls, and sessions that are open and were closed. */
function watched(answer: LanguageModel = solver) {
  const seen = { calls: 0, opened: 0, closed: 0 };
  const model: LanguageModel = {
    ...modelWith(() => assert.unreachable('the model itself was called') as never),
    openSession() {
      seen.opened++;
      const session = modelWith((requests, call) => {
        seen.calls++;
        return answer.generate(requests, call);
      });
      return { ...session, close: () => void seen.closed++ };
    },
  };
  return { model, seen };
}

test('a branch opened where the team agrees already closes at once, without a turn, and is judged', async () => {
  const history = await say('<A>oak elm</A>', '<A>oak elm</A>');
  const episode = continuation(history, 0);
  const { model, seen } = watched();
  const { messages, trajectories } = await holdAll([episode], { model });
  assert.equal(
    messages.map(({ type }) => type),
    ['task.dealt', 'format.dealt', 'dialogue.opened', 'dialogue.closed', 'verdict.given'],
  );
  assert.equal(trajectories, [
    {
      ...{ id: episode.id, taskId: theTask, format: 'terse', turns: history },
      ...{ views: { alice: 'word: oak', bob: 'word: elm' }, outcome: 'agreed', failure: null },
      verdict: { taskScore: 1, exactMatch: true, answer: 'oak elm' },
    },
  ]);
  assert.equal(seen, { calls: 0, opened: 1, closed: 1 });
});

test('a branch opened at the cap closes at once, without a turn, and is judged', async () => {
  const history = await say('hm', '<A>oak elm</A>', 'so', 'be', 'it', 'my', 'dear', 'friend');
  const { model, seen } = watched();
  const { messages, trajectories } = await holdAll([continuation(history, 2)], { model });
  assert.equal(
    messages.map(({ type }) => type),
    ['task.dealt', 'format.dealt', 'dialogue.opened', 'dialogue.closed', 'verdict.given'],
  );
  assert.equal([trajectories[0]!.outcome, trajectories[0]!.turns], ['turn-cap', history]);
  assert.is(trajectories[0]!.verdict!.answer, 'oak elm');
  assert.equal(seen, { calls: 0, opened: 1, closed: 1 });
});

test('a branch that closes at once holds up nobody, wherever it stands in its cohort', async () => {
  const history = await say('<A>oak elm</A>', '<A>oak elm</A>');
  const done = continuation(history, 0);
  const others = wordPairEpisodes(4).slice(1);
  for (const place of [0, 1, 3]) {
    const episodes = [...others.slice(0, place), done, ...others.slice(place)];
    const { model, seen } = watched();
    const { trajectories } = await holdAll(episodes, { model });
    assert.equal(
      trajectories.map(({ id, outcome }) => [id, outcome]),
      episodes.map(({ id }) => [id, 'agreed']),
    );
    assert.equal(seen, { calls: 3, opened: 1, closed: 1 });
  }
});

test('a view that cannot be dealt fails its branch, with what was said before and no turn more', async () => {
  const history = await say('hm', 'well');
  const { roles } = wordPairs();
  const sees = () => {
    throw new Error('boom');
  };
  const { model, seen } = watched();
  const scenario = wordPairs({ roles: { ...roles, bob: { sees } } });
  const { messages, trajectories } = await holdAll([continuation(history, 0)], { model, scenario });
  assert.equal(
    messages.map(({ type }) => type),
    ['dialogue.opened', 'dialogue.closed'],
  );
  const [{ outcome, failure, turns, views, verdict }] = trajectories as [Trajectory];
  assert.equal([outcome, failure], ['failed', 'Dealing the views failed: boom']);
  assert.equal([turns, views, verdict], [history, {}, null]);
  assert.equal(seen, { calls: 0, opened: 1, closed: 1 });
});

test('a branch over a turn that is there already ends the run: the log would be corrupt', async () => {
  const history = await say('hm', 'well');
  const { model, seen } = watched();
  const over: Episode = { ...continuation(history, 0), id: history[1]!.id as NodeId };
  const error = (await rejection(holdAll([over], { model }))) as OptimaError;
  assert.is(error.code, 'run.corrupt');
  assert.is(
    error.message,
    `Message turn.taken of dialogue ${over.id} is a turn ${over.id}, which is there already.`,
  );
  assert.equal(seen, { calls: 1, opened: 1, closed: 1 });
});

test('roles that share a model share its session; others have their own, and all are closed once', async () => {
  const [one, two] = [watched(), watched()];
  const sampled = (model: LanguageModel) => ({ model, provenance: 'sampled' as const });
  const scenario = wordPairs();
  await hold(3, { scenario, cast: { alice: sampled(one.model), bob: sampled(two.model) } });
  assert.equal(
    [one.seen, two.seen].map(({ opened, closed }) => [opened, closed]),
    [
      [1, 1],
      [1, 1],
    ],
  );
  assert.equal([one.seen.calls, two.seen.calls], [2, 1]);
  const shared = watched();
  await hold(3, { scenario, cast: { alice: sampled(shared.model), bob: sampled(shared.model) } });
  assert.equal(shared.seen, { calls: 3, opened: 1, closed: 1 });
});

test('a session is closed exactly once, however the cohort ends', async () => {
  const never = modelWith(() => new Promise(() => {}));
  const down = modelWith(() => Promise.reject(new Error('down')));
  const aborted = new AbortController();
  const endings: [string, LanguageModel, (held: ReturnType<typeof runCohort>) => unknown, AbortSignal?][] = [
    ['it completes', solver, (held) => trajectoriesOf(held)],
    ['its model fails', down, (held) => rejection(trajectoriesOf(held))],
    ['a listener throws', solver, (held) => rejection(held.forEach(() => void assert.unreachable('full')))],
    [
      'it is interrupted',
      never,
      (held) => {
        const error = rejection(trajectoriesOf(held));
        aborted.abort();
        return error;
      },
      aborted.signal,
    ],
    ['nobody listens any more', never, (held) => held.subscribe().unsubscribe()],
  ];
  for (const [name, answer, end, signal] of endings) {
    const { model, seen } = watched(answer);
    await end(runCohort(wordPairEpisodes(2), options({ model, signal })));
    await settle();
    assert.equal([seen.opened, seen.closed], [1, 1], name);
  }
});

test('no session is opened for a cohort that is not held', async () => {
  const { model, seen } = watched();
  const [episode] = wordPairEpisodes(1) as [Episode];
  await rejection(trajectoriesOf(runCohort([episode, episode], options({ model }))));
  await rejection(trajectoriesOf(runCohort([episode], options({ model, signal: AbortSignal.abort() }))));
  await trajectoriesOf(runCohort([], options({ model })));
  assert.equal(seen, { calls: 0, opened: 0, closed: 0 });
});

test.run();
