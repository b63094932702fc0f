// Branded identifiers. Inside a run every id follows from the seed; only the run folder's name is random.
import { customAlphabet } from 'nanoid';

declare const brand: unique symbol;
type Branded<Name extends string> = string & { readonly [brand]: Name };

/** Names one instance of a scenario's task, for example `train-00012`. Unique within scenario and seed. */
export type TaskId = Branded<'TaskId'>;
/**
 * Names a node of a conversation tree by the way to it: the root is `<phase>/<task>`, and each turn below adds the number
 * of its branch, `<phase>/<task>.3.0`. So an id does not depend on when the node came to be, or beside which others.
 */
export type NodeId = Branded<'NodeId'>;
/** Names a dialogue of a run: the id of the first node that it adds to its tree. */
export type DialogueId = NodeId;
/** Content hash of a policy's weights: the first 16 hexadecimal digits of a SHA-256. */
export type PolicyHash = Branded<'PolicyHash'>;
/** Which weights speak for each role. */
export type TeamPolicy = Readonly<Record<string, PolicyHash>>;
/** Names a run folder. */
export type RunId = Branded<'RunId'>;

export const taskId = (split: string, index: number): TaskId =>
  `${split}-${String(index).padStart(5, '0')}` as TaskId;

/** The root of the tree that a phase grows for a task. */
export const rootId = (phase: string, task: TaskId): NodeId => `${phase}/${task}` as NodeId;

/** A branch below a node: by its number, from 0, or of a fork, of which a run gives none, as `f` and the fork's number. */
export const childId = (parent: NodeId, branch: number | `f${number}`): NodeId =>
  `${parent}.${branch}` as NodeId;

const suffix = customAlphabet('0123456789abcdefghijkmnpqrstuvwxyz', 6);

/** A fresh folder name; random, so that two runs of one seed can stand side by side. */
export const createRunId = (scenario: string, recipe: string, seed: number): RunId =>
  `${scenario}-${recipe}-s${seed}-${suffix()}` as RunId;
