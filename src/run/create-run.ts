// Begins a run: its folder, with a manifest that says what began it.
import fs from 'node:fs';
import path from 'node:path';
import { systemClock } from '../domain/clock.ts';
import { hash16 } from '../domain/hash.ts';
import { createRunId, type PolicyHash } from '../domain/ids.ts';
import type { Recipe } from '../recipe/schema.ts';
import type { Scenario } from '../scenario/types.ts';
import { formatVersion, type Manifest } from '../store/manifest.ts';
import { RunFolder } from '../store/run-folder.ts';

export interface NewRun extends Pick<Manifest, 'partners' | 'judge'> {
  /** Default: `runs/<id>`. */
  readonly folder?: string | undefined;
  /** What began it, as on the command line. */
  readonly command: readonly string[];
  /** With the file it was loaded from; null where there is none: such a run cannot be resumed by its name. */
  readonly loaded: { readonly scenario: Scenario; readonly file: string | null };
  /** As of `hashTasks`. */
  readonly tasks: string;
  readonly preset: string;
  readonly recipe: Recipe;
  /** What computes (`Engine.name`). */
  readonly engine: string;
  readonly base: { readonly folder: string; readonly hash: PolicyHash };
}

/** Throws as `RunFolder.create` does. */
export function createRun({ folder, command, loaded, ...begun }: NewRun): RunFolder {
  const { scenario, file } = loaded;
  const id = createRunId(scenario.name.replace(':', '-'), begun.recipe.recipe, begun.recipe.seed);
  return RunFolder.create(
    folder ?? path.join('runs', id),
    {
      format: formatVersion,
      version: packageVersion(),
      node: process.version,
      run: id,
      command: [...command],
      scenario: {
        name: scenario.name,
        file: file ?? '',
        hash: file === null ? '' : hashFile(file),
        tasks: begun.tasks,
      },
      preset: begun.preset,
      recipe: begun.recipe,
      engine: begun.engine,
      base: begun.base,
      ...(begun.partners && { partners: begun.partners }),
      ...(begun.judge && { judge: begun.judge }),
      seconds: 0,
    },
    systemClock,
  );
}

/** Of a file's bytes. */
export const hashFile = (file: string): string => hash16(fs.readFileSync(file));

export function packageVersion(): string {
  return JSON.parse(fs.readFileSync(new URL('../../package.json', import.meta.url), 'utf8')).version;
}
