// The paper's hyper-parameters per data set, as presets (Chen et al., arXiv 2410.08115v2). Learning rate,
// epochs, batch size, λ and θ_sft: Table 8, block iSFT. Tasks, samples and temperatures: the authors' code.
// Starting weights: §3.3. Evaluation: the whole test set, or the first 1,000 validation items (§4).
import type { Recipe } from './schema.ts';

interface PaperRow {
  readonly kind: 'information-exchange' | 'debate';
  readonly learningRate: number;
  readonly epochs: number;
  readonly batchSize: number;
  readonly lambdaToken: number;
  readonly lambdaLoss: number;
  readonly thetaSft: number;
  readonly tasks: number;
  readonly samplesPerTask: number;
  /** Sampling temperature of initialization. */
  readonly initTemperature: number;
  /** Whether initialization used a format pool. */
  readonly formats: boolean;
  readonly evaluationTasks: number;
}

const exchange = {
  kind: 'information-exchange',
  learningRate: 2e-5,
  batchSize: 32,
  lambdaToken: 0.6,
  lambdaLoss: 1,
  tasks: 10_000,
  samplesPerTask: 10,
  initTemperature: 0.3,
  formats: true,
  evaluationTasks: 1000,
} as const;

const debate = { kind: 'debate', batchSize: 16, initTemperature: 0.3, formats: true } as const;

// biome-ignore format: one data set a line, as in the paper's table.
const table = {
  hotpot: { ...exchange, epochs: 3, thetaSft: 0.5 },
  '2wmh': { ...exchange, epochs: 2, thetaSft: 0.5 },
  trivia: { ...exchange, epochs: 3, thetaSft: 0.6 },
  cbt: { ...exchange, epochs: 2, thetaSft: 0.5 },
  math: { ...debate, learningRate: 1e-6, epochs: 3, lambdaToken: 0.4, lambdaLoss: 0.9, thetaSft: 0.6, tasks: 7500, samplesPerTask: 10, initTemperature: 0.7, formats: false, evaluationTasks: 5000 },
  gsm8k: { ...debate, learningRate: 2e-6, epochs: 3, lambdaToken: 0.4, lambdaLoss: 0.9, thetaSft: 0.6, tasks: 7000, samplesPerTask: 10, initTemperature: 0.7, formats: false, evaluationTasks: 1319 },
  'arc-c': { ...debate, learningRate: 1e-6, epochs: 4, lambdaToken: 0.5, lambdaLoss: 0.6, thetaSft: 0.6, tasks: 2000, samplesPerTask: 15, evaluationTasks: 1172 },
  mmlu: { ...debate, learningRate: 1e-6, epochs: 2, lambdaToken: 0.6, lambdaLoss: 0.7, thetaSft: 0.6, tasks: 10_000, samplesPerTask: 10, evaluationTasks: 14_042 },
} as const satisfies Record<string, PaperRow>;

export type PaperDataSet = keyof typeof table;
export const paperDataSets = Object.keys(table) as PaperDataSet[];

/**
 * The paper's recipe for a data set. It gives no θ_init; θ_sft stands in. Six iterations, initialization
 * included. What it does not give (loss floor, edge cases, the optimizer's constants) is
 * as in `rest`.
 */
export function paperRecipe(dataSet: PaperDataSet, rest: Recipe): Recipe {
  const row: PaperRow = table[dataSet];
  const { tasks, samplesPerTask } = row;
  return {
    ...rest,
    iterations: 5,
    initialization: {
      tasks,
      samplesPerTask,
      formats: row.formats,
      thetaInit: row.thetaSft,
      keepFraction: 0.7,
      temperature: row.initTemperature,
    },
    isft: {
      tasks,
      samplesPerTask,
      thetaSft: row.thetaSft,
      keepFraction: 0.7,
      temperature: 0.7,
      startFrom: row.kind === 'debate' ? 'base' : 'previous',
    },
    reward: { ...rest.reward, lambdaToken: row.lambdaToken, lambdaLoss: row.lambdaLoss },
    sft: {
      ...rest.sft,
      learningRate: row.learningRate,
      epochs: row.epochs,
      batchSize: row.batchSize,
      maxSequenceTokens: 4096,
    },
    maxMessageTokens: 512,
    evaluation: { tasks: row.evaluationTasks, validationTasks: 0 },
  };
}
