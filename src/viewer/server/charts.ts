// The statecharts of src/machines as data: states and ways between them, read off their definitions, and in which state the
// actors of a run are.
import {
  agentMachine,
  environmentMachine,
  explorerMachine,
  judgeMachine,
  trainerMachine,
} from '../../machines/index.ts';
import type { RunReader } from '../../reading/index.ts';
import type { ActorView, Chart, ChartEdge, MachinesAnswer, RunEntry } from '../api.ts';

const machines = [trainerMachine, explorerMachine, environmentMachine, agentMachine, judgeMachine];

interface Transition {
  readonly eventType: string;
  readonly guard?: unknown;
  readonly actions: readonly unknown[];
  readonly target?: readonly { readonly key: string }[] | undefined;
}

/** Every machine, in the order in which one leads to the next. */
export const charts = (): Chart[] => machines.map((machine) => chartOf(machine as unknown as Machine));

interface Machine {
  readonly id: string;
  readonly root: {
    readonly initial: { readonly target: readonly { readonly key: string }[] };
    readonly states: Readonly<Record<string, StateNode>>;
  };
}

interface StateNode {
  readonly key: string;
  readonly type: string;
  readonly always?: readonly Transition[] | undefined;
  readonly transitions: ReadonlyMap<string, readonly Transition[]>;
}

function chartOf({ id, root }: Machine): Chart {
  const nodes = Object.values(root.states);
  const first = root.initial.target[0]!.key;
  return {
    id,
    states: nodes.map(({ key, type }) => ({ name: key, isFirst: key === first, isFinal: type === 'final' })),
    edges: nodes.flatMap((node) => [
      ...(node.always ?? []).map((transition) => edge(node.key, 'always', transition)),
      ...[...node.transitions].flatMap(([event, transitions]) =>
        transitions.map((transition) => edge(node.key, event, transition)),
      ),
    ]),
  };
}

function edge(from: string, event: string, { target, guard, actions }: Transition): ChartEdge {
  return {
    from,
    to: target?.[0]?.key ?? from,
    event: eventName(event),
    guard: guard === undefined ? null : nameOf(guard),
    actions: actions.map(nameOf),
  };
}

/** As the machine's file has it, not as XState calls it. */
const eventName = (event: string): string =>
  event
    .replace(/^xstate\.done\.actor\.(.*)$/, '$1 is done')
    .replace(/^xstate\.error\.actor\.(.*)$/, '$1 failed')
    .replace(/^xstate\.after\.(\w+)\..*$/, 'after $1');

function nameOf(part: unknown): string {
  if (typeof part === 'string') return part;
  const { type, name } = part as { type?: string; name?: string };
  return type ?? name ?? '';
}

/** The actors that a run as a whole has, and the state that its log says they are in. */
export function machinesAnswer(reader: RunReader, { state }: Pick<RunEntry, 'state'>): MachinesAnswer {
  return { charts: charts(), actors: [trainer(reader, state), ...explorers(reader)] };
}

function trainer(reader: RunReader, state: RunEntry['state']): ActorView {
  const last = reader.phases().at(-1);
  const actor = { name: 'trainer', machine: 'trainer' };
  if (reader.policy !== null) return { ...actor, state: 'finished', note: 'The run is complete.' };
  if (state === 'failed') return { ...actor, state: 'failed', note: 'A phase failed.' };
  const isUnderWay = last !== undefined && last.endedAt === null;
  if (state === 'running') {
    return isUnderWay
      ? { ...actor, state: 'carryingOut', note: last.name }
      : { ...actor, state: 'deciding', note: 'between two phases' };
  }
  return { ...actor, state: 'interrupted', note: isUnderWay ? `in ${last.name}` : 'between two phases' };
}

/** Most explorers that are shown: a search has one for each task. */
const mostExplorers = 64;

/** Those of the last search: one for each tree. */
function explorers(reader: RunReader): ActorView[] {
  const search = reader.phases().findLast(({ kind }) => kind === 'search');
  const { recipe } = reader;
  if (search === undefined || recipe === null || !('search' in recipe)) return [];
  const { expansions, rolloutsPerExpansion: each } = recipe.search;
  const actors: ActorView[] = [];
  for (const { root, taskId, dialogues } of reader.trees({ phase: search.name })) {
    if (actors.length === mostExplorers) break;
    const held = [...reader.dialogues({ tree: root, outcome: null })].length;
    const ranked = [...reader.dialogues({ tree: root })].filter(
      ({ reward, outcome }) => reward !== null || outcome === 'failed',
    );
    const isOver = search.endedAt !== null || (ranked.length === dialogues && dialogues >= expansions * each);
    const state = isOver
      ? 'finished'
      : held > 0
        ? 'rollingOut'
        : ranked.length < dialogues
          ? 'valuing'
          : 'choosing';
    const note = `${Math.ceil(dialogues / each)} of ${expansions} expansions`;
    actors.push({ name: taskId, machine: 'explorer', state, note });
  }
  return actors;
}
