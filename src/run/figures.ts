// The figures of a run, folded from what its phases handed on: the iterations, which policy is kept, `metrics.jsonl`.
import type { PhaseKind, PhaseOutput, PhaseOutputOf } from '../domain/events.ts';
import type { TeamPolicy } from '../domain/ids.ts';
import { dialoguesIn, type TeamMetrics } from '../domain/metrics.ts';
import type { MetricsRow } from '../domain/progress.ts';
import type { Recipe } from '../recipe/schema.ts';
import type { RunFolder } from '../store/run-folder.ts';
import type { IterationKind, IterationPlan } from './plan.ts';

/** One iteration: what it generated, how much of it was kept, what training made of it. */
export interface IterationFigures {
  readonly iteration: number;
  readonly kind: IterationKind;
  /** Of the dialogues on training tasks, before this iteration's training. */
  readonly generated: TeamMetrics;
  /** Tokens that were sampled for it, a pilot's included. */
  readonly sampledTokens: number;
  readonly meanReward: number;
  /** Mean R_loss of those dialogues, nats per token: the lower, the better they read to the base. */
  readonly meanLoss: number;
  readonly edgeCases: PhaseOutputOf<'rank'>['edgeCases'];
  /** Dialogues that were trained on, or pairs. */
  readonly kept: number;
  /** Mean loss of the last epoch, of the policies that were trained; of SFT in nats per token. */
  readonly loss: number;
  /** What the objective measured beside it, what a guard said, and which role had nothing to train on. */
  readonly figures: PhaseOutputOf<'train'>['figures'];
  readonly warnings: PhaseOutputOf<'train'>['warnings'];
  /** The policy that came out. */
  readonly policy: TeamPolicy;
  /** Of that policy on validation tasks; null when the recipe has none. */
  readonly validation: TeamMetrics | null;
}

/** Where the outputs of phases are. */
export type Outputs = Pick<RunFolder, 'outputOf'>;

/** The figures of the completed iterations, in order. */
export function foldIterations(run: Outputs, iterations: readonly IterationPlan[]): IterationFigures[] {
  return iterations.flatMap((iteration) => {
    const outputs = iteration.phases.map((phase): PhaseOutput | null => run.outputOf<PhaseKind>(phase));
    if (outputs.includes(null)) return [];
    const outputOf = <Kind extends PhaseKind>(kind: Kind) =>
      outputs.find((output): output is PhaseOutputOf<Kind> & PhaseOutput => output?.kind === kind);
    const rank = outputOf('rank') ?? outputOf('search')!;
    const select = outputOf('select') ?? outputOf('pair')!;
    const train = outputOf('train')!;
    const evaluate = outputOf('evaluate');
    return [
      {
        iteration: iteration.index,
        kind: iteration.kind,
        generated: rank.metrics,
        sampledTokens: outputs.reduce(
          (sum, output) => sum + (output !== null && 'sampledTokens' in output ? output.sampledTokens : 0),
          0,
        ),
        meanReward: rank.meanReward,
        meanLoss: rank.meanLoss,
        edgeCases: rank.edgeCases,
        kept: select.kept,
        loss: train.loss,
        figures: train.figures,
        warnings: train.warnings,
        policy: train.policy,
        validation: evaluate?.metrics ?? null,
      },
    ];
  });
}

/** The mean task score in which every dialogue that failed counts as 0, whatever it failed for: a policy must not look better for it. */
const scoreOfAll = (metrics: TeamMetrics): number =>
  metrics.n === 0 ? 0 : (metrics.taskScore * metrics.n) / dialoguesIn(metrics);

/**
 * The policy a run ends with: the last iteration's, or the one with the best validation score (on a tie that of which fewer
 * dialogues failed, then of fewer tokens, then the earlier one): a dialogue that is broken off has fewer tokens, too.
 */
export function choosePolicy<Policy>(
  iterations: readonly { readonly policy: Policy; readonly validation: TeamMetrics | null }[],
  keep: Recipe['keep'],
): Policy {
  if (keep === 'last') return iterations.at(-1)!.policy;
  const best = iterations.reduce((best, candidate) => {
    const [one, other] = [candidate.validation!, best.validation!];
    const gains = [scoreOfAll(one) - scoreOfAll(other), other.failed - one.failed, other.tokens - one.tokens];
    return (gains.find((gain) => gain !== 0) ?? 0) > 0 ? candidate : best;
  });
  return best.policy;
}

/**
 * Each role with the policy of the next one in order, and the last with the first one's: two roles exchange theirs. Who is not
 * among `roles` keeps its own.
 */
export function swapPolicies(policy: TeamPolicy, roles: readonly string[] = Object.keys(policy)): TeamPolicy {
  const next = roles.map((role, index) => [role, policy[roles[(index + 1) % roles.length]!]!]);
  return { ...policy, ...Object.fromEntries(next) };
}

/**
 * Figures under the names that machines read, in `--json` and in `metrics.jsonl`: there the task score is `f1`, whatever
 * metric a scenario has.
 */
export function machineFigures({ taskScore, taskScoreInterval, ...rest }: TeamMetrics) {
  return { f1: taskScore, f1Interval: taskScoreInterval, ...rest };
}
export type MachineFigures = ReturnType<typeof machineFigures>;

/** A team's policy as machines read it: one hash where one policy speaks for every role. */
export function machinePolicy(policy: TeamPolicy): string | TeamPolicy {
  const [first, ...others] = Object.values(policy);
  return first !== undefined && others.every((hash) => hash === first) ? first : policy;
}

/** As `IterationFigures`, under the names that machines read. */
export function machineIteration({ generated, policy, validation, ...rest }: IterationFigures) {
  return {
    ...rest,
    generated: machineFigures(generated),
    policy: machinePolicy(policy),
    validation: validation && machineFigures(validation),
  };
}
export type MachineIteration = ReturnType<typeof machineIteration>;

/** The rows of `metrics.jsonl`: the base's figures, each iteration's, the trained team's, and those with its weights swapped. */
export function metricsRows(run: Outputs, iterations: readonly IterationPlan[]): MetricsRow[] {
  const evaluation = (name: string): MetricsRow[] => {
    const output = run.outputOf({ name, kind: 'evaluate' });
    if (output === null) return [];
    const { policy, metrics } = output;
    return [{ event: 'evaluation', phase: name, policy: machinePolicy(policy), ...machineFigures(metrics) }];
  };
  const rows = foldIterations(run, iterations).map(
    (figures): MetricsRow => ({ event: 'iteration', ...machineIteration(figures) }),
  );
  return [...evaluation('base'), ...rows, ...evaluation('trained'), ...evaluation('swapped')];
}
