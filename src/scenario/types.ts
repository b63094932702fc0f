// What a scenario is: tasks, roles, protocol, answer, metric, reward. Every interface here is something a
// scenario file may implement itself; the functions beside this file are the ready-made ones.
import { OptimaError } from '../domain/errors.ts';
import type { Rng } from '../domain/rng.ts';
import { type Outcome, type Turn, underFormat } from '../domain/transcript.ts';

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
  /** Whether its turns are trained on. Default true; else it plays with the base, or with what `--policy` gives it. */
  readonly trained?: boolean;
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

/** What a role got out of a dialogue, in [0, 1]; of every role, or of none. */
export type Seats<Role extends string = string> = Readonly<Partial<Record<Role, number>>>;

/**
 * What a metric says of a dialogue. `score`, the team's, is in [0, 1], and by default the mean of the seats; `exactMatch` is by
 * default whether it is 1.
 */
export type Score<Role extends string = string> =
  | { readonly score: number; readonly exactMatch?: boolean; readonly seats?: Seats<Role> }
  | { readonly score?: number; readonly exactMatch?: boolean; readonly seats: Seats<Role> };

/** A score, or the number alone. */
export type Judgement<Role extends string = string> = number | Score<Role>;

/** The judge model of a run, `--judge`. What it is asked and what it replies stands in the log. */
export interface Judge {
  /** Resolves with its reply. Rejects with `model.failed`, and with `usage` where the scenario or the run has no judge. */
  ask(prompt: string): Promise<string>;
}

/** A dialogue that is over, as a metric sees it. */
export interface Judged<Task = unknown> {
  readonly task: Task;
  /** From the first message on. */
  readonly turns: readonly Turn[];
  /** Whether it ended in agreement, or at its cap. */
  readonly outcome: Exclude<Outcome, 'failed'>;
  /** The team's; null: no message stated one. */
  readonly answer: string | null;
  /** Those counted as right; none where the scenario does not say. */
  readonly answers: readonly string[];
  readonly judge: Judge;
  /** Aborts when nobody waits for the score any more. */
  readonly signal: AbortSignal;
}

/**
 * Scores a dialogue: most metrics by the team's answer alone (null: no message stated one), against those counted as right. May
 * give a promise. What it throws, or its promise rejects with, fails the dialogue, loudly.
 */
// biome-ignore lint/suspicious/noExplicitAny: a metric that names no task judges those of every type.
export interface Metric<Task = any, Role extends string = string> {
  readonly name: string;
  /** Longest time that a promise may take, in ms, beside the judge model's own; below 2^31. Default 15 s. */
  readonly timeoutMs?: number;
  score(
    prediction: string | null,
    answers: readonly string[],
    dialogue: Judged<Task>,
  ): Judgement<Role> | PromiseLike<Judgement<Role>>;
}

/** A metric as a function of the whole dialogue. */
export type MetricFunction<Task, Role extends string = string> = (
  dialogue: Judged<Task>,
) => Judgement<Role> | PromiseLike<Judgement<Role>>;

/** How a scenario's judge model is asked. */
export interface JudgeOptions {
  /** Cap on one reply, tokens, its end included. Default 128. */
  readonly maxTokens?: number;
  /** Default 0. */
  readonly temperature?: number;
}

/** A way of writing that initialization asks for and training then makes a habit (docs/method.md §3). */
export interface FormatPrompt {
  readonly name: string;
  /** Appended to the role's view as a line of its own. */
  readonly prompt: string;
}

/** What a demonstrator wrote: a whole dialogue, for `optima warmup`. */
export interface Demonstration<Role extends string = string> {
  /** The format prompt the dialogue was written under. Default null, the plain prompt. */
  readonly format?: FormatPrompt | null;
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
  /** The answers counted as right, the canonical one first. May be left out where the metric is a function. */
  answers?(task: NoInfer<Task>): readonly string[];
  readonly metric: Metric<NoInfer<Task>, NoInfer<Role>> | MetricFunction<NoInfer<Task>, NoInfer<Role>>;
  /** Present where the metric asks a judge model, which the run then must be given: `--judge <checkpoint>`. */
  readonly judge?: JudgeOptions;
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
export interface Scenario<Task = any, Role extends string = string>
  extends Omit<ScenarioDefinition<Task, Role>, 'answers' | 'metric'> {
  answers(task: Task): readonly string[];
  readonly metric: Metric<Task, Role>;
}

/** Cap on one message of a scenario, tokens: what is asked for, or its own. */
export const messageCap = ({ maxMessageTokens = 96 }: Scenario, asked: number | null): number =>
  asked ?? maxMessageTokens;

/** What the others call a role where speakers have names. */
export const shownName = (roles: Scenario['roles'], role: string): string =>
  roles[role]!.name ?? role[0]!.toUpperCase() + role.slice(1);

/** The roles to whose views a format prompt is added. */
export const formattedRoles = ({ roles }: Scenario): string[] =>
  Object.keys(roles).filter((role) => roles[role]!.formatted !== false);

/** The roles whose turns are trained on. */
export const trainedRoles = ({ roles }: Pick<Scenario, 'roles'>): string[] =>
  Object.keys(roles).filter((role) => roles[role]!.trained !== false);

/** The scenario with some roles, beside those that it says so of, not trained. Throws `usage` where none is left that is. */
export function withoutTraining(scenario: Scenario, frozen: readonly string[]): Scenario {
  if (frozen.every((role) => scenario.roles[role]?.trained === false)) return scenario;
  const roles = Object.entries(scenario.roles).map(([role, definition]) => [
    role,
    frozen.includes(role) ? { ...definition, trained: false } : definition,
  ]);
  const changed: Scenario = { ...scenario, roles: Object.fromEntries(roles) };
  if (trainedRoles(changed).length > 0) return changed;
  throw new OptimaError('usage', `Scenario "${scenario.name}": no role is left to be trained.`);
}

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
