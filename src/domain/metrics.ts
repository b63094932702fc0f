// What a set of dialogues amounts to: the figures every table shows. Pure arithmetic.
import type { Rng } from './rng.ts';
import { messageTokens, type Trajectory } from './transcript.ts';

/**
 * Figures over the dialogues that have a score: a verdict, or in an evaluation 0 where a model that is evaluated refused to
 * speak. Of the latter counts what was said: it was paid for. All others that failed are counted beside them.
 */
export interface TeamMetrics {
  /** Mean task score, in [0, 1]: F1 for information exchange, exact match for debate. */
  readonly taskScore: number;
  /** 95 % bootstrap interval of `taskScore`. */
  readonly taskScoreInterval: readonly [number, number];
  /** Share of dialogues whose answer is one of the right ones. */
  readonly exactMatch: number;
  /** Mean message tokens per dialogue. */
  readonly tokens: number;
  /** Half of the dialogues have no more tokens than this; 0 without dialogues. */
  readonly medianTokens: number;
  /** Nor have 95 of a hundred more than this: where a few dialogues go round in circles, the mean alone hides it. */
  readonly p95Tokens: number;
  /** Tokens of the shortest dialogue whose answer is one of the right ones; null without any. */
  readonly shortestRight: number | null;
  /** Share of dialogues that ended in agreement. */
  readonly agreement: number;
  /** Mean messages per dialogue. */
  readonly turns: number;
  /** Dialogues with a score. */
  readonly n: number;
  /** Dialogues without a verdict. */
  readonly failed: number;
  /** Of the failed those that have a score, 0; absent: none. */
  readonly refused?: number | undefined;
  /** Mean tokens per dialogue of what the environment said, none of them in `tokens`; absent: it said nothing, or none are known. */
  readonly environmentTokens?: number;
  /** Of `tokens` those of private notes, which no partner read; absent as above. */
  readonly noteTokens?: number;
  /** Mean score of each seat; absent where the metric scores the team alone. */
  readonly seats?: Readonly<Record<string, number>> | undefined;
}

/** How many dialogues were held, with a score or without. */
export const dialoguesIn = ({
  n,
  failed,
  refused = 0,
}: Pick<TeamMetrics, 'n' | 'failed' | 'refused'>): number => n + failed - refused;

/** The arithmetic mean; 0 for an empty list. */
export function mean(values: readonly number[]): number {
  return values.length === 0 ? 0 : values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** The least value that at least `share` percent of the values do not exceed. */
export function percentile(values: readonly number[], share: number): number {
  const sorted = Float64Array.from(values).sort();
  return sorted[Math.max(0, Math.ceil((share / 100) * sorted.length) - 1)]!;
}

/** Sample standard deviation (n − 1); 0 for fewer than two values. */
export function standardDeviation(values: readonly number[]): number {
  if (values.length < 2) return 0;
  const centre = mean(values);
  const squares = values.reduce((sum, value) => sum + (value - centre) ** 2, 0);
  return Math.sqrt(squares / (values.length - 1));
}

/**
 * Percentile bootstrap interval of the mean (Efron, 1979): the middle `level` of the means of `resamples`
 * samples drawn with replacement. An empty list gives [0, 0].
 */
export function bootstrapInterval(
  values: readonly number[],
  rng: Rng,
  { resamples = 1000, level = 0.95 } = {},
): readonly [number, number] {
  if (values.length === 0) return [0, 0];
  const means = new Float64Array(resamples);
  for (let sample = 0; sample < resamples; sample++) {
    let sum = 0;
    for (let draw = 0; draw < values.length; draw++) sum += values[rng.int(values.length)]!;
    means[sample] = sum / values.length;
  }
  means.sort();
  const tail = (1 - level) / 2;
  const at = (quantile: number) => means[Math.round(quantile * (resamples - 1))]!;
  return [at(tail), at(1 - tail)];
}

/** How many failed, and of how many of these the score is 0, in words. */
export const failedOf = ({ failed, refused = 0 }: Pick<TeamMetrics, 'failed' | 'refused'>): string =>
  refused === 0 ? String(failed) : `${failed} (${refused} of them with score 0)`;

/** How many tokens a text has. */
export type CountTokens = (text: string) => number;

/** Takes in dialogues one by one and keeps of each what the figures need: a few numbers. */
export class TeamFigures {
  readonly #scores: number[] = [];
  readonly #tokens: number[] = [];
  readonly #seats = new Map<string, number[]>();
  readonly #sums = { exactMatch: 0, agreement: 0, turns: 0 };
  #shortestRight: number | null = null;
  readonly #countTokens: CountTokens | null;
  readonly #evaluated: readonly string[];
  /** Null while there were none. */
  #environmentTokens: number | null = null;
  #noteTokens: number | null = null;
  /** Dialogues without a verdict. */
  failed = 0;
  /** Those of them that have a score, 0. */
  refused = 0;
  /** Why the first of them failed. */
  firstFailure: string | null = null;

  /**
   * What nobody sampled has no token ids: `countTokens` says how many it has. In an evaluation `evaluated` are the roles whose
   * models it is about: what one of them refuses is held against it.
   */
  constructor(countTokens: CountTokens | null = null, evaluated: readonly string[] = []) {
    this.#countTokens = countTokens;
    this.#evaluated = evaluated;
  }

  /** Those that have a score. */
  get scored(): number {
    return this.#scores.length;
  }

  /** Dialogues that were added. */
  get dialogues(): number {
    return this.scored + this.failed - this.refused;
  }

  add(dialogue: Trajectory): void {
    const { verdict, turns, outcome, failure, refusedBy } = dialogue;
    if (verdict === null) {
      this.failed++;
      this.firstFailure ??= failure;
      if (refusedBy === undefined || !this.#evaluated.includes(refusedBy)) return;
      this.refused++;
    }
    this.#scores.push(verdict?.taskScore ?? 0);
    for (const [seat, score] of Object.entries(verdict?.seats ?? {})) {
      const scores = this.#seats.get(seat);
      if (scores === undefined) this.#seats.set(seat, [score]);
      else scores.push(score);
    }
    const tokens = messageTokens(turns);
    this.#tokens.push(tokens);
    if (verdict?.exactMatch) this.#shortestRight = Math.min(tokens, this.#shortestRight ?? tokens);
    this.#sums.exactMatch += Number(verdict?.exactMatch ?? false);
    this.#sums.agreement += Number(outcome === 'agreed');
    this.#sums.turns += turns.length;
    if (this.#countTokens !== null) this.#countUnspoken(dialogue, this.#countTokens);
  }

  #countUnspoken({ turns, opening = [] }: Trajectory, countTokens: CountTokens): void {
    for (const { text } of [...opening, ...turns.flatMap(({ observed = [] }) => observed)])
      this.#environmentTokens = (this.#environmentTokens ?? 0) + countTokens(text);
    for (const { text, written, tokenIds, finish } of turns) {
      if (written === undefined) continue;
      const own = tokenIds.length - Number(finish === 'stop');
      this.#noteTokens = (this.#noteTokens ?? 0) + Math.max(0, own - countTokens(text));
    }
  }

  /** What was refused scores 0 for every seat. */
  #meanOfSeat(scores: readonly number[]): number {
    return mean([...scores, ...Array.from({ length: this.refused }, () => 0)]);
  }

  /** How many they are and how many failed, in words. */
  summary(): string {
    const failed = this.failed > 0 ? `, ${failedOf(this)} failed, the first with: ${this.firstFailure}` : '';
    return `${this.dialogues} dialogues${failed}`;
  }

  /** Over all that was added; `rng` draws the bootstrap samples. */
  metrics(rng: Rng): TeamMetrics {
    const n = this.#scores.length;
    const share = (sum: number) => (n === 0 ? 0 : sum / n);
    return {
      taskScore: mean(this.#scores),
      taskScoreInterval: bootstrapInterval(this.#scores, rng),
      exactMatch: share(this.#sums.exactMatch),
      tokens: mean(this.#tokens),
      medianTokens: n === 0 ? 0 : percentile(this.#tokens, 50),
      p95Tokens: n === 0 ? 0 : percentile(this.#tokens, 95),
      shortestRight: this.#shortestRight,
      agreement: share(this.#sums.agreement),
      turns: share(this.#sums.turns),
      n,
      failed: this.failed,
      ...(this.refused > 0 && { refused: this.refused }),
      ...(this.#environmentTokens !== null && { environmentTokens: share(this.#environmentTokens) }),
      ...(this.#noteTokens !== null && { noteTokens: share(this.#noteTokens) }),
      ...(this.#seats.size > 0 && {
        seats: Object.fromEntries([...this.#seats].map(([seat, scores]) => [seat, this.#meanOfSeat(scores)])),
      }),
    };
  }
}
