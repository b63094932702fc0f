// Holds a cohort of dialogues: one root actor each, with one generation pool and one fold of all that they say.
import { Observable, type Subscriber } from 'rxjs';
import { assertEvent, createActor } from 'xstate';
import { Forest } from '../domain/conversation-tree.ts';
import { messageOf, OptimaError } from '../domain/errors.ts';
import type { DialogueId, NodeId } from '../domain/ids.ts';
import type { DialogueMessage } from '../domain/messages.ts';
import { mean } from '../domain/metrics.ts';
import type { GenerativeModel, GenerativeSession, Sampling, SessionOptions } from '../domain/model.ts';
import type { Rng } from '../domain/rng.ts';
import type { Provenance, Verdict } from '../domain/transcript.ts';
import {
  type AgentContext,
  type AgentEvent,
  agentMachine,
  type ComposeAnswer,
  computeVerdict,
  type JudgeContext,
  type JudgeEvent,
  judgeMachine,
  type ScoreAnswer,
} from '../machines/index.ts';
import { type Course, mannerOf } from '../scenario/course.ts';
import { isMetricFailure, withoutJudge } from '../scenario/score.ts';
import type { Metric, Scenario } from '../scenario/types.ts';
import type { PlacedTurn } from '../search/index.ts';
import { createBus, type ParseMessage } from './bus.ts';
import { dialogueMachine, type Episode } from './dialogue.ts';
import { createJudging, type Judging, type RecalledReply } from './judging.ts';
import { createGenerationPool, type GenerationPool } from './pool.ts';

/** Who speaks for a role, and what its turns count as. */
export interface Speaker {
  readonly model: GenerativeModel;
  readonly provenance: Provenance;
}

/** One speaker for every role of a scenario. */
export type Cast = Readonly<Record<string, Speaker>>;

export interface CohortOptions {
  readonly scenario: Scenario;
  readonly cast: Cast;
  readonly sampling: Sampling;
  /** A turn's seed is `rng.split(node id).seed32()`. */
  readonly rng: Rng;
  readonly signal?: AbortSignal | undefined;
  /** Longest time of a model's call, in ms; below 2^31. Default 10 minutes. */
  readonly turnTimeoutMs?: number;
  /** Whom metrics may ask; needed where the scenario has a `judge`. */
  readonly judge?: GenerativeModel | undefined;
  /** What the judge replied to a question before: it is not asked again. */
  readonly recallReply?: RecalledReply | undefined;
  /** What was said before in the same trees; what is said here joins it. */
  readonly forest?: Forest;
  /**
   * Where a turn that was composed has its place: its own node, or another child of its parent that it is as good as, and
   * from which the dialogue goes on. By default each has its own.
   */
  readonly place?: (turn: PlacedTurn) => NodeId;
  /** Who speaks at a node, where it is not the role's speaker. */
  readonly speakerAt?: (node: NodeId, role: string) => Speaker | undefined;
  /** What of a dialogue the scenario says; by default what it says now. */
  readonly courseOf?: (episode: Episode) => Course;
  /** Who scores a dialogue; by default the scenario's metric. */
  readonly metricOf?: (dialogue: DialogueId) => Metric;
  /** What a dialogue's actors say, as it is to be heard; by default as its schema has it. */
  readonly parse?: ParseMessage;
}

/** One model for every role, its turns counted as sampled. */
export function everyRole(scenario: Scenario, model: GenerativeModel): Cast {
  return Object.fromEntries(
    Object.keys(scenario.roles).map((role) => [role, { model, provenance: 'sampled' as const }]),
  );
}

/**
 * The dialogues of a cohort, held together from when somebody subscribes: every message of each as it is sent, and the end
 * when all have ended. With models whose results follow from their requests, the messages and their order follow from the
 * episodes and `rng`. Who unsubscribes stops the dialogues, and the calls of their models.
 *
 * A dialogue whose request a model refuses, or where code of the scenario throws, is closed as `failed`; the others go on.
 * Whatever else goes wrong concerns no one dialogue and ends them all: errors with `model.failed` or the model's own error
 * where a call fails or times out, with what an actor throws or a bus refuses, with `interrupted` when `signal` aborts, with
 * `metric.failed` for a metric that gives no score in its time, and with `usage` for a role without a speaker, a scenario
 * without the judge that it asks for, or two dialogues with one id.
 */
export function runCohort(episodes: readonly Episode[], options: CohortOptions): Observable<DialogueMessage> {
  return new Observable((subscriber) => {
    try {
      return hold(episodes, options, subscriber);
    } catch (error) {
      subscriber.error(error);
      return undefined;
    }
  });
}

/** Starts the dialogues; what it returns stops them. */
function hold(
  episodes: readonly Episode[],
  options: CohortOptions,
  subscriber: Subscriber<DialogueMessage>,
): () => void {
  const { scenario, signal, turnTimeoutMs = 600_000 } = options;
  checkCast(episodes, options);
  const interrupt = () => {
    subscriber.error(new OptimaError('interrupted', 'The dialogues were interrupted.'));
  };
  if (signal?.aborted) interrupt();
  if (episodes.length === 0) subscriber.complete();
  if (subscriber.closed) return () => {};

  const fail = (error: unknown) => subscriber.error(error);
  const pool = createGenerationPool(turnTimeoutMs, fail);
  const { forest = new Forest() } = options;
  const { cast, close } = openSessions(options.cast);
  const compose = createCompose(pool, forest, { ...options, cast });
  const agent = agentMachine.provide({ actions: { compose } });
  const judging = createJudging(episodes, {
    ...options,
    modelTimeoutMs: turnTimeoutMs,
    onFailure: fail,
  });
  const score = createScore(forest, pool, judging, options.metricOf);
  const judge = judgeMachine.provide({ actions: { score } });
  const machine = dialogueMachine.provide({ actors: { agent, judge } });
  let running = episodes.length;
  const actors = episodes.map((episode) => {
    const { id, tree, taskId, history = [] } = episode;
    forest.plant(tree, taskId, history);
    pool.register(id);
    const bus = createBus(options.parse);
    bus.messages$.subscribe((message) => {
      if (subscriber.closed) return;
      try {
        // First: what does not fit is passed on to nobody.
        forest.hear(message);
        subscriber.next(message);
      } catch (error) {
        subscriber.error(error);
      }
    });
    const recall = (node: NodeId) => forest.turnOf(id, node);
    const course = options.courseOf?.(episode);
    const actor = createActor(machine, { input: { episode, scenario, bus, recall, course } });
    const complete = () => {
      // Stopping an actor completes it, too.
      if (subscriber.closed) return;
      pool.unregister(id);
      judging.leave(id);
      if (--running === 0) subscriber.complete();
    };
    actor.subscribe({ complete, error: fail });
    return actor;
  });
  signal?.addEventListener('abort', interrupt, { once: true });
  const stop = () => {
    signal?.removeEventListener('abort', interrupt);
    for (const actor of actors) actor.stop();
    pool.close();
    judging.close();
    close();
  };
  for (const actor of actors) if (!subscriber.closed) actor.start();
  return stop;
}

/**
 * The cast with a session for each model: turn after turn a dialogue's views grow by a message, and samples of a
 * task share theirs. A cohort is what a resumed run repeats as a whole, so nothing is remembered beyond it.
 */
export function openSessions(speakers: Cast, options?: SessionOptions) {
  const sessions = new Map<GenerativeModel, GenerativeSession>();
  const cast = Object.fromEntries(
    Object.entries(speakers).map(([role, { model, provenance }]) => {
      const session = sessions.get(model) ?? model.openSession?.(options);
      if (session !== undefined) sessions.set(model, session);
      return [role, { model: session ?? model, provenance }];
    }),
  );
  const close = () => {
    for (const session of sessions.values()) session.close();
  };
  return { cast, sessions: [...sessions.values()], close };
}

function checkCast(episodes: readonly Episode[], { scenario, cast, judge }: CohortOptions): void {
  if (scenario.judge !== undefined && judge === undefined) throw withoutJudge(scenario);
  for (const role of Object.keys(scenario.roles)) {
    if (!Object.hasOwn(cast, role)) {
      throw new OptimaError('usage', `Scenario "${scenario.name}": nobody speaks for role "${role}".`);
    }
  }
  const ids = new Set<string>();
  for (const { id } of episodes) {
    if (ids.has(id)) throw new OptimaError('usage', `Two dialogues of one cohort are called ${id}.`);
    ids.add(id);
  }
}

/** How an agent composes a message: one request to the pool, with the seed of its node. */
function createCompose(
  pool: GenerationPool,
  forest: Forest,
  { scenario, cast, sampling, rng, place = ({ id }) => id, speakerAt = () => undefined }: CohortOptions,
) {
  return ({ context, event, self }: Asked<AgentContext, AgentEvent, ComposeAnswer>): void => {
    assertEvent(event, 'turn.requested');
    const { dialogueId, role } = context;
    const { nodeId } = event;
    const { model, provenance } = speakerAt(nodeId, role) ?? cast[role]!;
    const seed = rng.split(nodeId).seed32();
    const messages = forest.viewOf(dialogueId, role);
    pool.ask(dialogueId, model, { id: nodeId, messages, sampling, seed }, (result) => {
      if (result instanceof OptimaError) {
        self.send({ type: 'message.failed', nodeId, reason: messageOf(result) });
        return;
      }
      const logprobs = result.logprobs.map(roundForLog);
      const utterance = { ...result, logprobs, policyHash: model.hash, seed, provenance };
      const parent = forest.leafOf(dialogueId);
      const { text } = utterance;
      const into = place({ id: nodeId, parent, text, meanLogprob: mean(logprobs) });
      const manner = mannerOf(scenario, event, text);
      if (into === nodeId) self.send({ type: 'message.composed', nodeId, parent, utterance, manner });
      else self.send({ type: 'message.merged', nodeId, into, utterance });
    });
  };
}

/** How the judge scores a dialogue: from what was said, at once, or with the others of its cohort where that takes time. */
function createScore(
  forest: Forest,
  pool: GenerationPool,
  judging: Judging,
  metricOf: CohortOptions['metricOf'],
) {
  return ({ context, event, self }: Asked<JudgeContext, JudgeEvent, ScoreAnswer>): void => {
    assertEvent(event, 'dialogue.closed');
    const { dialogueId: id, task } = context;
    const scenario =
      metricOf === undefined ? context.scenario : { ...context.scenario, metric: metricOf(id) };
    // Of a dialogue that failed there is no verdict.
    const outcome = event.outcome === 'agreed' ? 'agreed' : 'turn-cap';
    const end = { outcome, ...judging.askingFor(id) } as const;
    let verdict: Verdict | Promise<Verdict>;
    try {
      verdict = computeVerdict(scenario, task, forest.viewsIn(id), forest.turnsOf(id), end);
    } catch (error) {
      if (!isMetricFailure(error)) throw error;
      self.send({ type: 'score.failed', reason: messageOf(error) });
      return;
    }
    if (!(verdict instanceof Promise)) {
      self.send({ type: 'score.computed', verdict });
      return;
    }
    // It speaks no more: the others need not wait for it.
    pool.unregister(id);
    judging.await(id, verdict, (answer) => self.send(answer));
  };
}

/** What a machine's action gives the world, and where the answer goes. */
interface Asked<Context, Event, Answer> {
  readonly context: Context;
  readonly event: Event;
  readonly self: { send(answer: Answer): void };
}

/** Six decimals are what the log keeps; adding 0 turns −0, which JSON does not know, into 0. */
function roundForLog(logprob: number): number {
  return Math.round(logprob * 1e6) / 1e6 + 0;
}
