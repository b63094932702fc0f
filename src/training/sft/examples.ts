// From dialogues to training sequences: one per agent, in that agent's own view (docs/method.md §4).
import type { ChatMessage, TrainablePolicy, TrainingSequence } from '../../domain/model.ts';
import { type Trajectory, type Turn, viewOf } from '../../domain/transcript.ts';

/**
 * One sequence for each role that said something of its own: its plain view (no format prompt), the turns it
 * heard, and its own turns, which alone count. Turns that no policy sampled (a person's, a recording's) stay
 * in the view and do not count.
 */
export function sftExamples(
  trajectory: Pick<Trajectory, 'views' | 'turns'>,
  policy: Pick<TrainablePolicy, 'encode'>,
): TrainingSequence[] {
  const { views, turns } = trajectory;
  return Object.entries(views)
    .map(([role, systemText]) => {
      const view = viewOf(role, systemText, turns);
      return maskTurns(policy.encode(view), view, turns, policy);
    })
    .filter(({ lossMask }) => lossMask.includes(1));
}

/** The sequence with mask 0 on every turn that was not sampled. */
function maskTurns(
  sequence: TrainingSequence,
  view: readonly ChatMessage[],
  turns: readonly Turn[],
  policy: Pick<TrainablePolicy, 'encode'>,
): TrainingSequence {
  const lossMask = [...sequence.lossMask];
  turns.forEach((turn, i) => {
    if (turn.provenance === 'sampled') return;
    // Message 0 is the system text. Encoding only appends, so a prefix of the view ends where its turn does.
    const start = policy.encode(view.slice(0, i + 1)).tokenIds.length;
    const end = policy.encode(view.slice(0, i + 2)).tokenIds.length;
    lossMask.fill(0, start, end);
  });
  return { tokenIds: sequence.tokenIds, lossMask };
}
