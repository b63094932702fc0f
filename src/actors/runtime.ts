// Holds dialogues: one root actor each, in cohorts that share a generation pool and a recorder.
import { assertEvent, createActor } from 'xstate';
import { messageOf, OptimaError } from '../domain/errors.ts';
import { turnId } from '../domain/ids.ts';
import type { DialogueMessage } from '../domain/messages.ts';
import type { LanguageModel, ModelSession, Sampling } from '../domain/model.ts';
import type { Rng } from '../domain/rng.ts';
import type { Provenance, Trajectory } from '../domain/transcript.ts';
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
  type Utterance,
} from '../machines/index.ts';
import type { Scenario } from '../scenario/types.ts';
import { createBus } from './bus.ts';
import { dialogueMachine, type Episode } from './dialogue.ts';
import { createGenerationPool, type GenerationPool } from './pool.ts';
import { createRecorder, type Dialogues } from './recorder.ts';

/** Who speaks for a role, and what its turns count as. */
export interface Speaker {
  readonly model: LanguageModel;
  readonly provenance: Provenance;
}

export interface DialogueOptions {
  readonly scenario: Scenario;
  /** One for every role of the scenario. */
  readonly speakers: Readonly<Record<string, Speaker>>;
  readonly sampling: Sampling;
  /** A turn's seed is `rng.split(dialogue id).split(turn index).seed32()`. */
  readonly rng: Rng;
  /** Gets every message of every dialogue as it is sent; what it throws ends the run. */
  readonly sink?: (message: DialogueMessage) => void;
  readonly signal?: AbortSignal;
  /** Dialogues of one cohort. Default 96. */
  readonly concurrency?: number;
  /** Longest time of a model's call, in ms; below 2^31. Default 10 minutes. */
  readonly turnTimeoutMs?: number;
}

/** One model for every role, its turns counted as sampled. */
export function everyRole(scenario: Scenario, model: LanguageModel): Record<string, Speaker> {
  return Object.fromEntries(
    Object.keys(scenario.roles).map((role) => [role, { model, provenance: 'sampled' as const }]),
  );
}

/** Episodes in the groups in which they run together; the last one may be smaller. */
export function cohortsOf(episodes: readonly Episode[], concurrency = 96): (readonly Episode[])[] {
  return Array.from({ length: Math.ceil(episodes.length / concurrency) }, (_, cohort) =>
    episodes.slice(cohort * concurrency, (cohort + 1) * concurrency),
  );
}

/** Holds the dialogues cohort by cohort, as `runCohort` does, and yields their trajectories in order. */
export async function* runDialogues(
  episodes: readonly Episode[],
  options: DialogueOptions,
): AsyncGenerator<Trajectory, void> {
  for (const cohort of cohortsOf(episodes, options.concurrency)) yield* await runCohort(cohort, options);
}

/**
 * Holds dialogues together and resolves with their trajectories, in order, when all have ended. With models
 * whose results follow from their requests, the messages and their order follow from the cohort and `rng`.
 *
 * A dialogue whose model fails or times out has the outcome `failed`; the others go on. Rejects with
 * `interrupted` when `signal` aborts, with what the sink threw, and with `usage` for a role without a speaker or
 * two dialogues with one id.
 */
export async function runCohort(
  episodes: readonly Episode[],
  options: DialogueOptions,
): Promise<Trajectory[]> {
  const { scenario, sink = () => {}, signal, turnTimeoutMs = 600_000 } = options;
  checkCast(episodes, options);
  const interrupted = () => new OptimaError('interrupted', 'The dialogues were interrupted.');
  if (signal?.aborted) throw interrupted();
  if (episodes.length === 0) return [];

  const pool = createGenerationPool(turnTimeoutMs);
  const { cast: speakers, close } = openSessions(options.speakers);
  return new Promise<Trajectory[]>((resolve, reject) => {
    const running = new Set(episodes);
    let halted = false;
    const release = () => signal?.removeEventListener('abort', interrupt);
    const halt = (error: unknown) => {
      halted = true;
      for (const actor of actors) actor.stop();
      pool.close();
      release();
      reject(error);
    };
    const interrupt = () => halt(interrupted());
    const recorder = createRecorder(sink, halt);
    const { dialogues } = recorder;
    const compose = createCompose(pool, dialogues, { ...options, speakers });
    const agent = agentMachine.provide({ actions: { compose } });
    const judge = judgeMachine.provide({ actions: { score: createScore(dialogues) } });
    const machine = dialogueMachine.provide({ actors: { agent, judge } });
    const actors = episodes.map((episode) => {
      const bus = createBus();
      recorder.record(bus);
      pool.register(episode.id);
      return createActor(machine, { input: { episode, scenario, bus } });
    });
    actors.forEach((actor, index) => {
      const complete = () => {
        // Stopping an actor completes it, too.
        if (halted) return;
        running.delete(episodes[index]!);
        pool.unregister(episodes[index]!.id);
        if (running.size > 0) return;
        release();
        resolve(dialogues.trajectories());
      };
      actor.subscribe({ complete, error: halt });
    });
    signal?.addEventListener('abort', interrupt, { once: true });
    for (const actor of actors) if (!halted) actor.start();
  }).finally(close);
}

/**
 * The cast with a session for each model: turn after turn a dialogue's views grow by a message, and samples of a
 * task share theirs. A cohort is what a resumed run repeats as a whole, so nothing is remembered beyond it.
 */
function openSessions(speakers: DialogueOptions['speakers']) {
  const sessions = new Map<LanguageModel, ModelSession>();
  const cast = Object.fromEntries(
    Object.entries(speakers).map(([role, { model, provenance }]) => {
      const session = sessions.get(model) ?? model.openSession?.();
      if (session !== undefined) sessions.set(model, session);
      return [role, { model: session ?? model, provenance }];
    }),
  );
  const close = () => {
    for (const session of sessions.values()) session.close();
  };
  return { cast, close };
}

function checkCast(episodes: readonly Episode[], { scenario, speakers }: DialogueOptions): void {
  for (const role of Object.keys(scenario.roles)) {
    if (!Object.hasOwn(speakers, role)) {
      throw new OptimaError('usage', `Scenario "${scenario.name}": nobody speaks for role "${role}".`);
    }
  }
  const ids = new Set<string>();
  for (const { id } of episodes) {
    if (ids.has(id)) throw new OptimaError('usage', `Two dialogues of one cohort are called ${id}.`);
    ids.add(id);
  }
}

/** How an agent composes a message: one request to the pool, with the seed of its turn. */
function createCompose(
  pool: GenerationPool,
  dialogues: Dialogues,
  { speakers, sampling, rng }: DialogueOptions,
) {
  const speak = async ({ dialogueId, role }: AgentContext, index: number): Promise<Utterance> => {
    const { model, provenance } = speakers[role]!;
    const id = turnId(dialogueId, index);
    const messages = dialogues.viewOf(dialogueId, role);
    const seed = rng.split(dialogueId).split(index).seed32();
    const generation = await pool.generate(dialogueId, model, { id, messages, sampling, seed });
    const logprobs = generation.logprobs.map(roundForLog);
    return { ...generation, logprobs, policyHash: model.hash, seed, provenance };
  };
  return ({ context, event, self }: Asked<AgentContext, AgentEvent, ComposeAnswer>): void => {
    assertEvent(event, 'turn.requested');
    const { index } = event;
    speak(context, index).then(
      (utterance) => self.send({ type: 'message.composed', index, utterance }),
      (error) => self.send({ type: 'message.failed', index, reason: messageOf(error) }),
    );
  };
}

/** How the judge scores a dialogue: from what the recorder heard. */
function createScore(dialogues: Dialogues) {
  return ({ context, self }: Asked<JudgeContext, JudgeEvent, ScoreAnswer>): void => {
    const { dialogueId, scenario, task } = context;
    try {
      const verdict = computeVerdict(scenario, task, dialogues.turnsOf(dialogueId));
      self.send({ type: 'score.computed', verdict });
    } catch (error) {
      self.send({ type: 'score.failed', reason: messageOf(error) });
    }
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
