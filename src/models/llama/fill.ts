// How full the batches of a decoding loop were over time.

/** What is known of the steps so far. */
export interface Fill {
  readonly steps: number;
  /** Of all steps. */
  readonly rows: number;
  /** Mean rows of equally many steps each, in order; the last one may stand for fewer. */
  readonly parts: readonly number[];
}

/** Parts that are kept apart; beyond, two become one. */
const mostParts = 64;

/** Takes in a loop of any length in constant memory. */
export class FillTrace implements Fill {
  steps = 0;
  rows = 0;
  #sums: number[] = [];
  #stepsInPart = 1;

  get parts(): readonly number[] {
    return this.#sums.map(
      (sum, part) => sum / Math.min(this.#stepsInPart, this.steps - part * this.#stepsInPart),
    );
  }

  /** A step of so many rows. */
  add(rows: number): void {
    if (this.steps === mostParts * this.#stepsInPart) {
      this.#sums = this.#sums.flatMap((sum, part) => (part % 2 === 0 ? [sum + this.#sums[part + 1]!] : []));
      this.#stepsInPart *= 2;
    }
    const part = Math.floor(this.steps / this.#stepsInPart);
    this.#sums[part] = (this.#sums[part] ?? 0) + rows;
    this.steps++;
    this.rows += rows;
  }
}
