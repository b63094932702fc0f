// Branded identifiers. Inside a run every id follows from the seed; only the run folder's name is random.
import { customAlphabet } from 'nanoid';

declare const brand: unique symbol;
type Branded<Name extends string> = string & { readonly [brand]: Name };

/** Names one instance of a scenario's task, for example `train-00012`. Unique within scenario and seed. */
export type TaskId = Branded<'TaskId'>;
/** Names one dialogue of a run: `<phase>/<task>/<sample>`. */
export type DialogueId = Branded<'DialogueId'>;
/** Names one turn (a node of the conversation tree): `<dialogue>#<index>`. */
export type TurnId = Branded<'TurnId'>;
/** Content hash of a policy's weights: the first 16 hexadecimal digits of a SHA-256. */
export type PolicyHash = Branded<'PolicyHash'>;
/** Names a run folder. */
export type RunId = Branded<'RunId'>;

export const taskId = (split: string, index: number): TaskId =>
  `${split}-${String(index).padStart(5, '0')}` as TaskId;

export const dialogueId = (phase: string, task: TaskId, sample: number): DialogueId =>
  `${phase}/${task}/${sample}` as DialogueId;

export const turnId = (dialogue: DialogueId, index: number): TurnId => `${dialogue}#${index}` as TurnId;

const suffix = customAlphabet('0123456789abcdefghijkmnpqrstuvwxyz', 6);

/** A fresh folder name; random, so that two runs of one seed can stand side by side. */
export const createRunId = (scenario: string, recipe: string, seed: number): RunId =>
  `${scenario}-${recipe}-s${seed}-${suffix()}` as RunId;
