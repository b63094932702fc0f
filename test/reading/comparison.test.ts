// Why siblings are no pair, where the log alone may not tell.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { ConversationTree } from '../../src/domain/conversation-tree.ts';
import type { RunEventOf } from '../../src/domain/events.ts';
import type { NodeId, PolicyHash, TaskId } from '../../src/domain/ids.ts';
import { createRng } from '../../src/domain/rng.ts';
import { comparisonOf, scaleFrom } from '../../src/reading/comparison.ts';
import { searchConfigOf } from '../../src/reading/pairing.ts';
import { presetRecipe } from '../../src/recipe/presets.ts';
import { Search } from '../../src/search/index.ts';

const recipe = presetRecipe('quick', 'idpo');
const perRole = { ...recipe, pairs: { ...recipe.pairs, values: 'per-role' as const } };
const root = 'r' as NodeId;
const taskId = 't' as TaskId;
const speakers = ['alice', 'bob', 'alice'];

/** Two dialogues that share their first turn; what bob says to it, and whether the first one's ranking has a repetition. */
function twoDialogues(repeated: string, repeats: boolean, losses: readonly number[] = [1, 1, 1]) {
  const search = new Search(root, { ...searchConfigOf(recipe), rolloutsPerExpansion: 2 }, createRng(1));
  search.ask();
  const turns: Record<string, ConversationTree['turns'][NodeId]> = {};
  const say = (id: string, parent: string, text: string) => {
    const ids = { id: id as NodeId, parent: parent as NodeId };
    search.place({ ...ids, text, meanLogprob: -1 });
    const speaker = speakers[id.split('.').length - 2]!;
    const rest = {
      tokenIds: [1],
      logprobs: [-1],
      finish: 'stop',
      policyHash: 'p' as PolicyHash,
      seed: 1,
    } as const;
    turns[id] = { ...ids, speaker, text, ...rest, provenance: 'sampled', promptTokens: 1 };
  };
  say('r.0', 'r', 'it is oak');
  say('r.0.0', 'r.0', repeated);
  say('r.0.0.0', 'r.0.0', 'so be it');
  say('r.0.1', 'r.0', 'something quite different');
  say('r.0.1.1', 'r.0.1', 'I would not know');
  const leaves = ['r.0.0.0', 'r.0.1.1'] as NodeId[];
  const dialogues = Object.fromEntries(
    ['r.0', 'r.1'].map((id, place) => {
      const closed = {
        type: 'dialogue.closed',
        dialogueId: id as NodeId,
        outcome: 'agreed',
        failure: null,
      } as const;
      return [id, { id: id as NodeId, format: null, leaf: leaves[place]!, closed, verdict: null }];
    }),
  );
  const ranked = ['r.0', 'r.1'].map(
    (id, place): RunEventOf<'trajectory.ranked'> => ({
      type: 'trajectory.ranked',
      ...{ dialogueId: id as NodeId, taskId, tokens: 3, terms: null, reward: 1 - place, turnLosses: losses },
      ...{ edgeCases: repeats && place === 0 ? ['repetition'] : [], eligible: true, failure: null },
    }),
  );
  for (const [place, { reward }] of ranked.entries()) search.tell(place, leaves[place]!, reward);
  const conversation: ConversationTree = { root, taskId, turns, dialogues };
  return { conversation, search: search.tree, ranked };
}

const made = (dropped: Record<string, number>, pairs: RunEventOf<'pairs.made'>['pairs'] = []) => ({
  ...{ type: 'pairs.made' as const, phase: 'pair', taskId, tree: root, pairs, dropped },
});

/** Why the two answers are no pair. */
function reasonOf(
  { conversation, ...rest }: ReturnType<typeof twoDialogues>,
  log: ReturnType<typeof made> | null,
  by: typeof recipe = recipe,
) {
  const scale = scaleFrom(by, []);
  const { compared, untold } = comparisonOf(conversation, { ...rest, recipe: by, made: log, scale })!;
  assert.is(compared.length, 1);
  return { reason: compared[0]!.reason, untold: untold.length };
}

test('a message that repeats a partner’s is one that may be chosen where it confirms an answer: the scenario knows, or the counts', () => {
  const open = twoDialogues('it is oak', true);
  assert.equal(reasonOf(open, null), { reason: 'unknown', untold: 1 });
  assert.equal(reasonOf(open, made({ notEligible: 1 })), { reason: 'notEligible', untold: 0 });
  assert.equal(reasonOf(open, made({ notEligible: 0 })), { reason: 'worse', untold: 0 });
  const pair = {
    parent: 'r.0' as NodeId,
    chosen: 'r.0.0' as NodeId,
    rejected: 'r.0.1' as NodeId,
    value: 1,
    gap: 1,
  };
  assert.equal(reasonOf(open, made({ notEligible: 0 }, [pair])), { reason: null, untold: 0 });
});

test('where the ranking has no repetition, or nothing is repeated, there is nothing to ask', () => {
  assert.equal(reasonOf(twoDialogues('it is oak', false), null), { reason: 'undecided', untold: 0 });
  assert.equal(reasonOf(twoDialogues('an oak?', true), null), { reason: 'undecided', untold: 0 });
});

test('a role whose turns have no losses is not trained', () => {
  assert.equal(reasonOf(twoDialogues('an oak?', false, [1, 0, 1]), null), {
    reason: 'notEligible',
    untold: 0,
  });
});

test('on one scale for all roles a value is unknown until a pair of its role was kept', () => {
  const tree = twoDialogues('an oak?', false);
  assert.equal(reasonOf(tree, null, perRole), { reason: 'unknown', untold: 1 });
  const kept = {
    parent: 'r.0' as NodeId,
    chosen: 'r.0.0' as NodeId,
    rejected: 'r.0.1' as NodeId,
    value: 3,
    gap: 4,
  };
  const scale = scaleFrom(perRole, [{ ...tree, made: made({}, [kept]) }]);
  assert.equal(scale('bob'), { factor: 4, shift: -1 });
  assert.is(scale('alice'), null);
});

test.run();
