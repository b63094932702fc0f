// The judge: waits for a dialogue's end, has the world (src/actors) score what was said, and gives the verdict that
// ranking starts from: dialogue.closed → score → score.computed → verdict.given.
import { assertEvent, emit, setup } from 'xstate';
import { messageOf, OptimaError } from '../domain/errors.ts';
import type { DialogueId } from '../domain/ids.ts';
import type { MessageOf } from '../domain/messages.ts';
import type { Turn, Verdict } from '../domain/transcript.ts';
import { scoreAnswer } from '../scenario/metric.ts';
import { lastStated, parserOf } from '../scenario/stated.ts';
import type { Scenario } from '../scenario/types.ts';
import { unprovidedAction } from './unprovided.ts';

/** The world's answer to `score`, one of the two. */
export type ScoreAnswer =
  | { readonly type: 'score.computed'; readonly verdict: Verdict }
  | { readonly type: 'score.failed'; readonly reason: string };

export interface JudgeContext {
  readonly dialogueId: DialogueId;
  readonly scenario: Scenario;
  readonly task: unknown;
}

export type JudgeEvent = MessageOf<'dialogue.closed'> | ScoreAnswer;

export type JudgeInput = JudgeContext;

/** The judge has no result: all it does, it says on the bus. */
export type JudgeOutput = undefined;

type JudgeEmitted = MessageOf<'verdict.given'> | MessageOf<'verdict.failed'>;

/**
 * Scores the team's answer: the last one that was stated by a role whose answer counts, or null when none was, of which the
 * metric decides. `views` are what the roles were told. Throws `metric.failed` when parser or metric throws, or the score is not a number in [0, 1].
 */
export function computeVerdict(
  scenario: Scenario,
  task: unknown,
  views: Readonly<Record<string, string>>,
  turns: readonly Turn[],
): Verdict {
  const { metric } = scenario;
  const fail = (problem: string, cause?: unknown) =>
    new OptimaError('metric.failed', `Scenario "${scenario.name}": metric ${metric.name} ${problem}.`, {
      cause,
    });
  let answer: string | null = null;
  let score: unknown;
  let exactMatch: boolean;
  try {
    answer = lastStated(
      scenario,
      turns,
      parserOf(scenario, task, () => Object.values(views)),
    );
    ({ score, exactMatch } = scoreAnswer(metric, answer, scenario.answers(task)));
  } catch (error) {
    throw fail(`threw: ${messageOf(error)}`, error);
  }
  if (typeof score !== 'number' || !(score >= 0 && score <= 1)) {
    throw fail(`gave ${score}, not a number in [0, 1]`);
  }
  return { taskScore: score, exactMatch, answer };
}

/** Emits `verdict.given` or `verdict.failed` once, unless the dialogue was closed as failed: then nothing. */
export const judgeMachine = setup({
  types: {
    context: {} as JudgeContext,
    events: {} as JudgeEvent,
    input: {} as JudgeInput,
    output: undefined as JudgeOutput,
    emitted: {} as JudgeEmitted,
  },
  guards: {
    wasCompleted: ({ event }) => {
      assertEvent(event, 'dialogue.closed');
      return event.outcome !== 'failed';
    },
  },
  actions: {
    /** Provided with the world, which sends a `ScoreAnswer`. */
    score: unprovidedAction('score'),
    announceVerdict: emit(({ context: { dialogueId }, event }) => {
      assertEvent(event, 'score.computed');
      return { type: 'verdict.given' as const, dialogueId, ...event.verdict };
    }),
    announceFailure: emit(({ context: { dialogueId }, event }) => {
      assertEvent(event, 'score.failed');
      return { type: 'verdict.failed' as const, dialogueId, reason: event.reason };
    }),
  },
}).createMachine({
  id: 'judge',
  options: { maxIterations: 100 },
  context: ({ input }) => input,
  initial: 'waiting',
  states: {
    waiting: {
      on: {
        'dialogue.closed': [{ guard: 'wasCompleted', target: 'judging' }, { target: 'dismissed' }],
      },
    },
    judging: {
      entry: 'score',
      on: {
        'score.computed': { target: 'verdictGiven', actions: 'announceVerdict' },
        'score.failed': { target: 'verdictFailed', actions: 'announceFailure' },
      },
    },
    // Not final: the verdict ends the dialogue, and with it this actor.
    verdictGiven: {},
    verdictFailed: {},
    dismissed: {},
  },
});
