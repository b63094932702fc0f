// The launcher of a worker thread: lets Node read TypeScript, then hands over to src/workers/thread.ts.
import { register } from 'tsx/esm/api';

register();
await import('../src/workers/thread.ts');
