// The launcher of a worker thread: lets Node read TypeScript, then hands over to src/workers/entry.ts.
import { register } from 'tsx/esm/api';

register();
await import('../src/workers/entry.ts');
