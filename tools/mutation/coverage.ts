// Which lines of which source files a test runs, from V8's own coverage of the test and of all its child processes
// and worker threads. What they run is the source with spaces in place of its types (`test/support/types-stripped.mjs`).
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

/** Lines (from 1) by source file (relative to the repository). */
export type CoveredLines = Map<string, Set<number>>;

interface Report {
  readonly result: readonly {
    readonly url: string;
    readonly functions: readonly {
      readonly ranges: readonly {
        readonly startOffset: number;
        readonly endOffset: number;
        readonly count: number;
      }[];
    }[];
  }[];
}

/** Reads what `NODE_V8_COVERAGE=folder` left of a test that ran in the repository at `root`. */
export function readCoverage(folder: string, root: string): CoveredLines {
  const covered: CoveredLines = new Map();
  for (const name of fs.readdirSync(folder)) {
    for (const { url, functions } of parse(fs.readFileSync(path.join(folder, name), 'utf8')).result) {
      if (!url.startsWith('file:')) continue;
      const file = path.relative(root, fileURLToPath(url)).replaceAll('\\', '/');
      if (!/^src\/.*\.ts$/.test(file)) continue;
      const lines = covered.get(file) ?? new Set();
      covered.set(file, lines);
      const source = fs.readFileSync(path.join(root, file), 'utf8');
      const runs = countsOf(functions, source.length);
      let line = 1;
      for (let offset = 0; offset < source.length; offset++) {
        if (source[offset] === '\n') line++;
        else if (runs[offset] && source[offset] !== ' ') lines.add(line);
      }
    }
  }
  return covered;
}

/** A process that a test kills, or gives no room for files, leaves a part of its report: that counts for nothing. */
function parse(text: string): Report {
  try {
    return JSON.parse(text);
  } catch (error) {
    if (error instanceof SyntaxError) return { result: [] };
    throw error;
  }
}

/** Whether the character at each offset has run: inner ranges come after outer ones and overrule them. */
function countsOf(functions: Report['result'][number]['functions'], length: number): Uint8Array {
  const runs = new Uint8Array(length);
  const ranges = functions.flatMap((one) => one.ranges);
  const widestFirst = ranges.toSorted((a, b) => b.endOffset - b.startOffset - (a.endOffset - a.startOffset));
  for (const { startOffset, endOffset, count } of widestFirst)
    runs.fill(count > 0 ? 1 : 0, startOffset, endOffset);
  return runs;
}
