// The page's own files: bundled when the package is packed, and in memory at start in a clone.
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { contentSecurityPolicy } from './guard.ts';

/** Files of the page by their names: nothing else is ever served as a file. */
export type ClientFiles = ReadonlyMap<string, Uint8Array>;

/** Beside this file's folder: the sources, or in the package what was bundled of them. */
const folder = fileURLToPath(new URL('../client/', import.meta.url));
const bundled = ['index.html', 'app.js', 'app.css', 'icon.svg'];

/** Types of the files, by ending. */
export const mediaTypes: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
};

/** The page's files: those that were bundled, or bundled now. */
export async function clientFiles(): Promise<ClientFiles> {
  if (!fs.existsSync(path.join(folder, 'app.js'))) return bundleClient();
  return new Map(bundled.map((name) => [name, fs.readFileSync(path.join(folder, name))]));
}

/** Bundles the page, with the bundler that a clone has. */
export async function bundleClient(): Promise<ClientFiles> {
  const { build } = await import('esbuild');
  const { outputFiles } = await build({
    absWorkingDir: folder,
    entryPoints: { app: 'main.tsx', style: 'style.css' },
    outdir: folder,
    bundle: true,
    minify: true,
    write: false,
    format: 'iife',
    target: 'es2023',
    charset: 'utf8',
    legalComments: 'none',
    logLevel: 'silent',
  });
  const contentOf = (ending: string) => outputFiles.find((file) => file.path.endsWith(ending))!.contents;
  const page = fs.readFileSync(path.join(folder, 'index.html'), 'utf8');
  return new Map<string, Uint8Array>([
    ['index.html', Buffer.from(page.replace('{policy}', contentSecurityPolicy))],
    ['app.js', contentOf('.js')],
    ['app.css', contentOf('.css')],
    ['icon.svg', fs.readFileSync(path.join(folder, 'icon.svg'))],
  ]);
}
