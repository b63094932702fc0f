// Verdicts that take time, through real actors: their order, the judge model's rounds, what is replayed, and what ends badly.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type CohortOptions, everyRole, runCohort } from '../../src/actors/index.ts';
import { OptimaError } from '../../src/domain/errors.ts';
import type { DialogueMessage, MessageOf } from '../../src/domain/messages.ts';
import { type GenerationRequest, type LanguageModel, takeAll } from '../../src/domain/model.ts';
import { createRng } from '../../src/domain/rng.ts';
import { scriptedModel } from '../../src/models/scripted/index.ts';
import type { Metric, Scenario } from '../../src/scenario/index.ts';
import { solveWordPair, type WordPair, wordPairEpisodes, wordPairs } from '../support/scenarios.ts';

const solver = scriptedModel({ reply: solveWordPair });
const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
const numberOf = (id: string) => Number(/train-(\d+)/.exec(id)![1]);

/** What a cohort said, and how it ended where that was not well. */
async function hold(count: number, options: Partial<CohortOptions> & { readonly scenario: Scenario }) {
  const messages: DialogueMessage[] = [];
  const cohort = runCohort(wordPairEpisodes(count), {
    cast: everyRole(options.scenario, solver),
    sampling: { temperature: 0.7, topP: 1, topK: 0, maxTokens: 32 },
    rng: createRng(1),
    ...options,
  });
  const error = await cohort
    .forEach((message) => void messages.push(message))
    .then(
      () => null,
      (error: OptimaError) => error,
    );
  const ofType = <Type extends DialogueMessage['type']>(type: Type) =>
    messages.filter((message): message is MessageOf<Type> & DialogueMessage => message.type === type);
  return { messages, error, ofType };
}

const withMetric = (
  score: Metric<WordPair>['score'],
  rest: Partial<Scenario<WordPair>> = {},
  timeoutMs?: number,
) => wordPairs({ metric: { name: 'slow', score, ...(timeoutMs !== undefined && { timeoutMs }) }, ...rest });

/** A judge whose calls are kept, and who takes its time for each. */
function keptJudge(reply: (request: GenerationRequest) => string = ({ id }) => String(numberOf(id) % 2)) {
  const calls: GenerationRequest[][] = [];
  const scripted = scriptedModel({ reply, hash: 'judge' });
  const generate: LanguageModel['generate'] = async (requests, options) => {
    calls.push([...requests]);
    await sleep(1);
    return scripted.generate(requests, options);
  };
  return { calls, judge: { ...scripted, generate } };
}

test('verdicts come in the order of the episodes, whichever metric is done first', async () => {
  let asked = 0;
  // The later a dialogue is judged, the sooner its metric is done.
  const scenario = withMetric(async () => {
    await sleep(12 - 3 * asked++);
    return 1;
  });
  const { messages, error, ofType } = await hold(4, { scenario });
  assert.is(error, null);
  assert.is(asked, 4);
  const ends = messages
    .slice(-4)
    .map((message) => 'dialogueId' in message && [message.type, numberOf(message.dialogueId)]);
  assert.equal(
    ends,
    [0, 1, 2, 3].map((number) => ['verdict.given', number]),
  );
  assert.equal(ofType('verdict.given')[0], {
    ...{ type: 'verdict.given', dialogueId: 'test/train-00000.0' },
    ...{ taskScore: 1, exactMatch: true, answer: 'oak elm' },
  });
});

test('what all metrics ask goes to the judge model in one call, and stands before each verdict', async () => {
  const { calls, judge } = keptJudge();
  const scenario = withMetric(
    async (_, __, { judge, task }) => Number(await judge.ask(`Is ${task.left} a tree?`)),
    { judge: { maxTokens: 3, temperature: 0.5 } },
  );
  const { messages, ofType } = await hold(3, { scenario, judge });
  assert.is(calls.length, 1);
  const [call] = calls;
  assert.equal(call![1], {
    id: 'test/train-00001.0:judge-0',
    messages: [{ role: 'user', content: 'Is elm a tree?' }],
    sampling: { temperature: 0.5, topP: 1, topK: 0, maxTokens: 3 },
    seed: createRng(1).split('test/train-00001.0').split('judge-0').seed32(),
  });
  assert.equal(
    messages.slice(-6).map(({ type }) => type),
    [0, 1, 2].flatMap(() => ['judge.asked', 'verdict.given']),
  );
  assert.equal(
    ofType('verdict.given').map(({ taskScore }) => taskScore),
    [0, 1, 0],
  );
  const { tokenIds, ...question } = ofType('judge.asked')[1]!;
  assert.equal(question, {
    ...{
      type: 'judge.asked',
      dialogueId: 'test/train-00001.0',
      question: 0,
      prompt: 'Is elm a tree?',
      reply: '1',
    },
    ...{ finish: 'stop', policyHash: 'judge', seed: call![1]!.seed, promptTokens: 4 },
  });
  assert.is(tokenIds.length, 2);
});

test('questions at the same time share a round, and one that follows from a reply waits for the next', async () => {
  const { calls, judge } = keptJudge();
  const scenario = withMetric(
    async (_, __, { judge }) => {
      const [one, other] = await Promise.all([judge.ask('one'), judge.ask('other')]);
      if (one !== '1' || other !== '1') return 0;
      const [sure] = await Promise.all([judge.ask('sure?'), judge.ask('why?')]);
      return Number(sure);
    },
    { judge: {} },
  );
  const { ofType } = await hold(2, { scenario, judge });
  assert.equal(
    calls.map((requests) => requests.map(({ id, messages }) => [numberOf(id), messages[0]!.content])),
    [
      [
        [0, 'one'],
        [0, 'other'],
        [1, 'one'],
        [1, 'other'],
      ],
      [
        [1, 'sure?'],
        [1, 'why?'],
      ],
    ],
  );
  assert.equal(
    ofType('judge.asked').map(({ dialogueId, question }) => [numberOf(dialogueId), question]),
    [
      [0, 0],
      [0, 1],
      [1, 0],
      [1, 1],
      [1, 2],
      [1, 3],
    ],
  );
  // Also where there is no other dialogue to be waited for.
  const alone = keptJudge(() => '1');
  await hold(1, { scenario, judge: alone.judge });
  assert.equal(
    alone.calls.map(({ length }) => length),
    [2, 2],
  );
});

test('no order depends on time: the messages are the same however long metrics take', async () => {
  const texts = [];
  for (const factor of [0, 1, 5]) {
    const scenario = withMetric(
      async (_, __, { judge, task }) => {
        await sleep(factor * (task.left.charCodeAt(0) % 4));
        const first = await judge.ask(`${task.left}?`);
        await sleep(factor * (task.right.charCodeAt(0) % 3));
        return Number(first === (await judge.ask(`${task.right}?`)));
      },
      { judge: {} },
    );
    const { messages } = await hold(6, { scenario, judge: keptJudge().judge });
    texts.push(messages.map((message) => JSON.stringify(message)).join('\n'));
  }
  assert.is(texts[1], texts[0]);
  assert.is(texts[2], texts[0]);
});

test('a question whose reply is known is not asked again, another one is', async () => {
  const scenario = withMetric(async (_, __, { judge }) => Number(await judge.ask('fair?')), { judge: {} });
  const whole = await hold(3, { scenario, judge: keptJudge().judge });
  const known = whole.ofType('judge.asked');
  const { calls, judge } = keptJudge();
  const recallReply: CohortOptions['recallReply'] = ({ dialogueId, question }) =>
    known.slice(0, 2).find((one) => one.dialogueId === dialogueId && one.question === question) ?? null;
  const again = await hold(3, { scenario, judge, recallReply });
  assert.equal(again.messages, whole.messages);
  assert.equal(
    calls.map((requests) => requests.map(({ id }) => numberOf(id))),
    [[2]],
  );
});

test('a rejection fails its dialogue and no other, with what was asked before', async () => {
  const scenario = withMetric(
    async (_, __, { judge, task }) => {
      const reply = await judge.ask('fair?');
      if (task.left === 'elm') throw new Error('no judge today');
      return Number(reply);
    },
    { judge: {} },
  );
  const { messages } = await hold(3, { scenario, judge: keptJudge().judge });
  assert.equal(
    messages.slice(-6).map(({ type }) => type),
    ['judge.asked', 'verdict.given', 'judge.asked', 'verdict.failed', 'judge.asked', 'verdict.given'],
  );
  const { reason } = messages.at(-3) as MessageOf<'verdict.failed'>;
  assert.is(reason, 'Scenario "word-pairs": metric slow threw: no judge today.');
});

test('a question that the judge model refuses is the metric’s to handle', async () => {
  const { judge: able } = keptJudge();
  const generate: LanguageModel['generate'] = async (requests) =>
    takeAll(requests, () => {
      throw new OptimaError('model.failed', 'The question is too long.');
    });
  const judge = { ...able, generate };
  const careless = withMetric(async (_, __, { judge }) => Number(await judge.ask('?')), { judge: {} });
  assert.match(
    (await hold(1, { scenario: careless, judge })).ofType('verdict.failed')[0]!.reason,
    /metric slow threw: The question is too long/,
  );
  const careful = withMetric((_, __, { judge }) => judge.ask('?').then(Number, () => 0.5), { judge: {} });
  assert.is((await hold(1, { scenario: careful, judge })).ofType('verdict.given')[0]!.taskScore, 0.5);
});

test('a judge model that fails ends the cohort, whatever the metric would make of it', async () => {
  const { judge: able } = keptJudge();
  const generate: LanguageModel['generate'] = async () => {
    throw new Error('server gone');
  };
  const careful = withMetric((_, __, { judge }) => judge.ask('?').then(Number, () => 0.5), { judge: {} });
  const { error, messages } = await hold(2, { scenario: careful, judge: { ...able, generate } });
  assert.is(error!.code, 'model.failed');
  assert.is(error!.message, 'Model judge failed: server gone');
  assert.is(messages.at(-1)!.type, 'dialogue.closed');
});

test('who asks without a judge is told what is missing', async () => {
  const score: Metric['score'] = async (_, __, { judge }) => Number(await judge.ask('?'));
  const undeclared = await hold(1, { scenario: withMetric(score), judge: keptJudge().judge });
  assert.match(
    undeclared.ofType('verdict.failed')[0]!.reason,
    /the scenario has none: give it `judge: \{\}`/,
  );
  const { error, messages } = await hold(1, { scenario: withMetric(score, { judge: {} }) });
  assert.is(error!.code, 'usage');
  assert.is(error!.message, 'Scenario "word-pairs" asks a judge model, and none is given.');
  assert.match(error!.hint!, '--judge');
  assert.equal(messages, []);
});

test('a metric that never gives its score ends the cohort by name, and not one that waits for a slow judge', async () => {
  const never = withMetric(() => new Promise<number>(() => {}), {}, 20);
  const { error, ofType } = await hold(2, { scenario: never });
  assert.is(error!.code, 'metric.failed');
  assert.is(
    error!.message,
    'Scenario "word-pairs": metric slow gave no score for test/train-00000.0 within 20 ms.',
  );
  assert.equal(ofType('verdict.failed'), []);
  const slow = keptJudge();
  const generate: LanguageModel['generate'] = async (...call) => {
    await sleep(60);
    return slow.judge.generate(...call);
  };
  const patient = withMetric(async (_, __, { judge }) => Number(await judge.ask('?')), { judge: {} }, 20);
  const waited = await hold(2, { scenario: patient, judge: { ...slow.judge, generate } });
  assert.is(waited.error, null);
  assert.is(waited.ofType('verdict.given').length, 2);
});

test('an abort ends metrics and the judge’s call at once', async () => {
  for (const asks of [false, true]) {
    const controller = new AbortController();
    const aborted: string[] = [];
    const listen = (name: string, signal: AbortSignal) =>
      signal.addEventListener('abort', () => aborted.push(name));
    const { judge } = keptJudge();
    const generate: LanguageModel['generate'] = (_, call) => {
      listen('call', call!.signal!);
      setImmediate(() => controller.abort());
      return new Promise(() => {});
    };
    const scenario = withMetric(
      (_, __, { judge, signal }) => {
        listen('metric', signal);
        if (asks) return judge.ask('?').then(Number);
        setImmediate(() => controller.abort());
        return new Promise(() => {});
      },
      { judge: {} },
    );
    const { error, ofType } = await hold(1, {
      scenario,
      judge: { ...judge, generate },
      signal: controller.signal,
    });
    assert.is(error!.code, 'interrupted');
    assert.equal(aborted, asks ? ['metric', 'call'] : ['metric']);
    await sleep(5);
    assert.equal([...ofType('verdict.given'), ...ofType('verdict.failed')], []);
  }
});

test('dialogues that are over do not hold up those that go on', async () => {
  let open = 0;
  const scenario = withMetric(async () => {
    open++;
    return 1;
  });
  // The first team goes on for six turns when the other has ended.
  const model = scriptedModel({
    reply: (request) => (numberOf(request.id) === 0 ? `hm ${request.id.length}` : solveWordPair(request)),
  });
  const { messages, ofType } = await hold(2, { scenario, cast: everyRole(scenario, model) });
  assert.is(open, 2);
  assert.equal(
    ofType('dialogue.closed').map(({ dialogueId, outcome }) => [numberOf(dialogueId), outcome]),
    [
      [1, 'agreed'],
      [0, 'turn-cap'],
    ],
  );
  assert.equal(
    messages.slice(-2).map((message) => message.type === 'verdict.given' && numberOf(message.dialogueId)),
    [0, 1],
  );
});

test('a metric that is sure of some dialogues gives their verdicts at once', async () => {
  const scenario = withMetric((_, __, { task }) => (task.left === 'oak' ? 0 : Promise.resolve(1)));
  const { messages, ofType } = await hold(2, { scenario });
  assert.equal(
    ofType('verdict.given').map(({ taskScore }) => taskScore),
    [0, 1],
  );
  const closings = messages.flatMap(({ type }, index) => (type === 'dialogue.closed' ? [index] : []));
  assert.is(messages[closings[0]! + 1]!.type, 'verdict.given');
});

test.run();
