// The typed messages that a dialogue's actors exchange over the bus, and that the recorder appends to the log.
import { z } from 'zod';
import { OptimaError } from './errors.ts';
import type { DialogueId, PolicyHash, TaskId, TurnId } from './ids.ts';

/** Brands are types alone: a transform would send every message down zod's slow path. */
const branded = <T extends string>() => z.string().min(1) as unknown as z.ZodType<T, string>;
const id = { dialogueId: branded<DialogueId>() };

const turn = z.object({
  id: branded<TurnId>(),
  parent: branded<TurnId>().nullable(),
  index: z.int().nonnegative(),
  speaker: z.string(),
  text: z.string(),
  tokenIds: z.array(z.int().nonnegative()).readonly(),
  logprobs: z.array(z.number()).readonly(),
  finish: z.enum(['stop', 'length']),
  policyHash: branded<PolicyHash>(),
  seed: z.int().nonnegative(),
  provenance: z.enum(['sampled', 'human', 'recorded']),
  promptTokens: z.int().nonnegative(),
});

/** Schemas of every bus message, by type. */
export const messageSchemas = {
  /** The environment opened the dialogue and dealt each role its private view. */
  'dialogue.opened': z.object({
    type: z.literal('dialogue.opened'),
    ...id,
    taskId: branded<TaskId>(),
    views: z.record(z.string(), z.string()),
    plainViews: z.record(z.string(), z.string()),
    format: z.string().nullable(),
  }),
  /** The environment gave the floor to a role. */
  'turn.requested': z.object({
    type: z.literal('turn.requested'),
    ...id,
    index: z.int().nonnegative(),
    speaker: z.string(),
  }),
  /** An agent spoke. */
  'turn.taken': z.object({ type: z.literal('turn.taken'), ...id, turn }),
  /** An agent could not speak: its model failed or timed out. */
  'turn.failed': z.object({
    type: z.literal('turn.failed'),
    ...id,
    index: z.int().nonnegative(),
    speaker: z.string(),
    reason: z.string(),
  }),
  /** The environment closed the dialogue. */
  'dialogue.closed': z.object({
    type: z.literal('dialogue.closed'),
    ...id,
    outcome: z.enum(['agreed', 'turn-cap', 'failed']),
    failure: z.string().nullable(),
  }),
  /** The judge gave its verdict. */
  'verdict.given': z.object({
    type: z.literal('verdict.given'),
    ...id,
    taskScore: z.number().min(0).max(1),
    exactMatch: z.boolean(),
    answer: z.string().nullable(),
  }),
  /** The judge could not: the metric threw or gave no finite number in [0, 1]. */
  'verdict.failed': z.object({ type: z.literal('verdict.failed'), ...id, reason: z.string() }),
} as const;

export type MessageType = keyof typeof messageSchemas;
export type MessageOf<T extends MessageType> = z.output<(typeof messageSchemas)[T]>;
/** Any message on a dialogue's bus. */
export type DialogueMessage = { [T in MessageType]: MessageOf<T> }[MessageType];

/** Validates a message; throws `message.invalid` with the type, the field and what is wrong. */
export function parseMessage(value: unknown): DialogueMessage {
  const type = (value as { type?: unknown } | null)?.type;
  if (typeof type !== 'string' || !Object.hasOwn(messageSchemas, type)) {
    throw new OptimaError(
      'message.invalid',
      `Message type ${JSON.stringify(type)} is not one the bus knows.`,
    );
  }
  const result = messageSchemas[type as MessageType].safeParse(value);
  if (!result.success) {
    const issue = result.error.issues[0]!;
    throw new OptimaError(
      'message.invalid',
      `Message ${type}: field ${issue.path.join('.')}: ${issue.message}.`,
    );
  }
  return result.data as DialogueMessage;
}
