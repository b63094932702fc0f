// The typed messages that a dialogue's actors exchange over the bus, and that a run's log keeps.
import { z } from 'zod';
import type { DialogueId, NodeId, PolicyHash, TaskId } from './ids.ts';
import { branded, parseByType } from './schemas.ts';

const id = { dialogueId: branded<DialogueId>() };
/** The node that a turn is to become. */
const node = { nodeId: branded<NodeId>(), speaker: z.string() };

const observations = z
  .array(z.object({ text: z.string().min(1), to: z.array(z.string()).readonly().optional() }))
  .min(1)
  .readonly();
/** Several roles speak at once; not all hear what is said. */
const manner = {
  to: z.array(z.string()).readonly().optional(),
  round: z.array(z.string()).min(2).readonly().optional(),
};

const turn = z.object({
  id: branded<NodeId>(),
  parent: branded<NodeId>(),
  speaker: z.string(),
  text: z.string(),
  tokenIds: z.array(z.int().nonnegative()).readonly(),
  logprobs: z.array(z.number()).readonly(),
  finish: z.enum(['stop', 'length']),
  policyHash: branded<PolicyHash>(),
  seed: z.int().nonnegative(),
  provenance: z.enum(['sampled', 'human', 'recorded']),
  promptTokens: z.int().nonnegative(),
  written: z.string().optional(),
  name: z.string().optional(),
  ...manner,
});

/**
 * Schemas of every bus message, by type. Each dialogue's environment says what it deals; a log keeps the first deal of
 * each task and of each format.
 */
export const messageSchemas = {
  /** What each role is told of a task, without a format prompt, and what the environment opens each of its dialogues with. */
  'task.dealt': z.object({
    type: z.literal('task.dealt'),
    taskId: branded<TaskId>(),
    views: z.record(z.string(), z.string()),
    opening: observations.optional(),
  }),
  /** A format prompt, and the roles whose views it is added to. */
  'format.dealt': z.object({
    type: z.literal('format.dealt'),
    format: z.string(),
    prompt: z.string(),
    roles: z.array(z.string()).readonly(),
  }),
  /** The environment opened a dialogue in a task's tree: at a turn of another one, or at the root, where `parent` is null. */
  'dialogue.opened': z.object({
    type: z.literal('dialogue.opened'),
    ...id,
    taskId: branded<TaskId>(),
    tree: branded<NodeId>(),
    parent: branded<NodeId>().nullable(),
    format: z.string().nullable(),
  }),
  /**
   * The environment gave the floor to a role; `turn.taken`, `turn.merged` or `turn.failed` follows for the node, and names
   * the dialogue.
   */
  'turn.requested': z.object({ type: z.literal('turn.requested'), ...node, ...manner }),
  /** An agent spoke. */
  'turn.taken': z.object({ type: z.literal('turn.taken'), ...id, turn }),
  /**
   * What an agent said is as good as a turn that stands there already, `into`, and the dialogue goes on from that one; said
   * but not kept were `text` and `tokenIds`.
   */
  'turn.merged': z.object({
    type: z.literal('turn.merged'),
    ...id,
    ...node,
    into: branded<NodeId>(),
    text: z.string(),
    tokenIds: z.array(z.int().nonnegative()).readonly(),
    promptTokens: z.int().nonnegative(),
  }),
  /** The environment answered what had been said when the turn was taken; said once for each node that dialogues share. */
  'observation.given': z.object({
    type: z.literal('observation.given'),
    ...id,
    nodeId: branded<NodeId>(),
    observations,
  }),
  /** An agent could not speak: its model refused the request. */
  'turn.failed': z.object({ type: z.literal('turn.failed'), ...id, ...node, reason: z.string() }),
  /** The environment closed the dialogue. */
  'dialogue.closed': z.object({
    type: z.literal('dialogue.closed'),
    ...id,
    outcome: z.enum(['agreed', 'turn-cap', 'failed']),
    failure: z.string().nullable(),
    /** The role whose model refused to speak, where that is why it failed. Logs of before do not say it. */
    refusedBy: z.string().optional(),
  }),
  /** A metric asked the judge model; the verdict on the dialogue follows. */
  'judge.asked': z.object({
    type: z.literal('judge.asked'),
    ...id,
    /** Counted through the dialogue's, from 0. */
    question: z.int().nonnegative(),
    prompt: z.string(),
    reply: z.string(),
    tokenIds: z.array(z.int().nonnegative()).readonly(),
    finish: z.enum(['stop', 'length']),
    policyHash: branded<PolicyHash>(),
    seed: z.int().nonnegative(),
    promptTokens: z.int().nonnegative(),
  }),
  /** The judge gave its verdict. */
  'verdict.given': z.object({
    type: z.literal('verdict.given'),
    ...id,
    taskScore: z.number().min(0).max(1),
    exactMatch: z.boolean(),
    answer: z.string().nullable(),
    /** What each role got out of the dialogue, where the metric says that. */
    seats: z.record(z.string(), z.number().min(0).max(1)).optional(),
  }),
  /** The judge could not: the metric threw or gave no finite number in [0, 1]. */
  'verdict.failed': z.object({ type: z.literal('verdict.failed'), ...id, reason: z.string() }),
} as const;

export type MessageType = keyof typeof messageSchemas;
export type MessageOf<T extends MessageType> = z.output<(typeof messageSchemas)[T]>;
/** Any message on a dialogue's bus. */
export type DialogueMessage = { [T in MessageType]: MessageOf<T> }[MessageType];

/** Validates a message; throws `message.invalid` with the type, the field and what is wrong. */
export const parseMessage = (value: unknown): DialogueMessage => parseByType(messageSchemas, value);
