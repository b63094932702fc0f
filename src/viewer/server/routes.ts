// What the viewer answers, by address.
import type { Abilities, RunEntry, RunList } from '../api.ts';
import type { Route } from './router.ts';
import { entryOf, findRuns, namesOf } from './shelf.ts';

export interface RoutesOptions {
  /** The folders that were named: runs, or folders of runs; runs that begin in them later are found too. */
  readonly folders: readonly string[];
}

export function viewerRoutes({ folders }: RoutesOptions): Route[] {
  const abilities: Abilities = { fork: false, score: false };
  return [
    {
      method: 'GET',
      path: '/api/runs',
      handle: (): RunList => ({ runs: listRuns(folders), abilities }),
    },
  ];
}

/** Every run, the newest first. */
export function listRuns(folders: readonly string[]): RunEntry[] {
  const entries = [...namesOf(findRuns(folders))].map(([id, folder]) => entryOf(id, folder));
  return entries.sort((one, other) => (other.startedAt ?? '').localeCompare(one.startedAt ?? ''));
}
