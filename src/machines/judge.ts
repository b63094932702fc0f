// The judge: waits for a dialogue's end, has the world (src/actors) score what was said, and gives the verdict that
// ranking starts from: dialogue.closed → score → score.computed → verdict.given.
import { assertEvent, emit, enqueueActions, setup } from 'xstate';
import { messageOf } from '../domain/errors.ts';
import type { DialogueId } from '../domain/ids.ts';
import type { MessageOf } from '../domain/messages.ts';
import type { Turn, Verdict } from '../domain/transcript.ts';
import { metricFailed, type Scored, scoreDialogue } from '../scenario/score.ts';
import { lastStated, parserOf } from '../scenario/stated.ts';
import type { Judged, Scenario } from '../scenario/types.ts';
import { unprovidedAction } from './unprovided.ts';

/** The world's answer to `score`, one of the two, with what the judge model was asked for it. */
export type ScoreAnswer = { readonly asked?: readonly MessageOf<'judge.asked'>[] } & (
  | { readonly type: 'score.computed'; readonly verdict: Verdict }
  | { readonly type: 'score.failed'; readonly reason: string }
);

export interface JudgeContext {
  readonly dialogueId: DialogueId;
  readonly scenario: Scenario;
  readonly task: unknown;
}

export type JudgeEvent = MessageOf<'dialogue.closed'> | ScoreAnswer;

export type JudgeInput = JudgeContext;

/** The judge has no result: all it does, it says on the bus. */
export type JudgeOutput = undefined;

type JudgeEmitted = MessageOf<'judge.asked'> | MessageOf<'verdict.given'> | MessageOf<'verdict.failed'>;

/**
 * The verdict on a dialogue: of the team's answer, which is the last one that was stated by a role whose answer counts, or null
 * when none was, the metric decides; at once, or as a promise where the metric gives one. `views` are what the roles were told,
 * `end` is how it ended, and whom the metric may ask.
 * Throws, or rejects with, `metric.failed` when parser or metric throws, or a score is not a number in [0, 1].
 */
export function computeVerdict(
  scenario: Scenario,
  task: unknown,
  views: Readonly<Record<string, string>>,
  turns: readonly Turn[],
  end: Pick<Judged, 'outcome' | 'judge' | 'signal'>,
): Verdict | Promise<Verdict> {
  let said: Pick<Judged, 'answer' | 'answers'>;
  try {
    const parser = parserOf(scenario, task, () => Object.values(views));
    said = { answer: lastStated(scenario, turns, parser), answers: scenario.answers(task) };
  } catch (error) {
    throw metricFailed(scenario, `threw: ${messageOf(error)}`, error);
  }
  const verdictOf = ({ score: taskScore, exactMatch, seats }: Scored): Verdict => ({
    ...{ taskScore, exactMatch, answer: said.answer },
    ...(seats && { seats }),
  });
  const scored = scoreDialogue(scenario, { task, turns, ...said, ...end });
  return scored instanceof Promise ? scored.then(verdictOf) : verdictOf(scored);
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
    announceQuestions: enqueueActions(({ event, enqueue }) => {
      assertEvent(event, ['score.computed', 'score.failed']);
      for (const question of event.asked ?? []) enqueue.emit(question);
    }),
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
        'score.computed': { target: 'verdictGiven', actions: ['announceQuestions', 'announceVerdict'] },
        'score.failed': { target: 'verdictFailed', actions: ['announceQuestions', 'announceFailure'] },
      },
    },
    // Not final: the verdict ends the dialogue, and with it this actor.
    verdictGiven: {},
    verdictFailed: {},
    dismissed: {},
  },
});
