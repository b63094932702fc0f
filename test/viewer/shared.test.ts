// What server and page compute alike, and the page's own arithmetic: no browser, no server.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type DialogueAnswer, staticFile, type TaskRow } from '../../src/viewer/api.ts';
import { layOut, neighbour } from '../../src/viewer/client/layout.ts';
import { href, parseRoute } from '../../src/viewer/client/route.ts';
import { beginningOf, lineOf, piecesOf } from '../../src/viewer/client/visible.ts';
import { sequenceOf, statesAfter } from '../../src/viewer/sequence.ts';
import { charts } from '../../src/viewer/server/charts.ts';
import { tasksAnswer, tasksQuery } from '../../src/viewer/tasks.ts';

test('what a reader would not see is spelt out; lines, tabs, joiners and letters of any script stay', () => {
  assert.equal(piecesOf('a\u202eb'), [
    { kind: 'text', text: 'a' },
    { kind: 'hidden', code: '202e', name: 'right-to-left override' },
    { kind: 'text', text: 'b' },
  ]);
  for (const hidden of [
    '\u0000',
    '\u001b',
    '\u007f',
    '\u200b',
    '\u2066',
    '\ufeff',
    '\u00ad',
    '\u2028',
    '\ud800',
    '\u{e0041}',
    '\u3164',
  ]) {
    assert.is(piecesOf(`x${hidden}`).at(-1)!.kind, 'hidden', hidden.codePointAt(0)!.toString(16));
  }
  for (const seen of ['a\nb\tc', 'שלום', '日本', '👩‍🚀', 'é'])
    assert.equal(piecesOf(seen), [{ kind: 'text', text: seen }]);
  assert.is(lineOf('a\n\n b\u001b'), 'a b⟨1B⟩');
  assert.is(beginningOf('ab👍', 3), 'ab');
  assert.is(beginningOf('ab👍', 4), 'ab👍');
});

test('an address is read as it was written, and one that is none leads nowhere', () => {
  const [path, query] = [['run', 'a/b c', 'tree', 'x.é?#'], { node: 'p/t.0&=' }] as const;
  assert.equal(parseRoute(href(path, query)), { path, query });
  assert.is(href([], { a: '', b: undefined }), '#/');
  assert.equal(parseRoute('#/%'), { path: ['nowhere'], query: {} });
});

test('no id leads out of a copy, and no two ids share a file', () => {
  const ids = ['../../x', '..', '.', 'a/b', 'a~2fb', 'a.b', '\\..\\', 'ü', '\0'];
  const files = ids.map((run) => staticFile('/api/runs/{run}', { run }));
  for (const file of files) assert.match(file, /^data\/[\w~-]+\/run\.json$/);
  assert.is(new Set(files).size, ids.length);
});

const row = (taskId: string, figures: Partial<TaskRow> = {}): TaskRow => ({
  ...{
    tree: `p/${taskId}`,
    phase: 'p',
    taskId,
    dialogues: 2,
    failed: 0,
    best: 1,
    worst: 0,
    gap: 1,
    of: 'reward',
  },
  ...{ taskScore: 1, tokens: 10, kept: 0 },
  ...figures,
});

test('tasks are sorted, filtered, searched and given in pages; what has no figure comes last', () => {
  const rows = [
    row('t-1', { gap: 1 }),
    row('t-2', { gap: null }),
    row('t-3', { gap: 3, failed: 1, taskScore: 0.5 }),
  ];
  const all = [...rows, row('late', { phase: 'trained', of: 'task score' })];
  const ids = (query: Record<string, string>) =>
    tasksAnswer(all, tasksQuery(query)).rows.map(({ taskId }) => taskId);
  assert.equal(ids({}), ['t-3', 't-1', 't-2'], 'of the last phase that was ranked');
  assert.equal(ids({ phase: 'trained' }), ['late']);
  assert.equal(ids({ sort: 'task' }), ['t-1', 't-2', 't-3']);
  assert.equal(ids({ filter: 'failed' }), ['t-3']);
  assert.equal(ids({ filter: 'wrong' }), ['t-3']);
  assert.equal(ids({ search: 'T-2' }), ['t-2']);
  const many = Array.from({ length: 450 }, (_, index) => row(`t-${index}`));
  const { rows: third, total } = tasksAnswer(many, tasksQuery({ sort: 'task', page: '2' }));
  assert.equal([third.length, third[0]!.taskId, total], [50, 't-400', 450]);
  assert.is(tasksQuery({ page: '-1' }).page, 0);
  assert.is(tasksQuery({ sort: 'constructor' }).sort, 'gap');
});

test('a tree is laid out without two turns in one place, and arrows go to what is nearest', () => {
  const nodes = [
    ...[
      ['a', 'r'],
      ['b', 'r'],
      ['a0', 'a'],
      ['a1', 'a'],
      ['b0', 'b'],
      ['a00', 'a0'],
    ],
  ].map(([id, parent]) => ({ id: id!, parent: parent! }));
  const layout = layOut('r', nodes);
  assert.is(layout.lines, 3);
  assert.is(layout.depth, 4);
  const places = [...layout.places.values()].map(({ depth, line }) => `${depth} ${line}`);
  assert.is(new Set(places).size, nodes.length + 1);
  assert.is(neighbour(layout, 'a', 'r', 'ArrowRight'), 'a0');
  assert.is(neighbour(layout, 'a1', 'a', 'ArrowDown'), 'b0');
  assert.is(neighbour(layout, 'b0', 'b', 'ArrowUp'), 'a1');
  assert.is(neighbour(layout, 'a00', 'a0', 'ArrowLeft'), 'a0');
  assert.is(neighbour(layout, 'a00', 'a0', 'ArrowRight'), null);
  const long = Array.from({ length: 20_000 }, (_, index) => ({ id: `n${index + 1}`, parent: `n${index}` }));
  assert.is(layOut('n0', long).depth, 20_001);
});

test('the states of a dialogue’s actors are states of their machines, and so is every way between two', () => {
  const turn = (id: string, speaker: string) => ({
    ...{
      id,
      speaker,
      text: id,
      written: null,
      tokens: 1,
      provenance: 'sampled' as const,
      to: null,
      round: null,
    },
    ...{ observed: [{ text: 'noted' }], isOwn: true, mergedFrom: null, baseLoss: 1 },
  });
  const dialogue: DialogueAnswer = {
    ...{
      id: 'p/t.0',
      leaf: 'p/t.0.0',
      outcome: 'agreed',
      failure: null,
      taskScore: 1,
      exactMatch: true,
      turns: 2,
    },
    ...{
      tokens: 2,
      reward: null,
      terms: null,
      edgeCases: [],
      kept: null,
      format: null,
      fork: null,
      root: 'p/t',
    },
    ...{
      phase: 'p',
      taskId: 't',
      roles: ['alice', 'bob'],
      opening: [],
      answer: 'x',
      seats: null,
      questions: [],
    },
    way: [turn('p/t.0', 'alice'), turn('p/t.0.0', 'bob')],
  };
  const byId = new Map(charts().map((chart) => [chart.id, chart]));
  for (const outcome of ['agreed', 'failed'] as const) {
    const messages = sequenceOf({ ...dialogue, outcome, taskScore: outcome === 'failed' ? null : 1 });
    let before = statesAfter(dialogue.roles, [], outcome);
    for (let heard = 0; heard <= messages.length; heard++) {
      const after = statesAfter(dialogue.roles, messages.slice(0, heard), outcome);
      for (const [index, { machine, state }] of after.entries()) {
        const chart = byId.get(machine)!;
        assert.ok(
          chart.states.some(({ name }) => name === state),
          `${machine} has no state ${state}`,
        );
        const from = before[index]!.state;
        const isWay = from === state || chart.edges.some((edge) => edge.from === from && edge.to === state);
        assert.ok(isWay, `${machine} does not lead from ${from} to ${state}`);
      }
      before = after;
    }
    assert.is(before.at(-1)!.state, outcome === 'failed' ? 'dismissed' : 'verdictGiven');
  }
  assert.equal(
    sequenceOf(dialogue).map(({ type }) => type),
    [
      'dialogue.opened',
      ...[
        'turn.requested',
        'turn.taken',
        'observation.given',
        'turn.requested',
        'turn.taken',
        'observation.given',
      ],
      ...['dialogue.closed', 'verdict.given'],
    ],
  );
});

test('charts say where each machine begins and ends', () => {
  const trainer = charts().find(({ id }) => id === 'trainer')!;
  assert.equal(trainer.states.find(({ isFirst }) => isFirst)!.name, 'deciding');
  assert.equal(
    trainer.states.filter(({ isFinal }) => isFinal).map(({ name }) => name),
    ['finished', 'failed', 'interrupted'],
  );
  const edge = trainer.edges.find(({ guard }) => guard === 'keptNothing')!;
  assert.equal(edge, {
    ...{ from: 'carryingOut', to: 'deciding', event: 'carryOut is done' },
    ...{ guard: 'keptNothing', actions: ['leaveIterations'] },
  });
});

test.run();
