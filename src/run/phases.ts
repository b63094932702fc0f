// The phases of a training run. Each reads the log and the checkpoints that the phases before it left, and
// leaves its own: nothing else passes between them.
import { foldDialogues } from '../actors/index.ts';
import { OptimaError } from '../domain/errors.ts';
import { isDialogueMessage } from '../domain/events.ts';
import type { PolicyHash } from '../domain/ids.ts';
import { mean, measureTeam } from '../domain/metrics.ts';
import type { Progress } from '../domain/progress.ts';
import { createRng, type Rng } from '../domain/rng.ts';
import type { Trajectory } from '../domain/transcript.ts';
import type { GenerateOutput, IterationPlan, SelectOutput, TrainOutput } from '../machines/index.ts';
import type { LlamaPolicy } from '../models/llama/index.ts';
import type { Recipe } from '../recipe/schema.ts';
import { evaluateTeam } from '../rollouts/evaluate.ts';
import { type DialoguePlan, holdDialogues } from '../rollouts/executor.ts';
import { loadTasks } from '../scenario/tasks.ts';
import type { Scenario, Split } from '../scenario/types.ts';
import type { RunFolder } from '../store/run-folder.ts';
import { sftExamples, sftObjective, trainSft } from '../training/sft/index.ts';
import type { PolicyHost } from '../workers/index.ts';
import {
  type EvaluateFigures,
  figuresOf,
  metricsRows,
  phaseOf,
  planIterations,
  type RankFigures,
  startsFromBase,
} from './plan.ts';
import type { PolicyShelf } from './policy-shelf.ts';
import { type RankedTrajectory, rankTrajectories } from './rank.ts';
import { scoreTurns } from './readability.ts';
import { selectTrajectories } from './select.ts';
import { trainingTasks } from './tasks.ts';

export interface TrainingRun {
  readonly scenario: Scenario;
  readonly recipe: Recipe;
  /** The frozen base; disposed with the run. */
  readonly base: LlamaPolicy;
  /** A new run's folder, or one to continue. */
  readonly run: RunFolder;
  /** What computes; without any, everything is computed on this thread. The caller stops it. */
  readonly workers?: PolicyHost | undefined;
  readonly progress: Progress;
  /** Ends the run after the step under way; it can be resumed. */
  readonly signal?: AbortSignal;
}

type Signal = AbortSignal | undefined;

export class Phases {
  readonly #training: TrainingRun;
  readonly #shelf: PolicyShelf;
  readonly #rng: Rng;
  /** Rows of `metrics.jsonl` that the watcher knows. */
  #announced: number;

  constructor(training: TrainingRun, shelf: PolicyShelf) {
    this.#training = training;
    this.#shelf = shelf;
    this.#rng = createRng(training.recipe.seed);
    this.#announced = metricsRows(training.run.phases, training.recipe).length;
  }

  /** Holds the iteration's dialogues, on training tasks that no other iteration has. */
  generate(iteration: IterationPlan, signal: Signal): Promise<GenerateOutput> {
    const { recipe, scenario } = this.#training;
    const phase = phaseOf(iteration, 'generate');
    const { samplesPerTask, temperature } = settingsOf(recipe, iteration);
    const draws = iteration.kind === 'init' && recipe.initialization.formats;
    return this.#carryOut(phase, async () => {
      const trajectories = await holdDialogues({
        ...this.#setting(phase, signal),
        models: await this.#shelf.modelsOf(this.#policyBefore(iteration)),
        tasks: await loadTasks(scenario, 'train', trainingTasks(recipe, iteration), this.#rng),
        samplesPerTask,
        formats: draws ? scenario.formats : [],
        temperature,
      });
      const failed = trajectories.filter(({ verdict }) => verdict === null).length;
      return { dialogues: trajectories.length, failed };
    });
  }

  /** Computes the reward of every dialogue, readability under the frozen base. */
  rank(iteration: IterationPlan, signal: Signal): Promise<RankFigures> {
    const { run, recipe, scenario, base, progress } = this.#training;
    const phase = phaseOf(iteration, 'rank');
    const { lambdaToken, lambdaLoss, lossFloor } = recipe.reward;
    return this.#carryOut(phase, async () => {
      const trajectories = this.dialoguesOf(phaseOf(iteration, 'generate'));
      progress.begin(phase, trajectories.length, 'dialogues');
      const bases = await this.#shelf.modelsOf(base.hash);
      const turnLogprobs = await scoreTurns(bases, trajectories, {
        batchSize: recipe.concurrency,
        signal,
        onProgress: (scored) => progress.advance(scored),
      });
      const ranking = rankTrajectories(trajectories, turnLogprobs, {
        weights: {
          lambdaToken: lambdaToken ?? scenario.reward.lambdaToken,
          lambdaLoss: lambdaLoss ?? scenario.reward.lambdaLoss,
        },
        lossFloor,
        eligible: recipe.eligible,
        answer: scenario.answer,
      });
      for (const ranked of ranking) run.log.append({ type: 'trajectory.ranked', ...ranked });
      const rewards = ranking.flatMap(({ reward }) => reward ?? []);
      const meanReward = mean(rewards);
      progress.end(`mean reward ${meanReward.toFixed(3)}`);
      return {
        ranked: rewards.length,
        failed: ranking.length - rewards.length,
        meanReward,
        metrics: measureTeam(trajectories, this.#rng.split('bootstrap').split(phase)),
        edgeCases: countEdgeCases(ranking),
      };
    });
  }

  /**
   * Chooses the dialogues to train on. When there are none it rejects with `selection.empty` in the first
   * iteration, and ends the run with the policy before in a later one.
   */
  select(iteration: IterationPlan): Promise<SelectOutput> {
    const { run, recipe, progress } = this.#training;
    const phase = phaseOf(iteration, 'select');
    const { threshold, thresholdKey, keepFraction } = settingsOf(recipe, iteration);
    return this.#carryOut(phase, async () => {
      const ranking = run
        .eventsOf(phaseOf(iteration, 'rank'))
        .filter((event) => event.type === 'trajectory.ranked');
      progress.begin(phase, ranking.length, 'dialogues');
      const { kept, dropped } = selectTrajectories(ranking, { threshold, keepFraction });
      const nothing = `nothing to train on: ${dropped.noCandidate} tasks have no eligible dialogue, ${dropped.belowThreshold} none with a reward above ${threshold}`;
      if (kept.length === 0 && iteration.index === 0) {
        throw new OptimaError('selection.empty', `${phase}: ${nothing}.`, {
          hint: `Start again with a lower threshold (--set ${thresholdKey}=…) or more tasks.`,
        });
      }
      run.log.append({ type: 'selection.made', phase, kept, dropped });
      progress.end(
        kept.length === 0
          ? `${nothing}; the run ends with the policy before`
          : `${kept.length} of ${ranking.length} dialogues kept`,
      );
      return { kept: kept.length, threshold: kept.at(-1)?.reward ?? null };
    });
  }

  /** Fine-tunes on the chosen dialogues, each agent's plain view of them. */
  train(iteration: IterationPlan, signal: Signal): Promise<TrainOutput> {
    const { run, recipe, scenario, base, progress } = this.#training;
    const phase = phaseOf(iteration, 'train');
    const fromBase = startsFromBase(iteration, recipe, scenario.kind);
    return this.#carryOut(phase, async () => {
      const start = fromBase ? base.hash : this.#policyBefore(iteration);
      const policy = await this.#shelf.load(start);
      try {
        const sequences = this.#chosenDialogues(iteration).flatMap((chosen) => sftExamples(chosen, policy));
        const { steps, loss, skipped, truncated } = await trainSft(
          policy,
          sequences,
          recipe.sft,
          this.#rng.split(phase),
          {
            signal,
            computePasses: this.#shelf.host.gradientsOf(sftObjective, this.#shelf.sourceOf(start), policy),
            onStart: (steps) => progress.begin(phase, steps, 'steps'),
            // The event has no place for figures, and supervised fine-tuning none to put there.
            onStep: ({ figures: _, ...report }) => {
              run.log.append({ type: 'step.trained', phase, ...report });
              progress.advance(report.step + 1);
            },
          },
        );
        const cut = `${truncated} sequences cut at ${recipe.sft.maxSequenceTokens} tokens, ${skipped} of them left out`;
        progress.end(`loss ${loss.toFixed(3)}${truncated > 0 ? `; ${cut}` : ''}`);
        return { steps, loss, policy: await run.saveCheckpoint(policy) };
      } finally {
        policy.dispose();
      }
    });
  }

  /** Evaluates what the iteration trained on the validation split. */
  validate(iteration: IterationPlan, signal: Signal): Promise<EvaluateFigures> {
    const { policy } = this.#figures(iteration, 'train');
    const { validationTasks } = this.#training.recipe.evaluation;
    return this.evaluate(phaseOf(iteration, 'evaluate'), policy, 'validation', validationTasks, signal);
  }

  /** Evaluates a policy of this run on the first `count` tasks of a split. */
  evaluate(
    phase: string,
    policy: PolicyHash,
    split: Split,
    count: number,
    signal: Signal,
  ): Promise<EvaluateFigures> {
    return this.#carryOut(phase, async () => {
      const models = await this.#shelf.modelsOf(policy);
      const { metrics } = await evaluateTeam({ ...this.#setting(phase, signal), models, split, count });
      return { tasks: count, taskScore: metrics.f1, tokens: metrics.tokens, policy, metrics };
    });
  }

  /** The finished dialogues of a completed phase. */
  dialoguesOf(phase: string): Trajectory[] {
    return foldDialogues(this.#training.run.eventsOf(phase).filter(isDialogueMessage));
  }

  async #carryOut<Figures extends object>(phase: string, work: () => Promise<Figures>): Promise<Figures> {
    const { run, recipe, progress } = this.#training;
    const figures = await run.carryOut(phase, work);
    const rows = metricsRows(run.phases, recipe);
    run.writeMetrics(rows);
    for (const row of rows.slice(this.#announced)) progress.measured(row);
    this.#announced = rows.length;
    return figures;
  }

  /** What every set of dialogues of this run has in common. */
  #setting(phase: string, signal: Signal) {
    const { scenario, recipe, run, progress } = this.#training;
    const { maxMessageTokens, concurrency } = recipe;
    const common = { phase, scenario, maxMessageTokens, concurrency, progress, signal };
    return { ...common, rng: this.#rng, log: run.log } satisfies Partial<DialoguePlan>;
  }

  #chosenDialogues(iteration: IterationPlan): Trajectory[] {
    const selection = this.#training.run
      .eventsOf(phaseOf(iteration, 'select'))
      .find((event) => event.type === 'selection.made')!;
    const dialogues = new Map(
      this.dialoguesOf(phaseOf(iteration, 'generate')).map((dialogue) => [dialogue.id, dialogue]),
    );
    return selection.kept.map(({ dialogueId }) => dialogues.get(dialogueId)!);
  }

  #policyBefore({ index }: IterationPlan): PolicyHash {
    const { recipe, base } = this.#training;
    const previous = planIterations(recipe)[index - 1];
    return previous === undefined ? base.hash : this.#figures(previous, 'train').policy;
  }

  #figures<Phase extends 'rank' | 'select' | 'train'>(iteration: IterationPlan, phase: Phase) {
    return figuresOf(this.#training.run.phases, iteration, phase)!;
  }
}

/** What differs between initialization and the iterations after it. */
function settingsOf(recipe: Recipe, { kind }: IterationPlan) {
  const { initialization, isft } = recipe;
  return kind === 'init'
    ? {
        ...initialization,
        threshold: initialization.thetaInit,
        thresholdKey: 'initialization.thetaInit',
      }
    : { ...isft, threshold: isft.thetaSft, thresholdKey: 'isft.thetaSft' };
}

function countEdgeCases(ranking: readonly RankedTrajectory[]): Record<string, number> {
  const counts = { emptyMessage: 0, repetition: 0, cappedMessage: 0, turnCap: 0 };
  for (const edgeCase of ranking.flatMap(({ edgeCases }) => edgeCases)) counts[edgeCase]++;
  return counts;
}
