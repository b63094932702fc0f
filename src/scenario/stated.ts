// Which of a dialogue's messages state the team's answer.
import type { Turn } from '../domain/transcript.ts';
import { normalizeAnswer } from './metric.ts';
import type { AnswerParser, Scenario } from './types.ts';

/**
 * A scenario's parser for one task. What a view states itself, as in the instruction `end with <A>sum</A>`, is no answer when
 * an agent repeats it; but where a view states a right answer too, it lists what may be answered, and all of it counts. `views`
 * is asked for once, when a message states something.
 */
export function parserOf(scenario: Scenario, task: unknown, views: () => readonly string[]): AnswerParser {
  const { answer } = scenario;
  let told: ReadonlySet<string> | undefined;
  return {
    example: (text) => answer.example(text),
    parse(text) {
      const stated = answer.parse(text);
      if (stated === null) return null;
      told ??= toldBy(views(), scenario, task);
      return told.has(normalizeAnswer(stated)) ? null : stated;
    },
  };
}

function toldBy(views: readonly string[], { answer, answers }: Scenario, task: unknown): Set<string> {
  const lines = views.flatMap((view) => view.split('\n'));
  const told = new Set(lines.flatMap((line) => answer.parse(line) ?? []).map(normalizeAnswer));
  const rightIsTold = told.size > 0 && answers(task).some((right) => told.has(normalizeAnswer(right)));
  return rightIsTold ? new Set() : told;
}

/** The team's answer: by default the last one that a message stated, of those whose answer counts; null when there is none. */
export function lastStated(
  { protocol }: Scenario,
  turns: readonly Turn[],
  answer: AnswerParser,
): string | null {
  if (protocol.decide !== undefined) {
    const decided: unknown = protocol.decide(turns, answer);
    if (typeof decided === 'string' || decided === null) return decided;
    throw new TypeError(`protocol.decide gave ${typeof decided}, not a text or null`);
  }
  const counts = ({ speaker }: Turn) => protocol.answeredBy?.includes(speaker) ?? true;
  let stated: string | null = null;
  for (const turn of turns) if (counts(turn)) stated = answer.parse(turn.text) ?? stated;
  return stated;
}
