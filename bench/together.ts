// A training alone, and one whose folder is read meanwhile: two viewers with a page that follows the log, a replay and an
// export. Says the time of both by turns, and that both ended with the same log, but for its times, and the
// same checkpoints. Nice values count between processes of one session: run it in one terminal.
// node --import tsx bench/together.ts [rounds] [recipe]
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import path from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import type { RunList } from '../src/viewer/api.ts';
import { launcher, temporaryFolder } from '../test/support/run.ts';
import { countArgument, rounded } from './shared.ts';

const rounds = countArgument(0, 2);
const recipe = process.argv[3] ?? 'isft-dpo';
const folder = temporaryFolder('together');
process.on('exit', () => fs.rmSync(folder, { recursive: true }));

const start = (args: readonly string[]) =>
  spawn(process.execPath, [launcher, ...args], { stdio: ['ignore', 'pipe', 'ignore'] });
async function ended(child: ChildProcess): Promise<number | null> {
  child.stdout!.resume();
  const [code] = await once(child, 'close');
  return code;
}

/** A viewer of a run, and a page of it that takes in the log as it grows; resolves with what ends both. */
async function view(run: string): Promise<() => Promise<void>> {
  const server = start(['view', run, '--port', '0', '--json']);
  let told = '';
  server.stdout!.setEncoding('utf8').on('data', (text) => {
    told += text;
  });
  while (!told.includes('\n')) await wait(50);
  const { port } = JSON.parse(told.split('\n')[0]!);
  const stop = new AbortController();
  const origin = `http://127.0.0.1:${port}`;
  const list = (await (await fetch(`${origin}/api/runs`)).json()) as RunList;
  const { id } = list.runs[0]!;
  const follow = async () => {
    const { body } = await fetch(`${origin}/api/runs/${id}/events?from=0`, { signal: stop.signal });
    for await (const _ of body!);
  };
  const following = follow().catch(() => {});
  return async () => {
    stop.abort();
    await following;
    server.kill('SIGINT');
    await once(server, 'close');
  };
}

/** Replays and exports a run under way, once each. Throws where one of them fails. */
async function read(run: string): Promise<void> {
  const ways = [
    ['replay', run],
    ['export', run, '--format', recipe === 'isft' ? 'trl-sft' : 'sharegpt'],
  ];
  for (const way of ways) {
    const code = await ended(start(way));
    // Before the first phase is over there is nothing to export.
    if (code !== 0 && way[0] !== 'export') throw new Error(`optima ${way.join(' ')} ended with ${code}.`);
  }
}

/** Seconds of a training from its first event on, the start of the process left out. */
async function train(run: string, isRead: boolean): Promise<number> {
  const child = start(['train', 'two-hop-qa', '--recipe', recipe, '--out', run]);
  const end = ended(child);
  const log = path.join(run, 'events.jsonl');
  while (!fs.existsSync(log) || fs.statSync(log).size === 0) await wait(20);
  const startedAt = performance.now();
  const viewers = isRead ? await Promise.all([view(run), view(run)]) : [];
  const reading = isRead ? read(run) : Promise.resolve();
  const code = await end;
  const seconds = (performance.now() - startedAt) / 1000;
  await reading;
  for (const stop of viewers) await stop();
  if (code !== 0) throw new Error(`The training in ${run} ended with ${code}.`);
  return seconds;
}

function outcomeOf(run: string): string {
  const lines = fs.readFileSync(path.join(run, 'events.jsonl'), 'utf8').replaceAll(/"at":"[^"]*"/g, '');
  return [lines, ...fs.readdirSync(path.join(run, 'checkpoints')).sort()].join('\n');
}

const seconds: [alone: number, read: number][] = [];
const outcomes = new Set<string>();
for (let round = 0; round < rounds; round++) {
  const runs = ['alone', 'read'].map((name) => path.join(folder, `${name}-${round}`));
  seconds.push([await train(runs[0]!, false), await train(runs[1]!, true)]);
  for (const run of runs) outcomes.add(outcomeOf(run));
}
const total = (side: 0 | 1) => seconds.reduce((sum, pair) => sum + pair[side], 0);
console.log(
  JSON.stringify({
    bench: 'together',
    recipe,
    seconds: seconds.map((pair) => pair.map((each) => rounded(each, 1))),
    slower: rounded(total(1) / total(0) - 1, 3),
    same: outcomes.size === 1,
  }),
);
if (outcomes.size > 1) process.exitCode = 1;
