// Finds, type-checks and imports a scenario file. Touches the disk as only the task sources do besides; not part of what
// scenario files import.
import { spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { readdir, stat, writeFile } from 'node:fs/promises';
import { createRequire, register } from 'node:module';
import { dirname, extname, isAbsolute, join, relative, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { cleaningUp, messageOf, nearest, OptimaError } from '../domain/errors.ts';
import { defineScenario } from './define.ts';
import { temporaryFolder } from './temporary.ts';
import type { Scenario } from './types.ts';

const packageFolder = fileURLToPath(new URL('../../', import.meta.url));
/** Sources in a clone, compiled modules where the package is installed. */
const codeEnding = extname(import.meta.url);
const packageEntry = new URL(`../index${codeEnding}`, import.meta.url).href;

/** A scenario and the file it came from. */
export interface LoadedScenario {
  /** With a variant's tasks its name is `scenario:variant`. */
  readonly scenario: Scenario;
  readonly file: string;
}

/** Waits for the import of a scenario's file. */
type Importing = (imported: Promise<LoadedScenario>) => Promise<LoadedScenario>;

/**
 * Loads the scenario named on the command line: a path to a file, or a name looked up in `./scenarios` and
 * then among the scenarios of this package; behind a colon, the name of one of its variants. A TypeScript file is
 * type-checked first. Throws `scenario.invalid` when there is no such file or variant or it does not export a scenario,
 * `scenario.types` with the first type error, `interrupted` where `signal` ends the check. `importing` is given the file's import,
 * which runs the author's code.
 */
export async function loadScenario(
  nameOrPath: string,
  signal?: AbortSignal,
  importing?: Importing,
): Promise<LoadedScenario> {
  const [, plain = nameOrPath, variant] = /^(.+):([^:\\/]*)$/.exec(nameOrPath) ?? [];
  const loaded = await loadFile(await findScenario(plain), signal, importing);
  return variant === undefined ? loaded : withVariant(loaded, variant);
}

/** What loads a scenario again that came from `file` under this name, which may say a variant. */
export const pathOf = (file: string, name: string): string =>
  name.includes(':') ? `${file}${name.slice(name.indexOf(':'))}` : file;

function withVariant({ scenario, file }: LoadedScenario, variant: string): LoadedScenario {
  const known = Object.keys(scenario.variants ?? {});
  if (!known.includes(variant)) {
    const guess = nearest(variant, known);
    const listed = known.length === 0 ? 'It has none.' : `Known: ${known.join(', ')}.`;
    throw new OptimaError('scenario.invalid', `Scenario "${scenario.name}" has no variant "${variant}".`, {
      hint: guess ? `Did you mean "${scenario.name}:${guess}"?` : listed,
    });
  }
  const tasks = scenario.variants![variant]!;
  return { scenario: { ...scenario, name: `${scenario.name}:${variant}`, tasks }, file };
}

async function loadFile(
  file: string,
  signal: AbortSignal | undefined,
  importing: Importing | undefined,
): Promise<LoadedScenario> {
  if (file.endsWith('ts')) {
    if (!checked.has(file)) await checkScenarioTypes([file], signal);
    await readTypeScript();
  }
  resolvePackageFrom(file);
  const imported = importScenario(file);
  return importing === undefined ? imported : importing(imported);
}

/** Whether Node takes a .ts file in this folder for an ES module: the nearest package.json says so. */
export function isModuleFolder(folder: string): boolean {
  const file = join(folder, 'package.json');
  if (!existsSync(file)) return dirname(folder) !== folder && isModuleFolder(dirname(folder));
  try {
    return JSON.parse(readFileSync(file, 'utf8')).type === 'module';
  } catch {
    return false; // Whatever is wrong with that file, it does not say so.
  }
}

/** The scenario as its file gives it when its modules are run anew; it is not type-checked again. */
export async function reloadScenario({ scenario, file }: LoadedScenario): Promise<LoadedScenario> {
  const loaded = await importScenario(file, '?again');
  const [, variant] = scenario.name.split(':');
  return variant === undefined ? loaded : withVariant(loaded, variant);
}

async function importScenario(file: string, query = ''): Promise<LoadedScenario> {
  const inFile = (error: OptimaError) =>
    new OptimaError(error.code, `${shown(file)}: ${error.message}`, { hint: error.hint, cause: error });
  let module: { default?: unknown };
  try {
    module = await import(pathToFileURL(file).href + query);
  } catch (error) {
    if (error instanceof OptimaError) throw error.code === 'scenario.invalid' ? inFile(error) : error;
    // Node's own words for a TypeScript file that is no module speak of a cycle, or of JavaScript's syntax.
    const isCommonJs = file.endsWith('.ts') && !isModuleFolder(dirname(file));
    const outside = isCommonJs || /Cannot find (module|package) 'optima-actors'/.test(messageOf(error));
    const reason = isCommonJs ? 'no package.json says that it is a module.' : messageOf(error);
    throw new OptimaError('scenario.invalid', `${shown(file)}: cannot be loaded: ${reason}`, {
      cause: error,
      hint: outside
        ? 'Name the file .mts, or put a package.json with "type": "module" beside it.'
        : undefined,
    });
  }
  if (typeof module.default !== 'object' || module.default === null) {
    throw new OptimaError('scenario.invalid', `${shown(file)}: has no default export.`, {
      hint: 'A scenario file ends in `export default defineScenario({ … })`.',
    });
  }
  try {
    return { scenario: defineScenario(module.default as Scenario), file };
  } catch (error) {
    throw error instanceof OptimaError ? inFile(error) : error;
  }
}

/** Names of the scenario files in `./scenarios` and in this package, with their paths. */
export async function listScenarios(): Promise<ReadonlyMap<string, string>> {
  const found = new Map<string, string>();
  for (const folder of [resolve('scenarios'), join(packageFolder, 'scenarios')]) {
    const entries = await readdir(folder).catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT' || error.code === 'ENOTDIR') return [];
      throw new OptimaError('io.read', `Cannot list ${folder}: ${messageOf(error)}.`);
    });
    for (const entry of entries.sort()) {
      const name = entry.replace(/\.m?ts$/, '');
      if (name !== entry && !found.has(name)) found.set(name, join(folder, entry));
    }
  }
  return found;
}

async function findScenario(nameOrPath: string): Promise<string> {
  if (/[\\/]|\.[cm]?[jt]s$/.test(nameOrPath)) {
    const file = resolve(nameOrPath);
    const exists = await stat(file).then(
      (entry) => entry.isFile(),
      () => false,
    );
    if (!exists) throw new OptimaError('scenario.invalid', `There is no scenario file ${nameOrPath}.`);
    return file;
  }
  const known = await listScenarios();
  const file = known.get(nameOrPath);
  if (file !== undefined) return file;
  const guess = nearest(nameOrPath, [...known.keys()]);
  throw new OptimaError('scenario.invalid', `There is no scenario "${nameOrPath}".`, {
    hint: guess
      ? `Did you mean "${guess}"?`
      : `Known: ${[...known.keys()].join(', ')}. Or give a file's path.`,
  });
}

/** Files whose types were found right. A process runs a module as it first read it: it need not be checked again. */
const checked = new Set<string>();

/** Takes the types of a file for right: it is the one with which a run of this version of the program began. */
export const trustTypes = (file: string): void => void checked.add(resolve(file));

/**
 * Type-checks scenario files of one project, and what they import; throws `scenario.types` with the first error, `interrupted` on abort:
 * the compiler, a process of its own, does not outlive it. Afterwards these are loaded without another check.
 */
export async function checkScenarioTypes(files: readonly string[], signal?: AbortSignal): Promise<void> {
  const folder = temporaryFolder('types');
  await cleaningUp(async () => {
    const config = join(folder.path, 'tsconfig.json');
    await writeFile(
      config,
      JSON.stringify({
        extends: join(packageFolder, 'tsconfig.json'),
        compilerOptions: {
          // A scenario may lie outside any package: read it as a module whatever is around it.
          module: 'preserve',
          moduleResolution: 'bundler',
          typeRoots: [join(packageFolder, 'node_modules', '@types'), join(packageFolder, '..', '@types')],
          // Without an ending: sources, or declarations beside compiled modules.
          paths: {
            'optima-actors': [fileURLToPath(new URL('../index', import.meta.url))],
            ...schemaPaths(files[0]!),
          },
        },
        include: [],
        files,
      }),
    );
    const require = createRequire(import.meta.url);
    const compiler = join(dirname(require.resolve('typescript/package.json')), 'bin', 'tsc');
    const output = await run([compiler, '--noEmit', '--pretty', 'false', '-p', config], signal);
    const lines = output.split('\n').filter(Boolean);
    if (lines.length === 0) {
      for (const file of files) checked.add(file);
      return;
    }
    const isError = (line: string) => /\): error TS\d+:/.test(line);
    const first = lines.findIndex(isError);
    if (first < 0) throw new OptimaError('scenario.types', `Type error in the scenario: ${lines[0]}`);
    // The lines below, indented, say why: without them an error in a part of defineScenario( … ) says nothing.
    const [said, ...below] = lines.slice(first);
    const end = below.findIndex((line) => !/^\s/.test(line));
    const reason = (end < 0 ? below : below.slice(0, end)).map((line) => line.trim());
    const [, of, line, column, code, text] = /^(.*)\((\d+),(\d+)\): error (TS\d+): (.*)$/.exec(said!.trim())!;
    const message = `${shown(resolve(of!))}:${line}:${column}: ${[text, ...reason].join(' ')} (${code})`;
    const more = lines.filter(isError).length - 1;
    throw new OptimaError('scenario.types', `Type error in the scenario: ${message}`, {
      hint: more > 0 ? `It is the first of ${more + 1} type errors in the file.` : undefined,
    });
  }, folder.remove);
}

/** Where the compiler finds zod for a scenario that has none of its own around it, as `resolvePackageFrom` does for Node. */
function schemaPaths(file: string): Record<string, readonly string[]> {
  try {
    createRequire(pathToFileURL(file)).resolve('zod');
    return {};
  } catch {
    const folder = dirname(createRequire(import.meta.url).resolve('zod/package.json'));
    return { zod: [folder], 'zod/*': [join(folder, '*')] };
  }
}

/** What the compiler says, a program for Node; nothing where it is content. */
function run(args: readonly string[], signal: AbortSignal | undefined): Promise<string> {
  return new Promise((done, fail) => {
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    const kill = () => child.kill('SIGKILL');
    // Also where this process does not wait for it any more.
    process.on('exit', kill);
    signal?.addEventListener('abort', kill);
    if (signal?.aborted) kill();
    let output = '';
    const read = (chunk: unknown) => {
      output += chunk;
    };
    child.stdout.on('data', read);
    child.stderr.on('data', read);
    child.on('error', fail);
    child.on('close', (code, killedBy) => {
      process.off('exit', kill);
      signal?.removeEventListener('abort', kill);
      if (code === 0) return done('');
      const ended = `the compiler ended with ${killedBy ?? `code ${code}`}`;
      // A terminal's Ctrl-C reaches the compiler too, perhaps before this process.
      if (signal?.aborted || killedBy === 'SIGINT' || killedBy === 'SIGTERM') {
        return fail(new OptimaError('interrupted', 'The type check was interrupted.'));
      }
      if (code === 1 || code === 2) return done(output || ended);
      fail(new OptimaError('scenario.types', `The scenario's types could not be checked: ${ended}.`));
    });
  });
}

let reading = codeEnding === '.ts';

/** Lets Node import TypeScript, as it does already where this is some. */
async function readTypeScript(): Promise<void> {
  if (reading) return;
  reading = true;
  (await import('tsx/esm/api')).register();
}

let resolving = false;

/** Lets a scenario anywhere on the disk import 'optima-actors', installed beside it or not, and zod, its own or this package's. */
function resolvePackageFrom(file: string): void {
  if (resolving || !relative(packageFolder, file).startsWith('..')) return;
  resolving = true;
  const entry = JSON.stringify(packageEntry);
  const hook = `export const resolve = async (name, context, next) => {
    if (name === 'optima-actors') return next(${entry}, context);
    try {
      return await next(name, context);
    } catch (error) {
      if (!/^zod($|\\/)/.test(name)) throw error;
      return next(name, { ...context, parentURL: ${entry} });
    }
  };`;
  register(`data:text/javascript,${encodeURIComponent(hook)}`);
}

function shown(file: string): string {
  const path = relative(process.cwd(), file);
  return path.startsWith('..') || isAbsolute(path) ? file : path;
}
