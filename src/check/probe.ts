// The look before training: a team plays a handful of tasks, and what it did says whether there is anything to learn from.
import { chunk } from '../domain/chunk.ts';
import { Forest } from '../domain/conversation-tree.ts';
import { OptimaError } from '../domain/errors.ts';
import { mean } from '../domain/metrics.ts';
import type { GenerativeModel } from '../domain/model.ts';
import { type Progress, silent } from '../domain/progress.ts';
import { createRng } from '../domain/rng.ts';
import { messageTokens, type Trajectory } from '../domain/transcript.ts';
import type { EvaluationPlan } from '../rollouts/evaluate.ts';
import { castsOf, episodesOf, rollOut } from '../rollouts/executor.ts';
import { loadTasks } from '../scenario/tasks.ts';
import { type FormatPrompt, messageCap, type Scenario } from '../scenario/types.ts';

export interface ProbePlan {
  readonly scenario: Scenario;
  /** Who speaks, for every role or by role: one and the same, as often as cohorts can be held side by side. */
  readonly models: EvaluationPlan['models'];
  /** Whom the scenario's metric may ask. */
  readonly judges?: readonly GenerativeModel[] | undefined;
  /** The run's seed: these are the first of its training tasks. */
  readonly seed: number;
  /** Cap on one message; by default the scenario's. */
  readonly maxMessageTokens?: number | null;
  /** Whether to look no longer where nothing scored at first: nobody is turned away for it. */
  readonly brief?: boolean;
  readonly progress?: Progress;
  readonly signal?: AbortSignal | undefined;
}

/** What a team did on a handful of tasks. Shares are of the dialogues that have a verdict, in [0, 1]. */
export interface Probe {
  readonly dialogues: number;
  readonly failed: number;
  /** Messages that the model wrote, and the share of them that ran into their cap. */
  readonly messages: number;
  readonly capped: number;
  /** Roles of which every message did. */
  readonly cappedRoles: readonly string[];
  readonly maxMessageTokens: number;
  /** Share that stated an answer, that ended in agreement, that scored above 0, and whose answer was right. */
  readonly stated: number;
  readonly agreed: number;
  readonly scored: number;
  readonly right: number;
  /** Mean message tokens of a dialogue. */
  readonly tokens: number;
}

const tasksPlayed = 8;
const plainSamples = 4;
/** Where nothing scored at first: a team that is right once in a hundred dialogues can be trained. */
const longerSamples = 12;
const temperature = 0.7;
/** Dialogues that run together. */
const cohort = 16;

/**
 * Plays eight training tasks, four dialogues each, at the temperature that training samples with; if none of them scores, 96 more
 * unless `brief`, under the scenario's format prompts where it has some. Rejects with `evaluation.empty` when every dialogue fails.
 */
export async function probeTeam(plan: ProbePlan): Promise<Probe> {
  const { scenario, models, seed, progress = silent, brief = false, signal } = plan;
  const rng = createRng(seed);
  const tasks = await loadTasks(scenario, 'train', { from: 0, count: tasksPlayed }, rng);
  const maxMessageTokens = messageCap(scenario, plan.maxMessageTokens ?? null);
  const play = async (phase: string, samplesPerTask: number, formats: readonly FormatPrompt[]) => {
    const episodes = episodesOf({ phase, tasks, samplesPerTask, formats, rng });
    const events = rollOut({
      ...{ phase, scenario, casts: castsOf(scenario, models), judges: plan.judges ?? [] },
      cohorts: chunk(episodes, cohort),
      ...{ temperature, maxMessageTokens, rng, signal },
    });
    const forest = new Forest();
    const trajectories: Trajectory[] = [];
    progress.begin(phase, samplesPerTask * tasks.length, 'dialogues');
    await events.forEach((event) => {
      trajectories.push(...forest.take(event));
      progress.advance(trajectories.length);
    });
    progress.end(`${trajectories.length} dialogues`);
    return trajectories;
  };
  const first = await play('probe', plainSamples, []);
  const measured = measure(first, maxMessageTokens);
  if (brief || measured.scored > 0 || measured.capped === 1) return measured;
  const more = await play('probe/longer', longerSamples, scenario.formats);
  return measure([...first, ...more], maxMessageTokens);
}

function measure(trajectories: readonly Trajectory[], maxMessageTokens: number): Probe {
  const judged = trajectories.flatMap(({ verdict, ...rest }) =>
    verdict === null ? [] : { verdict, ...rest },
  );
  if (judged.length === 0) {
    const { failure } = trajectories[0]!;
    throw new OptimaError(
      'evaluation.empty',
      `All ${trajectories.length} dialogues of a first look failed, the first because: ${failure}`,
    );
  }
  const share = (holds: (trajectory: (typeof judged)[number]) => boolean) =>
    mean(judged.map((trajectory) => Number(holds(trajectory))));
  const messages = trajectories
    .flatMap(({ turns }) => turns)
    .filter(({ provenance }) => provenance === 'sampled');
  return {
    dialogues: trajectories.length,
    failed: trajectories.length - judged.length,
    messages: messages.length,
    capped: mean(messages.map(({ finish }) => Number(finish === 'length'))),
    cappedRoles: [...new Set(messages.map(({ speaker }) => speaker))].filter((role) =>
      messages.every(({ speaker, finish }) => speaker !== role || finish === 'length'),
    ),
    maxMessageTokens,
    stated: share(({ verdict }) => verdict.answer !== null),
    agreed: share(({ outcome }) => outcome === 'agreed'),
    scored: share(({ verdict }) => verdict.taskScore > 0),
    right: share(({ verdict }) => verdict.exactMatch),
    tokens: mean(judged.map(({ turns }) => messageTokens(turns))),
  };
}

/** Why a team like this cannot be trained; null where it can. */
export function whyUnready({ capped, scored, dialogues, messages, maxMessageTokens }: Probe): string | null {
  if (capped === 1) return `all ${messages} messages ran into their cap of ${maxMessageTokens} tokens`;
  return scored > 0 ? null : `none of ${dialogues} dialogues scored above 0`;
}

/** A probe in a line. */
export function describeProbe(probe: Probe): string {
  const percent = (share: number) => `${Math.round(100 * share)} %`;
  const { dialogues, failed, capped, stated, agreed, right, tokens } = probe;
  return [
    `${dialogues} dialogues on ${tasksPlayed} training tasks: ${percent(stated)} stated an answer`,
    `${percent(agreed)} agreed`,
    `${percent(right)} were right`,
    `${percent(capped)} of the messages ran into their cap`,
    `${Math.round(tokens)} tokens a dialogue`,
    ...(failed > 0 ? [`${failed} failed`] : []),
  ].join(', ');
}
