// `node --import` of this lets Node run TypeScript as tsx does, in less time: the tests, and all processes that they start,
// do so. Types are replaced by spaces, so that each line and column of a stack trace is the source's own.
import { register } from 'node:module';

// Tools and the eyes that src/cli/watch.ts has on a thread need none of it.
if (!/[\\/]node_modules[\\/]\w|^\[worker eval\]$/.test(process.argv[1])) {
  register('./types-stripped-hooks.mjs', import.meta.url);
}
