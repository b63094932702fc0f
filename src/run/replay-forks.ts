// Replay of forks: as `replay.ts` does it with a run's dialogues, from the run's forks and what they go on from.
import { type Cast, type Episode, runCohort } from '../actors/index.ts';
import { longestTimerMs, systemClock } from '../domain/clock.ts';
import { OptimaError } from '../domain/errors.ts';
import type { RunEvent } from '../domain/events.ts';
import type { PolicyHash } from '../domain/ids.ts';
import { createRng } from '../domain/rng.ts';
import type { Turn } from '../domain/transcript.ts';
import type { ForkReading, RunReader } from '../reading/index.ts';
import { messageCap } from '../scenario/types.ts';
import { EventLog } from '../store/event-log.ts';
import { ForkLog, forkOf, forksPath } from '../store/fork-log.ts';
import type { Manifest } from '../store/manifest.ts';
import { ForkedCourse, person } from './fork.ts';
import type { TeamContext } from './phases/context.ts';
import { Comparison, keyOf, type Recorded, Recording } from './recording.ts';
import {
  type HeldPhase,
  holdsDialogues,
  type ReplayedCohort,
  type ReplayPlan,
  tasksOf,
  teamContextOf,
} from './replay.ts';

export interface ReplayedForks {
  readonly dialogues: number;
  /** Messages that the actors sent and that were compared. */
  readonly messages: number;
  /** Forks that were cut off before they had their rewards. */
  readonly cutOff: number;
}

export interface ForkReplayPlan
  extends Pick<ReplayPlan, 'scenario' | 'recipe' | 'verifyScenario' | 'onCohort' | 'signal'> {
  readonly run: RunReader;
  readonly manifest: Manifest;
  /** By default all. */
  readonly fork?: number | undefined;
}

/**
 * Replays the forks of a run, one after the other. Rejects with `ReplayDivergence` at the first message that is another, with
 * `run.missing` for a fork that is not there or was cut off, with `interrupted` on abort, and as `ForkLog.read` does.
 */
export async function replayForks(plan: ForkReplayPlan): Promise<ReplayedForks> {
  const { run, fork: asked } = plan;
  const context = teamContextOf(plan);
  const log = eventsOfForks(run.folder);
  const forks = run.forks().filter(({ begun }) => asked === undefined || begun.fork === asked);
  if (asked !== undefined && forks.length === 0)
    throw new OptimaError(
      'run.missing',
      `${run.folder}: there is no fork ${asked} that has come to its end.`,
      {
        hint: `\`optima fork\` tells the number of each; ${forksPath(run.folder)} has them.`,
      },
    );
  let messages = 0;
  for (const fork of forks) messages += await replayFork(plan, context, fork, log);
  const begun = log.filter(({ event }) => event.type === 'fork.begun').length;
  return { dialogues: forks.length, messages, cutOff: asked === undefined ? begun - forks.length : 0 };
}

/** What the log of a run's forks holds; nothing where there is none. */
function eventsOfForks(folder: string): Recorded[] {
  // A link, and whatever else is no file, is refused.
  if (ForkLog.read(folder).end.events === 0) return [];
  const log = new EventLog(forksPath(folder), systemClock, { readOnly: true, noLink: true });
  try {
    return [...log.lines(0, log.end.events)].map((line) => ({ ...line, event: JSON.parse(line.body) }));
  } finally {
    log.close();
  }
}

/** Drives the actors of a fork and compares what they say; resolves with the number of messages. */
async function replayFork(
  { run, manifest, onCohort, verifyScenario = false, signal }: ForkReplayPlan,
  context: TeamContext,
  { begun, format: name, turns }: ForkReading,
  log: readonly Recorded[],
): Promise<number> {
  const { scenario, recipe } = context;
  const rng = createRng(recipe.seed);
  const { dialogueId: id, tree, taskId, fork } = begun;
  const isOwn = (turn: Turn) => forkOf(turn.id) === fork;
  const history = turns.filter((turn) => !isOwn(turn));
  const people = new Set(
    turns.filter((turn) => isOwn(turn) && turn.provenance === 'human').map((turn) => turn.id),
  );
  const events = log.filter(({ event }) => isOf(event, fork, id));
  const deals = log.filter(({ event }) => event.type === 'task.dealt' && event.taskId === taskId);
  const source = { file: forksPath(run.folder), dealtBefore: (event: RunEvent) => run.dealtBefore(event) };
  const recording = new Recording(scenario, source, [...deals, ...events], history);
  const cast: Cast = Object.fromEntries(
    Object.entries(begun.policy).map(([role, hash]) => [
      role,
      { model: recording.model(hash), provenance: 'sampled' as const },
    ]),
  );
  const typist = { model: recording.model(person), provenance: 'human' as const };
  const episode: Episode = {
    ...{ id, tree, taskId, history },
    task: await taskOf(context, begun.phase, taskId),
    format: formatOf(context, name),
  };
  const comparison = new Comparison(
    source,
    events.filter(({ event }) => event.type !== 'trajectory.ranked'),
    dealsIn(log),
  );
  const opening = () => recording.openingOf(taskId);
  await runCohort([episode], {
    scenario,
    cast,
    sampling: {
      temperature: begun.temperature,
      topP: 1,
      topK: 0,
      maxTokens: messageCap(scenario, recipe.maxMessageTokens),
    },
    rng: rng.split('nodes'),
    turnTimeoutMs: longestTimerMs,
    signal,
    judge: scenario.judge && recording.model((manifest.judge?.hash ?? 'judge') as PolicyHash),
    recallReply: recording.recallReply,
    speakerAt: (node) => (people.has(node) ? typist : undefined),
    // What is, byte for byte, a line that was checked needs no second check.
    parse: (message) => message,
    ...(verifyScenario
      ? { courseOf: () => new ForkedCourse(scenario, episode.task, history, opening()) }
      : { courseOf: () => recording.courseOf(episode), metricOf: () => recording.metricOf(id) }),
  }).forEach((message) => {
    comparison.hear(message);
  });
  const messages = comparison.end();
  const replayed: ReplayedCohort = { phase: begun.phase, cohort: fork, dialogues: [id], events };
  await onCohort?.(replayed);
  return messages;
}

/** Whether an event is a message of a fork, or its reward. */
function isOf(event: RunEvent, fork: number, dialogue: string): boolean {
  if (event.type === 'turn.requested') return forkOf(event.nodeId) === fork;
  return event.type !== 'fork.begun' && 'dialogueId' in event && event.dialogueId === dialogue;
}

/** What was dealt in forks: each says it anew. */
function dealsIn(log: readonly Recorded[]): Map<string, string> {
  const dealt = new Map<string, string>();
  for (const { event, body } of log) {
    if (event.type === 'task.dealt' || event.type === 'format.dealt') dealt.set(keyOf(event), body);
  }
  return dealt;
}

async function taskOf(
  { plan, scenario, recipe }: TeamContext,
  phase: string,
  taskId: string,
): Promise<unknown> {
  const held = plan.find(({ name }) => name === phase);
  const tasks =
    held !== undefined && holdsDialogues(held)
      ? await tasksOf(held satisfies HeldPhase, scenario, createRng(recipe.seed))
      : [];
  const task = tasks.find(({ id }) => id === taskId);
  if (task === undefined) throw new OptimaError('run.diverged', `The run has no task ${taskId} in ${phase}.`);
  return task.task;
}

function formatOf({ scenario }: TeamContext, name: string | null): Episode['format'] {
  const format = name === null ? null : scenario.formats.find((one) => one.name === name);
  if (format !== undefined) return format;
  throw new OptimaError('run.diverged', `The scenario has no format "${name}" any more.`);
}
