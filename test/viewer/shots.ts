// Photographs every page of the viewer for docs/viewer.md, over two runs that were carried out. The runs are only read.
//   node --import tsx test/viewer/shots.ts <run> <other run> docs/viewer
import fs from 'node:fs';
import path from 'node:path';
import { RunReader } from '../../src/reading/index.ts';
import { bundleClient } from '../../src/viewer/server/client-files.ts';
import { createViewer } from '../../src/viewer/server/routes.ts';
import { startServer } from '../../src/viewer/server/server.ts';
import { openBrowser, phone, wide } from './chromium.ts';

const [run, other, target] = process.argv.slice(2);
if (run === undefined || other === undefined || target === undefined) {
  throw new Error('usage: node --import tsx test/viewer/shots.ts <run> <other run> <target>');
}
const browser = await openBrowser();
if (browser === null) throw new Error('There is no chromium here.');
const reader = RunReader.open(run);
const searched = [...reader.trees()].filter(({ phase }) => phase.endsWith('/search'));
// A tree whose roll-outs differ, and that is small enough to be seen whole.
const { root } = searched
  .filter(({ kept }) => (kept ?? 0) >= 4)
  .sort((one, two) => reader.tree(one.root)!.turns.length - reader.tree(two.root)!.turns.length)[0]!;
const tree = reader.tree(root)!;
const chosen = tree.turns.find(({ id }) => id === tree.pairs!.kept![0]!.chosen)!;
const dialogue = tree.dialogues.find(({ id }) => id.split('.').length === 2)!;
reader.close();

const [own, beside] = [run, other].map((folder) => path.basename(folder)) as [string, string];
const at = (...parts: string[]) => `#/${parts.map(encodeURIComponent).join('/')}`;
const pages = {
  runs: '#/',
  run: at('run', own),
  tasks: at('run', own, 'tasks'),
  tree: `${at('run', own, 'tree', root)}?node=${encodeURIComponent(chosen.id)}`,
  turn: at('run', own, 'turn', chosen.id),
  dialogue: at('run', own, 'dialogue', dialogue.id),
  machines: at('run', own, 'machines'),
  compare: at('compare', beside, own),
};
/** Which are photographed in the dark too. */
const dark = ['run', 'tree', 'turn'];

const { loadTokenizer } = await import('../../src/models/tokenizer/index.ts');
const tokenizer = await loadTokenizer(path.resolve(import.meta.dirname, '../../models/tiny'));
const never = () => Promise.reject(new Error('not while photographed'));
const viewer = createViewer([run, other], {
  pieces: async () => (ids) => ids.map((id) => tokenizer.decode([id])),
  score: never,
  fork: never,
  keep: never,
});
const server = await startServer({
  routes: viewer.routes,
  client: await bundleClient(),
  port: 0,
  token: 't',
});
fs.mkdirSync(target, { recursive: true });
const context = await browser.newContext();
const page = await context.newPage();
const session = await context.newCDPSession(page);

async function shoot(name: string, address: string): Promise<void> {
  await page.goto('about:blank');
  await page.goto(`http://127.0.0.1:${server.port}/${address}`);
  await page.waitForSelector('main:not(:has(.loading)) h1');
  await page.waitForTimeout(700);
  const { data } = await session.send('Page.captureScreenshot', { format: 'webp', quality: 60 });
  fs.writeFileSync(path.join(target!, `${name}.webp`), Buffer.from(data, 'base64'));
}

for (const [name, address] of Object.entries(pages)) {
  await page.setViewportSize(wide);
  await page.emulateMedia({ colorScheme: 'light' });
  await shoot(name, address);
  await page.setViewportSize(phone);
  await shoot(`${name}-phone`, address);
  if (!dark.includes(name)) continue;
  await page.setViewportSize(wide);
  await page.emulateMedia({ colorScheme: 'dark' });
  await shoot(`${name}-dark`, address);
}
await browser.close();
await server.close();
await viewer.close();
