// The viewer's pages in a real browser, over one small run that was carried out and one that says hostile things. `shots.ts`
// photographs them.
import fs from 'node:fs';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import path from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { Output } from '../../src/cli/output.ts';
import { type OpenTools, viewTools } from '../../src/cli/view-tools.ts';
import type { RunEvent } from '../../src/domain/events.ts';
import { silent } from '../../src/domain/progress.ts';
import { createRng } from '../../src/domain/rng.ts';
import { RunReader } from '../../src/reading/index.ts';
import { ForkLog, forksPath } from '../../src/store/fork-log.ts';
import { bundleClient, mediaTypes } from '../../src/viewer/server/client-files.ts';
import { exportRuns } from '../../src/viewer/server/export.ts';
import { createViewer, type Viewer } from '../../src/viewer/server/routes.ts';
import { startServer, type ViewerServer } from '../../src/viewer/server/server.ts';
import { measureTeam } from '../support/metrics.ts';
import {
  eventsIn,
  optimaHere,
  replaceLog,
  smallHybridRun,
  temporaryFolder,
  writeRandomCheckpoint,
  writeSmallScenario,
} from '../support/run.ts';
import {
  type Browser,
  type BrowserContext,
  openBrowser,
  type Page,
  phone,
  watchPage,
  wide,
} from './chromium.ts';
import { began, hostileRun, hostileTexts, policy, writeRun } from './hand-made-run.ts';

const browser: Browser | null = await openBrowser();
if (browser === null) {
  console.log(
    'skipped: the pages are not looked at: there is no chromium here (apt install chromium, or CHROMIUM=…)',
  );
  test.skip('pages in a browser');
}

const folder = temporaryFolder('browser');
const runs = path.join(folder, 'runs');
const small = path.join(runs, 'small');
const axe = fs.readFileSync(
  path.resolve(import.meta.dirname, '../../node_modules/axe-core/axe.min.js'),
  'utf8',
);
let viewer: Viewer;
let server: ViewerServer;
let context: BrowserContext;
let page: Page;
let problems: string[];
let tools: OpenTools;
const origin = () => `http://127.0.0.1:${server.port}`;

test.before(async () => {
  if (browser === null) return;
  const model = path.join(folder, 'model');
  await writeRandomCheckpoint(model);
  const sets = ['search.mergeBelow=0.7', 'maxMessageTokens=4'].flatMap((one) => ['--set', one]);
  const args = [
    'train',
    writeSmallScenario(folder, 6),
    '--model',
    model,
    ...smallHybridRun,
    ...sets,
    '--workers',
    '0',
    '--json',
  ];
  const { code, stdout } = await optimaHere([...args, '--out', path.join(runs, 'small')]);
  assert.is(code, 0, stdout);
  hostileRun(path.join(runs, 'hostile'));
  // One whose list entry says how its figures changed.
  const team = measureTeam([], createRng(1));
  writeRun(path.join(runs, 'measured'), [
    began,
    ...['base', 'trained'].flatMap((phase, index): RunEvent[] => [
      { type: 'phase.started', phase },
      {
        ...{ type: 'phase.completed', phase },
        output: {
          ...{ kind: 'evaluate', policy: { alice: policy, bob: policy } },
          metrics: { ...team, taskScore: index / 2, tokens: 170 - 100 * index, n: 8 },
        },
      },
    ]),
  ]);
  const quiet: Output = { say() {}, remark() {}, emit() {}, pour: async () => {}, progress: silent };
  tools = viewTools({ backend: 'wasm' }, quiet, new AbortController().signal);
  viewer = createViewer([runs], tools.tools);
  server = await startServer({
    routes: viewer.routes,
    client: await bundleClient(),
    port: 0,
    token: 'token',
  });
  context = await browser.newContext({ viewport: wide, reducedMotion: 'reduce' });
  page = await context.newPage();
  page.setDefaultTimeout(15_000);
  problems = watchPage(page, origin());
});
test.after(async () => {
  await browser?.close();
  await server?.close();
  await viewer?.close();
  await tools?.close();
  fs.rmSync(folder, { recursive: true });
});
/** A test after which the console must be quiet, and nothing asked of others. */
function look(name: string, body: () => Promise<void>): void {
  if (browser === null) return;
  test(name, async () => {
    problems.length = 0;
    await body();
    assert.equal(problems, []);
  });
}

const open = async (address: string) => {
  await page.goto(`${origin()}/${address}`);
  await page.waitForSelector('main:not(:has(.loading)) h1');
};
/** Waits for what the page does by itself; a page's policy lets no waiting function in. */
async function until(isSo: () => Promise<boolean>): Promise<void> {
  for (let tries = 0; !(await isSo()); tries++) {
    if (tries === 200) throw new Error('It never came to be.');
    await page.waitForTimeout(20);
  }
}
const textOf = (selector: string) => page.innerText(selector);

/** What axe finds that matters; `rules` are its options. */
async function audit(rules = ''): Promise<string[]> {
  // The policy lets no script in but the page's own; the debugger is no page.
  await page.evaluate(axe);
  const { violations } = (await page.evaluate(`axe.run(${rules})`)) as {
    violations: { id: string; impact: string; nodes: { target: string[]; failureSummary: string }[] }[];
  };
  return violations
    .filter(({ impact }) => impact !== 'minor')
    .flatMap(({ id, nodes }) =>
      nodes.map(({ target, failureSummary }) => `${id}: ${target}: ${failureSummary}`),
    );
}

let reader: RunReader;
const idOf = {
  tree: () => [...reader.trees()].find(({ phase, kept }) => phase.endsWith('/search') && kept)!.root,
  turn: () => reader.tree(idOf.tree())!.pairs!.kept![0]!.chosen,
  dialogue: () => reader.tree(idOf.tree())!.dialogues[0]!.id,
};
test.before(() => {
  if (browser !== null) reader = RunReader.open(path.join(runs, 'small'));
});
test.after(() => reader?.close());

/** Every page, by the name of its picture. */
const pages: readonly (readonly [name: string, address: () => string])[] = [
  ['runs', () => '#/'],
  ['run', () => '#/run/small'],
  ['tasks', () => '#/run/small/tasks'],
  [
    'tree',
    () => `#/run/small/tree/${encodeURIComponent(idOf.tree())}?node=${encodeURIComponent(idOf.turn())}`,
  ],
  ['turn', () => `#/run/small/turn/${encodeURIComponent(idOf.turn())}`],
  ['dialogue', () => `#/run/small/dialogue/${encodeURIComponent(idOf.dialogue())}`],
  ['machines', () => '#/run/small/machines'],
  ['compare', () => '#/compare/small/hostile'],
];

for (const [name, address] of pages) {
  look(`the page ${name} has nothing that axe calls serious, and does not overflow a phone`, async () => {
    await open(address());
    assert.equal(await audit(), [], 'light');
    await page.emulateMedia({ colorScheme: 'dark' });
    assert.equal(await audit("{ runOnly: ['color-contrast'] }"), [], 'dark');
    await page.emulateMedia({ colorScheme: 'light' });
    await page.setViewportSize(phone);
    const width = await page.evaluate('document.documentElement.scrollWidth');
    assert.ok((width as number) <= phone.width, `${width} px`);
    const said = "[...document.querySelectorAll('.says')].map((cell) => cell.clientWidth)";
    const narrowest = Math.min(...((await page.evaluate(said)) as number[]));
    assert.ok(narrowest > 100, `a column of words has ${narrowest} px`);
    await page.setViewportSize(wide);
  });
}

look('while the server makes the index of a long run, the page tells how far it is', async () => {
  let answer = () => {};
  const wanted = new Promise<void>((resolve) => {
    answer = resolve;
  });
  await page.route('**/api/runs/small/tasks*', async (route) => {
    await wanted;
    await route.continue();
  });
  await page.route('**/api/runs/small/opening', (route) =>
    route.fulfill({ contentType: 'text/event-stream', body: 'data: 42\n\n' }),
  );
  await page.goto('about:blank');
  await page.goto(`${origin()}/#/run/small/tasks`);
  await page.waitForSelector('.loading:has-text("42 %")');
  answer();
  await page.waitForSelector('tbody th a');
  assert.is(await page.locator('.loading').count(), 0);
  await page.unroute('**/api/runs/small/tasks*');
  await page.unroute('**/api/runs/small/opening');
});

/** From a list of tasks to the first turn of the one with the widest reward gap, by keyboard alone. */
async function walkToWorst(tasks: string): Promise<void> {
  await open(tasks);
  await page.focus('section[aria-label=Tasks]');
  await page.keyboard.press('ArrowDown');
  await page.keyboard.press('Enter');
  await page.waitForSelector('[role=tree]');
  await page.focus('[role=tree]');
  await page.keyboard.press('ArrowRight');
  await page.waitForSelector('section[aria-label="The chosen turn"] blockquote');
}

look(
  'one finds the worst task by its reward gap, walks its tree and opens a turn, by keyboard alone',
  async () => {
    await walkToWorst('#/run/small/tasks');
    assert.match(page.url(), 'node=');
    const views = await page.locator('section[aria-label="The chosen turn"] .view').count();
    assert.is(views, 2, 'both private views');
    await page.keyboard.press('ArrowDown');
    await page.keyboard.press('ArrowUp');
    await page.keyboard.press('Enter');
    await page.waitForSelector('.tokens [role=option]');
    assert.match(page.url(), '/turn/');
    await page.focus('.tokens');
    await page.keyboard.press('ArrowRight');
    assert.match(await textOf('.token-facts'), /^token 2 of \d/);
    await page.goBack();
    await page.waitForSelector('[role=tree]');
  },
);

look('a turn says why it was trained on, and its pair leads to the other side and back', async () => {
  await open(`#/run/small/turn/${encodeURIComponent(idOf.turn())}`);
  assert.match(await textOf('ul.why'), 'Trained on: a pair');
  const { rejected } = reader.tree(idOf.tree())!.pairs!.kept![0]!;
  await page.click(`section[aria-label=Pairs] a >> text=${rejected.split('/').at(-1)}`);
  await page.waitForSelector(`h1:text-is("${rejected.split('/').at(-1)}")`);
  assert.match(await textOf('main'), 'as the worse one');
  await page.click('text=Ask the frozen base');
  await page.waitForSelector('[aria-label="Tokens, by the surprise of the base"]');
});

look('a turn is edited, its branch is shown beside the old one, and the pair is kept', async () => {
  await open(`#/run/small/turn/${encodeURIComponent(idOf.turn())}`);
  await page.fill('.fork textarea', 'Something else');
  await page.click('text=Say this and go on');
  await page.waitForSelector('.fork .problem');
  assert.match(
    await textOf('.fork .problem'),
    'token',
    'without the address that was printed nothing is changed',
  );
  assert.not(fs.existsSync(forksPath(small)));
  // The browser tells the console of every answer that is a refusal.
  assert.match(problems.splice(0).join(), '403');
  await page.evaluate("location.hash = '#/?token=token'");
  await until(async () => !page.url().includes('token='));
  await open(`#/run/small/turn/${encodeURIComponent(idOf.turn())}`);
  await page.fill('.fork textarea', 'Something else');
  await page.click('text=Say this and go on');
  await page.waitForSelector('.forked');
  const log = fs.readFileSync(path.join(small, 'events.jsonl'), 'utf8');
  assert.match(await textOf('.forked'), /fork 0.*Something else.*beside it/s);
  assert.match(await textOf('.forked'), /(better|worse) by \d/);
  await page.click('text=Keep the pair');
  await page.waitForSelector('text=/^Kept: .* gap/');
  const { forks, kept } = ForkLog.read(small);
  assert.is(forks.get(0)!.turns[0]!.provenance, 'human');
  assert.equal(
    kept.map(({ fork }) => fork),
    [0],
  );
  assert.is(fs.readFileSync(path.join(small, 'events.jsonl'), 'utf8'), log, 'the run itself is as it was');
  await open(`#/run/small/tree/${encodeURIComponent(idOf.tree())}`);
  assert.match(await textOf('[role=tree]'), 'fork 0');
  await open(`#/run/small/turn/${encodeURIComponent(forks.get(0)!.turns[0]!.id)}`);
  assert.match(await textOf('blockquote'), 'Something else');
  await page.click('text=after it');
  assert.is(await page.inputValue('.fork textarea'), '');
  // What measures the team is not trained on: there the page offers no pair.
  const [measured] = [...reader.dialogues({ phase: 'base' })];
  await open(`#/run/small/turn/${encodeURIComponent(measured!.id)}`);
  await page.fill('.fork textarea', 'Something else');
  await page.click('text=Say this and go on');
  await page.waitForSelector('.forked');
  assert.match(await textOf('.forked'), 'beside it');
  assert.is(await page.locator('text=Keep the pair').count(), 0);
});

look(
  'a pair that was kept on the page is trained on when the run is resumed, and the page says where',
  async () => {
    // As a kill leaves it before its last training.
    const cut = path.join(runs, 'cut');
    fs.cpSync(small, cut, { recursive: true });
    for (const file of ['forks.jsonl', 'events.index']) fs.rmSync(path.join(cut, file), { force: true });
    const events = eventsIn(cut);
    const last = events.findIndex(
      (event) => event.type === 'phase.started' && event.phase === 'idpo-2/train',
    );
    replaceLog(cut, events.slice(0, last));
    // The worst dialogue of the searched tasks: the list begins with the widest gap.
    await walkToWorst('#/run/cut/tasks?phase=idpo-2%2Fsearch');
    await page.keyboard.press('Enter');
    await page.waitForSelector('.fork textarea');
    const turn = page.url();
    await page.fill('.fork textarea', 'Said by hand');
    await page.click('text=Say this and go on');
    await page.waitForSelector('.forked');
    await page.click('text=Keep the pair');
    await page.waitForSelector('text=/^Kept: .* gap/');
    const { code, stdout } = await optimaHere([
      'train',
      '--resume',
      cut,
      '--with-forks',
      '--json',
      '--workers',
      '0',
    ]);
    assert.is(code, 0, stdout);
    await page.goto(turn);
    await page.reload();
    await page.waitForSelector('text=/kept with fork 0, in idpo-2\\/train/');
  },
);

look('the sequence of a dialogue is walked, and its actors are in the states that they were in', async () => {
  await open(`#/run/small/dialogue/${encodeURIComponent(idOf.dialogue())}`);
  assert.match(await textOf('.actor-states'), 'environment closed');
  await page.click('button.message-row >> nth=0');
  assert.match(await textOf('.actor-states'), 'environment awaitingTurn');
  await page.keyboard.press('ArrowDown');
  assert.match(await textOf('.actor-states'), /(alice|bob) present\s+composes/);
});

look(
  'whatever was said is text: HTML, control and bidirectional characters are seen as what they are',
  async () => {
    await open('#/run/hostile/tasks');
    await page.fill('input[type=search]', 'onerror="WINDOW');
    await page.waitForSelector('td a[title^="the first turn"]');
    assert.is(await textOf('td a[title^="the first turn"]'), '1');
    await page.click('td a[title^="the first turn"]');
    await page.waitForSelector('.tokens');
    await open('#/run/hostile/tasks?search=%3Cimg%20nobody');
    assert.match(await textOf('main'), 'No task here.');
    await open(`#/run/hostile/tree/${encodeURIComponent('init-0/generate/train-00000')}`);
    assert.is(await page.locator('main img, main script, main iframe').count(), 0);
    const dialogue = encodeURIComponent('init-0/generate/train-00000.0');
    await open(`#/run/hostile/turn/${dialogue}`);
    const said = await textOf('blockquote');
    assert.match(said, hostileTexts.html);
    assert.match(said, '⟨202E⟩');
    assert.match(said, '⟨1B⟩');
    assert.not.match(said, '\u202e');
    assert.is(await page.evaluate('window.hacked'), undefined);
    await open(`#/run/hostile/turn/${dialogue}.0`);
    assert.match(await textOf('blockquote'), 'show all 100,000 characters');
    await page.click('blockquote button');
    assert.is((await textOf('blockquote')).length, 100_000);
    await open(`#/run/hostile/dialogue/${dialogue}`);
    assert.match(await textOf('.sequence'), '⟨202E⟩');
  },
);

look('the page follows a log that grows', async () => {
  hostileRun(path.join(runs, 'growing'), { events: 6 });
  await open('#/run/growing');
  await page.waitForSelector('section[aria-label="Last events"] tbody tr');
  hostileRun(path.join(runs, 'growing'), { append: true });
  await page.waitForSelector('section[aria-label="Last events"] >> text=verdict.given');
});

look('a static copy shows the same without a server, and asks nothing of one', async () => {
  const target = path.join(folder, 'copy');
  const client = await bundleClient();
  const { runs: copied } = await exportRuns({ folders: [path.join(runs, 'small')], target, client });
  assert.is(copied, 1);
  const copy = http.createServer((request, response) => {
    const file = path.join(target, decodeURIComponent(request.url!.replace(/^\/$/, '/index.html')));
    const isThere = fs.existsSync(file);
    const type = mediaTypes[path.extname(file)] ?? 'application/octet-stream';
    response
      .writeHead(isThere ? 200 : 404, { 'content-type': type })
      .end(isThere ? fs.readFileSync(file) : '');
  });
  await new Promise<void>((resolve) => copy.listen(0, '127.0.0.1', resolve));
  const own = `http://127.0.0.1:${(copy.address() as AddressInfo).port}`;
  const other = await context.newPage();
  const found = watchPage(other, own);
  const show = async (address: string) => {
    await other.goto(`${own}/${address}`);
    await other.waitForSelector('main:not(:has(.loading)) h1');
    return other.innerText('main');
  };
  assert.match(await show('#/'), 'small');
  assert.match(await show('#/run/small'), 'idpo-2/search');
  assert.match(await show('#/run/small/tasks?sort=worst'), 'train-0000');
  assert.match(await show(`#/run/small/tree/${encodeURIComponent(idOf.tree())}`), 'is told');
  const turn = await show(`#/run/small/turn/${encodeURIComponent(idOf.turn())}`);
  assert.match(turn, 'Trained on: a pair');
  assert.not.match(turn, 'Say this and go on');
  assert.match(await show(`#/run/small/dialogue/${encodeURIComponent(idOf.dialogue())}`), 'verdict.given');
  assert.match(await show('#/run/small/machines'), 'trainer');
  assert.equal(found, []);
  await show('#/run/small/tree/..%2F..%2Frun');
  assert.match(found.splice(0).join(), '404', 'an id leads to no other file');
  await other.close();
  copy.close();
  copy.closeAllConnections();
  await exportRuns({ folders: [runs], target, client }).then(
    () => assert.unreachable(),
    (error) => assert.match(error.message, 'already has something in it'),
  );
});

look('the colours can be chosen', async () => {
  await open('#/');
  await page.click('header button[aria-label^=Colours]');
  await page.click('header button[aria-label^=Colours]');
  await until(async () => (await page.evaluate('getComputedStyle(document.body).colorScheme')) === 'dark');
  await page.click('header button[aria-label^=Colours]');
});

test.run();
