// A run that was never carried out: a folder with a manifest and the events that a test wants, in milliseconds.
import fs from 'node:fs';
import path from 'node:path';
import type { RunEvent } from '../../src/domain/events.ts';
import {
  childId,
  type NodeId,
  type PolicyHash,
  type RunId,
  rootId,
  type TaskId,
} from '../../src/domain/ids.ts';
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

export const began: Extract<RunEvent, { type: 'run.started' }> = {
  type: 'run.started',
  scenario: 'two-hop-qa',
  seed: 1,
  base: policy,
  recipe: presetRecipe('quick', 'isft-dpo'),
};

/** Events whose lines are long: a log of so many bytes, of which an index is soon made. */
export const longEvents = (bytes: number): RunEvent[] =>
  Array.from({ length: 10 }, () => ({ ...began, recipe: { ...began.recipe, pad: 'x'.repeat(bytes / 10) } }));

export const hostileTexts = {
  html: '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>',
  bidi: 'abc\u202edcba\u2066',
  escapes: '\u001b[31mred\u001b[0m\u0007\u0000',
};

/** A run of two dialogues that say what no page should obey: one cut off, one that failed. */
const hostileEvents = (): RunEvent[] => {
  const taskId = 'train-00000' as TaskId;
  const tree = rootId('init-0/generate', taskId);
  const first = childId(tree, 0);
  const second = childId(tree, 1);
  const turn = (id: NodeId, parent: NodeId, speaker: string, text: string) => ({
    ...{ id, parent, speaker, text, tokenIds: [1, 2], logprobs: [-0.5, -7], finish: 'stop' as const },
    ...{ policyHash: policy, seed: 1, provenance: 'sampled' as const, promptTokens: 9 },
  });
  const all = Object.values(hostileTexts).join(' ');
  const opened = { type: 'dialogue.opened' as const, taskId, tree, parent: null, format: null };
  const answer = childId(first, 0);
  return [
    began,
    { type: 'phase.started', phase: 'init-0/generate' },
    { type: 'task.dealt', taskId, views: { alice: all, bob: hostileTexts.html } },
    { ...opened, dialogueId: first },
    { type: 'turn.requested', nodeId: first, speaker: 'alice' },
    { type: 'turn.taken', dialogueId: first, turn: turn(first, tree, 'alice', all) },
    { type: 'turn.requested', nodeId: answer, speaker: 'bob' },
    { type: 'turn.taken', dialogueId: first, turn: turn(answer, first, 'bob', 'x'.repeat(100_000)) },
    { type: 'dialogue.closed', dialogueId: first, outcome: 'turn-cap', failure: null },
    { type: 'verdict.given', dialogueId: first, taskScore: 0.5, exactMatch: false, answer: all },
    { ...opened, dialogueId: second },
    { type: 'turn.requested', nodeId: second, speaker: 'alice' },
    { type: 'turn.failed', dialogueId: second, nodeId: second, speaker: 'alice', reason: all },
    { type: 'dialogue.closed', dialogueId: second, outcome: 'failed', failure: all },
    { type: 'cohort.completed', phase: 'init-0/generate', cohort: 0 },
  ];
};

/** Writes that run, or its first `events`; with `append` the rest of it. */
export function hostileRun(
  folder: string,
  { events, append = false }: { events?: number; append?: boolean } = {},
): void {
  const all = hostileEvents();
  if (!append) {
    writeRun(folder, all.slice(0, events));
    return;
  }
  const log = new EventLog(path.join(folder, 'events.jsonl'), { now: () => Date.UTC(2026, 0, 2) });
  log.skipTo(log.end.events);
  for (const event of all.slice(log.end.events)) log.append(event);
  log.close();
}
