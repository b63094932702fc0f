// Preloaded into an `optima` by `node --import`: kills the process at an operation on the files of a folder, given by its
// number as JSON in KILL_AT.
import { register } from 'tsx/esm/api';

register();
const { watchOperations } = await import('./operations.ts');
const { folder, number, half } = JSON.parse(process.env.KILL_AT);
await watchOperations(folder, (operation, isHalf) => {
  if (operation.number === number && isHalf === half) process.kill(process.pid, 'SIGKILL');
});
