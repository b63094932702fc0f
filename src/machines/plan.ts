// What a run is to do: the list of phases that a recipe comes to (src/run/plan.ts), and that the trainer leads.
import type { PhaseKind } from '../domain/events.ts';
import type { TaskRange } from '../scenario/tasks.ts';
import type { Split } from '../scenario/types.ts';

interface Planned<Kind extends PhaseKind> {
  readonly kind: Kind;
  /** Its name in the log, unique in the run: `base`, `init-0/generate`, `isft-1/train` … */
  readonly name: string;
  /** Counted from 0; null for what comes before the iterations or after them. */
  readonly iteration: number | null;
}

/** A planned phase by its kind. Phases name each other where one reads what another left. */
export interface PlannedPhases {
  /** Hold dialogues with the latest policy. */
  readonly generate: Planned<'generate'> & {
    /** Of the training split. */
    readonly tasks: TaskRange;
    readonly samplesPerTask: number;
    readonly temperature: number;
    /** Whether each dialogue draws one of the scenario's format prompts. */
    readonly formats: boolean;
  };
  /** Compute the reward of every dialogue. */
  readonly rank: Planned<'rank'> & { readonly dialogues: string };
  /** Choose the dialogues to train on. */
  readonly select: Planned<'select'> & {
    readonly ranking: string;
    /** θ. */
    readonly threshold: number;
    /** The recipe's key of θ. */
    readonly thresholdKey: string;
    readonly keepFraction: number;
  };
  /** Search the conversation trees of tasks with the latest policy. */
  readonly search: Planned<'search'> & {
    /** Of the training split. */
    readonly tasks: TaskRange;
    /** The dialogues whose lengths R_token is taken against. */
    readonly pilot: string;
  };
  /** Choose the pairs of turns to train on. */
  readonly pair: Planned<'pair'> & { readonly search: string };
  /** Train on the chosen dialogues, or by preference on the chosen pairs. */
  readonly train: Planned<'train'> & {
    readonly startFrom: 'base' | 'latest';
    readonly on:
      | { readonly method: 'sft'; readonly dialogues: string; readonly selection: string }
      | { readonly method: 'dpo'; readonly search: string; readonly pairs: string };
  };
  /**
   * Measure a policy on the first tasks of a split; `kept` is the one that the run ends with, and in `swapped` each role has
   * what that one has for the next role.
   */
  readonly evaluate: Planned<'evaluate'> & {
    readonly policy: 'base' | 'latest' | 'kept' | 'swapped';
    readonly split: Split;
    readonly tasks: number;
  };
}

export type PlannedPhase = PlannedPhases[PhaseKind];
