// Pair: chooses the pairs of turns to train on, from the searched trees of an iteration.
import { setImmediate as nextTick } from 'node:timers/promises';
import { OptimaError } from '../../domain/errors.ts';
import type { PhaseOutputOf } from '../../domain/events.ts';
import type { NodeId, TaskId } from '../../domain/ids.ts';
import { mean } from '../../domain/metrics.ts';
import type { PlannedPhases } from '../../machines/index.ts';
import {
  choosePairs,
  preferenceOf,
  scaleByRole,
  searchConfigOf,
  searchedTrees,
  type ValuedTurn,
  valuedTurns,
} from '../../reading/pairing.ts';
import { trainedRoles } from '../../scenario/types.ts';
import { keepPairs, type Pair } from '../../search/index.ts';
import { answersIn, type PhaseContext } from './context.ts';
import { waitingPairs } from './forks.ts';
import { noneScored } from './select.ts';

/** Without any pair, of forks either, the iterations end with the policy before. Rejects with `interrupted` on abort. */
export async function pair(
  context: PhaseContext,
  phase: PlannedPhases['pair'],
): Promise<PhaseOutputOf<'pair'>> {
  const { run, scenario, rng, progress, signal } = context;
  const recipe = preferenceOf(context.recipe);
  const { name } = phase;
  const { values, keepShare: share, keepPer: per, thetaFilter, thetaDiff } = recipe.pairs;
  const { trees, metrics } = run.outputOf({ name: phase.search, kind: 'search' })!;
  progress.begin(name, trees, 'trees');
  const found: { tree: NodeId; taskId: TaskId; pairs: readonly Pair[]; dropped: Record<string, number> }[] =
    [];
  const searched = () => searchedTrees(run.treesOf(phase.search), searchConfigOf(recipe), rng);
  // A tree is milliseconds, and there may be thousands of them.
  const breathe = async () => {
    await nextTick();
    if (signal?.aborted) throw new OptimaError('interrupted', `${name} was interrupted.`);
  };
  const trained = trainedRoles(scenario);
  const answers = await answersIn(context, phase.search);
  let scale: ReturnType<typeof scaleByRole> | null = null;
  if (values === 'per-role') {
    const turns: ValuedTurn[] = [];
    for (const tree of searched()) {
      turns.push(...valuedTurns(tree));
      await breathe();
    }
    scale = scaleByRole(turns);
  }
  for (const searchedTree of searched()) {
    const { root: tree, taskId } = searchedTree.conversation;
    const answer = answers.get(taskId)!;
    const { pairs, dropped } = choosePairs(searchedTree, { ...recipe, trained, answer, scale });
    found.push({ tree, taskId, pairs, dropped: { ...dropped } });
    progress.advance(found.length);
    await breathe();
  }
  const kept = keepPairs(
    found.map(({ pairs }) => pairs),
    { share, per },
  );
  const all = kept.flat();
  const candidates = found.reduce((sum, { pairs }) => sum + pairs.length, 0);
  const scored = metrics.taskScore > 0 ? '' : `: ${noneScored}`;
  const nothing = `no pair to train on: of ${trees} trees none has two turns with a value above ${thetaFilter} and a difference above ${thetaDiff}${scored}`;
  for (const [index, { tree, taskId, pairs, dropped }] of found.entries()) {
    const worse = pairs.length - kept[index]!.length;
    run.record({
      type: 'pairs.made',
      ...{ phase: name, taskId, tree, pairs: kept[index]!, dropped: { ...dropped, worse } },
    });
  }
  const forks = all.length === 0 && context.withForks ? waitingPairs(context).length : 0;
  progress.end(
    all.length === 0
      ? `${nothing}; ${forks === 0 ? 'the run ends with the policy before' : `it goes on with ${forks} of forks`}`
      : `${all.length} of ${candidates} pairs kept${scored}`,
  );
  const meanGap = mean(all.map(({ gap }) => gap));
  return { kind: 'pair', kept: all.length, ...(forks > 0 && { forks }), found: candidates, meanGap };
}
