// Holds the dialogues of a phase, cohort by cohort, and keeps them in the run's log. Cohorts that an earlier
// process finished come from the log, with no model call.
import { cohortsOf, type Episode, everyRole, foldDialogues, runCohort } from '../actors/index.ts';
import { isDialogueMessage, type RunEvent } from '../domain/events.ts';
import { dialogueId } from '../domain/ids.ts';
import type { LanguageModel } from '../domain/model.ts';
import type { Rng } from '../domain/rng.ts';
import type { Trajectory } from '../domain/transcript.ts';
import type { FormatPrompt, Scenario } from '../scenario/types.ts';
import type { EventLog } from './log.ts';
import type { Progress } from './progress.ts';
import type { NamedTask } from './tasks.ts';

/**
 * The longest that a timer of Node can wait, 24 days. A model in process needs no shorter one, and a turn that
 * timed out on a slow or suspended machine would make the log depend on the clock.
 */
const turnTimeoutMs = 2 ** 31 - 1;

export interface DialoguePlan {
  /** First part of the dialogues' ids; names their random draws too. */
  readonly phase: string;
  readonly scenario: Scenario;
  /** Speaks for every role. */
  readonly model: LanguageModel;
  readonly tasks: readonly NamedTask[];
  readonly samplesPerTask: number;
  /** Drawn from uniformly for each dialogue; empty: every dialogue is plain. */
  readonly formats: readonly FormatPrompt[];
  readonly temperature: number;
  readonly maxMessageTokens: number;
  /** Dialogues that run together. */
  readonly concurrency: number;
  /** The run's generator. */
  readonly rng: Rng;
  /** Without one nothing is kept. */
  readonly log?: EventLog;
  readonly progress: Progress;
  readonly signal?: AbortSignal;
}

/** The finished dialogues in the order tasks × samples. Rejects as `runCohort` does. */
export async function holdDialogues(plan: DialoguePlan): Promise<Trajectory[]> {
  const { phase, scenario, model, log, progress, signal, maxMessageTokens: maxTokens } = plan;
  const episodes = episodesOf(plan);
  const trajectories: Trajectory[] = [];
  progress.begin(phase, episodes.length, 'dialogues');
  for (const [cohort, members] of cohortsOf(episodes, plan.concurrency).entries()) {
    const isEnd = (event: RunEvent) =>
      event.type === 'cohort.completed' && event.phase === phase && event.cohort === cohort;
    const replayed = log?.replayThrough(isEnd);
    if (replayed) {
      trajectories.push(...foldDialogues(replayed.filter(isDialogueMessage)));
    } else {
      let closed = trajectories.length;
      const held = await runCohort(members, {
        scenario,
        speakers: everyRole(scenario, model),
        sampling: { temperature: plan.temperature, topP: 1, topK: 0, maxTokens },
        rng: plan.rng.split('dialogues'),
        signal,
        turnTimeoutMs,
        sink: (message) => {
          log?.append(message);
          if (message.type === 'dialogue.closed') progress.advance(++closed);
        },
      });
      trajectories.push(...held);
      log?.append({ type: 'cohort.completed', phase, cohort });
    }
    progress.advance(trajectories.length);
  }
  const failures = trajectories.flatMap(({ failure }) => failure ?? []);
  const failed = failures.length > 0 ? `, ${failures.length} failed, the first with: ${failures[0]}` : '';
  progress.end(`${trajectories.length} dialogues${failed}`);
  return trajectories;
}

function episodesOf({ phase, tasks, samplesPerTask, formats, rng }: DialoguePlan): Episode[] {
  return tasks.flatMap((named) =>
    Array.from({ length: samplesPerTask }, (_, sample) => {
      const id = dialogueId(phase, named.id, sample);
      const format = formats.length > 0 ? rng.split('formats').split(id).pick(formats) : null;
      return { id, taskId: named.id, task: named.task, format };
    }),
  );
}
