// From pairs of turns to preference examples: in token space, in their speaker's own view (docs/method.md §5).
import { type ConversationTree, pathTo } from '../../domain/conversation-tree.ts';
import { OptimaError } from '../../domain/errors.ts';
import type { NodeId, PolicyHash } from '../../domain/ids.ts';
import type { ChatMessage, TrainablePolicy } from '../../domain/model.ts';
import { type Deal, type Turn, viewOf } from '../../domain/transcript.ts';
import type { PreferenceExample } from './objective.ts';

/** Two turns that answer the same, by their ids. */
export interface PairOfTurns {
  /** The last node of the history. */
  readonly parent: NodeId;
  readonly chosen: NodeId;
  readonly rejected: NodeId;
}

/**
 * A pair in token space, in the better turn's speaker's plain view. Reference log-probabilities are those that the turns
 * were sampled with, at temperature 1: the log is their cache, under policy and node. Throws `run.corrupt` for a turn that
 * another policy than `reference` said.
 */
export function preferenceExample(
  conversation: ConversationTree,
  deal: Deal,
  { parent, chosen, rejected }: PairOfTurns,
  policy: Pick<TrainablePolicy, 'encode'>,
  reference: PolicyHash,
): PreferenceExample {
  const history = pathTo(conversation, parent);
  const side = (node: NodeId) => {
    const turn = conversation.turns[node]!;
    if (turn.policyHash !== reference) {
      throw new OptimaError(
        'run.corrupt',
        `Turn ${node} was said by policy ${turn.policyHash}, not by ${reference}, which its iteration trains.`,
      );
    }
    return { ...responseOf(turn, history, deal, policy), ref: turn.logprobs.reduce((a, b) => a + b, 0) };
  };
  const [better, worse] = [side(chosen), side(rejected)];
  return {
    promptIds: better.promptIds,
    chosenIds: better.ids,
    rejectedIds: worse.ids,
    refChosen: better.ref,
    refRejected: worse.ref,
    group: conversation.root,
  };
}

/** What a turn's speaker had read, and the ids that it said. */
const responseOf = (
  turn: Turn,
  history: readonly Turn[],
  deal: Deal,
  policy: Pick<TrainablePolicy, 'encode'>,
) => responseIn(viewOf(turn.speaker, deal, [...history, turn]), turn.tokenIds.length, policy);

/** The last message of its agent in a view, of so many ids: what it had read, these, and where they end in the view. */
export function responseIn(
  view: readonly ChatMessage[],
  length: number,
  policy: Pick<TrainablePolicy, 'encode'>,
): { readonly promptIds: readonly number[]; readonly ids: readonly number[]; readonly end: number } {
  const { tokenIds, lossMask } = policy.encode(view);
  const end = lossMask.lastIndexOf(1) + 1;
  const start = end - length;
  return { promptIds: tokenIds.slice(0, start), ids: tokenIds.slice(start, end), end };
}
