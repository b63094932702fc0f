// A training run whose models are spies: they answer by a fixed script, and everything that the run asks of them is
// kept. Weights, checkpoints, log and optimizer are the real ones.
import type { PolicyHash, RunId } from '../../src/domain/ids.ts';
import type { GenerationRequest, LanguageModel, Sampling, TrainingSequence } from '../../src/domain/model.ts';
import type { MetricsRow } from '../../src/domain/progress.ts';
import { type LlamaPolicy, loadPolicy } from '../../src/models/llama/index.ts';
import { presetRecipe } from '../../src/recipe/presets.ts';
import { applySettings, type Recipe } from '../../src/recipe/schema.ts';
import type { TrainingRun } from '../../src/run/phases/context.ts';
import {
  agreement,
  defineScenario,
  dialogue,
  exactMatch,
  type Scenario,
  tagged,
} from '../../src/scenario/index.ts';
import type { Split } from '../../src/scenario/types.ts';
import { formatVersion, type Manifest } from '../../src/store/manifest.ts';
import { RunFolder } from '../../src/store/run-folder.ts';
import type { PolicyHost, PolicySource } from '../../src/workers/index.ts';

export interface SpyTask {
  readonly split: Split;
  readonly index: number;
}

export const spyFormats = ['Be terse.', 'Write a list.', 'Use arrows.'].map((prompt, index) => ({
  name: `format-${index}`,
  prompt,
}));

/** Alice holds a number, bob asks for it. Views name split and index of their task. */
export const spyScenario: Scenario<SpyTask> = defineScenario({
  name: 'spied',
  kind: 'information-exchange',
  description: 'Bob asks for the number that alice holds.',
  tasks: {
    load: async (split, count): Promise<SpyTask[]> =>
      Array.from({ length: count }, (_, index) => ({ split, index })),
  },
  roles: {
    alice: { sees: ({ split, index }) => `alice ${split} ${index} number ${index}` },
    bob: { sees: ({ split, index }) => `bob ${split} ${index}` },
  },
  protocol: dialogue({ order: ['alice', 'bob'], maxTurns: 4, until: agreement() }),
  answer: tagged('A'),
  answers: ({ index }) => [String(index)],
  metric: exactMatch,
  reward: { lambdaToken: 0.6, lambdaLoss: 0.1 },
  formats: spyFormats,
});

/** Two tasks of two dialogues in each of initialization and two iterations, with validation. */
export const spyRecipe = (...settings: string[]): Recipe =>
  applySettings(presetRecipe('quick'), [
    'iterations=2',
    'initialization.tasks=2',
    'initialization.samplesPerTask=3',
    'initialization.thetaInit=-10',
    'initialization.keepFraction=1',
    'initialization.temperature=0.4',
    'isft.tasks=2',
    'isft.samplesPerTask=2',
    'isft.thetaSft=-10',
    'isft.keepFraction=1',
    'isft.temperature=0.9',
    'sft.epochs=1',
    'sft.batchSize=2',
    'evaluation.tasks=2',
    'evaluation.validationTasks=1',
    'maxMessageTokens=50',
    'concurrency=4',
    ...settings,
  ]);

/** One request of the run to a model. */
export interface SpiedCall {
  readonly kind: 'generate' | 'score';
  /** The policy that was asked. */
  readonly hash: PolicyHash;
  /** First parts of the dialogue's id, `init-0/generate`. */
  readonly phase: string;
  readonly id: string;
  readonly system: string;
  readonly sampling: Sampling | null;
}

/** One fine-tuning: where it started, and the sequences of each step. */
export interface SpiedTraining {
  readonly source: PolicySource;
  readonly steps: TrainingSequence[][];
}

export interface Spied {
  readonly training: TrainingRun;
  readonly base: LlamaPolicy;
  readonly calls: SpiedCall[];
  readonly trainings: SpiedTraining[];
  readonly rows: MetricsRow[];
  /** Stages that progress has announced, and what came of each. */
  readonly stages: string[];
}

export interface SpyOptions {
  readonly folder: string;
  readonly model: string;
  readonly recipe: Recipe;
  readonly scenario?: Scenario;
  readonly signal?: AbortSignal;
  /** What an agent says; default `script`. */
  readonly reply?: (request: GenerationRequest) => string;
  readonly resume?: boolean;
}

/**
 * The script: alice says her number, bob repeats it as an answer, alice confirms. In sample k she says k words before
 * it, and more in some tasks than in others and before any training; in sample 1 her number is wrong.
 */
export function script({ id, messages }: GenerationRequest): string {
  const [sample, ...later] = /\.([\d.]+)$/.exec(id)![1]!.split('.').map(Number);
  const turn = later.length;
  const heard = messages.at(-1)!.content;
  if (turn === 0) {
    const number = Number(/number (\d+)/.exec(messages[0]!.content)![1]);
    const words = sample! + (number % 4) + Number(id.startsWith('base/'));
    return `${'well '.repeat(words)}${sample === 1 ? number + 1 : number}`;
  }
  return heard.includes('<A>') ? heard : `<A>${heard.split(' ').at(-1)}</A>`;
}

/** Loss that every pass claims to have. */
export const spiedLoss = 1.5;
/** Nats by which the spy finds each token of the first turn unlikely; of turn k, k/4 more. */
export const spiedSurprise = 0.5;

export async function spyOn(options: SpyOptions): Promise<Spied> {
  const { folder, model, recipe, scenario = spyScenario, reply = script, signal } = options;
  const base = await loadPolicy(model);
  const calls: SpiedCall[] = [];
  const trainings: SpiedTraining[] = [];
  const rows: MetricsRow[] = [];
  const stages: string[] = [];
  const { tokenizer } = base;
  const idsOf = (text: string) => [...tokenizer.encode(text), tokenizer.endOfTurnId];
  const phaseOf = (id: string) => id.replace(/\/?\w+-\d+\.[\d.]+(:.*)?$/, '');

  const modelOf = ({ hash }: PolicySource): LanguageModel => ({
    hash,
    generate: async (requests) =>
      requests.map((request) => {
        const { id, messages, sampling } = request;
        calls.push({
          kind: 'generate',
          hash,
          phase: phaseOf(id),
          id,
          system: messages[0]!.content,
          sampling,
        });
        const text = reply(request);
        const tokenIds = idsOf(text).slice(0, sampling.maxTokens);
        const finish = tokenIds.at(-1) === tokenizer.endOfTurnId ? 'stop' : 'length';
        return { text, tokenIds, logprobs: tokenIds.map(() => -1), finish, promptTokens: messages.length };
      }),
    score: async (requests) =>
      requests.map(({ id, messages }) => {
        calls.push({
          kind: 'score',
          hash,
          phase: phaseOf(id),
          id,
          system: messages[0]!.content,
          sampling: null,
        });
        return messages.flatMap(({ role, tokenIds }, index) =>
          role === 'assistant' ? [tokenIds!.map(() => -spiedSurprise - (index - 1) / 4)] : [],
        );
      }),
  });
  const workers: PolicyHost = {
    modelsOf: async (source) => [modelOf(source)],
    gradientsOf(_objective, source, policy) {
      const steps: unknown[][] = [];
      // A run has but one objective.
      trainings.push({ source, steps: steps as TrainingSequence[][] });
      const [name, { size }] = [...policy.parameters][0]!;
      const gradient = new Float32Array(size);
      gradient[0] = 0.5;
      return async (passes) => {
        steps.push(passes.flat());
        return { loss: spiedLoss, figures: {}, gradients: new Map([[name, gradient]]) };
      };
    },
    keep() {},
    stop: async () => {},
  };

  const manifest: Omit<Manifest, 'log'> = {
    format: formatVersion,
    version: '0.0.0',
    node: 'v0',
    run: 'spied' as RunId,
    command: [],
    scenario: { name: scenario.name, file: 'spied.ts', hash: 'scenario', tasks: 'tasks' },
    preset: 'quick',
    recipe,
    engine: 'spies',
    base: { folder: model, hash: base.hash },
    seconds: 0,
  };
  const clock = { now: () => 0 };
  const run = options.resume ? RunFolder.open(folder, clock) : RunFolder.create(folder, manifest, clock);
  const progress: TrainingRun['progress'] = {
    begin: (stage) => stages.push(stage),
    advance() {},
    end: (result) => stages.push(`${stages.pop()}: ${result}`),
    measured: (row) => rows.push(row),
  };
  const training = { scenario, recipe, base, run, workers, progress, signal };
  return { training, base, calls, trainings, rows, stages };
}
