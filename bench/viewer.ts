// What `optima view` takes for a run of so many events: from asking for the page to its figures, from a click to a tree, and memory of
// page and server. Bounds: 1 s, 300 ms, 150 MB, 200 MB.
//   node --import tsx bench/viewer.ts [events …]
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import type { TasksAnswer } from '../src/viewer/api.ts';
import { type Browser, openBrowser, wide } from '../test/viewer/chromium.ts';

const [synthetic, launcher] = ['./synthetic-run.ts', '../bin/optima.js'].map((file) =>
  fileURLToPath(new URL(file, import.meta.url)),
) as [string, string];
const counts = process.argv.slice(2).map(Number);
/** Of each figure the median of so many. */
const repeats = 5;
const median = (values: readonly number[]) =>
  values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!;
const megabytes = (bytes: number) => Math.round(bytes / 1e5) / 10;

/** Anonymous memory of a process now, and the most of all its memory so far, in bytes. */
function memoryOf(pid: number): { now: number; most: number } {
  const status = fs.readFileSync(`/proc/${pid}/status`, 'utf8');
  const kilobytes = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(status)![1]);
  return { now: 1024 * kilobytes('RssAnon'), most: 1024 * kilobytes('VmHWM') };
}

/** Looks at a run of so many events, which is made in the folder, and says what it took. */
async function look(browser: Browser, events: number, folder: string): Promise<void> {
  const run = path.join(folder, `run-${events}`);
  const { status, stderr } = spawnSync(process.execPath, ['--import', 'tsx', synthetic, String(events), run]);
  if (status !== 0) throw new Error(String(stderr));
  const server = spawn(process.execPath, [launcher, 'view', run, '--port', '0', '--json']);
  const ended = once(server, 'close');
  const listening = once(server.stdout, 'data').then(
    ([text]) => JSON.parse(String(text).split('\n')[0]!).url,
  );
  const gone = ended.then(() => {
    throw new Error('The viewer ended.');
  });
  gone.catch(() => {});
  try {
    await lookAt(browser, events, run, await Promise.race([listening, gone]), server.pid!);
  } finally {
    server.kill('SIGINT');
    await ended;
  }
}

async function lookAt(
  browser: Browser,
  events: number,
  run: string,
  url: string,
  pid: number,
): Promise<void> {
  const origin = new URL(url).origin;
  const id = path.basename(run);
  const openedFrom = performance.now();
  await (await fetch(`${origin}/api/runs/${id}`)).json();
  const openMs = performance.now() - openedFrom;
  const tasks = (await (await fetch(`${origin}/api/runs/${id}/tasks`)).json()) as TasksAnswer;
  const page = await browser.newPage({ viewport: wide });
  // On a machine that has much else to do nothing of this says how long it takes; what it holds it says all the same.
  page.setDefaultTimeout(600_000);
  const session = await page.context().newCDPSession(page);
  await session.send('Performance.enable');
  const paints: number[] = [];
  const trees: number[] = [];
  for (let repeat = 0; repeat < repeats; repeat++) {
    await page.goto('about:blank');
    const from = performance.now();
    await page.goto(`${origin}/#/run/${id}`);
    await page.waitForSelector('.plots');
    paints.push(performance.now() - from);
    await page.goto(`${origin}/#/run/${id}/tasks`);
    const link = page.locator('table.rows tbody a').nth(repeat);
    await link.waitFor();
    const clicked = performance.now();
    await link.click();
    await page.waitForSelector('[role=treeitem] .said');
    trees.push(performance.now() - clicked);
  }
  await session.send('HeapProfiler.collectGarbage');
  const { metrics } = await session.send('Performance.getMetrics');
  const heap = metrics.find(({ name }) => name === 'JSHeapTotalSize')!.value;
  const { now, most } = memoryOf(pid);
  console.log(
    JSON.stringify({
      events,
      trees: tasks.phases.reduce((sum, phase) => sum + phase.trees, 0),
      logMegabytes: megabytes(fs.statSync(path.join(run, 'events.jsonl')).size),
      openMs: Math.round(openMs),
      pageMs: Math.round(median(paints)),
      treeMs: Math.round(median(trees)),
      pageHeapMegabytes: megabytes(heap),
      serverMegabytes: megabytes(now),
      serverPeakMegabytes: megabytes(most),
    }),
  );
  await page.close();
}

const browser = await openBrowser();
if (browser === null) throw new Error('There is no chromium here.');
try {
  for (const events of counts.length > 0 ? counts : [100_000, 2_000_000]) {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'optima-viewer-'));
    try {
      await look(browser, events, folder);
    } finally {
      fs.rmSync(folder, { recursive: true });
    }
  }
} finally {
  await browser.close();
}
