// Why something was trained on or was not, in sentences: from what the log says and the recipe's thresholds.
import type { ComparedTurns, TreeReading } from '../../reading/index.ts';
import type { Recipe } from '../../recipe/schema.ts';
import type { DialogueView } from '../api.ts';

const figure = (value: number | null | undefined) =>
  value === null || value === undefined ? 'unknown' : value.toFixed(3);

/** What became of two siblings, as seen from one of them. */
export function whyPair(
  { better, worse, value, gap, reason }: ComparedTurns,
  id: string,
  recipe: Recipe | null,
): string {
  const other = better === id ? worse : better;
  const side = better === id ? 'better than' : 'worse than';
  const { thetaFilter, thetaDiff, keepShare } =
    recipe !== null && 'pairs' in recipe ? recipe.pairs : noThresholds;
  const reasons: Readonly<Record<string, string>> = {
    sameText: 'No pair: both say the same.',
    notEligible:
      'No pair: the better one is an open case (empty, repeated, cut off), which the recipe does not let through.',
    belowFilter: `No pair: the better one’s value, ${figure(value)}, is not above the threshold ${thetaFilter}.`,
    gapTooSmall: `No pair: the difference of the values, ${figure(gap)}, is not above the threshold ${thetaDiff}.`,
    worse: `A pair that was not kept: others have a better turn that is worth more, and the share of ${keepShare} was full.`,
    undecided: 'Pairs of this tree have not been made yet.',
    unknown: 'The log alone does not tell why this is no pair.',
  };
  const verdict =
    reason === null
      ? `Trained on: a pair, of which the better one is worth ${figure(value)} and the worse one ${figure(gap)} less.`
      : (reasons[reason] ?? reason);
  return `Beside ${other} (${side} it): ${verdict}`;
}

const noThresholds = { thetaFilter: '?', thetaDiff: '?', keepShare: '?' };

/** Why a dialogue was selected or was not; nothing where nothing was selected of its phase. */
export function whyDialogue(
  { id, kept, reward, edgeCases, failure, outcome }: DialogueView,
  { dialogues, phase }: TreeReading,
  recipe: Recipe | null,
): string[] {
  if (kept === null) return [];
  const [threshold, share] = thresholdsOf(phase, recipe);
  const why = () => {
    if (kept)
      return `Trained on: it is the best of its task, with a reward of ${figure(reward)} above the threshold ${threshold}.`;
    if (outcome === 'failed' || reward === null) return `Not selected: it has no reward. ${failure ?? ''}`;
    const eligible = dialogues.filter((other) => other.eligible === true && other.reward !== null);
    if (!eligible.some((other) => other.id === id))
      return `Not selected: it is an open case that the recipe does not let through (${edgeCases.join(', ')}).`;
    const best = eligible.reduce((one, other) => (other.reward! > one.reward! ? other : one));
    if (best.id !== id)
      return `Not selected: ${best.id} of the same task has a higher reward, ${figure(best.reward)}.`;
    if (typeof threshold === 'number' && reward <= threshold)
      return `Not selected: its reward, ${figure(reward)}, is not above the threshold ${threshold}.`;
    return `Not selected: it is the best of its task, but of all those the best ${share} were full.`;
  };
  return [`Dialogue ${id}: ${why()}`];
}

/** The threshold of rewards and the share that is kept, of the iteration that a phase belongs to. */
function thresholdsOf(phase: string, recipe: Recipe | null): readonly [number | string, number | string] {
  if (recipe === null) return ['?', '?'];
  if (phase.startsWith('init-')) return [recipe.initialization.thetaInit, recipe.initialization.keepFraction];
  return 'isft' in recipe ? [recipe.isft.thetaSft, recipe.isft.keepFraction] : ['?', '?'];
}
