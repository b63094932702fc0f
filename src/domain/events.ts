// Everything a run's log may hold: the dialogues' own messages, and what the run itself did between them.
import { z } from 'zod';
import { OptimaError } from './errors.ts';
import type { DialogueId, PolicyHash, TaskId } from './ids.ts';
import { type DialogueMessage, type MessageType, messageSchemas, parseMessage } from './messages.ts';

const branded = <T extends string>() =>
  z
    .string()
    .min(1)
    .transform((text) => text as T);
const phase = { phase: z.string() };
const dialogue = { dialogueId: branded<DialogueId>(), taskId: branded<TaskId>() };

/** Schemas of the events that a run adds to the messages of its dialogues, by type. */
export const runEventSchemas = {
  'run.started': z.object({
    type: z.literal('run.started'),
    scenario: z.string(),
    seed: z.int(),
    base: branded<PolicyHash>(),
    recipe: z.record(z.string(), z.unknown()),
  }),
  'phase.started': z.object({ type: z.literal('phase.started'), ...phase }),
  /** A cohort's dialogues are all in the log: a resumed run takes them from there. */
  'cohort.completed': z.object({
    type: z.literal('cohort.completed'),
    ...phase,
    cohort: z.int().nonnegative(),
  }),
  /** The reward of one dialogue; `terms` and `reward` are null exactly where `failure` says why. */
  'trajectory.ranked': z.object({
    type: z.literal('trajectory.ranked'),
    ...dialogue,
    tokens: z.int().nonnegative(),
    terms: z.object({ task: z.number(), tokenShare: z.number(), loss: z.number() }).nullable(),
    reward: z.number().nullable(),
    edgeCases: z.array(z.enum(['emptyMessage', 'repetition', 'cappedMessage', 'turnCap'])).readonly(),
    eligible: z.boolean(),
    failure: z.string().nullable(),
  }),
  /** Which dialogues are trained on, best first, and where the other tasks' dialogues were lost. */
  'selection.made': z.object({
    type: z.literal('selection.made'),
    ...phase,
    kept: z.array(z.object({ ...dialogue, reward: z.number() })).readonly(),
    dropped: z.object({
      noCandidate: z.int(),
      belowThreshold: z.int(),
      beyondFraction: z.int(),
    }),
  }),
  'step.trained': z.object({
    type: z.literal('step.trained'),
    ...phase,
    /** From 0. */
    step: z.int().nonnegative(),
    steps: z.int(),
    learningRate: z.number(),
    loss: z.number(),
    gradNorm: z.number(),
    tokens: z.int(),
  }),
  /** `hash` covers the phase's events, timestamps left out; `output` holds its figures and hashes. */
  'phase.completed': z.object({
    type: z.literal('phase.completed'),
    ...phase,
    hash: z.string(),
    output: z.record(z.string(), z.unknown()),
  }),
  'run.completed': z.object({ type: z.literal('run.completed'), policy: branded<PolicyHash>() }),
} as const;

export type RunEventType = keyof typeof runEventSchemas;
export type RunEventOf<T extends RunEventType> = z.output<(typeof runEventSchemas)[T]>;
/** Any event of a run's log. */
export type RunEvent = DialogueMessage | { [T in RunEventType]: RunEventOf<T> }[RunEventType];
export type EdgeCase = RunEventOf<'trajectory.ranked'>['edgeCases'][number];

/** Whether an event is a message that a dialogue's actors exchanged. */
export function isDialogueMessage(event: RunEvent): event is DialogueMessage {
  return Object.hasOwn(messageSchemas, event.type satisfies MessageType | RunEventType);
}

/** Validates an event; throws `message.invalid` with the type, the field and what is wrong. */
export function parseEvent(value: unknown): RunEvent {
  const type = (value as { type?: unknown } | null)?.type;
  if (typeof type !== 'string' || !Object.hasOwn(runEventSchemas, type)) return parseMessage(value);
  const result = runEventSchemas[type as RunEventType].safeParse(value);
  if (!result.success) {
    const issue = result.error.issues[0]!;
    throw new OptimaError(
      'message.invalid',
      `Event ${type}: field ${issue.path.join('.')}: ${issue.message}.`,
    );
  }
  return result.data;
}
