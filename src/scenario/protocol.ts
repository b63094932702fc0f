// Ready-made protocols: who speaks when, and when the team is done.
import type { Turn } from '../domain/transcript.ts';
import { normalizeAnswer } from './metric.ts';
import type { AnswerParser, Dialogue, Protocol, Recipients, Speaker } from './types.ts';

/** Decides from the turns so far whether the team has its answer. */
// biome-ignore lint/suspicious/noExplicitAny: a rule that asks for no task is one for tasks of every type.
export interface StopRule<Role extends string = string, Task = any> {
  /** `answering` are the roles whose answer counts: `answeredBy`, or by default all. */
  (
    turns: readonly Turn[],
    answer: AnswerParser,
    answering: readonly Role[],
    dialogue: Dialogue<Task>,
  ): boolean;
  /** Whose answer is the team's; by default everybody's. */
  readonly answeredBy?: readonly string[];
  /** The team's answer, where that is not the last one that was stated. */
  readonly decide?: (
    turns: readonly Turn[],
    answer: AnswerParser,
    answering: readonly Role[],
  ) => string | null;
}

/** A rule that goes by turns and answers alone, whatever the task. */
type PlainRule = ((turns: readonly Turn[], answer: AnswerParser, answering: readonly string[]) => boolean) &
  Pick<StopRule, 'answeredBy' | 'decide'>;

export interface DialogueOptions<Role extends string, Task = unknown> {
  /** Those who take part, in the order in which they speak. */
  readonly order: readonly Role[];
  /** Cap on messages of one dialogue. */
  readonly maxTurns: number;
  readonly until: StopRule<NoInfer<Role>, Task>;
  /** Whose answer is the team's, and whom a stop rule asks; by default as the stop rule has it. */
  readonly answeredBy?: readonly NoInfer<Role>[];
  /** All speak at once, round after round: nobody hears the others of a round before it has spoken. Default false. */
  readonly together?: boolean;
  /** Who speaks next, where that is not the next one in order. */
  readonly next?: (
    turns: readonly Turn[],
    dialogue: Dialogue<Task>,
  ) => Speaker<NoInfer<Role>> | readonly Speaker<NoInfer<Role>>[];
  /** Who hears what a role says next; by default all. */
  readonly to?: (speaker: NoInfer<Role>, dialogue: Dialogue<Task>) => Recipients<NoInfer<Role>>;
}

/** Roles speak in `order`, over and over, until the stop rule holds or `maxTurns` messages were sent. */
// biome-ignore lint/suspicious/noExplicitAny: TypeScript does not infer the task of a scenario into this call.
export function dialogue<const Role extends string, Task = any>({
  order,
  maxTurns,
  until,
  answeredBy = until.answeredBy as readonly Role[] | undefined,
  together = false,
  next = (turns) => (together ? order : order[turns.length % order.length]!),
  to,
}: DialogueOptions<Role, Task>): Protocol<Role, Task> {
  const answering = answeredBy ?? order;
  const addressed = (one: Speaker<Role>, dialogue: Dialogue<Task>): Speaker<Role> =>
    typeof one === 'string' ? { speaker: one, to: to!(one, dialogue) } : one;
  const { decide } = until;
  return {
    order,
    maxTurns,
    next(turns, dialogue) {
      const speakers = next(turns, dialogue);
      if (to === undefined) return speakers;
      return Array.isArray(speakers)
        ? speakers.map((one: Speaker<Role>) => addressed(one, dialogue))
        : addressed(speakers as Speaker<Role>, dialogue);
    },
    agreed: (turns, answer, dialogue) => until(turns, answer, answering, dialogue),
    ...(answeredBy !== undefined && { answeredBy }),
    ...(decide !== undefined && { decide: (turns, answer) => decide(turns, answer, answering) }),
  };
}

/** Each role's latest stated answer as it was stated, those stated last at the end. */
function latestAnswers(turns: readonly Turn[], answer: AnswerParser): Map<string, string> {
  const latest = new Map<string, string>();
  for (const { speaker, text } of turns) {
    const stated = answer.parse(text);
    if (stated === null) continue;
    latest.delete(speaker);
    latest.set(speaker, stated);
  }
  return latest;
}

/** The team is done when the latest stated answers of all who answer are the same, in normal form. */
export function agreement(): PlainRule {
  return (turns, answer, answering) => {
    const latest = latestAnswers(turns, answer);
    return (
      answering.every((role) => latest.has(role)) &&
      new Set(answering.map((role) => normalizeAnswer(latest.get(role)!))).size === 1
    );
  };
}

/**
 * The team is done when more than half of those who answer agree in their latest stated answers, in normal form. Its answer is
 * the one that most agree in; at the cap, where several have as many, the one of them that was stated last.
 */
export function majority(): PlainRule {
  const ballot = (turns: readonly Turn[], answer: AnswerParser, answering: readonly string[]) => {
    const votes = new Map<string, { answer: string; count: number }>();
    for (const [role, stated] of latestAnswers(turns, answer)) {
      if (!answering.includes(role)) continue;
      const form = normalizeAnswer(stated);
      const count = 1 + (votes.get(form)?.count ?? 0);
      votes.delete(form);
      votes.set(form, { answer: stated, count });
    }
    return [...votes.values()].reduce((most, one) => (one.count >= most.count ? one : most), {
      answer: null as string | null,
      count: 0,
    });
  };
  const rule: PlainRule = (turns, answer, answering) =>
    ballot(turns, answer, answering).count > new Set(answering).size / 2;
  const decide: PlainRule['decide'] = (...asked) => ballot(...asked).answer;
  return Object.assign(rule, { decide });
}

/**
 * For debates in which only the solver answers, and its answer is the team's whatever others state: done when the solver repeats its answer, unchanged, in the
 * turn after somebody else spoke.
 */
export function unchangedAnswer(solver: string): PlainRule {
  const rule: PlainRule = (turns, answer) => {
    const last = turns.at(-1);
    if (last === undefined || last.speaker !== solver || turns.at(-2)?.speaker === solver) return false;
    const before = turns.slice(0, -1).findLast((turn) => turn.speaker === solver);
    if (before === undefined) return false;
    const now = answer.parse(last.text);
    const then = answer.parse(before.text);
    return now !== null && then !== null && normalizeAnswer(now) === normalizeAnswer(then);
  };
  return Object.assign(rule, { answeredBy: [solver] });
}
