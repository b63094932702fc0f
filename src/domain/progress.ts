// What a run tells whoever watches it. The command line shows it as bars, lines or JSON; the library may
// pass its own.

export interface Progress {
  /** A stage of work begins: `total` units of it. */
  begin(stage: string, total: number, unit: string): void;
  /** `done` of the stage's units are done. */
  advance(done: number): void;
  /** The stage is done; `result` says in a few words what came of it. */
  end(result: string): void;
  /** A row of `metrics.jsonl`. */
  measured(row: MetricsRow): void;
}

/** Figures as they come in, and as `metrics.jsonl` keeps them. */
export type MetricsRow = Readonly<Record<string, unknown>> & {
  readonly event: 'evaluation' | 'iteration';
};

/** Says nothing. */
export const silent: Progress = { begin() {}, advance() {}, end() {}, measured() {} };
