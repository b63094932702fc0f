// Readability: asks the frozen base model for the log-probabilities of what the agents wrote, for R_loss.
import type { DialogueId } from '../domain/ids.ts';
import type { LanguageModel, ScoreRequest } from '../domain/model.ts';
import { type Trajectory, viewOf } from '../domain/transcript.ts';
import { inLanes } from '../rollouts/work-queue.ts';

export interface ReadabilityOptions {
  /** Dialogues scored in one call. */
  readonly batchSize: number;
  readonly signal?: AbortSignal;
  /** Called after each batch with the number of dialogues scored so far. */
  readonly onProgress?: (scored: number) => void;
}

/**
 * The base model's log-probabilities (nats) of each turn's tokens, by dialogue. A turn is scored in its
 * speaker's plain view, the one it would be trained in: never under a format prompt. Dialogues without a
 * verdict are left out. `bases` is one model, as often as batches can be scored side by side.
 */
export async function scoreTurns(
  bases: readonly LanguageModel[],
  trajectories: readonly Trajectory[],
  { batchSize, signal, onProgress }: ReadabilityOptions,
): Promise<Map<DialogueId, (readonly number[])[]>> {
  const judged = trajectories.filter((trajectory) => trajectory.verdict !== null);
  const scores = new Map<DialogueId, (readonly number[])[]>();
  const batches = Array.from({ length: Math.ceil(judged.length / batchSize) }, (_, batch) =>
    judged.slice(batch * batchSize, (batch + 1) * batchSize),
  );
  let scored = 0;
  await inLanes(bases, batches, async (base, batch) => {
    const views = batch.flatMap(speakerViews);
    const results = await base.score(
      views.map((view) => view.request),
      { signal },
    );
    for (const [index, { trajectory, role }] of views.entries()) {
      const own = results[index]!;
      const turns = scores.get(trajectory.id) ?? [];
      const positions = trajectory.turns.filter((turn) => turn.speaker === role).map((turn) => turn.index);
      for (const [k, position] of positions.entries()) turns[position] = own[k]!;
      scores.set(trajectory.id, turns);
    }
    scored += batch.length;
    onProgress?.(scored);
  });
  return scores;
}

/** One view to score for each role that spoke. */
function speakerViews(
  trajectory: Trajectory,
): { trajectory: Trajectory; role: string; request: ScoreRequest }[] {
  const roles = [...new Set(trajectory.turns.map((turn) => turn.speaker))];
  return roles.map((role) => ({
    trajectory,
    role,
    request: {
      id: `${trajectory.id}:${role}`,
      messages: viewOf(role, trajectory.plainViews[role]!, trajectory.turns),
    },
  }));
}
