// A run that was never carried out: a folder with a manifest and the events that a test wants, in milliseconds.
import fs from 'node:fs';
import path from 'node:path';
import type { RunEvent } from '../../src/domain/events.ts';
import type { PolicyHash, RunId } from '../../src/domain/ids.ts';
import { presetRecipe } from '../../src/recipe/presets.ts';
import { EventLog } from '../../src/store/event-log.ts';
import { formatVersion, type Manifest, writeManifest } from '../../src/store/manifest.ts';

export const policy = 'aaaaaaaaaaaaaaaa' as PolicyHash;

/** Writes the folder; the first event is said at `at`, each further one a second later. */
export function writeRun(folder: string, events: readonly RunEvent[], changes: Partial<Manifest> = {}): void {
  fs.mkdirSync(folder, { recursive: true });
  let at = Date.UTC(2026, 0, 1);
  const log = new EventLog(path.join(folder, 'events.jsonl'), { now: () => (at += 1000) });
  for (const event of events) log.append(event);
  writeManifest(folder, {
    ...{
      format: formatVersion,
      version: '0.1.0',
      node: process.version,
      run: path.basename(folder) as RunId,
    },
    command: ['train', 'two-hop-qa'],
    scenario: { name: 'two-hop-qa', file: 'two-hop-qa.ts', hash: '0', tasks: '0' },
    preset: 'quick',
    recipe: presetRecipe('quick', 'isft-dpo'),
    engine: 'wasm',
    base: { folder: 'models/tiny', hash: policy },
    seconds: 12,
    log: log.end,
    ...changes,
  });
  log.close();
}

export const began: RunEvent = {
  type: 'run.started',
  scenario: 'two-hop-qa',
  seed: 1,
  base: policy,
  recipe: presetRecipe('quick', 'isft-dpo'),
};
