// `optima view`: shows runs in a browser.
import fs from 'node:fs';
import type { Command } from 'commander';
import { nanoid } from 'nanoid';
import { cleaningUp, OptimaError } from '../domain/errors.ts';
import type { ExportOptions } from '../viewer/server/export.ts';
import { interruptible } from './interrupt.ts';
import { type Backend, backendOption, jsonOption, wholeNumber } from './options.ts';
import { type JsonFlag, type Output, withOutput } from './output.ts';
import { keepMemorySmall } from './reader.ts';

interface ViewOptions extends JsonFlag {
  readonly port: number;
  readonly export?: string;
  readonly backend?: Backend;
}

export function addView(program: Command): void {
  program
    .command('view')
    .argument('[run...]', 'run folders, or folders of runs (default: runs)')
    .description('show runs in a browser: figures, trees, every turn; also while they go on')
    .option(
      '--port <n>',
      'where to listen on this machine; 0: any that is free',
      wholeNumber('--port', 0, 65535),
      4747,
    )
    .option('--export <folder>', 'write a static copy instead: the page and all that it shows, as files')
    .addOption(backendOption())
    .addOption(jsonOption())
    .action((runs: string[], options: ViewOptions) =>
      withOutput(options, (output) =>
        interruptible(output, async (signal) => {
          const folders = runs.length > 0 ? runs : ['runs'];
          requireFolders(folders);
          keepMemorySmall();
          const [{ startServer }, { clientFiles }, { createViewer }] = await Promise.all([
            import('../viewer/server/server.ts'),
            import('../viewer/server/client-files.ts'),
            import('../viewer/server/routes.ts'),
          ]);
          const client = await clientFiles();
          const { viewTools } = await import('./view-tools.ts');
          const { tools, close } = viewTools(options, output, signal);
          await cleaningUp(async () => {
            if (options.export !== undefined) {
              await writeCopy({ folders, target: options.export, client, tools, signal }, output);
              return;
            }
            const viewer = createViewer(folders, tools);
            const token = nanoid();
            const server = await startServer({
              routes: viewer.routes,
              client,
              port: options.port,
              token,
            });
            const url = `http://127.0.0.1:${server.port}/#/?token=${token}`;
            const served = async () => {
              output.emit({ event: 'listening', url, port: server.port });
              output.say(`Runs are shown at ${url}\nCtrl-C ends it.`);
              await new Promise<void>((resolve) => {
                signal.addEventListener('abort', () => resolve(), { once: true });
              });
            };
            await cleaningUp(
              served,
              () => server.close(),
              () => viewer.close(),
            );
          }, close);
        }),
      ),
    );
}

function requireFolders(folders: readonly string[]): void {
  for (const folder of folders) {
    if (fs.statSync(folder, { throwIfNoEntry: false })?.isDirectory()) continue;
    throw new OptimaError('run.missing', `${folder} is not a folder: there is no run to show.`, {
      hint: 'Name the folder of a run, or one that holds runs; `optima train two-hop-qa` makes one in runs/.',
    });
  }
}

async function writeCopy(
  options: Omit<ExportOptions, 'onProgress'>,
  { progress, say, emit }: Output,
): Promise<void> {
  const { exportRuns } = await import('../viewer/server/export.ts');
  let under = '';
  const written = await exportRuns({
    ...options,
    onProgress(run, done, total) {
      if (run !== under) progress.begin(`copying ${run}`, total, 'trees');
      under = run;
      progress.advance(done);
      if (done === total) progress.end(`${total} trees`);
    },
  });
  const { target } = options;
  emit({ event: 'summary', out: target, ...written });
  say(`Wrote ${target}: ${written.files} files, ${(written.bytes / 1e6).toFixed(1)} MB.`);
  say(`To look at it, let any server have it: python3 -m http.server --directory ${target} --bind 127.0.0.1`);
}
