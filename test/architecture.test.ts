// The architecture, read from the import statements: every edge points to the left, and the world is reached
// only through the folders that own it.
import { readdirSync, readFileSync } from 'node:fs';
import { posix } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { placeOf, writtenFaults } from '../tools/mutation/faults.ts';

/** The arrows of the picture in ARCHITECTURE.md: from each folder to those that it is drawn to import. */
function arrowsOf(document: string): Map<string, Set<string>> {
  const picture = /^## The picture$[\s\S]*?^```$([\s\S]*?)^```$/m.exec(document)![1]!;
  const arrows = new Map<string, Set<string>>();
  for (const line of picture.split('\n').filter((line) => line.includes('←'))) {
    const stations = line.split('←').map((station) => station.trim().split(/,\s*/));
    for (const [place, importers] of stations.entries()) {
      for (const importer of importers) {
        const known = arrows.get(importer) ?? new Set();
        for (const imported of stations[place - 1] ?? []) known.add(imported);
        arrows.set(importer, known);
      }
    }
  }
  return arrows;
}

/** All that the arrows lead to from a folder. */
function reach(arrows: ReadonlyMap<string, ReadonlySet<string>>, folder: string): Set<string> {
  const reached = new Set<string>();
  const queue = [...(arrows.get(folder) ?? [])];
  for (let next = queue.pop(); next !== undefined; next = queue.pop()) {
    if (reached.has(next)) continue;
    reached.add(next);
    queue.push(...(arrows.get(next) ?? []));
  }
  return reached;
}

const arrows = arrowsOf(readFileSync(new URL('../ARCHITECTURE.md', import.meta.url), 'utf8'));
/** What each folder of src/ may import besides itself; `.` stands for the files of src/ itself. */
const below: Record<string, readonly string[]> = Object.fromEntries(
  [...arrows.keys()].map((folder) => [folder, [...reach(arrows, folder)]]),
);
below['.'] = Object.keys(below);
/** Parts of a folder that are held to less than the folder. */
const belowPart: Record<string, readonly string[]> = { 'models/scripted': ['domain'] };

/** Packages, or Node's own modules, that only these folders may import. */
const owners: readonly [RegExp, readonly string[]][] = [
  [/^@tensorflow\//, ['tensor']],
  [/^koffi$/, ['tensor']],
  [/^@huggingface\//, ['models']],
  [/^xstate(\/|$)/, ['machines', 'actors', 'run']],
  [/^rxjs(\/|$)/, ['actors', 'rollouts', 'run', 'viewer', 'cli']],
  [/^(commander|cli-progress)$/, ['cli']],
  [/^fastest-levenshtein$/, ['domain', 'search']],
  [/^(preact|@preact\/|esbuild$)/, ['viewer']],
  [/^node:crypto$/, ['domain']],
  [
    /^node:(?!crypto$)/,
    [
      'scenario',
      'tensor',
      'models',
      'training',
      'workers',
      'store',
      'reading',
      'warmup',
      'run',
      'viewer',
      'cli',
    ],
  ],
];

/** Files of one circle of imports, for each circle (Tarjan, 1972). */
function circlesOf(graph: ReadonlyMap<string, readonly string[]>): string[][] {
  const order = new Map<string, number>();
  const low = new Map<string, number>();
  const path: string[] = [];
  const circles: string[][] = [];
  const visit = (file: string): void => {
    order.set(file, order.size);
    low.set(file, order.get(file)!);
    path.push(file);
    for (const next of graph.get(file) ?? []) {
      if (!order.has(next)) visit(next);
      if (path.includes(next)) low.set(file, Math.min(low.get(file)!, low.get(next)!));
    }
    if (low.get(file) !== order.get(file)) return;
    const circle = path.splice(path.indexOf(file));
    if (circle.length > 1 || graph.get(file)?.includes(file)) circles.push(circle.sort());
  };
  for (const file of graph.keys()) if (!order.has(file)) visit(file);
  return circles;
}

const folderOf = (path: string) => (path.includes('/') ? path.split('/')[0]! : '.');

/** Every module that a source names in an import or export, dynamic ones included. */
function importsOf(source: string): string[] {
  // Comments and templates may quote code.
  const code = source.replaceAll(/\/\*[\s\S]*?\*\/|^\s*\/\/.*$|`(?:\\.|[^`\\])*`/gm, '``');
  const statements = /(?:^|[;}=\s])(?:import|export|require)\b(?:[^'";]*?\bfrom)?\s*\(?\s*['"]([^'"]+)['"]/g;
  return [...code.matchAll(statements)].map((match) => match[1]!);
}

/** What is wrong with the imports of a file; `path` is relative to src/. */
function problemsOf(path: string, source: string): string[] {
  const folder = folderOf(path);
  const part = Object.keys(belowPart).find((prefix) => path.startsWith(`${prefix}/`));
  const allowed = part === undefined ? [folder, ...(below[folder] ?? [])] : belowPart[part]!;
  return importsOf(source).flatMap((specifier) => {
    if (!specifier.startsWith('.')) {
      if (specifier === 'optima-actors') return [`${path} imports the package by its own name`];
      const owner = owners.find(([pattern]) => pattern.test(specifier));
      const isFree = owner === undefined || owner[1].includes(folder);
      return isFree ? [] : [`${path} imports ${specifier}, which belongs to ${owner[1].join(', ')}`];
    }
    const target = posix.normalize(posix.join(posix.dirname(path), specifier));
    if (!/\.(tsx?|cjs)$/.test(specifier)) return [`${path} imports ${specifier} without its ending`];
    const isInside = part !== undefined && target.startsWith(`${part}/`);
    return isInside || allowed.includes(folderOf(target)) ? [] : [`${path} imports src/${target}`];
  });
}

const root = new URL('../src/', import.meta.url);
const sources = readdirSync(root, { recursive: true, encoding: 'utf8' })
  .map((path) => path.replaceAll('\\', '/'))
  .filter((path) => /\.c?[jt]sx?$/.test(path))
  .sort()
  .map((path) => ({ path, source: readFileSync(new URL(path, root), 'utf8') }));

test('the picture shows every folder of src/ and no other', () => {
  const folders = new Set(sources.map(({ path }) => folderOf(path)));
  folders.delete('.');
  assert.equal([...folders].sort(), [...arrows.keys()].sort());
});

test('no import points to the right, and every package is imported where it belongs', () => {
  assert.equal(
    sources.flatMap(({ path, source }) => problemsOf(path, source)),
    [],
  );
});

/** The files of src/ that a file imports, types included. */
const targetsOf = (path: string, source: string): string[] =>
  importsOf(source)
    .filter((specifier) => specifier.startsWith('.'))
    .map((specifier) => posix.normalize(posix.join(posix.dirname(path), specifier)));

test('no files import each other in a circle', () => {
  const graph = new Map(sources.map(({ path, source }) => [path, targetsOf(path, source)]));
  assert.equal(circlesOf(graph), []);
  assert.ok([...graph.values()].flat().length > 300);
});

test('a circle is found', () => {
  const graph = { a: ['b'], b: ['c', 'd'], c: ['a'], d: ['e'], e: [], f: ['f'] };
  assert.equal(circlesOf(new Map(Object.entries(graph))), [['a', 'b', 'c'], ['f']]);
});

test('every arrow of the picture is an import, and none is drawn that the others imply', () => {
  const edges = new Set(
    sources.flatMap(({ path, source }) =>
      targetsOf(path, source).map((target) => `${folderOf(path)} → ${folderOf(target)}`),
    ),
  );
  for (const [folder, drawn] of arrows) {
    for (const target of drawn) {
      assert.ok(edges.has(`${folder} → ${target}`), `src/${folder} does not import src/${target}`);
      const others = [...drawn].filter((other) => other !== target);
      const implied = others.some((other) => reach(arrows, other).has(target));
      assert.not(implied, `${folder} → ${target} is implied`);
    }
  }
});

test('chance and time have one source each', () => {
  // check/tasks.ts listens for who asks.
  const owners = ['domain/clock.ts', 'domain/rng.ts', 'check/tasks.ts'];
  const mayAsk = (path: string) =>
    owners.includes(path) || path.startsWith('cli/') || path.startsWith('viewer/client/');
  const asks = /\bMath\.random\b|\bDate\.now\b|\bnew Date\(\)|\bperformance\.now\b/;
  assert.equal(
    sources.filter(({ path, source }) => !mayAsk(path) && asks.test(source)).map(({ path }) => path),
    [],
  );
});

test('every file begins by saying what it is', () => {
  assert.equal(
    sources.filter(({ source }) => !/^(#!.*\n)?\/\/ \S/.test(source)).map(({ path }) => path),
    [],
  );
});

test('every written fault of the mutation run stands in one place', () => {
  const texts = new Map(sources.map(({ path, source }) => [path, source]));
  for (const [original] of writtenFaults()) placeOf(original, texts);
  assert.throws(() => placeOf('const', texts), 'does not stand in exactly one place');
  assert.throws(() => placeOf('no such text', texts), 'does not stand in exactly one place');
});

test('the reader of imports sees each kind of statement', () => {
  const source = `
    // import './in-a-comment.ts';
    import './bare.ts';
    import a, { type B } from "./double.ts";
    import {
      c,
    } from './lines.ts';
    export * from './star.ts';
    export type { D } from './type.ts';
    const e = await import('./dynamic.ts');
    const f = text.from('./not-an-import.ts');
    const g = \`
    import './in-a-template.ts';
    \`;
  `;
  const names = ['bare', 'double', 'lines', 'star', 'type', 'dynamic'];
  assert.equal(
    importsOf(source),
    names.map((name) => `./${name}.ts`),
  );
});

test('wrong edges are found', () => {
  const cases: [string, string, string][] = [
    ['domain/a.ts', '../tensor/index.ts', 'domain/a.ts imports src/tensor/index.ts'],
    ['machines/a.ts', '../actors/bus.ts', 'machines/a.ts imports src/actors/bus.ts'],
    ['actors/a.ts', '../models/scripted/index.ts', 'actors/a.ts imports src/models/scripted/index.ts'],
    ['models/scripted/a.ts', '../llama/index.ts', 'models/scripted/a.ts imports src/models/llama/index.ts'],
    ['run/a.ts', '../cli/main.ts', 'run/a.ts imports src/cli/main.ts'],
    ['scenario/a.ts', '../index.ts', 'scenario/a.ts imports src/index.ts'],
    ['models/a.ts', '@tensorflow/tfjs', 'models/a.ts imports @tensorflow/tfjs, which belongs to tensor'],
    ['cli/a.ts', '../run/index', 'cli/a.ts imports ../run/index without its ending'],
  ];
  for (const [path, specifier, problem] of cases) {
    assert.equal(problemsOf(path, `import { x } from '${specifier}';`), [problem]);
    assert.equal(problemsOf(path, `const x = require('${specifier}');`), [problem]);
  }
  assert.equal(problemsOf('machines/a.ts', "import type { x } from 'node:fs';").length, 1);
  assert.equal(problemsOf('run/a.ts', "import { x } from '../models/llama/index.ts';"), []);
  assert.equal(problemsOf('store/a.ts', "import { x } from '../run/train.ts';").length, 1);
  assert.equal(problemsOf('models/scripted/a.ts', "import { x } from './b.ts';"), []);
});

test.run();
