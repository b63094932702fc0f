// The dialogues of a phase: what is asked of the models, what the log holds, and what a resumed run does not repeat.
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { OptimaError } from '../../src/domain/errors.ts';
import { dialogueId, taskId } from '../../src/domain/ids.ts';
import type { GenerationRequest, LanguageModel } from '../../src/domain/model.ts';
import { type Progress, silent } from '../../src/domain/progress.ts';
import { createRng } from '../../src/domain/rng.ts';
import { scriptedModel } from '../../src/models/scripted/index.ts';
import { type DialoguePlan, holdDialogues } from '../../src/rollouts/executor.ts';
import type { FormatPrompt } from '../../src/scenario/index.ts';
import { EventLog, type WriteBytes } from '../../src/store/event-log.ts';
import { temporaryFolder } from '../support/run.ts';
import { chatter, solveWordPair, wordPairs } from '../support/scenarios.ts';

const root = temporaryFolder('dialogues');
test.after(() => fs.rmSync(root, { recursive: true }));

const clock = { now: () => 0 };
let files = 0;
const freshFile = () => path.join(root, `events-${files++}.jsonl`);
const words = ['oak', 'elm', 'fir', 'ash', 'yew', 'bay'];
const tasksOf = (count: number) =>
  Array.from({ length: count }, (_, index) => ({
    id: taskId('train', index),
    task: { left: words[index % 6]!, right: words[(index + 1) % 6]! },
  }));
const solver = scriptedModel({ reply: solveWordPair });
const rng = createRng(5);

const plan = (change: Partial<DialoguePlan> = {}): DialoguePlan => ({
  phase: 'init-0/generate',
  scenario: wordPairs(),
  models: [solver],
  tasks: tasksOf(3),
  samplesPerTask: 1,
  formats: [],
  temperature: 0.7,
  maxMessageTokens: 20,
  concurrency: 2,
  rng,
  progress: silent,
  ...change,
});

/** The scripted model, with what it was asked. */
function heard(model: LanguageModel = solver) {
  const requests: GenerationRequest[] = [];
  const listening: LanguageModel = {
    ...model,
    generate(asked, options) {
      requests.push(...asked);
      return model.generate(asked, options);
    },
  };
  return { model: listening, requests };
}

/** What a watcher is told, a text each. */
function told() {
  const lines: string[] = [];
  const progress: Progress = {
    begin: (stage, total, unit) => lines.push(`${stage}: ${total} ${unit}`),
    advance: (done) => lines.push(String(done)),
    end: (result) => lines.push(result),
    measured: () => lines.push('measured'),
  };
  return { lines, progress };
}

/** The plan's dialogues, with the log they left. */
async function held(change: Partial<DialoguePlan>, file = freshFile()) {
  const log = new EventLog(file, clock);
  try {
    return { file, trajectories: await holdDialogues(plan({ ...change, log })) };
  } finally {
    log.close();
  }
}
const textOf = (file: string) => fs.readFileSync(file, 'utf8');

test('every task has its samples, in order, under ids that name phase, task and sample', async () => {
  const trajectories = await holdDialogues(plan({ tasks: tasksOf(2), samplesPerTask: 3 }));
  assert.equal(
    trajectories.map(({ id, taskId }) => `${id} of ${taskId}`),
    [0, 1].flatMap((task) =>
      [0, 1, 2].map((sample) => `init-0/generate/train-0000${task}/${sample} of train-0000${task}`),
    ),
  );
  assert.equal(
    trajectories.map(({ verdict }) => verdict!.answer),
    ['oak elm', 'oak elm', 'oak elm', 'elm fir', 'elm fir', 'elm fir'],
  );
});

test('a turn is asked for with the plan’s sampling and a seed of its dialogue and place', async () => {
  const { model, requests } = heard();
  await holdDialogues(plan({ models: [model], temperature: 0.3, maxMessageTokens: 17 }));
  assert.is(requests.length, 9);
  for (const { id, sampling, seed } of requests) {
    assert.equal(sampling, { temperature: 0.3, topP: 1, topK: 0, maxTokens: 17 });
    const [dialogue, index] = id.split('#');
    assert.is(seed, createRng(5).split('dialogues').split(dialogue!).split(index!).seed32());
  }
  assert.is(new Set(requests.map(({ seed }) => seed)).size, 9);
});

const formats: FormatPrompt[] = ['terse', 'table', 'code'].map((name) => ({ name, prompt: `As ${name}.` }));

test('each dialogue draws its format from its own generator, and every format occurs', async () => {
  const { model, requests } = heard();
  const trajectories = await holdDialogues(
    plan({ models: [model], formats, tasks: tasksOf(4), samplesPerTask: 3 }),
  );
  for (const { id, format, views, plainViews } of trajectories) {
    const drawn = createRng(5).split('formats').split(id).pick(formats);
    assert.is(format, drawn.name);
    assert.is(views.alice, `${plainViews.alice}\n${drawn.prompt}`);
    assert.is(requests.find((request) => request.id === `${id}#0`)!.messages[0]!.content, views.alice);
  }
  const names = trajectories.map(({ format }) => format);
  assert.equal([...new Set(names)].sort(), ['code', 'table', 'terse']);
  assert.ok(new Set(names.slice(0, 3)).size > 1, 'samples of a task draw for themselves');
});

test('with no formats every dialogue is plain', async () => {
  for (const { format, views, plainViews } of await holdDialogues(plan())) {
    assert.is(format, null);
    assert.equal(views, plainViews);
  }
});

test('no call of a model runs into a time-out that the clock of a slow machine could reach', async () => {
  const { setTimeout } = globalThis;
  const waits: unknown[] = [];
  globalThis.setTimeout = ((run: () => void, ms: number) => {
    waits.push(ms);
    return setTimeout(run, ms);
  }) as typeof setTimeout;
  try {
    await holdDialogues(plan({ tasks: tasksOf(1) }));
  } finally {
    globalThis.setTimeout = setTimeout;
  }
  assert.equal(waits, [2_147_483_647, 2_147_483_647, 2_147_483_647]);
});

test('a watcher hears of each dialogue that closed, of those from the log at once, and of failures', async () => {
  const failing = scriptedModel({
    reply: (request) => {
      // A call that fails, fails for both dialogues of the cohort.
      if (request.id.includes('train-00001')) throw new Error('no words');
      if (request.id.includes('train-00004')) throw new Error('no voice');
      return solveWordPair(request);
    },
  });
  const first = told();
  const { file } = await held({ models: [failing], progress: first.progress, tasks: tasksOf(5) });
  const end =
    '5 dialogues, 3 failed, the first with: Turn 0 of alice failed: Request init-0/generate/train-00001/0#0: no words';
  assert.equal(first.lines, ['init-0/generate: 5 dialogues', '0', '1', '2', '3', '4', '5', end]);
  const lines = textOf(file).split('\n');
  const second = lines.findIndex((line) => line.includes('"cohort":1'));
  fs.writeFileSync(file, `${lines.slice(0, second).join('\n')}\n`);
  const again = told();
  await held({ models: [failing], progress: again.progress, tasks: tasksOf(5) }, file);
  assert.equal(again.lines, ['init-0/generate: 5 dialogues', '2', '3', '4', '5', end]);
  const none = told();
  await holdDialogues(plan({ progress: none.progress, tasks: tasksOf(1) }));
  assert.equal(none.lines, ['init-0/generate: 1 dialogues', '0', '1', '1 dialogues']);
});

test('a cohort that the log holds whole is not held again, one that was cut off is', async () => {
  const whole = await held({ tasks: tasksOf(6), samplesPerTask: 1 });
  const text = textOf(whole.file);
  const lines = text.split('\n');
  const firstEnd = lines.findIndex((line) => line.includes('"type":"cohort.completed"'));
  for (const [kept, asked] of [
    [firstEnd, '012345'],
    [firstEnd + 1, '2345'],
    [firstEnd + 8, '2345'],
    [lines.length - 1, ''],
  ] as const) {
    const file = freshFile();
    fs.writeFileSync(file, `${lines.slice(0, kept).join('\n')}\n`);
    const { model, requests } = heard();
    const { trajectories } = await held({ models: [model], tasks: tasksOf(6) }, file);
    const dialogues = new Set(requests.map(({ id }) => id.match(/train-0000(\d)/)![1]!));
    assert.is([...dialogues].sort().join(''), asked, `${kept} lines`);
    assert.equal(trajectories, whole.trajectories);
    assert.is(textOf(file), text);
  }
});

test('a cohort of another phase, or of another number, is not taken for this one', async () => {
  for (const change of [{ phase: 'isft-1/generate' }, { concurrency: 1 }]) {
    const { file } = await held({ tasks: tasksOf(2) });
    if ('concurrency' in change) {
      fs.writeFileSync(file, textOf(file).replace('"cohort":0', '"cohort":1'));
    }
    const error = await held({ tasks: tasksOf(2), ...change }, file).then(
      () => null,
      (thrown: OptimaError) => thrown,
    );
    assert.is(error?.code, 'run.diverged');
  }
});

/** A model whose calls are answered when the test says so; `called` resolves with the next call. */
function controlled(model: LanguageModel = scriptedModel({ reply: chatter })) {
  const calls: { ids: string; signal: AbortSignal; answer: () => void }[] = [];
  let seen = 0;
  let wake = () => {};
  const controlledModel: LanguageModel = {
    ...model,
    generate: (requests, options) =>
      new Promise((resolve, reject) => {
        calls.push({
          ids: requests.map(({ id }) => id.match(/train-0000(\d)/)![1]).join(''),
          signal: options!.signal!,
          answer: () => model.generate(requests).then(resolve, reject),
        });
        wake();
      }),
  };
  const called = async () => {
    while (calls.length <= seen) {
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
    return calls[seen++]!;
  };
  return { model: controlledModel, calls, called };
}

/** One message a dialogue: a cohort is one call. */
const short = wordPairs({
  protocol: { ...wordPairs().protocol, maxTurns: 1 },
});

test('cohorts side by side are logged one after the other, whichever ends first', async () => {
  const change = { scenario: short, tasks: tasksOf(7) };
  const inOrder = await held({ ...change, models: [scriptedModel({ reply: chatter })] });
  const [x, y] = [controlled(), controlled()];
  const file = freshFile();
  const log = new EventLog(file, clock);
  const all = holdDialogues(plan({ ...change, models: [x.model, y.model], log }));
  const [slow, quick] = [await x.called(), await y.called()];
  assert.equal([slow.ids, quick.ids], ['01', '23']);
  const first = textOf(file);
  assert.is(first.match(/dialogue\.opened/g)!.length, 2, 'the first cohort is logged as it goes');
  quick.answer();
  const third = await y.called();
  assert.is(third.ids, '45');
  assert.is(textOf(file), first, 'the second cohort has ended, and waits for the first');
  slow.answer();
  const last = await x.called();
  assert.is(last.ids, '6');
  const kept = textOf(file);
  assert.is(kept.match(/cohort\.completed/g)!.length, 2);
  assert.ok(kept.includes('dialogue.opened","dialogueId":"init-0/generate/train-00005/0"'));
  assert.not.ok(kept.includes('train-00006'));
  third.answer();
  last.answer();
  assert.equal(await all, inOrder.trajectories);
  log.close();
  assert.is(textOf(file), textOf(inOrder.file));
});

test('several cohorts that waited are logged together, and a resumed run counts on from those in the log', async () => {
  const change = { scenario: short, tasks: tasksOf(4), concurrency: 1 };
  const inOrder = await held({ ...change, models: [scriptedModel({ reply: chatter })] });
  const lines = textOf(inOrder.file).split('\n');
  const file = freshFile();
  const end = lines.findIndex((line) => line.includes('"cohort":0'));
  fs.writeFileSync(file, `${lines.slice(0, end + 1).join('\n')}\n`);
  const log = new EventLog(file, clock);
  const lanes = [controlled(), controlled(), controlled()];
  const all = holdDialogues(plan({ ...change, models: lanes.map(({ model }) => model), log }));
  const calls = await Promise.all(lanes.map(({ called }) => called()));
  assert.equal(
    calls.map(({ ids }) => ids),
    ['1', '2', '3'],
  );
  for (const call of calls.reverse()) call.answer();
  assert.equal(await all, inOrder.trajectories);
  log.close();
  assert.is(textOf(file), textOf(inOrder.file));
});

for (const signal of [undefined, new AbortController().signal]) {
  const interruptible = signal === undefined ? '' : ', in a phase that can be interrupted';
  test(`a cohort that fails aborts the others, and no further one is begun${interruptible}`, async () => {
    let full = false;
    const write: WriteBytes = (descriptor, bytes) => {
      if (full) throw Object.assign(new Error('write'), { code: 'ENOSPC' });
      return fs.writeSync(descriptor, bytes);
    };
    const log = new EventLog(freshFile(), clock, write);
    const [x, y] = [controlled(), controlled()];
    const models = [x.model, y.model];
    const all = holdDialogues(plan({ scenario: short, tasks: tasksOf(6), models, log, signal }));
    const [failing, other] = [await x.called(), await y.called()];
    full = true;
    failing.answer();
    const error = await all.then(
      () => null,
      (thrown: OptimaError) => thrown,
    );
    assert.is(error?.code, 'io.write');
    assert.ok(other.signal.aborted);
    assert.equal([x.calls.length, y.calls.length], [1, 1]);
    log.close();
  });
}

test('an interruption ends all cohorts under way', async () => {
  const interrupt = new AbortController();
  const [x, y] = [controlled(), controlled()];
  const all = holdDialogues(
    plan({ scenario: short, tasks: tasksOf(6), models: [x.model, y.model], signal: interrupt.signal }),
  );
  const calls = [await x.called(), await y.called()];
  interrupt.abort();
  const error = await all.then(
    () => null,
    (thrown) => thrown,
  );
  assert.instance(error, OptimaError);
  assert.is(error.code, 'interrupted');
  assert.equal(
    calls.map(({ signal }) => signal.aborted),
    [true, true],
  );
  assert.is(x.calls.length + y.calls.length, 2);
});

test('without a log nothing is kept, and the dialogues are the same', async () => {
  const { trajectories } = await held({});
  assert.equal(await holdDialogues(plan()), trajectories);
  assert.is(trajectories[2]!.id, dialogueId('init-0/generate', taskId('train', 2), 0));
});

test.run();
