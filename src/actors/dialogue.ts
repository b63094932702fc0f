// The root actor of one dialogue: it starts an environment, an agent for each role and a judge, and wires them
// to the dialogue's bus. talking → judging → ended, where the bus completes. An actor that breaks breaks the root with it.
import { assertEvent, sendTo, setup } from 'xstate';
import type { DialogueId, NodeId, TaskId } from '../domain/ids.ts';
import type { DialogueMessage } from '../domain/messages.ts';
import type { Turn } from '../domain/transcript.ts';
import { agentMachine, environmentMachine, judgeMachine } from '../machines/index.ts';
import type { Course } from '../scenario/course.ts';
import type { FormatPrompt, Scenario } from '../scenario/types.ts';
import type { MessageBus } from './bus.ts';

/** One dialogue to be held: from the root of its task's tree, or on from a node. */
export interface Episode {
  /** Node of its first turn. */
  readonly id: DialogueId;
  /** Root of the tree. */
  readonly tree: NodeId;
  readonly taskId: TaskId;
  readonly task: unknown;
  /** The format prompt drawn for it; null for the plain prompt. */
  readonly format: FormatPrompt | null;
  /** What was said on the way to the node that it goes on from; by default nothing. */
  readonly history?: readonly Turn[];
  /** Branch at each of its turns after the first; 0 where none is given. */
  readonly branches?: readonly number[];
}

/** An actor of the dialogue as the wiring sees it. */
interface Member {
  hears(message: DialogueMessage): boolean;
  readonly actor: {
    send(message: never): void;
    on(type: '*', handler: (message: DialogueMessage) => void): unknown;
  };
}

export interface DialogueContext {
  readonly id: DialogueId;
  readonly bus: MessageBus;
  readonly members: readonly Member[];
}

export type DialogueEvent =
  | DialogueMessage
  /** A member said something that the bus refused. */
  | { readonly type: 'message.rejected'; readonly error: unknown };

export interface DialogueInput {
  readonly episode: Episode;
  readonly scenario: Scenario;
  /** Completed by the dialogue when it ends. */
  readonly bus: MessageBus;
  /** A turn of the episode's tree by its node. */
  readonly recall: (node: NodeId) => Turn;
  /** As of the environment. */
  readonly course?: Course | undefined;
}

/** A dialogue has no result: all that happens in it is on its bus. */
export type DialogueOutput = undefined;

const listensTo = (machine: { readonly events: readonly string[] }) => {
  const types = new Set(machine.events);
  return (message: DialogueMessage) => types.has(message.type);
};
const environmentHears = listensTo(environmentMachine);
const agentHears = listensTo(agentMachine);
const judgeHears = listensTo(judgeMachine);

/** What the root itself goes by. */
const endsPhase = ({ type }: DialogueMessage) => type === 'dialogue.closed' || type.startsWith('verdict.');

/** Provide `agent` with a `compose` action and `judge` with `score`. Errors with what an actor of its own throws, or what its bus refuses. */
export const dialogueMachine = setup({
  types: {
    context: {} as DialogueContext,
    events: {} as DialogueEvent,
    input: {} as DialogueInput,
    output: undefined as DialogueOutput,
  },
  actors: { environment: environmentMachine, agent: agentMachine, judge: judgeMachine },
  guards: {
    hasFailed: ({ event }) => {
      assertEvent(event, 'dialogue.closed');
      return event.outcome === 'failed';
    },
  },
  actions: {
    connect: ({ context: { bus, members }, self }) => {
      const say = (message: DialogueMessage) => {
        try {
          bus.publish(message);
        } catch (error) {
          self.send({ type: 'message.rejected', error });
        }
      };
      for (const { actor } of members) actor.on('*', say);
      bus.messages$.subscribe((message) => {
        // The root first: a judge that breaks at the end of the dialogue must find it judging.
        if (endsPhase(message)) self.send(message);
        for (const { actor, hears } of members) if (hears(message)) actor.send(message as never);
      });
    },
    openDialogue: sendTo('environment', { type: 'dialogue.open' }),
    breakOff: ({ event }) => {
      assertEvent(event, 'message.rejected');
      throw event.error;
    },
    completeBus: ({ context }) => context.bus.complete(),
  },
}).createMachine({
  id: 'dialogue',
  options: { maxIterations: 100 },
  context: ({ input: { episode, scenario, bus, recall, course }, spawn }) => {
    const { id: dialogueId, tree, taskId, task, format, history = [], branches = [] } = episode;
    const environment = spawn('environment', {
      id: 'environment',
      input: { dialogueId, tree, taskId, scenario, task, format, history, branches, recall, course },
    });
    const agents = Object.keys(scenario.roles).map((role) => ({
      actor: spawn('agent', { id: `agent.${role}`, input: { role, dialogueId } }),
      hears: (message: DialogueMessage) =>
        message.type === 'turn.requested' ? message.speaker === role : agentHears(message),
    }));
    const judge = spawn('judge', {
      id: 'judge',
      input: { dialogueId, scenario, task },
    });
    const members = [
      { actor: environment, hears: environmentHears },
      ...agents,
      { actor: judge, hears: judgeHears },
    ];
    return { id: dialogueId, bus, members };
  },
  on: { 'message.rejected': { actions: 'breakOff' } },
  initial: 'talking',
  states: {
    talking: {
      entry: ['connect', 'openDialogue'],
      on: {
        'dialogue.closed': [{ guard: 'hasFailed', target: 'ended' }, { target: 'judging' }],
      },
    },
    judging: {
      on: {
        'verdict.given': 'ended',
        'verdict.failed': 'ended',
      },
    },
    ended: { type: 'final' },
  },
  exit: 'completeBus',
});
