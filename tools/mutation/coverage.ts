// Which lines of which source files a test runs, from V8's own coverage of the test and of all its child processes
// and worker threads.
import fs from 'node:fs';
import { SourceMap, type SourceMapPayload } from 'node:module';
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
  readonly 'source-map-cache'?: Readonly<
    Record<string, { readonly lineLengths: readonly number[]; readonly data: SourceMapPayload | null }>
  >;
}

/** Reads what `NODE_V8_COVERAGE=folder` left of a test that ran in the repository at `root`. */
export function readCoverage(folder: string, root: string): CoveredLines {
  const covered: CoveredLines = new Map();
  for (const name of fs.readdirSync(folder)) {
    const report = parse(fs.readFileSync(path.join(folder, name), 'utf8'));
    const maps = report['source-map-cache'] ?? {};
    for (const { url, functions } of report.result) {
      const map = maps[url];
      if (!map?.data || !url.startsWith('file:')) continue;
      const file = path.relative(root, fileURLToPath(url)).replaceAll('\\', '/');
      if (!file.startsWith('src/')) continue;
      const lines = covered.get(file) ?? new Set();
      covered.set(file, lines);
      const runs = countsOf(functions, map.lineLengths);
      for (const [offset, line] of linesOf(url, map.lineLengths, map.data)) if (runs[offset]) lines.add(line);
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
function countsOf(
  functions: Report['result'][number]['functions'],
  lineLengths: readonly number[],
): Uint8Array {
  const runs = new Uint8Array(lineLengths.reduce((sum, length) => sum + length + 1, 0));
  const ranges = functions.flatMap((one) => one.ranges);
  const widestFirst = ranges.toSorted((a, b) => b.endOffset - b.startOffset - (a.endOffset - a.startOffset));
  for (const { startOffset, endOffset, count } of widestFirst)
    runs.fill(count > 0 ? 1 : 0, startOffset, endOffset);
  return runs;
}

const known = new Map<string, [offset: number, line: number][]>();

/** For each place of the transpiled code that the source map knows, its line in the source. */
function linesOf(url: string, lineLengths: readonly number[], data: SourceMapPayload): [number, number][] {
  const found = known.get(url);
  if (found !== undefined) return found;
  const map = new SourceMap(data);
  const places: [number, number][] = [];
  let start = 0;
  for (const [row, length] of lineLengths.entries()) {
    for (let column = 0; column < length; column++) {
      const entry = map.findEntry(row, column);
      if (!('originalLine' in entry) || entry.generatedLine !== row) continue;
      if (entry.generatedColumn === column) places.push([start + column, entry.originalLine + 1]);
    }
    start += length + 1;
  }
  known.set(url, places);
  return places;
}
