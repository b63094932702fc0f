// Everything a run's log may hold: the dialogues' own messages, and what the run itself did between them.
import { z } from 'zod';
import type { DialogueId, NodeId, PolicyHash, TaskId } from './ids.ts';
import { type DialogueMessage, messageSchemas } from './messages.ts';
import { branded, parseByType } from './schemas.ts';

const count = z.int().nonnegative();
const phase = { phase: z.string() };
const dialogue = { dialogueId: branded<DialogueId>(), taskId: branded<TaskId>() };
const team = z.record(z.string(), branded<PolicyHash>());

const teamMetrics = z.object({
  taskScore: z.number(),
  taskScoreInterval: z.tuple([z.number(), z.number()]).readonly(),
  exactMatch: z.number(),
  tokens: z.number(),
  medianTokens: z.number(),
  p95Tokens: z.number(),
  shortestRight: count.nullable(),
  agreement: z.number(),
  turns: z.number(),
  n: count,
  failed: count,
  /** Of the failed those that count as 0, in `n` too; absent where there are none. */
  refused: count.optional(),
  environmentTokens: z.number().optional(),
  noteTokens: z.number().optional(),
  /** Mean score of each seat, where the metric scores seats. */
  seats: z.record(z.string(), z.number()).optional(),
});

/** The cases that the paper leaves open. */
export const edgeCases = ['emptyMessage', 'repetition', 'cappedMessage', 'turnCap'] as const;
export type EdgeCase = (typeof edgeCases)[number];

/** What a phase hands on, by its kind: figures and hashes, which the phases after it and the reports go by. */
export const phaseOutputSchemas = {
  generate: z.object({
    kind: z.literal('generate'),
    /** Failed ones included. */
    dialogues: count,
    failed: count,
    /** Tokens of all messages that were sampled. */
    sampledTokens: count,
  }),
  rank: z.object({
    kind: z.literal('rank'),
    /** Trajectories with a reward. */
    ranked: count,
    /** Trajectories without one: failed dialogues, verdicts and rewards. */
    failed: count,
    /** Over the ranked trajectories. */
    meanReward: z.number(),
    /** And their mean R_loss: of what the base finds least likely in a dialogue, nats per token. */
    meanLoss: z.number(),
    /** Of the generated dialogues. */
    metrics: teamMetrics,
    /** Dialogues that are one of the open cases, by case. */
    edgeCases: z.record(z.enum(edgeCases), count),
  }),
  select: z.object({
    kind: z.literal('select'),
    /** Trajectories chosen for training; with none the iterations end with the policy that there is. */
    kept: count,
    /** Lowest reward among them; null when there are none. */
    threshold: z.number().nullable(),
  }),
  search: z.object({
    kind: z.literal('search'),
    trees: count,
    /** Roll-outs; failed ones included. */
    dialogues: count,
    /** Roll-outs without a reward. */
    failed: count,
    /** Turns that became one with a sibling. */
    merged: count,
    /** Tokens of all messages that were sampled; what branches share counts once. */
    sampledTokens: count,
    /** Tokens that R_token is taken against. */
    normaliser: z.number(),
    meanReward: z.number(),
    meanLoss: z.number(),
    /** Of the roll-outs. */
    metrics: teamMetrics,
    edgeCases: z.record(z.enum(edgeCases), count),
    /**
     * How much likelier what was said is under the policy than under the base, nats per token: the KL divergence, but for what
     * the sampling temperature and the choice of expansions change. A turn counts once for each roll-out.
     */
    klToBase: z.number(),
  }),
  pair: z.object({
    kind: z.literal('pair'),
    /** Pairs to train on; with none, and none of forks, the iterations end with the policy that there is. */
    kept: count,
    /** Where it has none: the kept pairs of forks that the training takes alone, if there are some. */
    forks: count.optional(),
    /** Pairs above the thresholds, before the better share was kept. */
    found: count,
    /** Mean difference of values of the kept; 0 without any. */
    meanGap: z.number(),
  }),
  train: z.object({
    kind: z.literal('train'),
    /** Of all policies that were trained. */
    steps: count,
    /** Mean loss of the last epoch; of SFT in nats per token. Of several policies the mean, each counted once. */
    loss: z.number(),
    /** What the objective measures beside it: means as of the loss. */
    figures: z.record(z.string(), z.number()),
    /** What a guard says, and which role had nothing to train on, in words; usually nothing. */
    warnings: z.array(z.string()).readonly(),
    /** The policy that came out. */
    policy: team,
  }),
  evaluate: z.object({
    kind: z.literal('evaluate'),
    policy: team,
    metrics: teamMetrics,
  }),
} as const;

export type PhaseKind = keyof typeof phaseOutputSchemas;
export type PhaseOutputOf<Kind extends PhaseKind> = Readonly<z.output<(typeof phaseOutputSchemas)[Kind]>>;
export type PhaseOutput = { [Kind in PhaseKind]: PhaseOutputOf<Kind> }[PhaseKind];

const { generate, rank, select, search, pair, train, evaluate } = phaseOutputSchemas;

const keptTurn = z.object({
  id: branded<NodeId>(),
  text: z.string(),
  tokenIds: z.array(count).readonly(),
  policyHash: branded<PolicyHash>(),
  provenance: z.enum(['sampled', 'human', 'recorded']),
});

/** Schemas of the events that a run adds to the messages of its dialogues, by type. */
export const runEventSchemas = {
  'run.started': z.object({
    type: z.literal('run.started'),
    scenario: z.string(),
    seed: z.int(),
    base: branded<PolicyHash>(),
    recipe: z.record(z.string(), z.unknown()),
    /** Who plays roles that are not trained, where it is not the base. */
    partners: team.optional(),
    judge: branded<PolicyHash>().optional(),
  }),
  'phase.started': z.object({ type: z.literal('phase.started'), ...phase }),
  /** A cohort's dialogues are all in the log: a resumed run takes them from there. */
  'cohort.completed': z.object({ type: z.literal('cohort.completed'), ...phase, cohort: count }),
  /** The reward of one dialogue; `terms` and `reward` are null exactly where `failure` says why. */
  'trajectory.ranked': z.object({
    type: z.literal('trajectory.ranked'),
    ...dialogue,
    tokens: count,
    terms: z.object({ task: z.number(), tokenShare: z.number(), loss: z.number() }).nullable(),
    reward: z.number().nullable(),
    /** Mean negative log-likelihood of each turn under the base, nats per token; empty without a reward. */
    turnLosses: z.array(z.number()).readonly(),
    edgeCases: z.array(z.enum(edgeCases)).readonly(),
    eligible: z.boolean(),
    failure: z.string().nullable(),
    /** The reward of each role, of its own seat's score, where the metric scores seats. */
    seats: z.record(z.string(), z.number()).optional(),
  }),
  /** Which dialogues are trained on, best first, and where the other tasks' dialogues were lost; with seats role by role. */
  'selection.made': z.object({
    type: z.literal('selection.made'),
    ...phase,
    kept: z
      .array(
        z.object({
          ...dialogue,
          reward: z.number(),
          /** For whose training, where seats have scores of their own. */
          role: z.string().optional(),
        }),
      )
      .readonly(),
    dropped: z.object({
      noCandidate: z.int(),
      belowThreshold: z.int(),
      beyondFraction: z.int(),
    }),
  }),
  /** The pairs of one tree that are trained on: of two turns that answer the same, the better and the worse. */
  'pairs.made': z.object({
    type: z.literal('pairs.made'),
    ...phase,
    taskId: branded<TaskId>(),
    tree: branded<NodeId>(),
    pairs: z
      .array(
        z.object({
          parent: branded<NodeId>(),
          chosen: branded<NodeId>(),
          rejected: branded<NodeId>(),
          /** Of the chosen one. */
          value: z.number(),
          gap: z.number(),
        }),
      )
      .readonly(),
    /** Pairs that were not kept, by reason. */
    dropped: z.record(z.string(), count),
  }),
  'step.trained': z.object({
    type: z.literal('step.trained'),
    ...phase,
    /** Whose policy it trained, where each role has its own. */
    role: z.string().optional(),
    /** From 0. */
    step: count,
    steps: z.int(),
    learningRate: z.number(),
    loss: z.number(),
    gradNorm: z.number(),
    tokens: z.int(),
    /** What the objective measures beside its loss. */
    figures: z.record(z.string(), z.number()),
  }),
  /** In `forks.jsonl`: a dialogue that somebody had begin at a turn of the run, or of an earlier fork. Its messages follow, and its reward. */
  'fork.begun': z.object({
    type: z.literal('fork.begun'),
    /** Counted through the run's, from 0. */
    fork: count,
    ...dialogue,
    /** Of whose task's tree. */
    ...phase,
    tree: branded<NodeId>(),
    /** Its first turn stands instead of `node`, as its sibling, or after it, as its child. */
    at: z.enum(['instead-of', 'after']),
    node: branded<NodeId>(),
    /** The turn that it is compared with, and a dialogue that goes through that one; null where the node has no other child. */
    sibling: branded<NodeId>().nullable(),
    beside: branded<DialogueId>().nullable(),
    /** Who said the first turn: a person, who wrote or changed it, or plays its role to the end; or the policy. */
    said: z.enum(['written', 'played', 'sampled']),
    /** Whose sampled turns follow. */
    policy: team,
    /** Whether that is who spoke in the phase. */
    own: z.boolean(),
    temperature: z.number(),
    /** Tokens that R_token is taken against; null where the dialogue has no reward. */
    normaliser: z.number().nullable(),
  }),
  /** In `forks.jsonl`: of a fork's first turn and its sibling the better and the worse one are to be trained on; complete in itself. */
  'pair.kept': z.object({
    type: z.literal('pair.kept'),
    fork: count,
    taskId: branded<TaskId>(),
    tree: branded<NodeId>(),
    parent: branded<NodeId>(),
    speaker: z.string(),
    /** What the speaker had read, without a format prompt. */
    view: z
      .array(
        z.object({
          role: z.enum(['system', 'user', 'assistant']),
          content: z.string(),
          tokenIds: z.array(count).readonly().optional(),
        }),
      )
      .readonly(),
    chosen: keptTurn,
    rejected: keptTurn,
    /** Of the chosen one. */
    value: z.number(),
    gap: z.number(),
    /** The run whose fork it is, where that is another one. */
    from: z.string().optional(),
  }),
  /** A training phase took these pairs of `forks.jsonl`, which went so far then, beside its own. */
  'forks.taken': z.object({
    type: z.literal('forks.taken'),
    ...phase,
    pairs: z
      .array(
        z.object({
          ...{ fork: count, chosen: branded<NodeId>(), rejected: branded<NodeId>() },
          /** As in `pair.kept`. */
          from: z.string().optional(),
        }),
      )
      .readonly(),
    log: z.object({ events: count, sum: z.string() }),
  }),
  'phase.completed': z.object({
    type: z.literal('phase.completed'),
    ...phase,
    output: z.discriminatedUnion('kind', [generate, rank, select, search, pair, train, evaluate]),
  }),
  'run.completed': z.object({ type: z.literal('run.completed'), policy: team }),
} as const;

export type RunEventType = keyof typeof runEventSchemas;
export type RunEventOf<T extends RunEventType> = z.output<(typeof runEventSchemas)[T]>;
/** Any event of a run's log. */
export type RunEvent = DialogueMessage | { [T in RunEventType]: RunEventOf<T> }[RunEventType];

const eventSchemas = { ...messageSchemas, ...runEventSchemas };

/** Whether an event is a message that a dialogue's actors exchanged. */
export function isDialogueMessage(event: RunEvent): event is DialogueMessage {
  return Object.hasOwn(messageSchemas, event.type);
}

/** Validates an event; throws `message.invalid` with the type, the field and what is wrong. */
export const parseEvent = (value: unknown): RunEvent => parseByType(eventSchemas, value);
