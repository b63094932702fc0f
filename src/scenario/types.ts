// What a scenario is: tasks, roles, protocol, answer, metric, reward. Every interface here is something a
// scenario file may implement itself; the functions beside this file are the ready-made ones.
import type { Rng } from '../domain/rng.ts';
import { type Turn, underFormat } from '../domain/transcript.ts';

export const splits = ['train', 'validation', 'test'] as const;
export type Split = (typeof splits)[number];

/**
 * Where tasks come from. `load` gives the first `count` tasks of a split; the same generator gives the same
 * tasks, and a smaller count a prefix of a larger one. Random parts (who is dealt what) come from `rng`.
 *
 * ```ts
 * const source: TaskSource<{ n: number }> = {
 *   load: async (split, count) => Array.from({ length: count }, (_, n) => ({ n })),
 * };
 * ```
 */
export interface TaskSource<Task> {
  load(split: Split, count: number, rng: Rng): Promise<readonly Task[]>;
}

/** One side of the team. */
export interface RoleDefinition<Task> {
  /** The role's private view: all it is told before the dialogue begins. */
  sees(task: Task): string;
  /** What the others call it where speakers have names. Default: its id, the first letter as a capital. */
  readonly name?: string;
  /** Whether initialization gives this role a format prompt. Default true. */
  readonly formatted?: boolean;
}

/** A dialogue so far: its task, and its turns with what the environment said after them (`observed`). */
export interface Dialogue<Task = unknown> {
  readonly task: Task;
  readonly turns: readonly Turn[];
}

/** Who hears a message beside its speaker. */
export type Recipients<Role extends string = string> = 'all' | readonly Role[];

/** Who speaks next; without `to`, to all. */
export type Speaker<Role extends string = string> =
  | Role
  | { readonly speaker: Role; readonly to?: Recipients<Role> };

/**
 * Who speaks and when the dialogue ends. Pure: what its functions give follows from the turns so far and the task.
 * A dialogue that reaches `maxTurns` without `agreed` ends with the outcome `turn-cap`.
 */
// biome-ignore lint/suspicious/noExplicitAny: a protocol that asks for no task is one for tasks of every type.
export interface Protocol<Role extends string = string, Task = any> {
  /** Those who take part. */
  readonly order: readonly Role[];
  /** Cap on messages of one dialogue. A round that would go beyond it is not begun. */
  readonly maxTurns: number;
  /** Whose answer is the team's; by default everybody's, and the last one counts. */
  readonly answeredBy?: readonly string[];
  /** The speaker of the next turn; or several, who speak at once: none hears another of them before it has spoken itself. */
  next(turns: readonly Turn[], dialogue: Dialogue<Task>): Speaker<Role> | readonly Speaker<Role>[];
  /** Whether the team has reached its answer. Asked after each round, when the environment has spoken. */
  agreed(turns: readonly Turn[], answer: AnswerParser, dialogue: Dialogue<Task>): boolean;
  /** The team's answer, where that is not the last one that was stated. */
  decide?(turns: readonly Turn[], answer: AnswerParser): string | null;
}

/** What the environment says: a text for all, one for some, several of them, or nothing. */
export type Said<Role extends string = string> =
  | SaidOnce<Role>
  | readonly SaidOnce<Role>[]
  | null
  | undefined;
export type SaidOnce<Role extends string = string> =
  | string
  | { readonly text: string; readonly to?: Recipients<Role> };

/**
 * An environment that speaks: a referee, a user by script, a desk with tools (`tools`). What it says comes to those who hear
 * it before their next turn; no policy speaks it or is trained on it, and its tokens are not the team's. Pure: what it says
 * follows from task and turns. Where it throws, or gives no text, the dialogue fails with the reason.
 *
 * ```ts
 * const counting: Environment<unknown> = { respond: ({ turns }) => `${turns.length} messages so far.` };
 * ```
 */
// biome-ignore lint/suspicious/noExplicitAny: an environment that asks for no task is one for tasks of every type.
export interface Environment<Task = any, Role extends string = string> {
  /** Before the first turn; `turns` is empty. */
  open?(dialogue: Dialogue<Task>): Said<Role>;
  /** After each turn; where several speak at once, after the last of them. */
  respond?(dialogue: Dialogue<Task>): Said<Role>;
}

/** Finds the answer a message states; null when it states none. `example` writes one, for checks and docs. */
export interface AnswerParser {
  parse(text: string): string | null;
  example(answer: string): string;
}

export interface Score {
  /** In [0, 1]. */
  readonly score: number;
  readonly exactMatch: boolean;
}

/**
 * Scores the team's answer (null: no message stated one) against the answers counted as right. May throw:
 * that fails the trajectory, loudly.
 */
export interface Metric {
  readonly name: string;
  score(prediction: string | null, answers: readonly string[]): Score;
}

/** A way of writing that initialization asks for and training then makes a habit (docs/method.md §3). */
export interface FormatPrompt {
  readonly name: string;
  /** Appended to the role's view as a line of its own. */
  readonly prompt: string;
}

/** What a demonstrator wrote: a whole dialogue, for `optima warmup`. */
export interface Demonstration<Role extends string = string> {
  /** The format prompt the dialogue was written under, or null for the plain prompt. */
  readonly format: FormatPrompt | null;
  readonly turns: readonly { readonly speaker: Role; readonly text: string }[];
}

export interface ScenarioDefinition<Task, Role extends string> {
  /** Lower-case words joined by hyphens; also the name on the command line. */
  readonly name: string;
  readonly kind: 'information-exchange' | 'debate';
  /** One sentence for `optima list`. */
  readonly description: string;
  readonly tasks: TaskSource<Task>;
  /** Other tasks of the same shape, by name: the scenario `a` with the variant `b` is called `a:b` on the command line. */
  readonly variants?: Readonly<Record<string, TaskSource<NoInfer<Task>>>>;
  readonly roles: { readonly [R in Role]: RoleDefinition<NoInfer<Task>> };
  readonly protocol: Protocol<NoInfer<Role>, NoInfer<Task>>;
  readonly environment?: Environment<NoInfer<Task>, NoInfer<Role>>;
  /** Whether what others say begins with their name, as in `Bob: yes`. Default: from three roles up. */
  readonly names?: boolean;
  /**
   * The tag of private notes: with `think` what stands in `<think>…</think>` is kept in its speaker's own view, trained and
   * counted, and nobody else reads it. Default: there are none.
   */
  readonly notes?: string;
  readonly answer: AnswerParser;
  /** The answers counted as right, the canonical one first. */
  answers(task: NoInfer<Task>): readonly string[];
  readonly metric: Metric;
  /** Cap on one message, tokens, its end included, where a recipe does not set it. Default 96. */
  readonly maxMessageTokens?: number;
  /** The λ of Eq. 1, where a recipe does not set them. */
  readonly reward: { readonly lambdaToken: number; readonly lambdaLoss: number };
  /** The pool initialization draws from. May be empty: then every dialogue is plain. */
  readonly formats: readonly FormatPrompt[];
  /** Writes one training dialogue for `optima warmup`; scenarios without it use an existing checkpoint. */
  demonstrate?(task: NoInfer<Task>, rng: Rng): Demonstration<NoInfer<Role>>;
}

/** A validated scenario. Methods are bivariant on purpose, so that `Scenario` alone means "of any task". */
// biome-ignore lint/suspicious/noExplicitAny: the erased form of a scenario holds tasks of every type.
export type Scenario<Task = any, Role extends string = string> = ScenarioDefinition<Task, Role>;

/** Cap on one message of a scenario, tokens: what is asked for, or its own. */
export const messageCap = ({ maxMessageTokens = 96 }: Scenario, asked: number | null): number =>
  asked ?? maxMessageTokens;

/** The roles to whose views a format prompt is added. */
export const formattedRoles = ({ roles }: Scenario): string[] =>
  Object.keys(roles).filter((role) => roles[role]!.formatted !== false);

/** The system text of a role: its view, and the format prompt on a line of its own where one was drawn. */
export function systemText<Task>(
  scenario: Scenario<Task>,
  role: string,
  task: Task,
  format: FormatPrompt | null,
): string {
  const view = scenario.roles[role]!.sees(task);
  return format !== null && formattedRoles(scenario).includes(role) ? underFormat(view, format.prompt) : view;
}
