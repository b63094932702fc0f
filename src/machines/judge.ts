// The judge: hears a dialogue to its end and gives the verdict that ranking starts from.
import {
  assertEvent,
  assign,
  type DoneActorEvent,
  type ErrorActorEvent,
  emit,
  fromPromise,
  setup,
} from 'xstate';
import { messageOf, OptimaError } from '../domain/errors.ts';
import type { DialogueId } from '../domain/ids.ts';
import type { MessageOf } from '../domain/messages.ts';
import type { Turn, Verdict } from '../domain/transcript.ts';
import type { Scenario } from '../scenario/types.ts';

/** What a verdict is computed from. */
export interface ScoreInput {
  readonly scenario: Scenario;
  readonly task: unknown;
  readonly turns: readonly Turn[];
}

export interface JudgeContext extends ScoreInput {
  readonly dialogueId: DialogueId;
  readonly verdictTimeoutMs: number;
}

export type JudgeEvent =
  | MessageOf<'turn.taken'>
  | MessageOf<'dialogue.closed'>
  | DoneActorEvent<Verdict, 'score'>
  | ErrorActorEvent<unknown, 'score'>;

export interface JudgeInput {
  readonly dialogueId: DialogueId;
  readonly scenario: Scenario;
  readonly task: unknown;
  /** Longest time the verdict may take, in ms; below 2^31. */
  readonly verdictTimeoutMs: number;
}

/** The judge has no result: all it does, it says on the bus. */
export type JudgeOutput = undefined;

type JudgeEmitted = MessageOf<'verdict.given'> | MessageOf<'verdict.failed'>;

/**
 * Scores the team's answer: the last one that any message stated, or null when none did, of which the metric
 * decides. Throws `metric.failed` when parser or metric throws, or the score is not a number in [0, 1].
 */
export function computeVerdict({ scenario, task, turns }: ScoreInput): Verdict {
  const { answer: parser, metric } = scenario;
  const fail = (problem: string, cause?: unknown) =>
    new OptimaError('metric.failed', `Scenario "${scenario.name}": metric ${metric.name} ${problem}.`, {
      cause,
    });
  let answer: string | null = null;
  let score: unknown;
  let exactMatch: boolean;
  try {
    for (const turn of turns) answer = parser.parse(turn.text) ?? answer;
    ({ score, exactMatch } = metric.score(answer, scenario.answers(task)));
  } catch (error) {
    throw fail(`threw: ${messageOf(error)}`, error);
  }
  if (typeof score !== 'number' || !(score >= 0 && score <= 1)) {
    throw fail(`gave ${score}, not a number in [0, 1]`);
  }
  return { taskScore: score, exactMatch, answer };
}

const scoreInput = ({ context }: { context: JudgeContext }): ScoreInput => context;

const verdictFailed = (context: JudgeContext, reason: string): MessageOf<'verdict.failed'> => ({
  type: 'verdict.failed',
  dialogueId: context.dialogueId,
  reason,
});

/** Emits `verdict.given` or `verdict.failed` once, unless the dialogue was closed as failed: then nothing. */
export const judgeMachine = setup({
  types: {
    context: {} as JudgeContext,
    events: {} as JudgeEvent,
    input: {} as JudgeInput,
    output: undefined as JudgeOutput,
    emitted: {} as JudgeEmitted,
  },
  actors: {
    score: fromPromise<Verdict, ScoreInput>(async ({ input }) => computeVerdict(input)),
  },
  guards: {
    wasCompleted: ({ event }) => {
      assertEvent(event, 'dialogue.closed');
      return event.outcome !== 'failed';
    },
  },
  delays: { verdictTimeout: ({ context }) => context.verdictTimeoutMs },
  actions: {
    hearTurn: assign(({ context, event }) => {
      assertEvent(event, 'turn.taken');
      return { turns: [...context.turns, event.turn] };
    }),
    announceVerdict: emit(({ context, event }) => {
      assertEvent(event, 'xstate.done.actor.score');
      return { type: 'verdict.given' as const, dialogueId: context.dialogueId, ...event.output };
    }),
    announceFailure: emit(({ context, event }) => {
      assertEvent(event, 'xstate.error.actor.score');
      return verdictFailed(context, messageOf(event.error));
    }),
    announceTimeout: emit(({ context }) =>
      verdictFailed(context, `No verdict within ${context.verdictTimeoutMs} ms.`),
    ),
  },
}).createMachine({
  id: 'judge',
  options: { maxIterations: 100 },
  context: ({ input }) => ({ ...input, turns: [] }),
  initial: 'waiting',
  states: {
    waiting: {
      on: {
        'turn.taken': { actions: 'hearTurn' },
        'dialogue.closed': [{ guard: 'wasCompleted', target: 'judging' }, { target: 'dismissed' }],
      },
    },
    judging: {
      invoke: {
        id: 'score',
        src: 'score',
        input: scoreInput,
        onDone: { target: 'verdictGiven', actions: 'announceVerdict' },
        onError: { target: 'verdictFailed', actions: 'announceFailure' },
      },
      after: { verdictTimeout: { target: 'verdictFailed', actions: 'announceTimeout' } },
    },
    // Not final: the verdict ends the dialogue, and with it this actor.
    verdictGiven: {},
    verdictFailed: {},
    dismissed: {},
  },
});
