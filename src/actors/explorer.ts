// The world of an explorer: roll-outs are dialogues that go on from a node of its tree, and what is as good as a sibling
// becomes one with it.
import { Observable } from 'rxjs';
import { createActor, fromPromise } from 'xstate';
import { Forest, pathTo } from '../domain/conversation-tree.ts';
import type { RunEventOf } from '../domain/events.ts';
import { childId, type NodeId, type TaskId } from '../domain/ids.ts';
import type { DialogueMessage } from '../domain/messages.ts';
import type { Rng } from '../domain/rng.ts';
import type { Trajectory } from '../domain/transcript.ts';
import { explorerMachine, type Rollout, type ValuedRollout } from '../machines/index.ts';
import { type Expansion, type PlacedTurn, Search, type SearchConfig } from '../search/index.ts';
import { type CohortOptions, runCohort } from './cohort.ts';
import type { Episode } from './dialogue.ts';

/** A task whose conversation tree is to be searched. */
export interface Exploration {
  /** Root of the tree. */
  readonly tree: NodeId;
  readonly taskId: TaskId;
  readonly task: unknown;
}

/** The rewards of finished dialogues, in their order. */
export type ValueDialogues = (
  dialogues: readonly Trajectory[],
) => Promise<readonly RunEventOf<'trajectory.ranked'>[]>;

export interface ExplorerOptions extends Omit<CohortOptions, 'place'> {
  readonly search: SearchConfig;
  /** Draws what is expanded. */
  readonly choices: Rng;
  readonly value: ValueDialogues;
}

/**
 * Searches a task's tree from when somebody subscribes: what its dialogues say, and after each expansion their rewards.
 * Roll-out *r* is branch *r* below every node that it passes, so what it draws depends on no other. Errors as `runCohort`
 * does, and with what `value` rejects with.
 */
export function runExplorer(
  { tree, taskId, task }: Exploration,
  { search: config, choices, value, signal, forest = new Forest(), ...cohort }: ExplorerOptions,
): Observable<DialogueMessage | RunEventOf<'trajectory.ranked'>> {
  return new Observable((subscriber) => {
    const search = new Search(tree, config, choices.split(tree));
    const stop = new AbortController();
    const stopped = signal === undefined ? stop.signal : AbortSignal.any([signal, stop.signal]);
    const { maxTurns } = cohort.scenario.protocol;

    const episodeOf = (node: NodeId, number: number): Episode => {
      const known = forest.trees()[0];
      return {
        id: childId(node, number),
        ...{ tree, taskId, task, format: null },
        history: known === undefined ? [] : pathTo(known, node),
        branches: Array.from({ length: maxTurns }, () => number),
      };
    };
    const rollOut = async ({ node, rollouts }: Expansion): Promise<Rollout[]> => {
      const episodes = rollouts.map((number) => episodeOf(node, number));
      const place = (turn: PlacedTurn) => search.place(turn);
      await runCohort(episodes, { ...cohort, signal: stopped, forest, place }).forEach((message) => {
        subscriber.next(message);
      });
      return rollouts.map((number, index) => {
        const dialogue = forest.trajectoryOf(episodes[index]!.id);
        if (dialogue === null) throw new Error(`Roll-out ${episodes[index]!.id} has no end.`);
        return { number, dialogue };
      });
    };
    const valueAll = async (rollouts: readonly Rollout[]): Promise<ValuedRollout[]> => {
      const ranked = await value(rollouts.map(({ dialogue }) => dialogue));
      return rollouts.map(({ number, dialogue }, index) => {
        subscriber.next(ranked[index]!);
        const { reward, seats } = ranked[index]!;
        return { number, leaf: dialogue.turns.at(-1)?.id ?? tree, reward, seats };
      });
    };
    const machine = explorerMachine.provide({
      actors: {
        rollOut: fromPromise<readonly Rollout[], Expansion>(({ input }) => rollOut(input)),
        value: fromPromise<readonly ValuedRollout[], readonly Rollout[]>(({ input }) => valueAll(input)),
      },
    });
    const actor = createActor(machine, { input: { search } });
    actor.subscribe({
      complete: () => {
        // Stopping an actor completes it, too.
        if (subscriber.closed) return;
        const { error } = actor.getSnapshot().output!;
        if (error === null) subscriber.complete();
        else subscriber.error(error);
      },
      error: (error) => subscriber.error(error),
    });
    actor.start();
    return () => {
      stop.abort();
      actor.stop();
    };
  });
}
