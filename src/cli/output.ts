// What the commands print: tables and lines for people, one JSON object a line for machines, and progress as
// bars on a terminal or plain lines elsewhere. Results go to stdout, progress to stderr. Whatever is printed goes through
// `spelt` or `jsonOf` here: scenarios, models and files may say anything, also what would command a terminal.
import { once } from 'node:events';
import type { SingleBar } from 'cli-progress';
import { cleaningUp, messageOf, OptimaError } from '../domain/errors.ts';
import type { Progress } from '../domain/progress.ts';
import { endingCode, isOutputLost } from './interrupt.ts';

export interface JsonFlag {
  readonly json?: boolean;
}

export interface Output {
  /** Text for people, of one line or several; nothing under `--json`. What is quoted in it goes through `line` or `quoted`. */
  say(text?: string): void;
  /** A remark on stderr, under `--json` too. */
  remark(text: string): void;
  /** An object for machines; nothing without `--json`. */
  emit(object: { readonly event: string } & Record<string, unknown>): void;
  /** What the command was asked for, as lines on stdout with `--json` and without; resolves when it takes more, or never will. */
  pour(lines: string): Promise<void>;
  readonly progress: Progress;
}

/** Least time between two lines of progress. */
const lineIntervalMs = 10_000;

/** Runs a command's `work` with its output; a bar that is still on the screen when it fails is taken away. */
export async function withOutput(
  { json = false }: JsonFlag,
  work: (output: Output) => Promise<void>,
): Promise<void> {
  const print = (line: string) => process.stdout.write(`${line}\n`);
  const emit: Output['emit'] = (object) => {
    if (json) print(jsonOf(object));
  };
  const stages = json ? jsonStages(emit) : process.stderr.isTTY ? await barStages() : lineStages();
  const output: Output = {
    say: (text = '') => {
      if (!json) stages.aside(() => print(spelt(text)));
    },
    remark: (text) => stages.aside(() => process.stderr.write(`${spelt(text)}\n`)),
    emit,
    pour: async (lines) => {
      // An output that is lost meanwhile ends the command by itself: see `loseOutput`.
      if (!process.stdout.write(lines)) await once(process.stdout, 'drain').catch(() => {});
    },
    progress: {
      begin: (name, total, unit) => stages.begin(line(name), total, line(unit)),
      advance: stages.advance,
      end: (result) => stages.end(line(result)),
      measured: (row) => emit(row),
    },
  };
  await cleaningUp(() => work(output), stages.close);
}

/** Control and format characters, which a reader does not see, spelt out; those that break a line, and joiners of letters, stay. */
const spelt = (text: string) =>
  text.replaceAll(
    /(?![\n\t\u200c\u200d])[\p{C}\u2028\u2029]/gu,
    (character) => `\\u{${character.codePointAt(0)!.toString(16)}}`,
  );

/** As JSON, which would leave some of these characters as they are. */
export const jsonOf = (object: object): string =>
  JSON.stringify(object).replaceAll(/[\p{Cc}\p{Cf}\u2028\u2029]/gu, (character) =>
    Array.from(
      { length: character.length },
      (_, i) => `\\u${character.charCodeAt(i).toString(16).padStart(4, '0')}`,
    ).join(''),
  );

/** So many of a thing. */
export const counted = (n: number, noun: string): string => `${n} ${noun}${n === 1 ? '' : 's'}`;

/** Seconds in words. */
export function spanOf(seconds: number): string {
  if (seconds < 100) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  return seconds < 6000 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

/** A text of others as one line. */
export const line = (text: string): string => spelt(text.replaceAll(/\s*\n\s*/g, ' '));

/** A text of others with its further lines indented: none of them passes for a line of ours. */
export const quoted = (text: string): string => text.replaceAll('\n', '\n  ') || '(empty)';

interface Stages extends Omit<Progress, 'measured'> {
  /** Prints something else, out of the bar's way. */
  aside(print: () => void): void;
  /** Leaves the terminal as it was. */
  close(): void;
}

function jsonStages(emit: Output['emit']): Stages {
  return timedStages({
    begin: ({ name, total, unit }) => emit({ event: 'stage', stage: name, state: 'begun', total, unit }),
    advance: ({ name, total }, done) => emit({ event: 'stage', stage: name, state: 'running', done, total }),
    end: ({ name, from }, result) =>
      emit({ event: 'stage', stage: name, state: 'done', result, seconds: secondsSince(from) }),
  });
}

function lineStages(): Stages {
  const print = (line: string) => process.stderr.write(`${line}\n`);
  return timedStages({
    begin: () => {},
    advance: ({ name, total, unit, from }, done) => {
      const perSecond = done / secondsSince(from);
      const pace = `${perSecond.toFixed(1)}/s, ${Math.round((total - done) / perSecond)} s left`;
      print(`${name}: ${done} of ${total} ${unit}${done === 0 ? '' : ` (${pace})`}`);
    },
    end: ({ name, from }, result) => print(`${name}: ${result} (${secondsSince(from).toFixed(1)} s)`),
  });
}

interface Stage {
  readonly name: string;
  readonly total: number;
  readonly unit: string;
  /** When it began, ms. */
  readonly from: number;
}

/** Stages without a bar: `advance` comes seldom enough to be a line each time. */
function timedStages(show: {
  begin(stage: Stage): void;
  advance(stage: Stage, done: number): void;
  end(stage: Stage, result: string): void;
}): Stages {
  let stage: Stage = { name: '', total: 0, unit: '', from: 0 };
  let shown = 0;
  return {
    begin: (name, total, unit) => {
      shown = Date.now();
      stage = { name, total, unit, from: shown };
      show.begin(stage);
    },
    advance: (done) => {
      if (Date.now() - shown < lineIntervalMs || done >= stage.total) return;
      shown = Date.now();
      show.advance(stage, done);
    },
    end: (result) => show.end(stage, result),
    aside: (print) => print(),
    close: () => {},
  };
}

async function barStages(): Promise<Stages> {
  const { default: progress } = await import('cli-progress');
  let bar: SingleBar | null = null;
  let stage: Stage = { name: '', total: 0, unit: '', from: 0 };
  let shown = 0;
  const payload = () => {
    const perSecond = shown / secondsSince(stage.from);
    const left = shown === 0 ? '–' : `${Math.round((stage.total - shown) / perSecond)} s`;
    return { rate: shown === 0 ? '–' : perSecond.toFixed(1), left };
  };
  const draw = () => {
    bar = new progress.SingleBar({
      format: `${stage.name} {bar} {value}/{total} ${stage.unit} | {rate}/s | {left} left`,
      clearOnComplete: true,
      // The commands handle SIGINT themselves and finish the step under way.
      gracefulExit: false,
      // Otherwise a process that is killed leaves the terminal without line wrapping.
      linewrap: null,
      barsize: 24,
    });
    bar.start(stage.total, shown, payload());
  };
  const erase = () => {
    bar?.stop();
    bar = null;
  };
  return {
    begin: (name, total, unit) => {
      erase();
      stage = { name, total, unit, from: Date.now() };
      shown = 0;
      draw();
    },
    advance: (done) => {
      shown = done;
      bar?.update(done, payload());
    },
    end: (result) => {
      erase();
      process.stderr.write(`${stage.name}: ${result} (${secondsSince(stage.from).toFixed(1)} s)\n`);
    },
    // A bar is erased where it was begun, whatever was printed since: so it begins anew below.
    aside: (print) => {
      const active = bar !== null;
      erase();
      print();
      if (active) draw();
    },
    close: erase,
  };
}

const secondsSince = (fromMs: number) => Math.max(0.001, (Date.now() - fromMs) / 1000);

/**
 * Prints an error as `error: …` and `hint: …` on stderr, or under `--json` as an object on stdout, and returns
 * the exit code: 2 for wrong usage, for an interruption what belongs to it, else 1. That the work ended because nobody reads
 * the output is no news; how to go on may be. The stack trace comes with `OPTIMA_DEBUG=1`.
 */
export function reportError(error: unknown, json: boolean): number {
  const code = error instanceof OptimaError ? error.code : 'internal';
  const message = messageOf(error);
  const hint =
    error instanceof OptimaError
      ? error.hint
      : 'This is a fault of optima itself. Run again with OPTIMA_DEBUG=1 to see where.';
  const lost = isOutputLost();
  if (json && !lost) process.stdout.write(`${jsonOf({ event: 'error', code, message, hint })}\n`);
  else {
    if (!(lost && code === 'interrupted')) process.stderr.write(`error: ${line(message)}\n`);
    if (hint) process.stderr.write(`hint: ${line(hint)}\n`);
  }
  if (process.env.OPTIMA_DEBUG === '1' && error instanceof Error) {
    const { suppressed = [] } = error as { suppressed?: readonly unknown[] };
    for (const each of [error, error.cause, ...suppressed]) {
      if (each instanceof Error) process.stderr.write(`${spelt(String(each.stack))}\n`);
    }
  }
  return code === 'usage' ? 2 : code === 'interrupted' ? endingCode() : 1;
}

/** Columns padded to their widest cell; the first is left-aligned, the others to the right unless told otherwise. */
export function formatTable(
  rows: readonly (readonly string[])[],
  others: 'left' | 'right' = 'right',
): string {
  const cells = rows.map((row) => row.map(line));
  const widths = cells[0]!.map((_, column) => Math.max(...cells.map((row) => row[column]!.length)));
  const pad = (cell: string, column: number) =>
    column === 0 || others === 'left' ? cell.padEnd(widths[column]!) : cell.padStart(widths[column]!);
  return cells.map((row) => row.map(pad).join('  ').trimEnd()).join('\n');
}
