// The scripted model: replies by view, countable tokens, scores that agree with what was generated.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { OptimaError } from '../../src/domain/errors.ts';
import type { GenerationRequest } from '../../src/domain/model.ts';
import { endOfTurnId, scriptedModel } from '../../src/models/scripted/index.ts';

const request = (content: string, maxTokens = 64): GenerationRequest => ({
  id: content,
  messages: [{ role: 'system', content }],
  sampling: { temperature: 0, topP: 1, topK: 0, maxTokens },
  seed: 1,
});

const echo = scriptedModel({ reply: ({ messages }) => `I see ${messages[0]!.content}.`, logprob: -0.5 });

test('replies follow the views, whatever the order of the batch', async () => {
  const forward = await echo.generate([request('one'), request('two')]);
  const backward = await echo.generate([request('two'), request('one')]);
  assert.equal(forward, [...backward].reverse());
  assert.equal(
    forward.map((generation) => generation.text),
    ['I see one.', 'I see two.'],
  );
});

test('each word is one token and the turn ends with its own', async () => {
  const [generation] = await echo.generate([request('one')]);
  assert.is(generation!.tokenIds.length, 4);
  assert.is(generation!.tokenIds.at(-1), endOfTurnId);
  assert.is(new Set(generation!.tokenIds).size, 4);
  assert.equal(generation!.logprobs, [-0.5, -0.5, -0.5, -0.5]);
  assert.is(generation!.finish, 'stop');
  assert.is(generation!.promptTokens, 1);
});

test('a model that is told no log-probability finds every token as likely as 1/e; id 0 ends a turn and nothing else', async () => {
  const [generation] = await scriptedModel({ reply: () => 'two words' }).generate([request('one')]);
  assert.equal(generation!.logprobs, [-1, -1, -1]);
  assert.is(generation!.tokenIds.indexOf(0), 2);
});

test('a prompt counts the tokens that its messages were sampled with, and ids of words are never the end', async () => {
  const told = { ...request('one two three') };
  const cut = { role: 'assistant', content: 'a message of five words', tokenIds: [7, 8] } as const;
  const [generation] = await echo.generate([{ ...told, messages: [...told.messages, cut] }]);
  assert.is(generation!.promptTokens, 3 + 2);
  for (const id of generation!.tokenIds.slice(0, -1)) assert.ok(id >= 1 && id <= 0xffff);
});

test('a message is cut at maxTokens, text and ids alike', async () => {
  const [cut] = await echo.generate([request('one', 2)]);
  assert.is(cut!.text, 'I see');
  assert.is(cut!.tokenIds.length, 2);
  assert.is(cut!.finish, 'length');
  const [whole] = await echo.generate([request('one', 3)]);
  assert.is(whole!.text, 'I see one.');
  assert.is(whole!.finish, 'length');
});

test('an empty reply is an end-of-turn token alone', async () => {
  const [generation] = await scriptedModel({ reply: () => '' }).generate([request('one')]);
  assert.equal(generation!.tokenIds, [endOfTurnId]);
});

test('scores cover each assistant message, end of turn included', async () => {
  const [generation] = await echo.generate([request('one')]);
  const { text: content, tokenIds } = generation!;
  const [scores] = await echo.score([
    {
      id: 'view',
      messages: [
        { role: 'system', content: 'one' },
        { role: 'assistant', content, tokenIds },
        { role: 'user', content: 'and you?' },
        { role: 'assistant', content },
      ],
    },
  ]);
  assert.equal(scores, [generation!.logprobs, generation!.logprobs]);
});

test('a reply that throws rejects the call as a failure of the model', async () => {
  const broken = scriptedModel({
    reply: () => {
      throw new Error('no line left');
    },
  });
  try {
    await broken.generate([request('one')]);
    assert.unreachable();
  } catch (error) {
    assert.instance(error, OptimaError);
    assert.is((error as OptimaError).code, 'model.failed');
    assert.match((error as OptimaError).message, 'one: no line left');
  }
});

test('an aborted call is refused as interrupted', async () => {
  for (const call of [echo.generate, echo.score] as const) {
    try {
      await call([request('one')], { signal: AbortSignal.abort() });
      assert.unreachable();
    } catch (error) {
      assert.is((error as OptimaError).code, 'interrupted');
    }
  }
});

test('a call that is aborted while it is answered is refused, too', async () => {
  const controller = new AbortController();
  const model = scriptedModel({
    reply: () => {
      controller.abort();
      return 'too late';
    },
  });
  const error = await model.generate([request('one')], { signal: controller.signal }).then(
    () => null,
    (reason: OptimaError) => reason,
  );
  assert.is(error?.code, 'interrupted');
});

test('only the last messages are scored where a request says so', async () => {
  const model = scriptedModel({ reply: () => 'x', logprob: -2 });
  const said = (content: string) => ({ role: 'assistant' as const, content });
  const messages = [said('one two'), { role: 'user' as const, content: 'x' }, said('three')];
  const lengths = async (last?: number) =>
    (await model.score([{ id: 'a', messages, ...(last !== undefined && { last }) }]))[0]!.map(
      ({ length }) => length,
    );
  assert.equal(await lengths(), [3, 2]);
  assert.equal(await lengths(1), [2]);
  assert.equal(await lengths(0), []);
  assert.equal(await lengths(5), [3, 2]);
});

test.run();
