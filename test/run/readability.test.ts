// What the base model is asked about a dialogue, and at which turn each answer is put.
import { firstValueFrom, take, toArray } from 'rxjs';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { childId, type NodeId, type PolicyHash, rootId, taskId } from '../../src/domain/ids.ts';
import type { CallOptions, LanguageModel, ScoreRequest } from '../../src/domain/model.ts';
import type { Trajectory, Turn } from '../../src/domain/transcript.ts';
import { type ReadabilityOptions, type ScoredTrajectory, scoreTurns } from '../../src/run/readability.ts';

const tree = rootId('p', taskId('train', 0));

/** A dialogue of the texts given, `speaker: text` each; the k-th turn has k + 1 tokens of its own. */
function dialogue(sample: number, texts: readonly string[], change: Partial<Trajectory> = {}): Trajectory {
  const id = childId(tree, sample);
  const turns: Turn[] = [];
  let parent: NodeId = tree;
  for (const [index, text] of texts.entries()) {
    const node: NodeId = index === 0 ? id : childId(parent, 0);
    turns.push({
      id: node,
      parent,
      speaker: text.split(': ')[0]!,
      text: text.split(': ')[1]!,
      tokenIds: Array.from({ length: index + 1 }, (_, k) => 100 * sample + 10 * index + k + 1),
      logprobs: Array.from({ length: index + 1 }, () => -9),
      finish: 'stop',
      policyHash: 'talker' as PolicyHash,
      seed: 0,
      provenance: 'sampled',
      promptTokens: 1,
    });
    parent = node;
  }
  return {
    id,
    taskId: taskId('train', 0),
    views: { alice: 'A', bob: 'B', carol: 'C' },
    format: 'terse',
    turns,
    outcome: 'agreed',
    failure: null,
    verdict: { taskScore: 1, exactMatch: true, answer: 'x' },
    ...change,
  };
}

const failed = { verdict: null, outcome: 'failed', failure: 'no words' } as const;
/** What `base` makes of a dialogue. */
const scored = (trajectory: Trajectory): ScoredTrajectory => ({
  trajectory,
  turnLogprobs:
    trajectory.verdict === null ? [] : trajectory.turns.map(({ tokenIds }) => tokenIds.map((id) => -id)),
});
const samplesOf = (requests: readonly ScoreRequest[]) =>
  requests.map(({ id }) => id.slice('p/train-00000.'.length));
const all = (
  bases: Parameters<typeof scoreTurns>[0],
  trajectories: Iterable<Trajectory>,
  options: ReadabilityOptions,
) => firstValueFrom(scoreTurns(bases, trajectories, options).pipe(toArray()));

/** Gives each token its own id, negative: what is put where can be read off. */
function base(asked: (readonly ScoreRequest[])[] = [], options: (CallOptions | undefined)[] = []) {
  return {
    hash: 'base' as PolicyHash,
    generate: () => Promise.reject(new Error('The base does not talk.')),
    async score(requests, callOptions) {
      asked.push(requests);
      options.push(callOptions);
      return requests.map(({ messages }) =>
        messages
          .filter(({ role }) => role === 'assistant')
          .map(({ tokenIds = [] }) => tokenIds.map((id) => -id)),
      );
    },
  } satisfies LanguageModel;
}

/** As `base`, but a call ends when it is told to: the k-th call by `ends[k]`. */
function slowBase() {
  const asked: (readonly ScoreRequest[])[] = [];
  const options: (CallOptions | undefined)[] = [];
  const quick = base(asked, options);
  const ends: (() => void)[] = [];
  const score: LanguageModel['score'] = async (requests, callOptions) => {
    const result = quick.score(requests, callOptions);
    await new Promise<void>((resolve) => ends.push(resolve));
    return result;
  };
  return { model: { ...quick, score }, asked, options, ends };
}

/** Until all that can happen now has happened. */
const settled = () => new Promise((resolve) => setTimeout(resolve, 5));

test('each role’s turns are scored in its own plain view, and stand where they were said', async () => {
  const asked: (readonly ScoreRequest[])[] = [];
  const one = dialogue(0, ['alice: a', 'bob: b', 'bob: c', 'alice: d']);
  assert.equal(await all([base(asked)], [one], { batchSize: 8 }), [scored(one)]);
  const own = (content: string, index: number) => ({
    role: 'assistant' as const,
    content,
    tokenIds: one.turns[index]!.tokenIds,
  });
  const heard = (content: string) => ({ role: 'user' as const, content });
  assert.equal(asked, [
    [
      {
        id: `${one.id}:alice`,
        messages: [{ role: 'system', content: 'A' }, own('a', 0), heard('b'), heard('c'), own('d', 3)],
      },
      {
        id: `${one.id}:bob`,
        messages: [{ role: 'system', content: 'B' }, heard('a'), own('b', 1), own('c', 2), heard('d')],
      },
    ],
  ]);
});

test('a format prompt under which a dialogue was held is in none of its scored views', async () => {
  const asked: (readonly ScoreRequest[])[] = [];
  await all([base(asked)], [dialogue(0, ['alice: a', 'bob: b'], { format: 'terse' })], { batchSize: 1 });
  assert.equal(
    asked.flat().map(({ messages }) => messages[0]!.content),
    ['A', 'B'],
  );
});

test('dialogues are scored in batches, those without a verdict are passed on in their place without scores', async () => {
  const asked: (readonly ScoreRequest[])[] = [];
  const dialogues = [0, 1, 2, 3, 4, 5, 6].map((sample) =>
    dialogue(sample, ['bob: a', 'carol: b'], sample === 1 || sample === 6 ? failed : {}),
  );
  const scores = await all([base(asked)], dialogues, { batchSize: 2 });
  // Failed ones do not count: a batch has two dialogues that are scored.
  assert.equal(asked.map(samplesOf), [
    ['0:bob', '0:carol', '2:bob', '2:carol'],
    ['3:bob', '3:carol', '4:bob', '4:carol'],
    ['5:bob', '5:carol'],
  ]);
  assert.equal(scores, dialogues.map(scored));
  assert.ok(scores.every(({ trajectory }, index) => trajectory === dialogues[index]));
});

test('dialogues that all failed come through, and nothing comes of none', async () => {
  const dialogues = [0, 1, 2].map((sample) => dialogue(sample, sample === 0 ? [] : ['bob: a'], failed));
  assert.equal(await all([base()], dialogues, { batchSize: 1 }), dialogues.map(scored));
  assert.equal(await all([base()], [], { batchSize: 1 }), []);
});

test('batches are scored side by side where there are several models', async () => {
  const first: (readonly ScoreRequest[])[] = [];
  const second: (readonly ScoreRequest[])[] = [];
  const dialogues = [0, 1].map((sample) => dialogue(sample, ['alice: a']));
  await all([base(first), base(second)], dialogues, { batchSize: 1 });
  assert.equal([first.length, second.length], [1, 1]);
});

test('whichever model is done first, the dialogues come in their order', async () => {
  const slow = slowBase();
  const quick = slowBase();
  const dialogues = [0, 1, 2, 3, 4].map((sample) =>
    dialogue(sample, ['alice: a', 'bob: b'], sample === 3 ? failed : {}),
  );
  const come: ScoredTrajectory[] = [];
  const done = scoreTurns([slow.model, quick.model], dialogues, { batchSize: 1 }).forEach((one) => {
    come.push(one);
  });
  // The quick one scores all but the first.
  for (let call = 0; call < 3; call++) {
    await settled();
    assert.is(quick.ends.length, call + 1, 'who is free takes the next batch');
    quick.ends[call]!();
  }
  await settled();
  assert.equal(come, [], 'nothing comes before the first');
  slow.ends[0]!();
  await done;
  assert.equal(slow.asked.map(samplesOf), [['0:alice', '0:bob']]);
  assert.equal(quick.asked.map(samplesOf), [
    ['1:alice', '1:bob'],
    ['2:alice', '2:bob'],
    ['4:alice', '4:bob'],
  ]);
  assert.equal(come, dialogues.map(scored));
});

test('a dialogue is taken when a model is free for its batch, and passed on when its batch is scored', async () => {
  const { model, ends } = slowBase();
  let taken = 0;
  function* dialogues() {
    for (let sample = 0; sample < 6; sample++) {
      taken++;
      yield dialogue(sample, ['alice: a']);
    }
  }
  const come: string[] = [];
  const scores = scoreTurns([model], dialogues(), { batchSize: 2 });
  assert.is(taken, 0, 'nobody asked yet');
  const done = scores.forEach(({ trajectory }) => void come.push(trajectory.id));
  for (const [call, batch] of [2, 4, 6].entries()) {
    await settled();
    assert.equal([taken, come.length], [batch, batch - 2]);
    ends[call]!();
  }
  await done;
  assert.is(taken, 6);
});

test('who has enough has no further call made; who leaves or aborts ends the call under way', async () => {
  const dialogues = [0, 1, 2].map((sample) => dialogue(sample, ['alice: a']));
  const enough = slowBase();
  const first = firstValueFrom(scoreTurns([enough.model], dialogues, { batchSize: 1 }).pipe(take(1)));
  await settled();
  const { signal } = enough.options[0]!;
  assert.not.ok(signal!.aborted);
  enough.ends[0]!();
  assert.equal(await first, scored(dialogues[0]!));
  await settled();
  assert.is(enough.asked.length, 1);

  for (const signal of [undefined, new AbortController().signal]) {
    const left = slowBase();
    const subscription = scoreTurns([left.model], dialogues, { batchSize: 1, signal }).subscribe();
    await settled();
    assert.not.ok(left.options[0]!.signal!.aborted);
    subscription.unsubscribe();
    assert.ok(left.options[0]!.signal!.aborted, 'nobody waits for it');
  }

  const aborted = slowBase();
  const controller = new AbortController();
  const waiting = all([aborted.model], dialogues, { batchSize: 1, signal: controller.signal });
  await settled();
  assert.not.ok(aborted.options[0]!.signal!.aborted);
  controller.abort();
  assert.ok(aborted.options[0]!.signal!.aborted, 'the call is told');
  for (let call = 0; call < 3; call++) {
    aborted.ends[call]!();
    await settled();
  }
  await waiting;
});

test('what a model throws ends it all', async () => {
  const reason = new Error('no more memory');
  const broken = { ...base(), score: () => Promise.reject(reason) };
  const dialogues = [0, 1].map((sample) => dialogue(sample, ['alice: a']));
  assert.is(await all([broken], dialogues, { batchSize: 1 }).catch((error) => error), reason);
});

test.run();
