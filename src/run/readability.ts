// Readability: asks the frozen base model for the log-probabilities of what the agents wrote, for R_loss.
import { from, map, mergeMap, type Observable } from 'rxjs';
import type { ScoreRequest, ScoringModel } from '../domain/model.ts';
import { type Trajectory, type Turn, viewOf } from '../domain/transcript.ts';
import { calling, inOrder } from '../rollouts/work-queue.ts';

export interface ReadabilityOptions {
  /** Dialogues scored in one call. */
  readonly batchSize: number;
  /** Whose turns are scored. By default everybody's. */
  readonly roles?: readonly string[];
  readonly signal?: AbortSignal | undefined;
}

export interface ScoredTrajectory {
  readonly trajectory: Trajectory;
  /**
   * The base model's log-probabilities (nats) of each turn's tokens; none for a turn that is not scored, and empty for a
   * dialogue without a verdict.
   */
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
  { batchSize, roles, signal }: ReadabilityOptions,
): Observable<ScoredTrajectory> {
  return inOrder(bases, batchesOf(trajectories, batchSize), (base, batch) => {
    const views = batch.flatMap((trajectory) => speakerViews(trajectory, roles));
    const requests = views.map(({ request }) => request);
    const score = (stop: AbortSignal) =>
      base.score(requests, { signal: signal === undefined ? stop : AbortSignal.any([signal, stop]) });
    return calling(score).pipe(
      map((results) => {
        const scores = new Map<Trajectory, (readonly number[])[]>(
          batch.map((dialogue) => [dialogue, dialogue.verdict === null ? [] : dialogue.turns.map(() => [])]),
        );
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

/** One view to score for each of the roles that spoke; none of a dialogue without a verdict. */
function speakerViews(
  trajectory: Trajectory,
  scored: readonly string[] | undefined,
): { trajectory: Trajectory; role: string; request: ScoreRequest }[] {
  if (trajectory.verdict === null) return [];
  const spoke = new Set(trajectory.turns.map((turn) => turn.speaker));
  const roles = [...spoke].filter((role) => scored?.includes(role) ?? true);
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
 * Adds to `known` the base model's log-probabilities of the tokens of each turn of the roles that it does not hold yet, scored
 * in its speaker's plain view. Of a dialogue without a verdict it adds none.
 */
export async function scoreNewTurns(
  base: ScoringModel,
  dialogues: readonly Trajectory[],
  known: WeakMap<Turn, readonly number[]>,
  roles?: readonly string[],
): Promise<void> {
  const asked = new Set<Turn>();
  const views: { readonly fresh: readonly Turn[]; readonly request: ScoreRequest }[] = [];
  for (const dialogue of dialogues) {
    const { id, verdict, turns } = dialogue;
    if (verdict === null) continue;
    for (const role of new Set(turns.map(({ speaker }) => speaker))) {
      if (roles?.includes(role) === false) continue;
      const own = turns.filter(({ speaker }) => speaker === role);
      // Behind a turn that is new all are: one view has them.
      const first = own.findIndex((turn) => !known.has(turn) && !asked.has(turn));
      if (first < 0) continue;
      const fresh = own.slice(first);
      for (const turn of fresh) asked.add(turn);
      const messages = viewOf(role, dialogue, turns.slice(0, turns.indexOf(fresh.at(-1)!) + 1));
      views.push({ fresh, request: { id: `${id}:${role}`, messages, last: fresh.length } });
    }
  }
  if (views.length === 0) return;
  const scores = await base.score(views.map(({ request }) => request));
  for (const [index, { fresh }] of views.entries()) {
    for (const [place, turn] of fresh.entries()) known.set(turn, scores[index]![place]!);
  }
}
