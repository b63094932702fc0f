// The process in which `test/run.ts` has test files run, one after the other: what one has loaded and compiled is there for the
// next. A file is over when nothing of it is left to wait for, as if it had the process to itself.
import path from 'node:path';
import { pathToFileURL } from 'node:url';

interface Uvu {
  /** What a file's `test.run()` adds to, behind a name. */
  UVU_QUEUE: unknown[][];
  /** It waits for `exec`. */
  UVU_DEFER: boolean;
}
const uvu = globalThis as unknown as Uvu;
uvu.UVU_DEFER = true;
const { exec } = await import('uvu');

const [over] = process.argv.slice(2);
const [env, folder] = [{ ...process.env }, process.cwd()];
let file: string | null = null;

process.on('message', async (name: string) => {
  file = name;
  process.channel!.unref();
  uvu.UVU_QUEUE.splice(0, Infinity, [null]);
  await import(pathToFileURL(path.resolve(file)).href);
  if (uvu.UVU_QUEUE[0]!.length > 1) await exec();
});

process.on('beforeExit', () => {
  if (file === null) return;
  file = null;
  for (const stream of [process.stdout, process.stderr]) stream.write(`${over}${process.exitCode ?? 0}\n`);
  process.exitCode = undefined;
  process.chdir(folder);
  for (const name of Object.keys(process.env)) delete process.env[name];
  Object.assign(process.env, env);
  process.channel!.ref();
});
