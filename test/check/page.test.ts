// A scenario on a page: what of a task who is told, who speaks when, how made-up answers are scored, what dialogues cost.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { describeScenario } from '../../src/check/page.ts';
import {
  defineScenario,
  dialogue,
  exactNumber,
  generated,
  hashes,
  majority,
} from '../../src/scenario/index.ts';
import type { Scenario } from '../../src/scenario/types.ts';
import { type WordPair, wordPairs } from '../support/scenarios.ts';

const countWords = (text: string) => text.split(/\s+/u).length;
const pageOf = (change: Partial<Scenario<WordPair>> = {}) =>
  describeScenario(wordPairs(change), 1, countWords);

test('each role’s view has its own lines marked, and each field who is told it', async () => {
  const page = await pageOf({
    tasks: generated(() => ({ left: 'oak', right: 'elm', hidden: ['a', 7], both: 'You hold a word' })),
    roles: {
      alice: { sees: ({ left }) => `You hold a word.\n${left}` },
      bob: { sees: ({ right }) => `You hold a word.\n${right}s and oaks` },
    },
  });
  assert.is(page.taskId, 'train-00000');
  assert.equal(page.roles, [
    {
      ...{ role: 'alice', name: null, tokens: 5 },
      lines: [
        { text: 'You hold a word.', isPrivate: false },
        { text: 'oak', isPrivate: true },
      ],
    },
    {
      ...{ role: 'bob', name: null, tokens: 7 },
      lines: [
        { text: 'You hold a word.', isPrivate: false },
        { text: 'elms and oaks', isPrivate: true },
      ],
    },
  ]);
  assert.equal(page.parts, [
    { path: 'task.left', texts: ['oak'], seenBy: { alice: 1 } },
    { path: 'task.right', texts: ['elm'], seenBy: {} },
    { path: 'task.hidden', texts: ['a', '7'], seenBy: { alice: 1, bob: 1 } },
    { path: 'task.both', texts: ['You hold a word'], seenBy: { alice: 1, bob: 1 } },
    { path: 'answers', texts: ['oak elm'], seenBy: {} },
  ]);
});

test('turns, their end, and what they cost', async () => {
  const page = await pageOf({
    demonstrate: () => ({
      format: null,
      turns: [
        { speaker: 'alice', text: 'one two' },
        { speaker: 'bob', text: 'three' },
      ],
    }),
    maxMessageTokens: 5,
  });
  assert.equal(page.order, ['alice', 'bob', 'alice', 'bob', 'alice', 'bob', 'alice', 'bob']);
  assert.equal([page.maxTurns, page.shortest], [8, { turns: 2, outcome: 'agreed' }]);
  // Two messages of two words and an end each; three words and two ends; eight capped messages, and two words of view.
  assert.equal(page.tokens, {
    ...{ shortest: 6, demonstrated: 5, longest: 40, maxMessageTokens: 5, context: 42 },
  });
  assert.is((await pageOf()).tokens.demonstrated, null);
});

test('five answers are scored as the judge scores them', async () => {
  const { answers } = await pageOf({
    tasks: {
      load: async (_, count) => Array.from({ length: count }, (_, n) => ({ left: 'oak', right: `elm${n}` })),
    },
  });
  const rows = answers.map(({ what, message, read, score, exactMatch, outcome }) => [
    what,
    message,
    read,
    score,
    exactMatch,
    outcome,
  ]);
  assert.equal(rows, [
    ['right', '<A>oak elm0</A>', 'oak elm0', 1, true, 'agreed'],
    ['in another case, with a full stop', '<A>OAK ELM0.</A>', 'OAK ELM0.', 1, true, 'agreed'],
    ['a near miss', '<A>oak</A>', 'oak', 0, false, 'agreed'],
    ["another task's answer", '<A>oak elm1</A>', 'oak elm1', 0, false, 'agreed'],
    ['no answer', 'I do not know.', null, 0, false, 'turn-cap'],
  ]);
  const aliases = await pageOf({ answers: () => ['B', 'b)'] });
  assert.equal(
    aliases.answers.slice(1, 4).map(({ what, message }) => [what, message]),
    [
      ['an alias', '<A>b)</A>'],
      ['a near miss', '<A>C</A>'],
      ["another task's answer", '<A>zzyzx</A>'],
    ],
  );
  const broken = await pageOf({
    metric: {
      name: 'none',
      score: () => {
        throw new Error('no score today');
      },
    },
  });
  for (const { score, failure } of broken.answers) {
    assert.is(score, null);
    assert.match(failure!, 'no score today');
  }
});

test('demonstrations are held and scored, each seat too', async () => {
  assert.is((await pageOf()).demonstrated, null);
  const numbered: Partial<Scenario<WordPair>> = {
    tasks: {
      load: async (_, count) => Array.from({ length: count }, (_, n) => ({ left: 'oak', right: `elm${n}` })),
    },
    // Five right, two wrong, three that never agree.
    demonstrate: ({ left, right }) => {
      const n = Number(right.slice(3));
      const text = n < 5 ? `<A>${left} ${right}</A>` : n < 7 ? '<A>yew</A>' : 'No.';
      const speakers =
        n < 7 ? ['alice', 'bob'] : Array.from({ length: 8 }, (_, k) => ['alice', 'bob'][k % 2]!);
      return { format: null, turns: speakers.map((speaker) => ({ speaker, text })) };
    },
  };
  const shares = { n: 10, score: 0.5, right: 0.5, agreed: 0.7 };
  assert.equal((await pageOf(numbered)).demonstrated, { ...shares, seats: null });
  const score: Scenario<WordPair>['metric']['score'] = (_, __, { turns }) => {
    const seats = { alice: turns.length / 8, bob: 0 };
    return { seats, score: Number(turns[1]!.text.includes('oak')) };
  };
  const seated = await pageOf({ ...numbered, metric: { name: 'seated', score } });
  assert.equal(seated.demonstrated, { ...shares, seats: { alice: (7 * 2 + 3 * 8) / 80, bob: 0 } });
  const broken = { name: 'none', score: () => Number.NaN };
  assert.is((await pageOf({ ...numbered, metric: broken })).demonstrated, null);
});

test('where no answer is right beforehand, none is made up', async () => {
  const page = await pageOf({ answers: () => [] });
  assert.equal([page.shortest, page.tokens.shortest, page.answers], [null, null, []]);
  assert.not(page.parts.some(({ path }) => path === 'answers'));
});

test('three who speak at once, under names, in an environment that opens', async () => {
  const trio = defineScenario({
    name: 'trio',
    kind: 'debate',
    description: '',
    tasks: generated((rng) => rng.int(90)),
    roles: {
      ann: { sees: (task) => `Ten more than ${task}? Write #### number.` },
      ben: { sees: (task) => `Ten more than ${task}? Write #### number.` },
      cat: { sees: (task) => `Ten more than ${task}? Write #### number.`, name: 'Dr Cat' },
    },
    protocol: dialogue({ order: ['ann', 'ben', 'cat'], maxTurns: 6, until: majority(), together: true }),
    environment: { open: () => 'Vote now.' },
    answer: hashes(),
    answers: (task) => [String(task + 10)],
    metric: exactNumber,
    reward: { lambdaToken: 0.6, lambdaLoss: 0.1 },
    formats: [],
  });
  const page = await describeScenario(trio, 1, countWords);
  assert.equal(
    page.roles.map(({ name }) => name),
    ['Ann', 'Ben', 'Dr Cat'],
  );
  assert.equal(page.order, ['ann + ben + cat', 'ann + ben + cat']);
  assert.equal([page.opening, page.shortest], [['Vote now.'], { turns: 3, outcome: 'agreed' }]);
  const task = Number(page.parts[0]!.texts[0]);
  assert.is(page.parts[0]!.path, 'task');
  assert.equal(
    page.answers.slice(0, 3).map(({ read, score }) => [read, score]),
    [
      [`${task + 10}`, 1],
      [`${task + 10}.`, 0],
      [`${task + 11}`, 0],
    ],
  );
});

test.run();
