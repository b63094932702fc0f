// Tiny scenarios and the scripts that play them, for tests and benchmarks that need real dialogues.
import type { Episode } from '../../src/actors/index.ts';
import { OptimaError } from '../../src/domain/errors.ts';
import { childId, rootId, taskId } from '../../src/domain/ids.ts';
import { type GenerationRequest, type LanguageModel, takeAll } from '../../src/domain/model.ts';
import {
  agreement,
  defineScenario,
  dialogue,
  exactMatch,
  generated,
  type Scenario,
  tagged,
} from '../../src/scenario/index.ts';

export interface WordPair {
  readonly left: string;
  readonly right: string;
}

const words = ['oak', 'elm', 'fir', 'ash', 'yew', 'bay'] as const;

/** Each side knows one word; the answer is both. `overrides` replace parts of it. */
export function wordPairs(overrides: Partial<Scenario<WordPair>> = {}): Scenario<WordPair> {
  return {
    ...defineScenario({
      name: 'word-pairs',
      kind: 'information-exchange',
      description: 'Two agents put two words together.',
      tasks: generated((rng): WordPair => ({ left: rng.pick(words), right: rng.pick(words) })),
      roles: {
        alice: { sees: (task) => `word: ${task.left}` },
        bob: { sees: (task) => `word: ${task.right}` },
      },
      protocol: dialogue({ order: ['alice', 'bob'], maxTurns: 8, until: agreement() }),
      answer: tagged('A'),
      answers: (task) => [`${task.left} ${task.right}`],
      metric: exactMatch,
      reward: { lambdaToken: 0.6, lambdaLoss: 1 },
      formats: [{ name: 'terse', prompt: 'Be terse.' }],
    }),
    ...overrides,
  };
}

/** Solves a word pair in three turns: a word, the answer, the same answer. */
export function solveWordPair({ messages }: Pick<GenerationRequest, 'messages'>): string {
  const word = messages[0]!.content.match(/word: (\w+)/)![1]!;
  const heard = messages.findLast((message) => message.role === 'user')?.content;
  if (heard === undefined) return `mine is ${word}`;
  return heard.startsWith('mine is ') ? `<A>${heard.slice('mine is '.length)} ${word}</A>` : heard;
}

/** Never states an answer, so that the dialogue runs to its cap. */
export const chatter = ({ id }: Pick<GenerationRequest, 'id'>) => `let me think about ${id} some more`;

/** `count` episodes of word pairs, one dialogue per task, without format prompts. */
export function wordPairEpisodes(count: number): Episode[] {
  return Array.from({ length: count }, (_, index) => {
    const task: WordPair = {
      left: words[index % words.length]!,
      right: words[(index * 5 + 1) % words.length]!,
    };
    const id = taskId('train', index);
    const tree = rootId('test', id);
    return { id: childId(tree, 0), tree, taskId: id, task, format: null };
  });
}

/** A model that refuses the requests for which there is a reason, by their ids. */
export const refusing = (
  model: LanguageModel,
  reasonOf: (id: string) => string | false | undefined,
): LanguageModel => ({
  ...model,
  generate: async (requests, options) => {
    takeAll(requests, ({ id }) => {
      const reason = reasonOf(id);
      if (reason) throw new OptimaError('model.failed', reason);
    });
    return model.generate(requests, options);
  },
});
