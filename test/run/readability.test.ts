// What the base model is asked about a dialogue, and at which turn each answer is put.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { dialogueId, type PolicyHash, type TaskId, taskId, turnId } from '../../src/domain/ids.ts';
import type { CallOptions, LanguageModel, ScoreRequest } from '../../src/domain/model.ts';
import type { Trajectory } from '../../src/domain/transcript.ts';
import { scoreTurns } from '../../src/run/readability.ts';

/** A dialogue of the texts given, `speaker: text` each; the k-th turn has k + 1 tokens of its own. */
function dialogue(sample: number, turns: readonly string[], change: Partial<Trajectory> = {}): Trajectory {
  const id = dialogueId('p', taskId('train', 0), sample);
  return {
    id,
    taskId: 'train-00000' as TaskId,
    views: { alice: 'A\nBe terse.', bob: 'B\nBe terse.', carol: 'C\nBe terse.' },
    plainViews: { alice: 'A', bob: 'B', carol: 'C' },
    format: 'terse',
    turns: turns.map((turn, index) => ({
      id: turnId(id, index),
      parent: null,
      index,
      speaker: turn.split(': ')[0]!,
      text: turn.split(': ')[1]!,
      tokenIds: Array.from({ length: index + 1 }, (_, k) => 100 * sample + 10 * index + k + 1),
      logprobs: Array.from({ length: index + 1 }, () => -9),
      finish: 'stop',
      policyHash: 'talker' as PolicyHash,
      seed: 0,
      provenance: 'sampled',
      promptTokens: 1,
    })),
    outcome: 'agreed',
    failure: null,
    verdict: { taskScore: 1, exactMatch: true, answer: 'x' },
    ...change,
  };
}

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

test('each role’s turns are scored in its own plain view, and stand where they were said', async () => {
  const asked: (readonly ScoreRequest[])[] = [];
  const one = dialogue(0, ['alice: a', 'bob: b', 'bob: c', 'alice: d']);
  const scores = await scoreTurns([base(asked)], [one], { batchSize: 8 });
  assert.equal(scores, new Map([[one.id, one.turns.map(({ tokenIds }) => tokenIds.map((id) => -id))]]));
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

test('dialogues are scored in batches, those without a verdict are not', async () => {
  const asked: (readonly ScoreRequest[])[] = [];
  const options: (CallOptions | undefined)[] = [];
  const { signal } = new AbortController();
  const progress: number[] = [];
  const dialogues = [0, 1, 2, 3, 4, 5].map((sample) =>
    dialogue(sample, ['bob: a', 'carol: b'], sample === 1 ? { verdict: null, outcome: 'failed' } : {}),
  );
  const scores = await scoreTurns([base(asked, options)], dialogues, {
    batchSize: 2,
    signal,
    onProgress: (scored) => progress.push(scored),
  });
  assert.equal(
    asked.map((requests) => requests.map(({ id }) => id.slice('p/train-00000/'.length))),
    [
      ['0:bob', '0:carol', '2:bob', '2:carol'],
      ['3:bob', '3:carol', '4:bob', '4:carol'],
      ['5:bob', '5:carol'],
    ],
  );
  assert.equal(progress, [2, 4, 5]);
  assert.ok(options.every((one) => one!.signal === signal));
  assert.equal([...scores.keys()].map((id) => id.at(-1)).join(''), '02345');
  for (const { id, turns } of dialogues.filter(({ verdict }) => verdict !== null)) {
    assert.equal(
      scores.get(id),
      turns.map(({ tokenIds }) => tokenIds.map((token) => -token)),
    );
  }
});

test('batches are scored side by side where there are several models', async () => {
  const first: (readonly ScoreRequest[])[] = [];
  const second: (readonly ScoreRequest[])[] = [];
  const dialogues = [0, 1].map((sample) => dialogue(sample, ['alice: a']));
  await scoreTurns([base(first), base(second)], dialogues, { batchSize: 1 });
  assert.equal([first.length, second.length], [1, 1]);
});

test.run();
