// How Node finds and reads modules once types-stripped.mjs is loaded. What becomes of a source is kept by the source's hash, so
// that it is never out of date.
import { createHash, randomUUID } from 'node:crypto';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const require = createRequire(import.meta.url);
const { version } = require('@swc/wasm-typescript/package.json');
const cache = fileURLToPath(new URL(`../../node_modules/.cache/types-stripped-${version}/`, import.meta.url));
fs.mkdirSync(cache, { recursive: true });

/** Who asks for tsx is told that TypeScript is understood already. */
export function resolve(name, context, next) {
  if (name !== 'tsx/esm/api') return next(name, context);
  return { url: 'data:text/javascript,export const register = () => {};', shortCircuit: true };
}

export function load(url, context, next) {
  if (!/^file:[^?#]*\.m?ts($|[?#])/.test(url)) return next(url, context);
  return { format: 'module', source: withoutTypes(fs.readFileSync(fileURLToPath(url))), shortCircuit: true };
}

function withoutTypes(source) {
  const kept = path.join(cache, createHash('sha1').update(source).digest('hex'));
  try {
    return fs.readFileSync(kept);
  } catch (error) {
    if (error.code !== 'ENOENT') throw error;
  }
  const { code } = require('@swc/wasm-typescript').transformSync(source.toString(), { mode: 'strip-only' });
  // Written beside it first: other processes read it.
  const part = `${kept}.${randomUUID()}`;
  fs.writeFileSync(part, code);
  fs.renameSync(part, kept);
  return code;
}
