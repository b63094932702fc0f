// The paper's hyper-parameters per data set and recipe, as presets (Chen et al., arXiv 2410.08115v2). Learning rates, epochs,
// batch sizes, λ, β and θ: Table 8. Tasks, samples, temperatures, and how nodes are valued and paired: the authors' code.
// Starting weights: §3.3. Evaluation: the whole test set, or the first 1,000 validation items (§4).
import type { Recipe } from './schema.ts';

/** SFT of a recipe: learning rate, epochs, batch size. */
type Sft = readonly [learningRate: number, epochs: number, batchSize: number];
/** Weights of the reward: λ_token, λ_loss. */
type Lambdas = readonly [token: number, loss: number];

interface PaperRow {
  readonly kind: 'information-exchange' | 'debate';
  readonly tasks: number;
  readonly samplesPerTask: number;
  /** Sampling temperature of initialization. */
  readonly initTemperature: number;
  /** Whether initialization used a format pool. */
  readonly formats: boolean;
  readonly evaluationTasks: number;
  readonly thetaSft: number;
  /** θ_dpo-filter. */
  readonly thetaFilter: number;
  readonly isft: { readonly sft: Sft; readonly lambdas: Lambdas };
  readonly idpo: { readonly lambdas: Lambdas; readonly beta: number };
  readonly hybrid: { readonly sft: Sft; readonly lambdas: Lambdas; readonly beta: number };
}

const exchange = {
  kind: 'information-exchange',
  tasks: 10_000,
  samplesPerTask: 10,
  initTemperature: 0.3,
  formats: true,
  evaluationTasks: 1000,
  thetaFilter: 0.4,
} as const;

const debate = {
  kind: 'debate',
  initTemperature: 0.3,
  formats: true,
  thetaSft: 0.6,
  thetaFilter: 0.4,
} as const;

/** λ of all information exchange. */
const shared: Lambdas = [0.6, 1];

const table = {
  hotpot: {
    ...{ ...exchange, thetaSft: 0.5 },
    isft: { sft: [2e-5, 3, 32], lambdas: shared },
    idpo: { lambdas: shared, beta: 0.1 },
    hybrid: { sft: [2e-5, 2, 32], lambdas: shared, beta: 0.5 },
  },
  '2wmh': {
    ...{ ...exchange, thetaSft: 0.5 },
    isft: { sft: [2e-5, 2, 32], lambdas: shared },
    idpo: { lambdas: shared, beta: 0.5 },
    hybrid: { sft: [2e-5, 1, 32], lambdas: shared, beta: 0.5 },
  },
  trivia: {
    ...{ ...exchange, thetaSft: 0.6 },
    isft: { sft: [2e-5, 3, 32], lambdas: shared },
    idpo: { lambdas: shared, beta: 0.5 },
    hybrid: { sft: [2e-5, 1, 32], lambdas: shared, beta: 0.7 },
  },
  cbt: {
    ...{ ...exchange, thetaSft: 0.5 },
    isft: { sft: [2e-5, 2, 32], lambdas: shared },
    idpo: { lambdas: shared, beta: 0.1 },
    hybrid: { sft: [2e-5, 1, 32], lambdas: shared, beta: 0.7 },
  },
  math: {
    ...{ ...debate, tasks: 7500, samplesPerTask: 10, evaluationTasks: 5000 },
    ...{ initTemperature: 0.7, formats: false },
    isft: { sft: [1e-6, 3, 16], lambdas: [0.4, 0.9] },
    idpo: { lambdas: [0.5, 0.7], beta: 0.1 },
    hybrid: { sft: [1e-6, 4, 32], lambdas: [0.4, 0.9], beta: 0.1 },
  },
  gsm8k: {
    ...{ ...debate, tasks: 7000, samplesPerTask: 10, evaluationTasks: 1319 },
    ...{ initTemperature: 0.7, formats: false },
    isft: { sft: [2e-6, 3, 16], lambdas: [0.4, 0.9] },
    idpo: { lambdas: [0.6, 0.7], beta: 0.2 },
    hybrid: { sft: [1e-6, 3, 16], lambdas: [0.4, 0.9], beta: 0.5 },
  },
  'arc-c': {
    ...{ ...debate, tasks: 2000, samplesPerTask: 15, evaluationTasks: 1172, thetaFilter: 0.45 },
    isft: { sft: [1e-6, 4, 16], lambdas: [0.5, 0.6] },
    idpo: { lambdas: [0.4, 0.7], beta: 0.2 },
    hybrid: { sft: [1e-6, 4, 16], lambdas: [0.5, 0.6], beta: 0.1 },
  },
  mmlu: {
    ...{ ...debate, tasks: 10_000, samplesPerTask: 10, evaluationTasks: 14_042 },
    isft: { sft: [1e-6, 2, 16], lambdas: [0.6, 0.7] },
    idpo: { lambdas: [0.6, 0.7], beta: 0.1 },
    hybrid: { sft: [1e-6, 2, 16], lambdas: [0.6, 0.7], beta: 0.1 },
  },
} as const satisfies Record<string, PaperRow>;

export type PaperDataSet = keyof typeof table;
export const paperDataSets = Object.keys(table) as PaperDataSet[];

/**
 * The paper's recipe for a data set, with what `rest` says where the paper says nothing (loss floor, edge cases, the
 * optimizer's constants). It gives no θ_init; θ_sft stands in. Six iterations, initialization included. Initialization of
 * iDPO fine-tunes as iSFT's does.
 */
export function paperRecipe(dataSet: PaperDataSet, rest: Recipe): Recipe {
  const row: PaperRow = table[dataSet];
  const { tasks, samplesPerTask, thetaSft, thetaFilter } = row;
  const own = { isft: row.isft, idpo: row.idpo, 'isft-dpo': row.hybrid }[rest.recipe];
  const [lambdaToken, lambdaLoss] = own.lambdas;
  const [learningRate, epochs, batchSize] = 'sft' in own ? own.sft : row.isft.sft;
  const maxSequenceTokens = 4096;
  const isft = {
    ...{ tasks, samplesPerTask, thetaSft, keepFraction: 0.7, temperature: 0.7 },
    startFrom: row.kind === 'debate' ? ('base' as const) : ('previous' as const),
  };
  return {
    ...rest,
    iterations: 5,
    initialization: {
      ...{ tasks, samplesPerTask, keepFraction: 0.7, formats: row.formats },
      thetaInit: thetaSft,
      temperature: row.initTemperature,
    },
    reward: { ...rest.reward, lambdaToken, lambdaLoss },
    sft: { ...rest.sft, learningRate, epochs, batchSize, maxSequenceTokens },
    maxMessageTokens: 512,
    evaluation: { tasks: row.evaluationTasks, validationTasks: 0 },
    ...('isft' in rest && { isft }),
    ...('search' in rest && {
      search: {
        ...rest.search,
        ...{ tasks, temperature: 0.7, backup: 'mean-of-rollouts' as const, pilotDialogues: 100 },
        pilotPercentile: rest.recipe === 'idpo' ? 85 : 80,
      },
      pairs: {
        ...{ from: 'extremes' as const, values: 'raw' as const, thetaFilter, thetaDiff: 0.2 },
        ...{ keepShare: 0.5, keepPer: 'task' as const },
      },
      dpo: {
        ...rest.dpo,
        ...{ loss: 'dpo' as const, learningRate: 5e-7, epochs: 1, batchSize: 64, maxSequenceTokens },
        beta: 'beta' in own ? own.beta : rest.dpo.beta,
        alpha: rest.recipe === 'idpo' ? 1 : 0,
      },
    }),
  };
}
