// What is asked of tasks and views: that they repeat, that the answer follows from them, that they say how it is written.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { checkForm, checkRepeats, checkSolvable, checkSplits } from '../../src/check/tasks.ts';
import { createRng } from '../../src/domain/rng.ts';
import { generated, hashes, option, unchangedAnswer } from '../../src/scenario/index.ts';
import { loadTasks } from '../../src/scenario/tasks.ts';
import type { Scenario } from '../../src/scenario/types.ts';
import { type WordPair, wordPairs } from '../support/scenarios.ts';

type Change = Partial<Scenario<WordPair>>;
const first = async (scenario: Scenario) =>
  (await loadTasks(scenario, 'train', { from: 0, count: 1 }, createRng(1)))[0]!;

async function repeats(change: Change): Promise<string[]> {
  const scenario = wordPairs(change);
  const found: string[] = [];
  checkRepeats(scenario, await first(scenario), (_, message) => found.push(message));
  return found;
}

async function solvable(change: Change): Promise<string[]> {
  const found: string[] = [];
  const report = (severity: string) => (_: string, message: string) => found.push(`${severity}: ${message}`);
  await checkSolvable(wordPairs(change), 1, report('error'), report('warning'));
  return found;
}

async function form(change: Change): Promise<string[]> {
  const scenario = wordPairs(change);
  const found: string[] = [];
  checkForm(scenario, await first(scenario), (_, message) => found.push(message));
  return found;
}

const { roles } = wordPairs();
const rest = ': draw from the rng of `tasks`, and let the rest follow from the task.';

test('what follows from the task alone repeats', async () => {
  assert.equal(
    await repeats({
      demonstrate: (_, rng) => ({ format: null, turns: [{ speaker: 'alice', text: `${rng.int(9)}` }] }),
    }),
    [],
  );
});

test('chance, the clock and a state are named with the function that has them', async () => {
  let calls = 0;
  const { random, now } = { random: Math.random, now: Date.now };
  const found = await repeats({
    roles: {
      alice: { sees: () => `${Math.random()}` },
      bob: { sees: () => (Date.now() > 0 ? 'always' : `${Math.random()}`) },
    },
    answers: () => [`${calls++}`],
    environment: { open: () => `at ${Date.now()}` },
    demonstrate: () => ({
      format: null,
      turns: [{ speaker: 'alice', text: `${Math.random()} ${Date.now()}` }],
    }),
  });
  assert.equal(found, [
    `train-00000: roles.alice.sees calls Math.random${rest}`,
    `train-00000: roles.bob.sees calls Date.now${rest}`,
    `train-00000: answers does not give the same twice${rest}`,
    `train-00000: environment.open calls Date.now${rest}`,
    `train-00000: demonstrate calls Math.random and Date.now${rest}`,
  ]);
  assert.equal([Math.random, Date.now], [random, now]);
});

test('an answer that stands in the views, or may be worked out of their numbers, is taken as solvable', async () => {
  assert.equal(await solvable({ answers: ({ left }) => [left.toUpperCase()] }), []);
  const sums = {
    tasks: generated((rng) => ({ left: `${rng.int(50)}`, right: `${rng.int(50)}` })),
    answers: ({ left, right }: WordPair) => [`${Number(left) + Number(right)}`],
  };
  assert.equal(await solvable(sums), []);
  const listed = { answers: ({ left, right }: WordPair) => [`${right}, ${left}`] };
  assert.equal(await solvable(listed), [], 'items of a list');
});

test('two tasks that look the same and have different answers cannot be solved', async () => {
  const blind = { roles: { ...roles, bob: { sees: () => 'You hold a word.' } } };
  const [only, ...others] = await solvable(blind);
  assert.match(
    only!,
    /^error: train-\d+ and train-\d+ look the same to every role, but their answers are "\w+ \w+" and "\w+ \w+": no team can know which\.$/,
  );
  assert.equal(others, []);
  assert.equal(await solvable({ ...blind, environment: { respond: () => 'The word is elm.' } }), []);
  const open = ({ task }: { task: WordPair }) => `Bob's word is ${task.right}.`;
  assert.equal(await solvable({ ...blind, environment: { open } }), []);
});

test('an answer in words that stands in no view is a guess, and said as one', async () => {
  const found = await solvable({
    tasks: generated((rng) => ({ left: `oak ${rng.int(1e9)}`, right: `elm ${rng.int(1e9)}` })),
    answers: ({ left }) => [`tree of ${left}`],
  });
  assert.is(found.length, 1);
  assert.match(
    found[0]!,
    /^warning: the answer stands in no view in 200 of 200 tasks \(such as "tree of oak \d+"\): if/,
  );
  // Few answers may be a choice that the views describe.
  assert.equal(await solvable({ answers: () => ['yes'] }), []);
});

test('a source with fewer tasks is looked at as far as it goes', async () => {
  const all = Array.from({ length: 60 }, (_, n): WordPair => ({ left: `oak ${n}`, right: 'elm' }));
  let most = 0;
  const source = {
    load: async (_: string, count: number) => {
      if (count <= all.length) most = Math.max(most, count);
      return all.slice(0, count);
    },
  };
  assert.equal(await solvable({ tasks: source, answers: ({ left }) => [left] }), []);
  assert.is(most, 50);
});

test('test tasks that are training tasks too are a warning, by what is told of them', async () => {
  const shared = async (change: Change) => {
    const found: string[] = [];
    await checkSplits(wordPairs(change), 1, (_, message) => found.push(message));
    return found;
  };
  const small = (of: number) => generated((rng) => ({ left: `oak ${rng.int(of)}`, right: 'elm' }));
  const [message, ...rest] = await shared({ tasks: small(10) });
  assert.match(
    message!,
    /^200 of 200 test tasks are among the first 200 training tasks, too: .*splitOf\(text\)\.$/,
  );
  assert.equal(rest, []);
  assert.equal(await shared({ tasks: small(1_000_000) }), []);
  // A number of its own makes no other task of one that is told the same.
  const numbered = generated((rng) => ({ id: rng.int(1_000_000), left: `oak ${rng.int(10)}`, right: 'elm' }));
  assert.match((await shared({ tasks: numbered }))[0]!, /^200 of 200/);
  // But what an environment knows may.
  assert.equal(await shared({ tasks: numbered, environment: { respond: () => null } }), []);
  assert.equal(
    await shared({
      tasks: {
        load: async (split, count) => (split === 'test' ? [] : small(9).load(split, count, createRng(1))),
      },
    }),
    [],
  );
});

test('who answers must be told how', async () => {
  const said = (role: string, example: string) =>
    `the view of ${role} never says how an answer is written: ${example}. A model that was not trained on this form will not guess it.`;
  assert.equal(await form({}), [said('alice', '<A>…</A>'), said('bob', '<A>…</A>')]);
  const told = { sees: ({ left }: WordPair) => `${left}. End with <a>the word</a>.` };
  assert.equal(await form({ roles: { ...roles, alice: told } }), [said('bob', '<A>…</A>')]);
  assert.equal(await form({ roles: { alice: told, bob: told } }), []);
  const { order, maxTurns } = wordPairs().protocol;
  const debate = { ...wordPairs().protocol, order, maxTurns, answeredBy: unchangedAnswer('bob').answeredBy! };
  assert.equal(await form({ protocol: debate }), [said('bob', '<A>…</A>')]);
  assert.equal(await form({ answer: hashes(), protocol: debate }), [said('bob', '#### …')]);
  const letters = { ...roles, bob: { sees: () => 'Write Answer: and a letter.' } };
  assert.equal(await form({ answer: option('D'), roles: letters, protocol: debate }), []);
  assert.equal(await form({ answer: { parse: (text) => text, example: (answer) => answer } }), []);
});

test.run();
