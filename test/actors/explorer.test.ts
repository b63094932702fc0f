// One explorer with its world: from where it rolls out, and what becomes of it when nobody listens any more.
import { lastValueFrom, toArray } from 'rxjs';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import {
  type Exploration,
  type ExplorerOptions,
  everyRole,
  runExplorer,
  type ValueDialogues,
} from '../../src/actors/index.ts';
import { Forest, treesIn } from '../../src/domain/conversation-tree.ts';
import { rootId, taskId } from '../../src/domain/ids.ts';
import type { LanguageModel } from '../../src/domain/model.ts';
import { createRng } from '../../src/domain/rng.ts';
import type { Trajectory } from '../../src/domain/transcript.ts';
import { scriptedModel } from '../../src/models/scripted/index.ts';
import { searchedTrees } from '../../src/reading/pairing.ts';
import { solveWordPair, wordPairs } from '../support/scenarios.ts';

const scenario = wordPairs();
const id = taskId('train', 0);
const task: Exploration = { tree: rootId('s', id), taskId: id, task: { left: 'oak', right: 'elm' } };
/** Alice's first turn is another one each time; all else is said in the same words. */
const model = scriptedModel({
  reply: ({ messages, seed }) => {
    const said = solveWordPair({
      messages: messages.map((message) => ({ ...message, content: message.content.replace(/^\d+ /, '') })),
    });
    return messages.length === 1 ? `${seed} ${said}` : said;
  },
});

const valued: Trajectory[][] = [];
const value: ValueDialogues = async (dialogues) => {
  valued.push([...dialogues]);
  return dialogues.map(({ id: dialogueId, taskId }, index) => ({
    type: 'trajectory.ranked',
    ...{
      dialogueId,
      taskId,
      tokens: 1,
      terms: null,
      turnLosses: [],
      edgeCases: [],
      eligible: true,
      failure: null,
    },
    reward: index,
  }));
};

const optionsOf = (
  overrides: Partial<ExplorerOptions> & { readonly speaks?: LanguageModel } = {},
): ExplorerOptions => {
  const { speaks = model, ...rest } = overrides;
  return {
    ...{ scenario, value, cast: everyRole(scenario, speaks), rng: createRng(1), choices: createRng(2) },
    sampling: { temperature: 1, topP: 1, topK: 0, maxTokens: 20 },
    search: {
      ...{ expansions: 3, rolloutsPerExpansion: 2, minDistance: 0, mergeBelow: 0.05, candidates: 10 },
      ...{ temperature: 1, policy: 'softmax', exploration: 1, backup: 'mean-of-children' },
    },
    ...rest,
  };
};

test('dialogues go on from the expanded node, with what was said before it', async () => {
  valued.length = 0;
  const events = await lastValueFrom(runExplorer(task, optionsOf()).pipe(toArray()));
  const opened = events.flatMap((event) => (event.type === 'dialogue.opened' ? [event] : []));
  assert.equal(
    opened.slice(0, 2).map(({ dialogueId, parent }) => [dialogueId, parent]),
    [
      [`${task.tree}.0`, null],
      [`${task.tree}.1`, null],
    ],
  );
  const later = opened.filter(({ parent }) => parent !== null);
  assert.ok(later.length > 0);
  assert.is(valued.flat().length, 6, 'each expansion is valued by itself');
  assert.equal(
    valued.map(({ length }) => length),
    [2, 2, 2],
  );
  for (const { dialogueId, parent } of later) {
    const { turns } = valued.flat().find((dialogue) => dialogue.id === dialogueId)!;
    assert.is(turns[0]!.id, parent, 'the expanded node is the first turn here');
    assert.is(turns.length, 3);
    assert.match(turns[2]!.text, /^<A>/);
  }
});

test('who unsubscribes stops the dialogues, and nothing more is asked or valued', async () => {
  let calls = 0;
  const counting: LanguageModel = {
    ...model,
    async generate(requests, options) {
      calls++;
      await new Promise((resolve) => setImmediate(resolve));
      return model.generate(requests, options);
    },
  };
  valued.length = 0;
  const heard: string[] = [];
  await new Promise<void>((resolve) => {
    const search = runExplorer(task, optionsOf({ speaks: counting })).subscribe((event) => {
      heard.push(event.type);
      if (event.type !== 'turn.taken') return;
      // When the subscription is there to be ended.
      queueMicrotask(() => {
        search.unsubscribe();
        resolve();
      });
    });
  });
  const [before, said] = [calls, heard.length];
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
  assert.is(calls, before);
  assert.is(heard.length, said);
  assert.equal(valued, []);
});

test('who unsubscribes while rewards are computed hears nothing of them, and no further expansion begins', async () => {
  let finish = () => {};
  let calls = 0;
  const waiting: ValueDialogues = async (dialogues) => {
    await new Promise<void>((resolve) => {
      finish = resolve;
    });
    return value(dialogues);
  };
  const counting: LanguageModel = {
    ...model,
    generate: (requests, options) => {
      calls++;
      return model.generate(requests, options);
    },
  };
  const heard: string[] = [];
  const search = runExplorer(task, optionsOf({ value: waiting, speaks: counting })).subscribe(({ type }) =>
    heard.push(type),
  );
  while (!heard.includes('verdict.given')) await new Promise((resolve) => setImmediate(resolve));
  for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
  const [before, said] = [calls, heard.length];
  search.unsubscribe();
  finish();
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
  assert.equal([calls, heard.length], [before, said]);
});

test('a search goes by what was written, private notes included, live and from the log', async () => {
  const noting = scriptedModel({
    reply: (request) => `<think>${request.seed} ${request.id}</think> ${solveWordPair(request)}`,
  });
  const choices = createRng(3).split('search');
  const options = { ...optionsOf({ speaks: noting, choices }), scenario: wordPairs({ notes: 'think' }) };
  const events = await lastValueFrom(runExplorer(task, options).pipe(toArray()));
  const first = events.flatMap((event) =>
    event.type === 'turn.taken' && event.turn.parent === task.tree ? [event.turn] : [],
  );
  assert.ok(first.length > 1, 'what is heard of them is the same');
  assert.equal(new Set(first.map(({ text }) => text)), new Set(['mine is oak']));
  const done = { type: 'cohort.completed', phase: 's', cohort: 0 } as const;
  const [tree] = searchedTrees(
    treesIn([...events, done], () => new Forest()),
    options.search,
    createRng(3),
  );
  assert.is(tree!.search.tree.root.children.length, first.length);
  assert.is(tree!.search.tree.nodes.get(first[0]!.id)!.text, first[0]!.written);
});

test.run();
