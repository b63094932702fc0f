// The trees of a search phase, revalued: the recorded turns and roll-outs, with rewards under other rules.
import type { LoggedTree } from '../../domain/conversation-tree.ts';
import type { DialogueId } from '../../domain/ids.ts';
import { mean } from '../../domain/metrics.ts';
import { type Verdict, writtenOf } from '../../domain/transcript.ts';
import type { PreferenceRecipe } from '../../recipe/schema.ts';
import { RecordedTree } from '../../search/index.ts';
import type { ValuedTree } from '../pairing.ts';
import type { RankedTrajectory } from '../ranking.ts';
import { type Both, type RerankRules, rerankTrajectory } from './ranking.ts';

/** A searched tree with both rankings of its dialogues, in the order in which they were ranked. */
export interface RevaluedTree extends ValuedTree {
  readonly ranked: readonly Both<RankedTrajectory>[];
}

/** A tree with the values that its roll-outs give under other rules. */
export function revalue(
  { conversation, events }: Pick<LoggedTree, 'conversation' | 'events'>,
  backup: PreferenceRecipe['search']['backup'],
  rules: RerankRules,
): RevaluedTree {
  const recorded = new RecordedTree(conversation.root, backup);
  const rollouts = new Map<DialogueId, number>();
  const scores = new Map<DialogueId, Verdict['seats']>();
  const ranked: Both<RankedTrajectory>[] = [];
  for (const event of events) {
    if (event.type === 'dialogue.opened') rollouts.set(event.dialogueId, rollouts.size);
    else if (event.type === 'turn.taken') {
      const { id, parent, logprobs } = event.turn;
      recorded.place({ id, parent, text: writtenOf(event.turn), meanLogprob: mean(logprobs) });
    } else if (event.type === 'verdict.given') scores.set(event.dialogueId, event.seats);
    else if (event.type === 'trajectory.ranked') {
      const { type: _, ...before } = event;
      const { dialogueId } = before;
      const after = rerankTrajectory(before, rules, scores.get(dialogueId));
      ranked.push({ before, after });
      const { leaf } = conversation.dialogues[dialogueId]!;
      const { reward, seats } = after;
      recorded.tell({ rollout: rollouts.get(dialogueId)!, leaf, reward, ...(seats && { seats }) });
    }
  }
  return { conversation, tree: recorded.tree, ranked };
}
