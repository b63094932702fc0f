// The explorer: leads the search of one task's conversation tree. choosing → rollingOut → valuing → choosing … until the
// search asks for nothing more. src/actors provides roll-outs and values with the world.
import { assertEvent, assign, type DoneActorEvent, type ErrorActorEvent, setup } from 'xstate';
import type { NodeId } from '../domain/ids.ts';
import type { Trajectory } from '../domain/transcript.ts';
import type { Expansion, Search } from '../search/index.ts';
import { unprovided } from './unprovided.ts';

/** A roll-out that has ended. */
export interface Rollout {
  /** Counted through the search. */
  readonly number: number;
  readonly dialogue: Trajectory;
}

/** What a roll-out came to: its last node, and its reward; null where it failed. */
export interface ValuedRollout {
  readonly number: number;
  readonly leaf: NodeId;
  readonly reward: number | null;
  /** The reward of each role, where seats have rewards of their own. */
  readonly seats?: Readonly<Record<string, number>> | undefined;
}

export interface ExplorerInput {
  readonly search: Search;
}

export interface ExplorerContext extends ExplorerInput {
  /** The expansion under way; null once there is none. */
  readonly expansion: Expansion | null;
  readonly error: unknown;
}

export type ExplorerEvent =
  | DoneActorEvent<readonly Rollout[], 'rollOut'>
  | DoneActorEvent<readonly ValuedRollout[], 'value'>
  | ErrorActorEvent<unknown, 'rollOut' | 'value'>;

/** `error` is what a provided actor rejected with; null where the search came to its end. */
export interface ExplorerOutput {
  readonly error: unknown;
}

/** Provide `rollOut`, which holds the dialogues of an expansion to their ends, and `value`, which gives their rewards. */
export const explorerMachine = setup({
  types: {
    context: {} as ExplorerContext,
    events: {} as ExplorerEvent,
    input: {} as ExplorerInput,
    output: {} as ExplorerOutput,
  },
  actors: {
    rollOut: unprovided<readonly Rollout[], Expansion>('rollOut'),
    value: unprovided<readonly ValuedRollout[], readonly Rollout[]>('value'),
  },
  guards: { isOver: ({ context }) => context.expansion === null },
  actions: {
    choose: assign({ expansion: ({ context }) => context.search.ask() }),
    tell: ({ context, event }) => {
      assertEvent(event, 'xstate.done.actor.value');
      for (const { number, leaf, reward, seats } of event.output) {
        context.search.tell(number, leaf, reward, seats);
      }
    },
    recordError: assign(({ event }) => {
      assertEvent(event, ['xstate.error.actor.rollOut', 'xstate.error.actor.value']);
      return { error: event.error };
    }),
  },
}).createMachine({
  id: 'explorer',
  options: { maxIterations: 100 },
  context: ({ input }) => ({ ...input, expansion: null, error: null }),
  initial: 'choosing',
  states: {
    choosing: {
      entry: 'choose',
      always: [{ guard: 'isOver', target: 'finished' }, { target: 'rollingOut' }],
    },
    rollingOut: {
      invoke: {
        id: 'rollOut',
        src: 'rollOut',
        input: ({ context }) => context.expansion!,
        onDone: 'valuing',
        onError: { target: 'failed', actions: 'recordError' },
      },
    },
    valuing: {
      invoke: {
        id: 'value',
        src: 'value',
        input: ({ event }) => {
          assertEvent(event, 'xstate.done.actor.rollOut');
          return event.output;
        },
        onDone: { target: 'choosing', actions: 'tell' },
        onError: { target: 'failed', actions: 'recordError' },
      },
    },
    finished: { type: 'final' },
    failed: { type: 'final' },
  },
  output: ({ context: { error } }) => ({ error }),
});
