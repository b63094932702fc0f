// Which of a dialogue's messages state the team's answer.
import { refused } from '../domain/errors.ts';
import type { Turn } from '../domain/transcript.ts';
import { normalizeAnswer } from './metric.ts';
import type { AnswerParser, Scenario } from './types.ts';

/**
 * A scenario's parser for one task. What a view states itself, as in the instruction `end with <A>sum</A>`, is no answer when
 * an agent repeats it; but where a view states a right answer too, it lists what may be answered, and all of it counts. `views`
 * is asked for once for a task, when a message states something.
 */
export function parserOf(scenario: Scenario, task: unknown, views: () => readonly string[]): AnswerParser {
  const { answer } = scenario;
  // After every turn all that were said before are asked about again.
  const known = new Map<string, string | null>();
  const read = (text: string): string | null => {
    // A parser of its own, in JavaScript, may give what a pattern that found nothing gives.
    const stated: unknown = answer.parse(text) ?? null;
    if (stated === null) return null;
    if (typeof stated !== 'string')
      throw new TypeError(`answer.parse gave ${refused(stated)}, not a text or null`);
    return knownToldBy(views, scenario, task).has(normalizeAnswer(stated)) ? null : stated;
  };
  return {
    example: (text) => answer.example(text),
    parse(text) {
      const before = known.get(text);
      if (before !== undefined) return before;
      const stated = read(text);
      if (known.size === mostKnown) known.clear();
      known.set(text, stated);
      return stated;
    },
  };
}

/** Texts that a parser remembers: more than a dialogue has turns, and few enough for as many parsers as a phase has tasks. */
const mostKnown = 64;

/** By scenario and task: many dialogues are held about one. */
const knownTold = new WeakMap<Scenario, WeakMap<object, ReadonlySet<string>>>();

function knownToldBy(views: () => readonly string[], scenario: Scenario, task: unknown): ReadonlySet<string> {
  if (typeof task !== 'object' || task === null) return toldBy(views(), scenario, task);
  const ofScenario = knownTold.get(scenario) ?? new WeakMap<object, ReadonlySet<string>>();
  knownTold.set(scenario, ofScenario);
  const told = ofScenario.get(task) ?? toldBy(views(), scenario, task);
  ofScenario.set(task, told);
  return told;
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
