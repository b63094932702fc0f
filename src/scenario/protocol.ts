// Ready-made protocols: who speaks when, and when the team is done.
import type { Turn } from '../domain/transcript.ts';
import { normalizeAnswer } from './metric.ts';
import type { AnswerParser, Protocol } from './types.ts';

/** Decides from the turns so far whether the team has its answer. */
export interface StopRule<Role extends string = string> {
  (turns: readonly Turn[], answer: AnswerParser, order: readonly Role[]): boolean;
  /** Whose answer is the team's; by default everybody's. */
  readonly answeredBy?: readonly string[];
}

/** Roles speak in `order`, over and over, until the stop rule holds or `maxTurns` messages were sent. */
export function dialogue<const Role extends string>(options: {
  order: readonly Role[];
  maxTurns: number;
  until: StopRule<Role>;
}): Protocol<Role> {
  const { order, maxTurns, until } = options;
  return {
    order,
    maxTurns,
    next: (turns) => order[turns.length % order.length]!,
    agreed: (turns, answer) => until(turns, answer, order),
    ...(until.answeredBy !== undefined && { answeredBy: until.answeredBy }),
  };
}

/** The team is done when every role's latest stated answer is the same, in normal form. */
export function agreement(): StopRule {
  return (turns, answer, order) => {
    const latest = new Map<string, string>();
    for (const turn of turns) {
      const stated = answer.parse(turn.text);
      if (stated !== null) latest.set(turn.speaker, normalizeAnswer(stated));
    }
    return order.every((role) => latest.has(role)) && new Set(latest.values()).size === 1;
  };
}

/**
 * For debates in which only the solver answers, and its answer is the team's whatever others state: done when the solver repeats its answer, unchanged, in the
 * turn after somebody else spoke.
 */
export function unchangedAnswer(solver: string): StopRule {
  const rule: StopRule = (turns, answer) => {
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
