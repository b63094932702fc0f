// A scenario of each kind of turn, played by scripts: what every role reads, a training run of it, the same read back from
// its log without the scenario, and a run that is cut off.
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { everyRole, runCohort } from '../../src/actors/index.ts';
import { checkScenario } from '../../src/check/check.ts';
import { systemClock } from '../../src/domain/clock.ts';
import { childId, rootId } from '../../src/domain/ids.ts';
import type { ChatMessage, GenerationRequest } from '../../src/domain/model.ts';
import { createRng } from '../../src/domain/rng.ts';
import { type Trajectory, viewOf, writtenOf } from '../../src/domain/transcript.ts';
import { loadPolicy } from '../../src/models/llama/index.ts';
import { scriptedModel } from '../../src/models/scripted/index.ts';
import { trajectoriesOf } from '../../src/rollouts/executor.ts';
import { trainTeam } from '../../src/run/train.ts';
import type { Scenario } from '../../src/scenario/index.ts';
import { loadTasks } from '../../src/scenario/tasks.ts';
import { emptyLog } from '../../src/store/event-log.ts';
import { RunFolder } from '../../src/store/run-folder.ts';
import { changeManifest, temporaryFolder, writeRandomCheckpoint } from '../support/run.ts';
import { spyOn, spyRecipe } from '../support/spy.ts';
import median from './kinds/median.ts';
import secretPrice from './kinds/secret-price.ts';
import tableLookup from './kinds/table-lookup.ts';
import votes from './kinds/votes.ts';
import whispers from './kinds/whispers.ts';

type Messages = Pick<GenerationRequest, 'messages'>;
const system = ({ messages }: Messages) => messages[0]!.content;
const heard = ({ messages }: Messages) =>
  messages.filter(({ role }) => role === 'user').map(({ content }) => content);
const isFirst = ({ messages }: Messages) => !messages.some(({ role }) => role === 'assistant');

/** Each says its number, and the median as soon as it knows all three. */
function solveMedian(request: Messages): string {
  const own = Number(/number is (\d+)/.exec(system(request))![1]);
  const others = [
    ...heard(request)
      .join('\n')
      .matchAll(/: mine is (\d+)/g),
  ].map(([, number]) => Number(number));
  const known = [...new Set([own, ...others])].sort((a, b) => a - b);
  return `mine is ${own}${known.length === 3 ? ` <A>${known[1]}</A>` : ''}`;
}

function solveLookup(request: Messages): string {
  const [, city] = /mayor of (\w+)/.exec(system(request)) ?? [];
  const last = heard(request).at(-1);
  if (city !== undefined) return last === undefined ? `mayor of ${city}?` : last;
  const asked = /^mayor of (\w+)\?$/.exec(last!);
  if (asked !== null)
    return isFirst(request) ? `<call>lookup ${asked[1]}` : `<call>lookup ${asked[1]}</call>`;
  const found = /^lookup: (\w+)$/.exec(last!);
  return found === null ? `<call>lookup ${heard(request)[0]!.slice(9, -1)}</call>` : `<A>${found[1]}</A>`;
}

/** Nobody votes at first; then each for its own sign. */
const vote = (request: Messages) =>
  isFirst(request) ? 'let me see' : `<A>${/saw says (\w+)/.exec(system(request))![1]}</A>`;

function bargain(request: Messages): string {
  const limit = Number(/(?:least|most) (\d+)/.exec(system(request))![1]);
  const offer = heard(request).at(-1) ?? `<A>${limit + 1}</A>`;
  return `<think>my limit is ${limit}</think> ${offer}`;
}

function whisper(request: Messages): string {
  const [, gate] = /The (\w+) gate is open/.exec(system(request)) ?? [];
  if (gate !== undefined) return `It is <A>${gate}</A>`;
  return system(request).startsWith('Guess') ? '<A>south</A>' : 'Nice weather.';
}

const kinds: readonly [Scenario, (request: Messages) => string][] = [
  [median, solveMedian],
  [tableLookup, solveLookup],
  [votes, vote],
  [secretPrice, bargain],
  [whispers, whisper],
];

/** Plays the scenario's first test task: the dialogue, and what each of its turns was asked with. */
async function play(scenario: Scenario, reply: (request: Messages) => string) {
  const asked: ChatMessage[][] = [];
  const range = { from: 0, count: 1 };
  const [{ id: taskId, task }] = (await loadTasks(scenario, 'test', range, createRng(2))) as [
    { id: never; task: never },
  ];
  const tree = rootId('played', taskId);
  const model = scriptedModel({
    reply: (request) => {
      asked.push(request.messages.map(({ role, content }) => ({ role, content })));
      return reply(request);
    },
  });
  const messages = runCohort([{ id: childId(tree, 0), tree, taskId, task, format: null }], {
    scenario,
    cast: everyRole(scenario, model),
    sampling: { temperature: 0, topP: 1, topK: 0, maxTokens: 50 },
    rng: createRng(1),
  });
  const [dialogue] = await trajectoriesOf(messages);
  return { task: task as Record<string, never>, dialogue: dialogue!, asked };
}

const user = (content: string) => ({ role: 'user' as const, content });
const own = (content: string) => ({ role: 'assistant' as const, content });

test('each is a file of at most 60 lines, and nothing is found wrong with it', async () => {
  for (const [scenario] of kinds) {
    const file = new URL(`kinds/${scenario.name}.ts`, import.meta.url);
    assert.ok(fs.readFileSync(file, 'utf8').split('\n').length <= 61, scenario.name);
    const findings = await checkScenario(scenario, 1);
    // Some have few different tasks.
    assert.equal(
      findings.filter(({ message }) => !/test tasks are among the first/.test(message)),
      [],
      scenario.name,
    );
  }
});

test('three agents with names hear who said what, and a majority ends the dialogue with its answer', async () => {
  const { task, dialogue, asked } = await play(median, solveMedian);
  const { alice, bob, carol } = task;
  const middle = [alice!, bob!, carol!].sort((a, b) => a - b)[1];
  assert.equal(
    asked.map(([, ...said]) => said),
    [
      [],
      [user(`Alice: mine is ${alice}`)],
      [user(`Alice: mine is ${alice}\nBob: mine is ${bob}`)],
      [own(`mine is ${alice}`), user(`Bob: mine is ${bob}\nCarol: mine is ${carol} <A>${middle}</A>`)],
    ],
  );
  assert.is(dialogue.outcome, 'agreed');
  assert.equal(dialogue.verdict, { taskScore: 1, exactMatch: true, answer: `${middle}` });
});

test('a desk answers calls to the caller alone, and says what is wrong with a malformed one', async () => {
  const { task, dialogue, asked } = await play(tableLookup, solveLookup);
  const mayor = (task.mayors as unknown as Record<string, string>)[task.city!];
  const [question, broken, call] = [
    `mayor of ${task.city}?`,
    `<call>lookup ${task.city}`,
    `<call>lookup ${task.city}</call>`,
  ];
  const complaint = 'call: it is written <call>name arguments</call>';
  assert.equal(
    asked.map(([, ...said]) => said),
    [
      [],
      [user(question)],
      [user(question), own(broken), user(complaint)],
      [user(question), own(broken), user(complaint), own(call), user(`lookup: ${mayor}`)],
      [own(question), user(broken), user(call), user(`<A>${mayor}</A>`)],
    ],
  );
  assert.equal(dialogue.verdict, { taskScore: 1, exactMatch: true, answer: mayor });
});

test('votes of a round are cast without the others’, and read after it', async () => {
  const { task, dialogue, asked } = await play(votes, vote);
  const { ann, ben, cyd } = task.signs as unknown as Record<string, string>;
  const others = (...names: string[]) => names.map((name) => `${name}: let me see`).join('\n');
  assert.equal(
    asked.map(([, ...said]) => said),
    [
      ...[[], [], []],
      [own('let me see'), user(others('Ben', 'Cyd'))],
      [own('let me see'), user(others('Ann', 'Cyd'))],
      [own('let me see'), user(others('Ann', 'Ben'))],
    ],
  );
  assert.equal(
    dialogue.turns.map(({ text }) => text).slice(3),
    [ann, ben, cyd].map((sign) => `<A>${sign}</A>`),
  );
  assert.is(dialogue.verdict!.taskScore, 1);
});

test('private notes stay in their own view, and no answer is read out of them', async () => {
  const { task, dialogue, asked } = await play(secretPrice, bargain);
  const offer = `<A>${Number(task.floor) + 1}</A>`;
  assert.equal(
    asked.map(([, ...said]) => said),
    [[], [user(offer)]],
  );
  assert.equal(
    dialogue.turns.map(({ text, written }) => [text, written]),
    [
      [offer, `<think>my limit is ${task.floor}</think> ${offer}`],
      [offer, `<think>my limit is ${task.ceiling}</think> ${offer}`],
    ],
  );
  const last = viewOf('seller', dialogue, dialogue.turns).slice(1);
  assert.is(last[0]!.content, `<think>my limit is ${task.floor}</think> ${offer}`);
  assert.is(last[1]!.content, offer);
  // Its tokens are those that were sampled, the notes' among them.
  assert.is(dialogue.turns[0]!.tokenIds.length, 6);
  assert.is(dialogue.verdict!.answer, String(Number(task.floor) + 1));
  const whole = await play(secretPrice, () => '<think>it is <A>12</A>');
  assert.equal(
    [whole.dialogue.turns[0]!.text, whole.dialogue.outcome, whole.dialogue.verdict!.answer],
    ['', 'turn-cap', null],
  );
});

test('a message that only some may see is seen by no one else, and the guard answers', async () => {
  const { task, dialogue, asked } = await play(whispers, whisper);
  const gates = 'The gates are north, south, east, west.';
  assert.equal(
    asked.map(([, ...said]) => said),
    [
      [user(`${gates}\nIt is not locked: ${task.gate}.`)],
      [user(`${gates}\nCaptain: It is <A>${task.gate}</A>`)],
      [user(`${gates}\nThe scout: Nice weather.`)],
    ],
  );
  assert.is(dialogue.verdict!.answer, 'south', 'not what the captain stated');
});

const root = temporaryFolder('kinds');
test.after(() => fs.rmSync(root, { recursive: true }));
const model = path.join(root, 'model');
test.before(() =>
  writeRandomCheckpoint(model, 'mine is number Alice Bob Carol lookup call mayor think limit let me see'),
);
const recipe = spyRecipe(
  'iterations=1',
  'initialization.samplesPerTask=2',
  'maxMessageTokens=200',
  'concurrency=3',
);

for (const [scenario, reply] of kinds) {
  test(`${scenario.name}: a run trains on what was sampled alone, and its log says what every turn was read from`, async () => {
    const asked = new Map<string, readonly ChatMessage[]>();
    const spying = (request: GenerationRequest) => {
      asked.set(request.id, request.messages);
      return reply(request);
    };
    const folder = path.join(root, scenario.name);
    const { training, trainings } = await spyOn({ folder, model, recipe, scenario, reply: spying });
    await trainTeam(training);
    training.run.close();

    const run = RunFolder.open(folder, systemClock);
    const phases = [...run.phases].filter(([, { output }]) => ['generate', 'evaluate'].includes(output.kind));
    const dialogues = phases.flatMap(([phase]) => [...run.dialoguesOf(phase)]);
    run.close();
    assert.ok(dialogues.length > 8);
    let turns = 0;
    for (const dialogue of dialogues) {
      assert.is(dialogue.outcome, 'agreed', dialogue.failure ?? dialogue.id);
      for (const [index, { id, speaker }] of dialogue.turns.entries()) {
        assert.equal(viewOf(speaker, dialogue, dialogue.turns.slice(0, index)), asked.get(id), id);
        turns++;
      }
    }
    assert.is(turns, asked.size);
    const rows = fs.readFileSync(path.join(folder, 'metrics.jsonl'), 'utf8').trim().split('\n');
    for (const { environmentTokens, noteTokens, generated } of rows.map((row) => JSON.parse(row))) {
      const figures = generated ?? { environmentTokens, noteTokens };
      assert.is(figures.environmentTokens > 0, [tableLookup, whispers].includes(scenario as never));
      assert.is(figures.noteTokens > 0, scenario === (secretPrice as Scenario));
    }

    const { tokenizer } = await loadPolicy(model);
    const written = new Set(dialogues.flatMap((dialogue: Trajectory) => dialogue.turns.map(writtenOf)));
    const sequences = trainings.flatMap(({ steps }) => steps.flat());
    assert.ok(sequences.length > 3);
    for (const { tokenIds, lossMask } of sequences) {
      const learnt: number[][] = [];
      for (const [index, mask] of lossMask.entries()) {
        if (mask === 0) continue;
        if (lossMask[index - 1] !== 1) learnt.push([]);
        learnt.at(-1)!.push(tokenIds[index]!);
      }
      for (const ids of learnt) assert.ok(written.has(tokenizer.decode(ids)), tokenizer.decode(ids));
    }

    // Cut off within a cohort, the run ends in the same log.
    const log = path.join(folder, 'events.jsonl');
    const whole = fs.readFileSync(log, 'utf8');
    const lines = whole.split('\n');
    const from = lines.findIndex((line) => line.includes('"phase.started","phase":"init-0/generate"'));
    fs.writeFileSync(log, `${lines.slice(0, from + 12).join('\n')}\n${lines[from + 12]!.slice(0, 40)}`);
    changeManifest(folder, () => ({ log: emptyLog }));
    const again = await spyOn({ folder, model, recipe, scenario, reply, resume: true });
    await trainTeam(again.training);
    again.training.run.close();
    assert.is(fs.readFileSync(log, 'utf8'), whole);
  });
}

test.run();
