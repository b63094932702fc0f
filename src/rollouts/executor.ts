// Holds the dialogues of a phase and keeps them in the run's log. Cohorts that an earlier process finished come from
// the log, with no model call; the others are held side by side, one with each model, and logged in their order.
import { cohortsOf, type Episode, everyRole, foldDialogues, runCohort } from '../actors/index.ts';
import { isDialogueMessage, type RunEvent } from '../domain/events.ts';
import { dialogueId } from '../domain/ids.ts';
import type { LanguageModel } from '../domain/model.ts';
import type { Progress } from '../domain/progress.ts';
import type { Rng } from '../domain/rng.ts';
import type { Trajectory } from '../domain/transcript.ts';
import type { NamedTask } from '../scenario/tasks.ts';
import type { FormatPrompt, Scenario } from '../scenario/types.ts';
import type { EventLog } from '../store/event-log.ts';
import { inLanes } from './work-queue.ts';

/**
 * The longest that a timer of Node can wait, 24 days. A model in process needs no shorter one, and a turn that
 * timed out on a slow or suspended machine would make the log depend on the clock.
 */
const turnTimeoutMs = 2 ** 31 - 1;

export interface DialoguePlan {
  /** First part of the dialogues' ids; names their random draws too. */
  readonly phase: string;
  readonly scenario: Scenario;
  /** The model that speaks for every role: one and the same, as often as cohorts can run side by side. */
  readonly models: readonly LanguageModel[];
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
  const { phase, scenario, log, progress, maxMessageTokens: maxTokens } = plan;
  const episodes = episodesOf(plan);
  const cohorts = cohortsOf(episodes, plan.concurrency);
  progress.begin(phase, episodes.length, 'dialogues');
  const trajectories = cohorts.map((): readonly Trajectory[] => []);
  let replayed = 0;
  for (; replayed < cohorts.length; replayed++) {
    const isEnd = (event: RunEvent) =>
      event.type === 'cohort.completed' && event.phase === phase && event.cohort === replayed;
    const events = log?.replayThrough(isEnd);
    if (!events) break;
    trajectories[replayed] = foldDialogues(events.filter(isDialogueMessage));
  }

  let closed = trajectories.flat().length;
  progress.advance(closed);
  const failure = new AbortController();
  const signal = plan.signal === undefined ? failure.signal : AbortSignal.any([plan.signal, failure.signal]);
  const logs = cohortLogs(log, replayed);
  await inLanes(
    plan.models,
    cohorts.slice(replayed),
    async (model, members, index) => {
      const cohort = replayed + index;
      trajectories[cohort] = await runCohort(members, {
        scenario,
        speakers: everyRole(scenario, model),
        sampling: { temperature: plan.temperature, topP: 1, topK: 0, maxTokens },
        rng: plan.rng.split('dialogues'),
        signal,
        turnTimeoutMs,
        sink: (message) => {
          logs.append(cohort, message);
          if (message.type === 'dialogue.closed') progress.advance(++closed);
        },
      });
      logs.append(cohort, { type: 'cohort.completed', phase, cohort });
      logs.end(cohort);
    },
    () => failure.abort(),
  );
  const held = trajectories.flat();
  const failures = held.flatMap(({ failure }) => failure ?? []);
  const failed = failures.length > 0 ? `, ${failures.length} failed, the first with: ${failures[0]}` : '';
  progress.end(`${held.length} dialogues${failed}`);
  return held;
}

/**
 * Logs cohorts that run side by side one after the other, from `first` on: what a later one says is kept until those
 * before it have ended.
 */
function cohortLogs(log: EventLog | undefined, first: number) {
  let current = first;
  const waiting = new Map<number, RunEvent[]>();
  const ended = new Set<number>();
  return {
    append(cohort: number, event: RunEvent): void {
      if (cohort === current) log?.append(event);
      else if (waiting.has(cohort)) waiting.get(cohort)!.push(event);
      else waiting.set(cohort, [event]);
    },
    end(cohort: number): void {
      ended.add(cohort);
      while (ended.has(current)) {
        current++;
        for (const event of waiting.get(current) ?? []) log?.append(event);
        waiting.delete(current);
      }
    },
  };
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
