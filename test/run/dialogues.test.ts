// The dialogues of a phase in a run's folder: what the log holds of them, and what a resumed run does not repeat.
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { OptimaError } from '../../src/domain/errors.ts';
import { type PolicyHash, type RunId, type TeamPolicy, taskId } from '../../src/domain/ids.ts';
import type { TeamFigures } from '../../src/domain/metrics.ts';
import type { GenerationRequest, LanguageModel } from '../../src/domain/model.ts';
import { type Progress, silent } from '../../src/domain/progress.ts';
import { createRng } from '../../src/domain/rng.ts';
import type { Trajectory } from '../../src/domain/transcript.ts';
import { scriptedModel } from '../../src/models/scripted/index.ts';
import { presetRecipe } from '../../src/recipe/presets.ts';
import { applySettings } from '../../src/recipe/schema.ts';
import type { PhaseContext } from '../../src/run/phases/context.ts';
import { type DialoguesPlan, holdDialogues } from '../../src/run/phases/dialogues.ts';
import type { FormatPrompt, Scenario } from '../../src/scenario/index.ts';
import { formatVersion, type Manifest, writeManifest } from '../../src/store/manifest.ts';
import { RunFolder } from '../../src/store/run-folder.ts';
import { measureTeam } from '../support/metrics.ts';
import { eventsIn, replaceLog, temporaryFolder } from '../support/run.ts';
import { chatter, refusing, solveWordPair, wordPairs } from '../support/scenarios.ts';

const root = temporaryFolder('dialogues');
test.after(() => fs.rmSync(root, { recursive: true }));

const clock = { now: () => 0 };
let folders = 0;
const freshFolder = () => path.join(root, `run-${folders++}`);
const words = ['oak', 'elm', 'fir', 'ash', 'yew', 'bay'];
const tasksOf = (count: number) =>
  Array.from({ length: count }, (_, index) => ({
    id: taskId('train', index),
    task: { left: words[index % 6]!, right: words[(index + 1) % 6]! },
  }));
const solver = scriptedModel({ reply: solveWordPair });
const talker = scriptedModel({ reply: chatter });
const phase = 'init-0/generate';
const hash = 'b' as PolicyHash;
const policy: TeamPolicy = { alice: hash, bob: hash };

const manifest: Manifest = {
  format: formatVersion,
  version: '0.1.0',
  node: 'v20.19.0',
  run: 'r' as RunId,
  command: [],
  scenario: { name: 'word-pairs', file: '/x.ts', hash: 'h', tasks: 't' },
  preset: 'quick',
  recipe: {},
  engine: 'cpu',
  base: { folder: '/base', hash },
  seconds: 0,
  log: { events: 0, sum: '00000000' },
};

interface Setting extends Partial<DialoguesPlan> {
  readonly models?: readonly LanguageModel[];
  readonly scenario?: Scenario;
  readonly concurrency?: number;
  readonly progress?: Progress;
  readonly signal?: AbortSignal;
  /** A run to go on with; by default a new one. */
  readonly folder?: string;
  /** Names of the phases to carry out; `phase` alone by default. */
  readonly phases?: readonly string[];
}

interface Held {
  readonly folder: string;
  readonly figures: TeamFigures;
  /** As the log gives them. */
  readonly dialogues: readonly Trajectory[];
}

/** A new run, or one to go on with. */
function openRun(folder: string): RunFolder {
  if (fs.existsSync(folder)) return RunFolder.open(folder, clock);
  const run = RunFolder.create(folder, manifest, clock);
  run.record({ type: 'run.started', scenario: 'word-pairs', seed: 5, base: hash, recipe: {} });
  return run;
}

/** The context and the plan of a phase: three tasks, one dialogue each, in cohorts of two. */
function settingOf(run: RunFolder, setting: Setting): [PhaseContext, DialoguesPlan] {
  const { models = [solver], concurrency = 2, progress = silent, scenario = wordPairs(), signal } = setting;
  const shelf = {
    speakersOf: async (team: TeamPolicy) =>
      models.map((model) => Object.fromEntries(Object.keys(team).map((role) => [role, model]))),
  };
  const recipe = applySettings(presetRecipe('quick'), [`concurrency=${concurrency}`, 'maxMessageTokens=20']);
  const context = { run, recipe, scenario, shelf, rng: createRng(5), progress, signal };
  return [
    context as unknown as PhaseContext,
    { phase, policy, tasks: tasksOf(3), samplesPerTask: 1, formats: [], temperature: 0.7, ...setting },
  ];
}

/** Carries out phases of dialogues in a run; it is closed behind them, whatever came of it. */
async function held({ folder = freshFolder(), phases = [phase], ...setting }: Setting = {}): Promise<Held> {
  const run = openRun(folder);
  try {
    let figures!: TeamFigures;
    const dialogues: Trajectory[] = [];
    for (const name of phases) {
      const [context, plan] = settingOf(run, { ...setting, phase: setting.phase ?? name });
      await run.carryOut({ name, kind: 'generate' }, async () => {
        let sampledTokens: number;
        ({ figures, sampledTokens } = await holdDialogues(context, plan));
        return { kind: 'generate', dialogues: figures.dialogues, failed: figures.failed, sampledTokens };
      });
      dialogues.push(...run.dialoguesOf(name));
    }
    return { folder, figures, dialogues };
  } finally {
    run.close();
  }
}

const logOf = (folder: string) => path.join(folder, 'events.jsonl');
const textOf = (folder: string) => fs.readFileSync(logOf(folder), 'utf8');
const linesOf = (folder: string) => textOf(folder).split('\n').slice(0, -1);
const eventsOf = (folder: string) => linesOf(folder).map((line) => JSON.parse(line));

/** A run that was stopped when its log had `lines` lines of this one's, and a part of the next one. */
function cutTo(folder: string, lines: number): string {
  const cut = freshFolder();
  fs.cpSync(folder, cut, { recursive: true });
  writeManifest(cut, manifest);
  const all = linesOf(folder);
  const rest = all[lines]?.slice(0, 20) ?? '';
  fs.writeFileSync(
    logOf(cut),
    all
      .slice(0, lines)
      .map((line) => `${line}\n`)
      .join('') + rest,
  );
  return cut;
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
/** The numbers of the tasks that requests are about. */
const asked = (requests: readonly GenerationRequest[]) =>
  [...new Set(requests.map(({ id }) => id.match(/train-0000(\d)/)![1]!))].sort().join('');

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

/** Enough turns of the event loop for anything that is due. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
}

test('the log holds every task’s samples, in order, and what the figures say of them', async () => {
  const { dialogues, figures } = await held({ tasks: tasksOf(2), samplesPerTask: 3 });
  assert.equal(
    dialogues.map(({ id, taskId }) => `${id} of ${taskId}`),
    [0, 1].flatMap((task) =>
      [0, 1, 2].map((sample) => `init-0/generate/train-0000${task}.${sample} of train-0000${task}`),
    ),
  );
  assert.equal(
    dialogues.map(({ verdict }) => verdict!.answer),
    ['oak elm', 'oak elm', 'oak elm', 'elm fir', 'elm fir', 'elm fir'],
  );
  assert.equal(figures.metrics(createRng(1)), measureTeam(dialogues, createRng(1)));
  assert.equal([figures.dialogues, figures.failed], [6, 0]);
});

test('a turn is asked for with the plan’s temperature, the recipe’s cap and the seed of its node', async () => {
  const { model, requests } = heard();
  await held({ models: [model], temperature: 0.3 });
  assert.is(requests.length, 9);
  for (const { id, sampling, seed } of requests) {
    assert.equal(sampling, { temperature: 0.3, topP: 1, topK: 0, maxTokens: 20 });
    assert.is(seed, createRng(5).split('nodes').split(id).seed32());
  }
});

test('the policy of the plan speaks, for each role its own', async () => {
  const teams: TeamPolicy[] = [];
  const speakers = {
    alice: scriptedModel({ reply: solveWordPair, hash: 'one' }),
    bob: scriptedModel({ reply: solveWordPair, hash: 'two' }),
  };
  const run = openRun(freshFolder());
  const [context, plan] = settingOf(run, { tasks: tasksOf(1) });
  const shelf = {
    speakersOf: async (team: TeamPolicy) => {
      teams.push(team);
      return [speakers];
    },
  } as unknown as PhaseContext['shelf'];
  await run.carryOut({ name: phase, kind: 'generate' }, async () => {
    const { figures, sampledTokens } = await holdDialogues({ ...context, shelf }, plan);
    return { kind: 'generate', dialogues: figures.dialogues, failed: figures.failed, sampledTokens };
  });
  assert.equal(
    [...run.dialoguesOf(phase)][0]!.turns.map(({ policyHash }) => policyHash),
    ['one', 'two', 'one'],
  );
  assert.equal(teams, [policy]);
  run.close();
});

const formats: FormatPrompt[] = ['terse', 'table', 'code'].map((name) => ({ name, prompt: `As ${name}.` }));

test('each dialogue draws its format, and the log says what each was, once', async () => {
  const { folder, dialogues } = await held({ formats, tasks: tasksOf(4), samplesPerTask: 3 });
  for (const { id, format } of dialogues) {
    assert.is(format, createRng(5).split('formats').split(id).pick(formats).name);
  }
  const dealt = eventsOf(folder).filter(({ type }) => type === 'format.dealt');
  assert.equal(new Set(dealt.map(({ format }) => format)), new Set(dialogues.map(({ format }) => format)));
  assert.is(dealt.length, 3);
  const plain = await held();
  assert.ok(plain.dialogues.every(({ format }) => format === null));
  assert.not.match(textOf(plain.folder), 'format.dealt');
});

test('the log deals a task once: not for each sample, not for each cohort, not in a later phase', async () => {
  const phases = [phase, 'isft-1/generate'];
  const { folder, dialogues } = await held({ tasks: tasksOf(2), samplesPerTask: 3, concurrency: 1, phases });
  const dealt = eventsOf(folder).filter(({ type }) => type === 'task.dealt');
  assert.equal(
    dealt.map(({ taskId, views }) => [taskId, views]),
    [
      ['train-00000', { alice: 'word: oak', bob: 'word: elm' }],
      ['train-00001', { alice: 'word: elm', bob: 'word: fir' }],
    ],
  );
  assert.is(dialogues.length, 12);
  for (const { taskId, views } of dialogues) {
    assert.is(views.alice, taskId === 'train-00000' ? 'word: oak' : 'word: elm');
  }
  assert.equal(
    dialogues.slice(6).map(({ turns }) => turns.map(({ text }) => text)),
    dialogues.slice(0, 6).map(({ turns }) => turns.map(({ text }) => text)),
  );
});

test('a run that was stopped wherever it was ends in the same log, with the same dialogues and figures', async () => {
  const setting: Setting = { formats, tasks: tasksOf(2), samplesPerTask: 2, concurrency: 1 };
  for (const [phases, step] of [
    [[phase], 4],
    [['base', 'trained'], 11],
  ] as const) {
    const whole = await held({ ...setting, phases });
    const text = textOf(whole.folder);
    const lines = linesOf(whole.folder).length;
    for (let kept = 1; kept <= lines; kept += step) {
      const { folder, dialogues, figures } = await held({
        ...setting,
        phases,
        folder: cutTo(whole.folder, kept),
      });
      assert.is(textOf(folder), text, `${kept} of ${lines} lines`);
      assert.equal(dialogues, whole.dialogues);
      // A phase that was complete is not carried out again.
      if (kept < lines) assert.equal(figures.metrics(createRng(1)), whole.figures.metrics(createRng(1)));
    }
  }
});

test('a cohort that the log holds whole is not held again, one that was cut off is', async () => {
  const whole = await held({ tasks: tasksOf(6) });
  const lines = linesOf(whole.folder);
  const ends = lines.flatMap((line, index) => (line.includes('"type":"cohort.completed"') ? [index] : []));
  for (const [kept, expected] of [
    [ends[0]!, '012345'],
    [ends[0]! + 1, '2345'],
    [ends[0]! + 8, '2345'],
    [ends[1]!, '2345'],
    [ends[1]! + 1, '45'],
    [ends[2]! + 1, ''],
    [lines.length, ''],
  ] as const) {
    const { model, requests } = heard();
    const folder = cutTo(whole.folder, kept);
    const { dialogues } = await held({ models: [model], tasks: tasksOf(6), folder });
    assert.is(asked(requests), expected, `${kept} lines`);
    assert.equal(dialogues, whole.dialogues);
    assert.is(textOf(folder), textOf(whole.folder));
  }
});

test('a cohort of another phase, or of another number, is not taken for this one', async () => {
  const whole = await held({ tasks: tasksOf(2) });
  const end = linesOf(whole.folder).findIndex((line) => line.includes('"cohort":0'));
  const other = cutTo(whole.folder, end + 1);
  const stranger = await rejection(held({ tasks: tasksOf(2), phase: 'isft-1/generate', folder: other }));
  assert.is(stranger.code, 'run.diverged');
  const numbered = cutTo(whole.folder, end + 1);
  replaceLog(
    numbered,
    eventsIn(whole.folder)
      .slice(0, end + 1)
      .map((event) => (event.type === 'cohort.completed' ? { ...event, cohort: 1 } : event)),
  );
  assert.is((await rejection(held({ tasks: tasksOf(2), folder: numbered }))).code, 'run.diverged');
});

test('a resumed run that arrives at other words has diverged', async () => {
  const whole = await held({ tasks: tasksOf(4) });
  const end = linesOf(whole.folder).findIndex((line) => line.includes('"cohort":0'));
  const taken = linesOf(whole.folder).findIndex(
    (line, index) => index > end && line.includes('"type":"turn.taken"'),
  );
  const folder = cutTo(whole.folder, taken + 1);
  assert.is((await rejection(held({ models: [talker], tasks: tasksOf(4), folder }))).code, 'run.diverged');
});

test('a watcher hears of each dialogue that closed, of those from the log at once, and of failures', async () => {
  const failing = refusing(
    scriptedModel({ reply: solveWordPair }),
    (id) => (id.includes('train-00001') && 'no words') || (id.includes('train-00004') && 'no voice'),
  );
  const first = told();
  const setting = { models: [failing], tasks: tasksOf(5) };
  const whole = await held({ ...setting, progress: first.progress });
  const end = '5 dialogues, 2 failed, the first with: Turn 0 of alice failed: no words';
  assert.equal(first.lines, ['init-0/generate: 5 dialogues', '0', '1', '2', '3', '4', '5', end]);
  const second = linesOf(whole.folder).findIndex((line) => line.includes('"cohort":1'));
  const again = told();
  await held({ ...setting, progress: again.progress, folder: cutTo(whole.folder, second) });
  assert.equal(again.lines, ['init-0/generate: 5 dialogues', '2', '3', '4', '5', end]);
  const none = told();
  await held({ progress: none.progress, tasks: tasksOf(1) });
  assert.equal(none.lines, ['init-0/generate: 1 dialogues', '0', '1', '1 dialogues']);
});

/** A model whose calls are answered when the test says so; `called` resolves with the next call. */
function controlled(model: LanguageModel = talker) {
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
          answer: () => void model.generate(requests).then(resolve, reject),
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
const short = wordPairs({ protocol: { ...wordPairs().protocol, maxTurns: 1 } });

test('cohorts side by side are logged one after the other, whichever ends first', async () => {
  const setting = { scenario: short, tasks: tasksOf(7) };
  const inOrder = await held({ ...setting, models: [talker] });
  const [x, y] = [controlled(), controlled()];
  const folder = freshFolder();
  const all = held({ ...setting, models: [x.model, y.model], folder });
  const [slow, quick] = [await x.called(), await y.called()];
  assert.equal([slow.ids, quick.ids], ['01', '23']);
  const first = textOf(folder);
  assert.is(first.match(/dialogue\.opened/g)!.length, 2, 'the first cohort is logged as it goes');
  quick.answer();
  const third = await y.called();
  assert.is(third.ids, '45');
  assert.is(textOf(folder), first, 'the second cohort has ended, and waits for the first');
  slow.answer();
  const last = await x.called();
  assert.is(last.ids, '6');
  const kept = textOf(folder);
  assert.is(kept.match(/cohort\.completed/g)!.length, 2);
  assert.ok(kept.includes('dialogue.opened","dialogueId":"init-0/generate/train-00005.0"'));
  assert.not.ok(kept.includes('train-00006'));
  third.answer();
  last.answer();
  assert.equal((await all).dialogues, inOrder.dialogues);
  assert.is(textOf(folder), textOf(inOrder.folder));
});

test('several cohorts that waited are logged together, and a resumed run counts on from those in the log', async () => {
  const setting = { scenario: short, tasks: tasksOf(4), concurrency: 1 };
  const inOrder = await held({ ...setting, models: [talker] });
  const end = linesOf(inOrder.folder).findIndex((line) => line.includes('"cohort":0'));
  const folder = cutTo(inOrder.folder, end + 1);
  const lanes = [controlled(), controlled(), controlled()];
  const all = held({ ...setting, models: lanes.map(({ model }) => model), folder });
  const calls = await Promise.all(lanes.map(({ called }) => called()));
  assert.equal(
    calls.map(({ ids }) => ids),
    ['1', '2', '3'],
  );
  for (const call of calls.reverse()) call.answer();
  assert.equal((await all).dialogues, inOrder.dialogues);
  assert.is(textOf(folder), textOf(inOrder.folder));
});

for (const signal of [undefined, new AbortController().signal]) {
  const interruptible = signal === undefined ? '' : ', in a phase that can be interrupted';
  test(`a log that cannot be written ends the phase: other cohorts are aborted, none is begun${interruptible}`, async () => {
    const run = openRun(freshFolder());
    const [x, y] = [controlled(), controlled()];
    const [context, plan] = settingOf(run, {
      ...{ scenario: short, tasks: tasksOf(6), models: [x.model, y.model] },
      ...(signal === undefined ? {} : { signal }),
    });
    const lost = rejection(holdDialogues(context, plan));
    const [failing, other] = [await x.called(), await y.called()];
    // Nothing can be written to a file that is closed.
    run.log.close();
    failing.answer();
    const { code, message } = await lost;
    assert.is(code, 'io.write');
    assert.match(message, 'events.jsonl');
    await settle();
    assert.ok(other.signal.aborted);
    assert.equal([x.calls.length, y.calls.length], [1, 1]);
  });
}

test('an interruption ends all cohorts under way, and the run goes on where it was', async () => {
  const interrupt = new AbortController();
  const setting = { scenario: short, tasks: tasksOf(6) };
  const whole = await held({ ...setting, models: [talker] });
  const [x, y] = [controlled(), controlled()];
  const folder = freshFolder();
  const models = [x.model, y.model];
  const lost = rejection(held({ ...setting, models, signal: interrupt.signal, folder }));
  const calls = [await x.called(), await y.called()];
  calls[0]!.answer();
  calls.push(await x.called());
  interrupt.abort();
  assert.is((await lost).code, 'interrupted');
  assert.equal(
    calls.map(({ signal }) => signal.aborted),
    [false, true, true],
  );
  assert.is(x.calls.length + y.calls.length, 3);
  const left = textOf(folder);
  assert.ok(textOf(whole.folder).startsWith(left), 'what there is of the log is its beginning');
  assert.is(left.match(/cohort\.completed/g)!.length, 1);
  const { model, requests } = heard(talker);
  const resumed = await held({ ...setting, models: [model], folder });
  assert.is(asked(requests), '2345');
  assert.equal(resumed.dialogues, whole.dialogues);
  assert.is(textOf(folder), textOf(whole.folder));
});

test('a dialogue whose view cannot be dealt is logged as failed, with no deal', async () => {
  const { roles } = wordPairs();
  const scenario = wordPairs({
    roles: {
      ...roles,
      bob: {
        sees: (task) => {
          if (task.right === 'fir') throw new Error('boom');
          return `word: ${task.right}`;
        },
      },
    },
  });
  const { folder, dialogues, figures } = await held({ scenario });
  assert.equal(
    dialogues.map(({ outcome, views }) => [outcome, views.bob]),
    [
      ['agreed', 'word: elm'],
      ['failed', undefined],
      ['agreed', 'word: ash'],
    ],
  );
  assert.is(figures.summary(), '3 dialogues, 1 failed, the first with: Dealing the views failed: boom');
  assert.equal(
    eventsOf(folder).flatMap(({ type, taskId }) => (type === 'task.dealt' ? [taskId] : [])),
    ['train-00000', 'train-00002'],
  );
});

test.run();
