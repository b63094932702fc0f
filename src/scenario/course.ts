// The course of one dialogue, as its scenario has it: what is said before the first turn, who speaks next and to whom, what
// the environment says, and how it ends. All that actors, checks and demonstrations ask of roles, protocol and environment.
import { isThenable, messageOf, refused } from '../domain/errors.ts';
import { childId, type NodeId, type PolicyHash } from '../domain/ids.ts';
import { type Deal, isMidRound, type Observation, type Turn } from '../domain/transcript.ts';
import { parserOf } from './stated.ts';
import {
  type AnswerParser,
  type Dialogue,
  type Recipients,
  type Said,
  type Scenario,
  shownName,
} from './types.ts';

/** A turn that is to be taken. */
export type Floor = Pick<Turn, 'speaker' | 'to' | 'round'>;

/** Pure, as the scenario's code is to be. Every method throws an error that says what of that code went wrong, and when. */
export class Course {
  /** Reads what a message states. */
  readonly answer: AnswerParser;
  readonly #scenario: Scenario;
  readonly #task: unknown;
  #deal: Deal | null = null;

  constructor(scenario: Scenario, task: unknown) {
    this.#scenario = scenario;
    this.#task = task;
    this.answer = parserOf(scenario, task, () => Object.values(this.deal().views));
  }

  /** What each role is told, and what the environment opens with. */
  deal(): Deal {
    if (this.#deal !== null) return this.#deal;
    const { roles } = this.#scenario;
    const views = Object.keys(roles).map((role) => {
      const text: unknown = roles[role]!.sees(this.#task);
      if (typeof text !== 'string') throw new TypeError(`role "${role}" sees ${refused(text)}, not a text`);
      return [role, text] as const;
    });
    const opening = this.observe('open', []);
    this.#deal = { views: Object.fromEntries(views), ...(opening.length > 0 && { opening }) };
    return this.#deal;
  }

  /** Whose turn it is after these, or how the dialogue ends. */
  next(turns: readonly Turn[]): Floor | 'agreed' | 'turn-cap' {
    const last = turns.at(-1);
    if (last !== undefined && isMidRound(last)) return this.floor(turns);
    if (last !== undefined && this.agreed(turns)) return 'agreed';
    const { maxTurns } = this.#scenario.protocol;
    if (turns.length >= maxTurns) return 'turn-cap';
    const floor = this.floor(turns);
    const { length } = floor.round ?? [floor.speaker];
    if (turns.length + length <= maxTurns) return floor;
    if (turns.length > 0) return 'turn-cap';
    throw new Error(`Protocol lets ${length} roles speak at once, and ends at ${maxTurns} turns.`);
  }

  /** Whose turn it is after these, were the dialogue to go on. */
  floor(turns: readonly Turn[]): Floor {
    const last = turns.at(-1);
    const spoken = last !== undefined && isMidRound(last) ? 1 + last.round!.indexOf(last.speaker) : 0;
    return this.#floors(turns.slice(0, turns.length - spoken))[spoken]!;
  }

  /** Whether the team has its answer after these turns. */
  agreed(turns: readonly Turn[]): boolean {
    return this.#asked(turns, (dialogue) => {
      const agreed: unknown = this.#scenario.protocol.agreed(turns, this.answer, dialogue);
      // They would count as yes.
      if (isThenable(agreed) || typeof agreed === 'function')
        throw new TypeError(`agreed, or until, gave ${refused(agreed)}, not true or false`);
      return agreed as boolean;
    });
  }

  /** The dialogue with one turn more, and with what the environment says then; within a round it says nothing. */
  take(turns: readonly Turn[], turn: Turn): readonly Turn[] {
    const taken = [...turns, turn];
    const observed = isMidRound(turn) ? [] : this.observe('respond', taken);
    return observed.length === 0 ? taken : [...turns, { ...turn, observed }];
  }

  /** As `take`, with a message that no policy sampled. */
  record(turns: readonly Turn[], floor: Floor, message: string): readonly Turn[] {
    const parent = turns.at(-1)?.id ?? ('recorded' as NodeId);
    return this.take(turns, {
      id: childId(parent, 0),
      parent,
      speaker: floor.speaker,
      tokenIds: [],
      logprobs: [],
      finish: 'stop',
      policyHash: 'recorded' as PolicyHash,
      seed: 0,
      provenance: 'recorded',
      promptTokens: 0,
      ...mannerOf(this.#scenario, floor, message),
    });
  }

  /** Who speaks in the round after these turns. */
  #floors(turns: readonly Turn[]): readonly Floor[] {
    const given = this.#asked(turns, (dialogue) => this.#scenario.protocol.next(turns, dialogue));
    const speakers = (Array.isArray(given) ? given : [given]).map((speaker) =>
      typeof speaker === 'object' && speaker !== null ? speaker : { speaker },
    );
    const fail = (problem: string): never => {
      throw new Error(`Protocol gave turn ${turns.length} ${problem}`);
    };
    if (isThenable(given)) fail(`to ${refused(given)}, not to a role.`);
    for (const { speaker } of speakers)
      if (!Object.hasOwn(this.#scenario.roles, speaker)) fail(`to "${speaker}", which is not a role.`);
    const round = speakers.map(({ speaker }) => speaker);
    if (round.length === 0) fail('to nobody.');
    if (new Set(round).size < round.length) fail(`to ${round.join(', ')} at once, one of them twice.`);
    return speakers.map(({ speaker, to }) => ({
      speaker,
      ...this.#recipients(to, (problem) => fail(`of ${speaker} to ${problem}.`)),
      ...(round.length > 1 && { round }),
    }));
  }

  #asked<Result>(turns: readonly Turn[], ask: (dialogue: Dialogue) => Result): Result {
    try {
      return ask({ task: this.#task, turns });
    } catch (error) {
      throw new Error(`Protocol failed at turn ${turns.length}: ${messageOf(error)}`, { cause: error });
    }
  }

  /** What the environment says; [] for nothing. */
  protected observe(by: 'open' | 'respond', turns: readonly Turn[]): Observation[] {
    const fail = (problem: string, cause?: unknown): never => {
      const when = by === 'open' ? '' : ` after turn ${turns.length - 1}`;
      throw new Error(`environment.${by}${when} ${problem}`, { cause });
    };
    let said: Said;
    try {
      said = this.#scenario.environment?.[by]?.({ task: this.#task, turns });
    } catch (error) {
      return fail(`threw: ${messageOf(error)}`, error);
    }
    const all = Array.isArray(said) ? said : said === null || said === undefined ? [] : [said];
    return all.map((one) => {
      const { text, to } = typeof one === 'string' ? { text: one, to: undefined } : Object(one);
      if (typeof text !== 'string' || text === '')
        fail(`gave ${isThenable(one) ? refused(one) : JSON.stringify(one)}, which is no text.`);
      return { text, ...this.#recipients(to, (problem) => fail(`spoke to ${problem}.`)) };
    });
  }

  #recipients(to: Recipients | undefined, fail: (problem: string) => never): Pick<Turn, 'to'> {
    if (to === undefined || to === 'all') return {};
    if (!Array.isArray(to)) return fail(`${JSON.stringify(to)}, which is no list of roles`);
    for (const role of to)
      if (!Object.hasOwn(this.#scenario.roles, role)) fail(`"${role}", which is not a role`);
    return { to: [...to] };
  }
}

/** A message of the one who has the floor, as it becomes a turn: its private notes apart, under its speaker's name. */
export function mannerOf(
  { roles, names = Object.keys(roles).length > 2, notes }: Scenario,
  { speaker, to, round }: Floor,
  message: string,
): Pick<Turn, 'text' | 'written' | 'name' | 'to' | 'round'> {
  const text = notes === undefined ? message : withoutNotes(message, notes);
  return {
    text,
    ...(text !== message && { written: message }),
    ...(names && { name: shownName(roles, speaker) }),
    ...(to !== undefined && { to }),
    ...(round !== undefined && { round }),
  };
}

/** A message without its private notes. Notes that were not closed reach to its end, and such as were not opened begin with it. */
function withoutNotes(message: string, tag: string): string {
  const parts = message.split(`</${tag}>`);
  const heard = parts.map((part, index) => {
    const start = part.indexOf(`<${tag}>`);
    if (start >= 0) return part.slice(0, start);
    return index < parts.length - 1 ? '' : part;
  });
  return parts.length === 1 && heard[0] === message ? message : heard.join('').trim();
}
