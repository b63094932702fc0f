// What a copy of a run must not say: where files lay on the machine that it ran on.
import os from 'node:os';
import path from 'node:path';
import { readManifest } from '../../store/manifest.ts';
import type { Failure } from '../api.ts';

/** A path's last name; of an option with one, the option and that; what is no path as it is. */
export const lastName = (text: string): string => text.replace(/^(--[\w-]+=)?.*[\\/](?=.)/s, '$1');

/** Places that a run's errors may name, with what a copy calls them. */
export function placesOf(folder: string): Map<string, string> {
  const own = [folder, path.resolve(folder), ...namedBy(folder)].filter((place) => /[\\/]./.test(place));
  const around = [process.cwd(), os.homedir()].map((place) => [place, '~'] as const);
  // Names may have spaces in them, by which `withoutPlaces` would not know where they end.
  return new Map([...around, ...own.map((place) => [place, lastName(place)] as const)]);
}

/** Its scripts, its models, and the values of its command line. */
function namedBy(folder: string): string[] {
  try {
    const { command, scenario, base, partners = {}, judge } = readManifest(folder);
    const models = [base, ...Object.values(partners), ...(judge === undefined ? [] : [judge])];
    const values = command.map((argument) => argument.replace(/^--[\w-]+=/, ''));
    return [scenario.file, ...models.map((model) => model.folder), ...values];
  } catch {
    return [];
  }
}

/** A path from a root, a home, or the folder above: up to its last name, quoted or not. */
const quoted = /(['"`])(?:~|\.{1,2}|[A-Za-z]:)?[\\/](?:(?!\1).)*[\\/](?!\1)/g;
const bare = /(?<![\w.~\\/'"`-])(?:~|\.{1,2}|[A-Za-z]:)?[\\/](?:[^\s'"`]*[\\/])?(?=[^\s\\/])/g;

/** A text of the program in which of every path the last name is left; `places` are those that it may name besides. */
export function withoutPlaces(text: string, places: ReadonlyMap<string, string>): string {
  const longest = [...places].sort(([one], [other]) => other.length - one.length);
  return longest
    .reduce((rest, [place, name]) => rest.replaceAll(place, name), text)
    .replace(quoted, '$1')
    .replace(bare, '');
}

export const failureWithoutPlaces = (
  { code, message, hint }: Failure,
  places: ReadonlyMap<string, string>,
): Failure => ({
  code,
  message: withoutPlaces(message, places),
  hint: hint === undefined ? undefined : withoutPlaces(hint, places),
});
