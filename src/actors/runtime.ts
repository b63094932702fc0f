// Holds dialogues: one root actor each, in cohorts that share a generation pool and a recorder.
import { createActor, fromPromise } from 'xstate';
import { OptimaError } from '../domain/errors.ts';
import type { DialogueMessage } from '../domain/messages.ts';
import type { LanguageModel, ModelSession, Sampling } from '../domain/model.ts';
import type { Rng } from '../domain/rng.ts';
import type { Provenance, Trajectory } from '../domain/transcript.ts';
import { agentMachine, type SpeakInput, type Utterance } from '../machines/index.ts';
import type { Scenario } from '../scenario/types.ts';
import { createBus } from './bus.ts';
import { dialogueMachine, type Episode } from './dialogue.ts';
import { createGenerationPool, type GenerationPool } from './pool.ts';
import { createRecorder, foldDialogues } from './recorder.ts';

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
  /** Longest time of one turn, in ms; below 2^31. Default 10 minutes. */
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

  const pool = createGenerationPool();
  const { cast: speakers, close } = openSessions(options.speakers);
  const agent = agentMachine.provide({ actors: { speak: createSpeak(pool, { ...options, speakers }) } });
  const machine = dialogueMachine.provide({ actors: { agent } });
  const messages = await new Promise<readonly DialogueMessage[]>((resolve, reject) => {
    const running = new Set(episodes);
    let halted = false;
    const release = () => signal?.removeEventListener('abort', interrupt);
    const halt = (error: unknown) => {
      halted = true;
      for (const actor of actors) actor.stop();
      release();
      reject(error);
    };
    const interrupt = () => halt(interrupted());
    const recorder = createRecorder(sink, halt);
    const actors = episodes.map((episode) => {
      const bus = createBus();
      recorder.record(bus);
      pool.register(episode.id);
      return createActor(machine, { input: { episode, scenario, bus, turnTimeoutMs } });
    });
    actors.forEach((actor, index) => {
      const complete = () => {
        // Stopping an actor completes it, too.
        if (halted) return;
        running.delete(episodes[index]!);
        pool.unregister(episodes[index]!.id);
        if (running.size > 0) return;
        release();
        resolve(recorder.messages);
      };
      actor.subscribe({ complete, error: halt });
    });
    signal?.addEventListener('abort', interrupt, { once: true });
    for (const actor of actors) if (!halted) actor.start();
  }).finally(close);
  return foldDialogues(messages);
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

/** How an agent speaks: one request to the pool, with the seed of its turn. */
function createSpeak(pool: GenerationPool, { speakers, sampling, rng }: DialogueOptions) {
  return fromPromise<Utterance, SpeakInput>(async ({ input, signal }) => {
    const { id, dialogueId, index, role, messages } = input;
    const { model, provenance } = speakers[role]!;
    const seed = rng.split(dialogueId).split(index).seed32();
    const generation = await pool.generate(dialogueId, model, { id, messages, sampling, seed }, signal);
    const logprobs = generation.logprobs.map(roundForLog);
    return { ...generation, logprobs, policyHash: model.hash, seed, provenance };
  });
}

/** Six decimals are what the log keeps; adding 0 turns −0, which JSON does not know, into 0. */
function roundForLog(logprob: number): number {
  return Math.round(logprob * 1e6) / 1e6 + 0;
}
