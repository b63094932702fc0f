// From dialogues to training sequences: one per agent, in that agent's own view (docs/method.md §4).
import type { ChatMessage, TrainablePolicy, TrainingSequence } from '../../domain/model.ts';
import { type Deal, type Trajectory, type Turn, viewOf } from '../../domain/transcript.ts';

/**
 * One sequence for each role that said something of its own: its plain view (no format prompt), the turns it
 * heard, and its own turns, which alone count. Turns that no policy sampled (a person's, a recording's) stay
 * in the view and do not count.
 */
export function sftExamples(
  trajectory: Deal & Pick<Trajectory, 'turns'>,
  policy: Pick<TrainablePolicy, 'encode'>,
): TrainingSequence[] {
  const { views, turns } = trajectory;
  return Object.keys(views)
    .map((role) => {
      const view = viewOf(role, trajectory, turns);
      const own = turns.filter(({ speaker }) => speaker === role);
      return maskTurns(policy.encode(view), view, own, policy);
    })
    .filter(({ lossMask }) => lossMask.includes(1));
}

/** The sequence with mask 0 on every turn of its own that was not sampled. */
function maskTurns(
  sequence: TrainingSequence,
  view: readonly ChatMessage[],
  own: readonly Turn[],
  policy: Pick<TrainablePolicy, 'encode'>,
): TrainingSequence {
  const lossMask = [...sequence.lossMask];
  const places = view.flatMap(({ role }, place) => (role === 'assistant' ? [place] : []));
  own.forEach((turn, i) => {
    if (turn.provenance === 'sampled') return;
    // Encoding only appends, so a prefix of the view ends where its last message does.
    const start = policy.encode(view.slice(0, places[i]!)).tokenIds.length;
    const end = policy.encode(view.slice(0, places[i]! + 1)).tokenIds.length;
    lossMask.fill(0, start, end);
  });
  return { tokenIds: sequence.tokenIds, lossMask };
}
