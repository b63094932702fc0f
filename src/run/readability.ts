// Readability: asks the frozen base model for the log-probabilities of what the agents wrote, for R_loss.
import { from, map, mergeMap, type Observable } from 'rxjs';
import type { ScoreRequest, ScoringModel } from '../domain/model.ts';
import { type Trajectory, type Turn, viewOf } from '../domain/transcript.ts';
import { calling, inOrder } from '../rollouts/work-queue.ts';

export interface ReadabilityOptions {
  /** Dialogues scored in one call. */
  readonly batchSize: number;
  readonly signal?: AbortSignal | undefined;
}

export interface ScoredTrajectory {
  readonly trajectory: Trajectory;
  /** The base model's log-probabilities (nats) of each turn's tokens; empty for a dialogue without a verdict. */
  readonly turnLogprobs: readonly (readonly number[])[];
}

/**
 * The dialogues in their order, each with the base model's log-probabilities. A turn is scored in its speaker's plain
 * view, the one it would be trained in: never under a format prompt. `bases` is one model, as often as batches can be
 * scored side by side.
 */
export function scoreTurns(
  bases: readonly ScoringModel[],
  trajectories: Iterable<Trajectory>,
  { batchSize, signal }: ReadabilityOptions,
): Observable<ScoredTrajectory> {
  return inOrder(bases, batchesOf(trajectories, batchSize), (base, batch) => {
    const views = batch.flatMap(speakerViews);
    const requests = views.map(({ request }) => request);
    const score = (stop: AbortSignal) =>
      base.score(requests, { signal: signal === undefined ? stop : AbortSignal.any([signal, stop]) });
    return calling(score).pipe(
      map((results) => {
        const scores = new Map<Trajectory, (readonly number[])[]>(batch.map((dialogue) => [dialogue, []]));
        for (const [index, { trajectory, role }] of views.entries()) {
          const own = results[index]!.values();
          const turns = scores.get(trajectory)!;
          for (const [position, { speaker }] of trajectory.turns.entries()) {
            if (speaker === role) turns[position] = own.next().value!;
          }
        }
        return scores;
      }),
      mergeMap((scores) => from(scores)),
      map(([trajectory, turnLogprobs]) => ({ trajectory, turnLogprobs })),
    );
  });
}

/** Dialogues in rows of which each has at most `size` with a verdict. */
function* batchesOf(trajectories: Iterable<Trajectory>, size: number): Generator<Trajectory[]> {
  let batch: Trajectory[] = [];
  let judged = 0;
  for (const trajectory of trajectories) {
    batch.push(trajectory);
    if (trajectory.verdict !== null) judged++;
    if (judged < size) continue;
    yield batch;
    batch = [];
    judged = 0;
  }
  if (batch.length > 0) yield batch;
}

/** One view to score for each role that spoke; none of a dialogue without a verdict. */
function speakerViews(
  trajectory: Trajectory,
): { trajectory: Trajectory; role: string; request: ScoreRequest }[] {
  if (trajectory.verdict === null) return [];
  const roles = [...new Set(trajectory.turns.map((turn) => turn.speaker))];
  return roles.map((role) => ({
    trajectory,
    role,
    request: {
      id: `${trajectory.id}:${role}`,
      messages: viewOf(role, trajectory, trajectory.turns),
    },
  }));
}

/**
 * Adds to `known` the base model's log-probabilities of the tokens of each turn that it does not hold yet, scored in its
 * speaker's plain view as far as that turn. Of a dialogue without a verdict it adds none.
 */
export async function scoreNewTurns(
  base: ScoringModel,
  dialogues: readonly Trajectory[],
  known: WeakMap<Turn, readonly number[]>,
): Promise<void> {
  const asked = new Map<Turn, ScoreRequest>();
  for (const dialogue of dialogues) {
    const { verdict, turns } = dialogue;
    if (verdict === null) continue;
    for (const [index, turn] of turns.entries()) {
      if (known.has(turn) || asked.has(turn)) continue;
      const { id, speaker } = turn;
      const messages = viewOf(speaker, dialogue, turns.slice(0, index + 1));
      asked.set(turn, { id, messages, last: 1 });
    }
  }
  if (asked.size === 0) return;
  const scores = await base.score([...asked.values()]);
  for (const [index, turn] of [...asked.keys()].entries()) known.set(turn, scores[index]![0]!);
}
