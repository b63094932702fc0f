// The dialogues a base model is made from: which they are, and the sequences they become.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { OptimaError } from '../../src/domain/errors.ts';
import { createRng, type Rng } from '../../src/domain/rng.ts';
import type { Turn } from '../../src/domain/transcript.ts';
import type { Demonstration, Scenario, Split } from '../../src/scenario/index.ts';
import { demonstrateDialogues, textsOf, viewsOf } from '../../src/warmup/demonstrations.ts';
import { type WordPair, wordPairs } from '../support/scenarios.ts';

const terse = { name: 'terse', prompt: 'Be terse.' };

/** Alice says her word and a number, bob the answer, alice the same; under the format for every other number. */
function demonstrated(name: string, overrides: Partial<Scenario<WordPair>> = {}): Scenario<WordPair> {
  const demonstrate = (task: WordPair, rng: Rng): Demonstration => {
    const number = rng.int(1e6);
    return {
      format: number % 2 === 0 ? terse : null,
      turns: [
        { speaker: 'alice', text: `${task.left} ${number}` },
        { speaker: 'bob', text: `<A>${task.left} ${task.right}</A>` },
        { speaker: 'alice', text: `<A>${task.left} ${task.right}</A>` },
      ],
    };
  };
  return wordPairs({ name, demonstrate, ...overrides });
}

test('a dialogue has the task’s views under its format, and the turns that the demonstrator wrote', async () => {
  const scenario = demonstrated('one');
  const rng = createRng(3);
  const dialogues = await demonstrateDialogues([scenario], 'validation', 9, rng);
  const own = createRng(3).split('one');
  const tasks = await scenario.tasks.load('validation', 9, own.split('tasks'));
  assert.is(dialogues.length, 9);
  for (const [index, { views, turns }] of dialogues.entries()) {
    const task = tasks[index]!;
    const written = scenario.demonstrate!(task, own.split('turns').split(index));
    assert.equal(
      turns.map(({ speaker, text }) => ({ speaker, text })),
      written.turns,
    );
    const ending = written.format === null ? '' : '\nBe terse.';
    assert.equal(views, { alice: `word: ${task.left}${ending}`, bob: `word: ${task.right}${ending}` });
  }
  assert.ok(new Set(dialogues.map(({ views }) => views.alice!.includes('terse'))).size === 2);
});

test('scenarios take turns: the first ones have one dialogue more where the number does not divide', async () => {
  const asked: [string, Split, number][] = [];
  const scenarios = ['one', 'two', 'three'].map((name) =>
    demonstrated(name, {
      tasks: {
        load: async (split, count, rng) => {
          asked.push([name, split, count]);
          return wordPairs().tasks.load(split, count, rng);
        },
      },
    }),
  );
  for (const [count, shares] of [
    [7, [3, 2, 2]],
    [8, [3, 3, 2]],
    [9, [3, 3, 3]],
    [1, [1, 0, 0]],
  ] as const) {
    asked.length = 0;
    const dialogues = await demonstrateDialogues(scenarios, 'train', count, createRng(1));
    assert.is(dialogues.length, count);
    assert.equal(
      asked,
      ['one', 'two', 'three'].map((name, index) => [name, 'train', shares[index]!]),
    );
  }
  const [first, , , second] = await demonstrateDialogues(scenarios, 'train', 8, createRng(1));
  assert.not.equal(first!.turns, second!.turns, 'each scenario draws for itself');
});

test('a scenario without a demonstrator is named', async () => {
  const error = await demonstrateDialogues([demonstrated('one'), wordPairs()], 'train', 2, createRng(1)).then(
    () => null,
    (thrown: OptimaError) => thrown,
  );
  assert.is(error?.code, 'scenario.invalid');
  assert.is(error?.message, 'Scenario "word-pairs" has no demonstrator to learn from.');
  assert.match(error!.hint!, 'demonstrate(task, rng)');
});

const dialogue = {
  views: { alice: 'A', bob: 'B' },
  turns: [
    { speaker: 'alice', text: 'hi' },
    { speaker: 'bob', text: 'ho' },
  ].map((turn) => ({ ...turn, tokenIds: [] as number[] }) as unknown as Turn),
};

test('the tokenizer reads all views and all messages', () => {
  assert.equal(textsOf(dialogue), ['A', 'B', 'hi', 'ho']);
});

test('each role’s own messages are the assistant’s in its view', () => {
  assert.equal(viewsOf(dialogue), [
    [
      { role: 'system', content: 'A' },
      { role: 'assistant', content: 'hi' },
      { role: 'user', content: 'ho' },
    ],
    [
      { role: 'system', content: 'B' },
      { role: 'user', content: 'hi' },
      { role: 'assistant', content: 'ho' },
    ],
  ]);
});

test('a demonstration is seen as the dialogue would be: under names, without others’ notes, with what the environment says', async () => {
  const scenario = demonstrated('one', {
    names: true,
    notes: 'think',
    environment: {
      open: () => 'go',
      respond: ({ turns }) => (turns.length === 1 ? { text: 'one', to: ['bob'] } : null),
    },
    demonstrate: () => ({
      turns: [
        { speaker: 'alice', text: '<think>hm</think> hi' },
        { speaker: 'bob', text: 'ho' },
      ],
    }),
  });
  const [dialogue] = await demonstrateDialogues([scenario], 'train', 1, createRng(1));
  const said = viewsOf(dialogue!).map(([, ...messages]) => messages.map(({ content }) => content));
  assert.equal(said, [
    ['go', '<think>hm</think> hi', 'Bob: ho'],
    ['go\nAlice: hi\none', 'ho'],
  ]);
  assert.equal(textsOf(dialogue!).slice(2), ['go', '<think>hm</think> hi', 'one', 'ho']);
});

test('a demonstrator that lets a role speak out of turn is named', async () => {
  const turns = [{ speaker: 'bob', text: 'me first' }];
  const scenario = demonstrated('one', { demonstrate: () => ({ format: null, turns }) });
  const failure = await demonstrateDialogues([scenario], 'train', 1, createRng(1)).catch(
    (error: OptimaError) => error,
  );
  assert.is((failure as OptimaError).code, 'scenario.invalid');
  assert.is(
    (failure as OptimaError).message,
    'Scenario "one": demonstrate: turn 0 is by bob, but alice has the floor.',
  );
});

test.run();
