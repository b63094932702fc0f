// The plan of a run's iterations, and their figures folded from the completed phases.
import type { PolicyHash } from '../domain/ids.ts';
import type { TeamMetrics } from '../domain/metrics.ts';
import type { MetricsRow } from '../domain/progress.ts';
import type {
  EvaluateOutput,
  GenerateOutput,
  IterationPlan,
  PhaseName,
  RankOutput,
  SelectOutput,
  TrainOutput,
} from '../machines/index.ts';
import type { Recipe } from '../recipe/schema.ts';
import type { Scenario } from '../scenario/types.ts';
import type { PhaseRecord } from '../store/run-folder.ts';

export interface RankFigures extends RankOutput {
  /** Of the generated dialogues. */
  readonly metrics: TeamMetrics;
  /** Dialogues that are one of the cases the paper leaves open, by case. */
  readonly edgeCases: Readonly<Record<string, number>>;
}

export interface EvaluateFigures extends EvaluateOutput {
  readonly policy: PolicyHash;
  readonly metrics: TeamMetrics;
}

/** What each phase of an iteration hands on; kept in the log's `phase.completed`. */
export interface PhaseFigures {
  readonly generate: GenerateOutput;
  readonly rank: RankFigures;
  readonly select: SelectOutput;
  readonly train: TrainOutput;
  readonly evaluate: EvaluateFigures;
}

/** One iteration: what it generated, how much of it was kept, what training made of it. */
export interface IterationFigures {
  readonly iteration: number;
  readonly kind: IterationPlan['kind'];
  /** Of the dialogues on training tasks, before this iteration's training. */
  readonly generated: TeamMetrics;
  readonly meanReward: number;
  readonly edgeCases: Readonly<Record<string, number>>;
  readonly kept: number;
  /** Mean loss of the last epoch, nats per token. */
  readonly loss: number;
  /** The policy that came out. */
  readonly policy: PolicyHash;
  /** Of that policy on validation tasks; null when the recipe has none. */
  readonly validation: TeamMetrics | null;
}

/** Initialization, then the recipe's iSFT iterations. */
export function planIterations(recipe: Recipe): IterationPlan[] {
  return Array.from({ length: recipe.iterations + 1 }, (_, index) => ({
    index,
    kind: index === 0 ? 'init' : 'isft',
  }));
}

/**
 * Whether an iteration fine-tunes the base's weights; else it goes on from the previous policy's (docs/method.md §4).
 */
export function startsFromBase(
  { kind }: IterationPlan,
  { isft }: Recipe,
  scenario: Scenario['kind'],
): boolean {
  const startFrom = isft.startFrom ?? (scenario === 'debate' ? 'base' : 'previous');
  return kind === 'init' || startFrom === 'base';
}

/** A phase's name in the log: `init-0/generate`, `isft-1/train` … */
export const phaseOf = ({ kind, index }: IterationPlan, phase: PhaseName): string =>
  `${kind}-${index}/${phase}`;

/** What a phase of an iteration handed on, or null while it is not completed. */
export function figuresOf<Phase extends PhaseName>(
  phases: ReadonlyMap<string, PhaseRecord>,
  iteration: IterationPlan,
  phase: Phase,
): PhaseFigures[Phase] | null {
  const record = phases.get(phaseOf(iteration, phase));
  return record === undefined ? null : (record.output as unknown as PhaseFigures[Phase]);
}

/** The figures of the completed iterations, in order. */
export function foldIterations(phases: ReadonlyMap<string, PhaseRecord>, recipe: Recipe): IterationFigures[] {
  return planIterations(recipe).flatMap((iteration) => {
    const rank = figuresOf(phases, iteration, 'rank');
    const select = figuresOf(phases, iteration, 'select');
    const train = figuresOf(phases, iteration, 'train');
    const evaluate = figuresOf(phases, iteration, 'evaluate');
    const validates = recipe.evaluation.validationTasks > 0;
    if (rank === null || select === null || train === null || (validates && evaluate === null)) return [];
    return [
      {
        iteration: iteration.index,
        kind: iteration.kind,
        generated: rank.metrics,
        meanReward: rank.meanReward,
        edgeCases: rank.edgeCases,
        kept: select.kept,
        loss: train.loss,
        policy: train.policy,
        validation: evaluate?.metrics ?? null,
      },
    ];
  });
}

/**
 * The policy a run ends with: the last iteration's, or the one with the best validation score (fewer tokens
 * on a tie, then the earlier one).
 */
export function choosePolicy(iterations: readonly IterationFigures[], keep: Recipe['keep']): PolicyHash {
  if (keep === 'last') return iterations.at(-1)!.policy;
  const best = iterations.reduce((best, candidate) => {
    const gain = candidate.validation!.f1 - best.validation!.f1;
    const saving = best.validation!.tokens - candidate.validation!.tokens;
    return gain > 0 || (gain === 0 && saving > 0) ? candidate : best;
  });
  return best.policy;
}

/** The rows of `metrics.jsonl`: the base's figures, each iteration's, the trained team's. */
export function metricsRows(phases: ReadonlyMap<string, PhaseRecord>, recipe: Recipe): MetricsRow[] {
  const evaluation = (phase: string): MetricsRow[] => {
    const record = phases.get(phase);
    if (record === undefined) return [];
    const { policy, metrics } = record.output as unknown as EvaluateFigures;
    return [{ event: 'evaluation', phase, policy, ...metrics }];
  };
  const iterations = foldIterations(phases, recipe).map(
    (figures): MetricsRow => ({ event: 'iteration', ...figures }),
  );
  return [...evaluation('base'), ...iterations, ...evaluation('trained')];
}
