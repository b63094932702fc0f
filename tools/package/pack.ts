// Makes the package that `npm pack` and `npm publish` send out: compiled modules with declarations in dist/, the viewer's page
// bundled beside them, and a package.json whose entries name those. npm runs it before (`prepack`) and, to leave the clone as it
// was, after (`postpack`).
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { bundleClient } from '../../src/viewer/server/client-files.ts';

const root = path.resolve(import.meta.dirname, '../..');
const dist = path.join(root, 'dist');

const steps: Record<string, () => void | Promise<void>> = {
  async compiled() {
    fs.rmSync(dist, { recursive: true, force: true });
    const compiler = path.join(root, 'node_modules/typescript/bin/tsc');
    const project = path.join(import.meta.dirname, 'tsconfig.json');
    const { status } = spawnSync(process.execPath, [compiler, '-p', project], { stdio: 'inherit' });
    if (status !== 0) process.exit(1);
    for (const file of filesOf(path.join(root, 'src'))) {
      // CommonJS is written as it is run, and its types beside it.
      if (/\.c[jt]s$/.test(file)) fs.copyFileSync(path.join(root, 'src', file), path.join(dist, file));
    }
    for (const file of filesOf(dist).filter((name) => name.endsWith('.d.ts'))) {
      // The compiler rewrites the imports of modules only.
      rewrite(path.join(dist, file), /(?<=\bfrom '|\bimport\(')(\.{1,2}\/[^']*)\.ts(?=')/g, '$1.js');
    }
    const declarations = declarationsFrom(['index.d.ts', 'run/index.d.ts']);
    for (const file of filesOf(dist)) {
      if (/\.d\.c?ts$/.test(file) && !declarations.has(file)) fs.rmSync(path.join(dist, file));
    }
    const client = path.join(dist, 'viewer/client');
    fs.mkdirSync(client, { recursive: true });
    for (const [file, content] of await bundleClient()) fs.writeFileSync(path.join(client, file), content);
    rewrite(path.join(root, 'package.json'), /"\.\/src\/(.*)\.ts"/g, '"./dist/$1.js"');
  },
  sources() {
    rewrite(path.join(root, 'package.json'), /"\.\/dist\/(.*)\.js"/g, '"./src/$1.ts"');
    fs.rmSync(dist, { recursive: true, force: true });
  },
};

/** What a user's compiler reads: declarations of the package's entries, and those that they import, directly or not. */
function declarationsFrom(entries: readonly string[]): ReadonlySet<string> {
  const found = new Set(entries);
  for (const file of found) {
    const imports = fs.readFileSync(path.join(dist, file), 'utf8').matchAll(/'(\.{1,2}\/[^']*)\.(c?)js'/g);
    for (const [, name, common] of imports) found.add(path.join(path.dirname(file), `${name}.d.${common}ts`));
  }
  return found;
}

const filesOf = (folder: string) => fs.readdirSync(folder, { recursive: true, encoding: 'utf8' });

function rewrite(file: string, pattern: RegExp, by: string): void {
  fs.writeFileSync(file, fs.readFileSync(file, 'utf8').replaceAll(pattern, by));
}

const [step = ''] = process.argv.slice(2);
if (!Object.hasOwn(steps, step)) throw new Error(`pack.ts takes one of ${Object.keys(steps).join(', ')}`);
await steps[step]!();
