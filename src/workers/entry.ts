// Where a worker thread begins: starts its engine, says so, and hears the main thread from then on.
import { parentPort, workerData } from 'node:worker_threads';
import { startEngine } from '../tensor/index.ts';
import { type FromWorker, type ToWorker, toPlain, type WorkerSetting } from './protocol.ts';
import { WorkerThread } from './thread.ts';

const port = parentPort!;
const say = (message: FromWorker) => port.postMessage(message);
try {
  const engine = await startEngine((workerData as WorkerSetting).engine);
  const thread = new WorkerThread(say);
  port.on('message', (message: ToWorker) => thread.receive(message));
  say({ ready: true, engine: engine.name });
} catch (error) {
  say({ failed: toPlain(error) });
}
