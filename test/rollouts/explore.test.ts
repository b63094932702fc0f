// Searches through real actors: what is rolled out from where, what becomes one, what is told, and that none of it depends
// on what else is searched at the same time.
import { lastValueFrom, toArray } from 'rxjs';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type Exploration, everyRole, runExplorer, type ValueDialogues } from '../../src/actors/index.ts';
import { Forest, pathTo, treesIn } from '../../src/domain/conversation-tree.ts';
import { OptimaError } from '../../src/domain/errors.ts';
import type { RunEvent } from '../../src/domain/events.ts';
import { rootId, taskId } from '../../src/domain/ids.ts';
import { type GenerationRequest, type LanguageModel, takeAll } from '../../src/domain/model.ts';
import { createRng } from '../../src/domain/rng.ts';
import { messageTokens } from '../../src/domain/transcript.ts';
import { scriptedModel } from '../../src/models/scripted/index.ts';
import { searchedTrees } from '../../src/reading/pairing.ts';
import {
  type ExplorePlan,
  exploreTrees,
  type SearchCost,
  type SearchEvent,
} from '../../src/rollouts/explore.ts';
import type { SearchConfig } from '../../src/search/index.ts';
import { solveWordPair, type WordPair, wordPairs } from '../support/scenarios.ts';

const scenario = wordPairs();
const search: SearchConfig = {
  ...{ expansions: 8, rolloutsPerExpansion: 3, minDistance: 0.25, mergeBelow: 0.1, candidates: 10 },
  ...{ temperature: 1, policy: 'softmax', exploration: 1, backup: 'mean-of-children' },
};

/** Says what a word pair needs, after more or fewer words of which the seed decides; some turns ask instead. */
function wordy(request: Pick<GenerationRequest, 'messages' | 'seed'>): string {
  const draw = createRng(request.seed);
  if (draw.next() < 0.25)
    return `${draw.pick(['please say it', 'what do you see', 'I wonder about that'])} now`;
  const said = request.messages.filter(({ content }) => !content.endsWith(' now'));
  const answer = solveWordPair({ messages: said });
  return answer.startsWith('<A>')
    ? answer
    : `${'well '.repeat(draw.int(3))}${answer}`.replace(/^(well )+mine/, 'mine');
}
const model = scriptedModel({ reply: wordy });

const tasks = (count: number): Exploration[] =>
  Array.from({ length: count }, (_, index) => {
    const id = taskId('train', index);
    const task: WordPair = { left: ['oak', 'elm', 'fir'][index % 3]!, right: 'yew' };
    return { tree: rootId('search', id), taskId: id, task };
  });

/** Shorter is better. */
const value: ValueDialogues = async (dialogues) =>
  dialogues.map(({ id: dialogueId, taskId, turns, verdict, failure }) => ({
    type: 'trajectory.ranked',
    ...{ dialogueId, taskId, tokens: messageTokens(turns), terms: null, turnLosses: [], edgeCases: [] },
    ...{ eligible: true, failure },
    reward: verdict === null ? null : verdict.taskScore - messageTokens(turns) / 50,
  }));

const plan = (overrides: Partial<ExplorePlan> = {}): ExplorePlan => ({
  ...{ phase: 'search', scenario, search, cohorts: [tasks(6)], first: 0, together: 6, memoryBytes: 2 ** 20 },
  ...{ temperature: 1, maxMessageTokens: 20, rng: createRng(1), valueWith: () => value },
  lanes: [{ cast: everyRole(scenario, model), base: model }],
  ...overrides,
});
const eventsOf = (overrides: Partial<ExplorePlan> = {}): Promise<SearchEvent[]> =>
  lastValueFrom(exploreTrees(plan(overrides)).pipe(toArray()));

/** The trees of events, and what searching came to, read back. */
const readBack = (events: readonly RunEvent[]) => [
  ...searchedTrees(
    treesIn(events, () => new Forest()),
    search,
    createRng(1),
  ),
];

const events = await eventsOf();

test('every tree is expanded as often as the search says, from its root first', () => {
  const opened = events.flatMap((event) => (event.type === 'dialogue.opened' ? [event] : []));
  assert.is(opened.length, 6 * 24);
  for (const { tree } of tasks(6)) {
    const own = opened.filter((each) => each.tree === tree);
    assert.is(own.length, 24);
    for (const [number, { parent, dialogueId }] of own.entries()) {
      assert.is(dialogueId, `${parent ?? tree}.${number}`, 'roll-out r is branch r of the expanded node');
      if (number < 3) assert.is(parent, null);
      assert.is(parent, own[number - (number % 3)]!.parent, 'three from each node');
    }
    assert.ok(own.some(({ parent }) => parent !== null));
  }
  assert.is(events.filter(({ type }) => type === 'trajectory.ranked').length, 6 * 24);
  assert.is(events.at(-1)!.type, 'cohort.completed');
});

test('a roll-out is branch r below every node that it passes, and draws by its nodes’ ids', () => {
  const requested = events.flatMap((event) => (event.type === 'turn.requested' ? [event.nodeId] : []));
  assert.is(new Set(requested).size, requested.length, 'no node is asked for twice');
  for (const event of events) {
    if (event.type !== 'turn.taken') continue;
    const { id, seed, parent } = event.turn;
    assert.is(seed, createRng(1).split('nodes').split(id).seed32());
    assert.match(id, /\.\d+$/);
    assert.is(id.slice(0, id.lastIndexOf('.')), parent);
  }
});

test('turns that are as good as a sibling are said, logged and not kept, and the roll-out goes on from the sibling', () => {
  const merged = events.flatMap((event) => (event.type === 'turn.merged' ? [event] : []));
  assert.ok(merged.length > 50, `${merged.length}`);
  const taken = new Map(
    events.flatMap((event) => (event.type === 'turn.taken' ? [[event.turn.id, event.turn]] : [])),
  );
  for (const { nodeId, into, text, tokenIds, speaker, promptTokens } of merged) {
    assert.not.ok(taken.has(nodeId));
    const stored = taken.get(into)!;
    assert.is(stored.text, text);
    assert.is(stored.speaker, speaker);
    assert.is(stored.parent, nodeId.slice(0, nodeId.lastIndexOf('.')));
    assert.ok(tokenIds.length > 0 && promptTokens > 0);
  }
  const trees = readBack(events);
  for (const { conversation } of trees) {
    for (const { leaf, closed } of Object.values(conversation.dialogues)) {
      if (closed!.outcome === 'agreed') assert.match(pathTo(conversation, leaf).at(-1)!.text, /^<A>/);
      else assert.is(closed!.outcome, 'turn-cap');
    }
  }
});

test('read back from its events a tree has the values, visits and expansions that it had', () => {
  const trees = readBack(events);
  assert.equal(
    trees.map(({ conversation }) => conversation.root),
    tasks(6).map(({ tree }) => tree),
  );
  for (const { conversation, search: searched } of trees) {
    assert.is(searched.ask(), null, 'all expansions were asked for and told');
    assert.is(searched.tree.root.visits, 24);
    assert.equal([...searched.tree.nodes.keys()].slice(1), Object.keys(conversation.turns));
    const rewards = events.flatMap((event) =>
      event.type === 'trajectory.ranked' && Object.hasOwn(conversation.dialogues, event.dialogueId)
        ? [event.reward!]
        : [],
    );
    const at = searched.tree.root.value!;
    assert.ok(at > Math.min(...rewards) && at < Math.max(...rewards));
  }
});

test('a log in which a turn stands beside one that it is as good as is refused', () => {
  const merged = events.find((event) => event.type === 'turn.merged')!;
  const stored = events.find((event) => event.type === 'turn.taken' && event.turn.id === merged.into)!;
  const forged = events.map((event) =>
    event === merged && stored.type === 'turn.taken'
      ? {
          type: 'turn.taken' as const,
          dialogueId: merged.dialogueId,
          turn: { ...stored.turn, id: merged.nodeId },
        }
      : event,
  );
  assert.throws(
    () => readBack(forged),
    (error: OptimaError) => error.code === 'run.corrupt' && error.message.includes(merged.nodeId),
  );
});

test('a tree is the same alone or beside others, at once or one after the other, in whichever cohort', async () => {
  const alone: SearchEvent[] = [];
  for (const tree of tasks(6)) {
    const one = runExplorer(tree, {
      ...{ scenario, search, value, cast: everyRole(scenario, model), turnTimeoutMs: 10_000 },
      sampling: { temperature: 1, topP: 1, topK: 0, maxTokens: 20 },
      ...{ rng: createRng(1).split('nodes'), choices: createRng(1).split('search') },
    });
    alone.push(...(await lastValueFrom(one.pipe(toArray()))));
  }
  const withoutCohorts = (all: readonly SearchEvent[]) =>
    all.filter(({ type }) => type !== 'cohort.completed');
  assert.equal(withoutCohorts(events), alone);
  assert.equal(await eventsOf({ together: 2 }), events);
  const lane = { cast: everyRole(scenario, model), base: model };
  const apart = await eventsOf({ cohorts: [tasks(6).slice(0, 4), tasks(6).slice(4)], lanes: [lane, lane] });
  assert.equal(withoutCohorts(apart), alone);
  assert.equal(
    apart.flatMap((event) => (event.type === 'cohort.completed' ? [event.cohort] : [])),
    [0, 1],
  );
});

test('what all trees ask decodes in one session, and no tree waits for another', async () => {
  // A turn of the first task takes twenty times as long.
  const calls: string[] = [];
  let sessions = 0;
  let closed = 0;
  const slow: LanguageModel = {
    ...model,
    openSession(options) {
      sessions++;
      assert.is(options!.memoryBytes, 2 ** 20);
      return {
        ...model,
        async generate(requests, callOptions) {
          const isSlow = requests.every(({ id }) => id.includes('train-00000'));
          for (let tick = 0; tick < (isSlow ? 20 : 1); tick++)
            await new Promise((resolve) => setImmediate(resolve));
          calls.push(requests[0]!.id);
          return model.generate(requests, callOptions);
        },
        measure: async () => ({ computed: 1000, reused: 5, fill: { steps: 2, rows: 7, parts: [3, 4] } }),
        close: () => void closed++,
      };
    },
  };
  const costs: SearchCost[] = [];
  let closedRollouts = 0;
  const seen = await eventsOf({
    onClosed: () => void closedRollouts++,
    lanes: [{ cast: everyRole(scenario, slow), base: slow }],
    onMeasured: (cost) => costs.push(cost),
  });
  assert.equal(seen, events, 'and the log is in the order of the tasks');
  assert.is(closedRollouts, 6 * 24);
  assert.equal([sessions, closed], [2, 2], 'one for the speakers, one for the base');
  const ofSlow = calls.flatMap((id, index) => (id.includes('train-00000') ? [index] : []));
  const others = calls.length - ofSlow.length;
  const before = ofSlow.at(2)!;
  assert.ok(
    before > others / 2,
    `${before} of ${others} calls of others came before the third of the slow one`,
  );
  const naive = seen.reduce((sum, event) => {
    if (event.type === 'turn.merged') return sum + event.promptTokens + event.tokenIds.length - 1;
    return event.type === 'turn.taken' ? sum + event.turn.promptTokens + event.turn.tokenIds.length - 1 : sum;
  }, 0);
  assert.equal(costs, [{ computed: 1000, naive, fill: [{ steps: 2, rows: 7, parts: [3, 4] }] }]);

  // Where one of the models does not know, the sum is not known.
  const unmeasured: LanguageModel = { ...slow, openSession: () => ({ ...model, close() {} }) };
  const mixed = {
    alice: { model: slow, provenance: 'sampled' },
    bob: { model: unmeasured, provenance: 'sampled' },
  } as const;
  await eventsOf({ lanes: [{ cast: mixed, base: model }], onMeasured: (cost) => costs.push(cost) });
  assert.equal(costs[1], { computed: null, naive, fill: [{ steps: 2, rows: 7, parts: [3, 4] }] });
});

test('roll-outs that fail have no reward and do not end their tree', async () => {
  const refusing: LanguageModel = {
    ...model,
    generate: async (requests, options) => {
      takeAll(requests, ({ seed }) => {
        if (createRng(seed).split('fails').next() < 0.1) throw new OptimaError('model.failed', 'boom');
      });
      return model.generate(requests, options);
    },
  };
  const seen = await eventsOf({ lanes: [{ cast: everyRole(scenario, refusing), base: model }] });
  const ranked = seen.flatMap((event) => (event.type === 'trajectory.ranked' ? [event] : []));
  assert.is(ranked.length, 6 * 24);
  const failed = seen.filter(({ type }) => type === 'turn.failed').length;
  assert.ok(failed > 5);
  assert.is(ranked.filter(({ reward }) => reward === null).length, failed);
  for (const { search: searched } of readBack(seen)) assert.is(searched.ask(), null);
});

async function failureOf(overrides: Partial<ExplorePlan>): Promise<unknown> {
  return eventsOf(overrides).then(
    () => assert.unreachable('the search ended'),
    (error) => error,
  );
}

test('a model that fails ends the search: no roll-out fails for it', async () => {
  let calls = 0;
  const broken: LanguageModel = {
    ...model,
    generate: async (requests, options) => {
      if (++calls === 40) throw new Error('no memory left');
      return model.generate(requests, options);
    },
  };
  const said: SearchEvent[] = [];
  const lanes = [{ cast: everyRole(scenario, broken), base: model }];
  const error = await exploreTrees(plan({ lanes }))
    .forEach((event) => void said.push(event))
    .then(
      () => assert.unreachable('the search ended'),
      (error) => error,
    );
  assert.is(error.message, 'Model scripted failed: no memory left');
  assert.ok(said.some(({ type }) => type === 'trajectory.ranked'));
  assert.not.ok(said.some((event) => event.type === 'dialogue.closed' && event.outcome === 'failed'));
});

test('what values reject with ends the search, and so does an abort; sessions are closed', async () => {
  const boom = new OptimaError('model.failed', 'no base');
  assert.is(await failureOf({ valueWith: () => () => Promise.reject(boom) }), boom);
  const stop = new AbortController();
  let calls = 0;
  let closed = 0;
  const stopping: LanguageModel = {
    ...model,
    openSession: () => ({
      ...model,
      async generate(requests, options) {
        if (++calls === 10) stop.abort();
        return model.generate(requests, options);
      },
      close: () => void closed++,
    }),
  };
  const error = await failureOf({
    lanes: [{ cast: everyRole(scenario, stopping), base: stopping }],
    signal: stop.signal,
  });
  assert.is((error as OptimaError).code, 'interrupted');
  assert.is(closed, 2);
  assert.ok(calls < 20, `${calls}`);
});

test.run();
