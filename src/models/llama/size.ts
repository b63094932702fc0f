// How much memory a decoder takes, from its config alone.
import { OptimaError } from '../../domain/errors.ts';
import { heapRoom } from '../../tensor/index.ts';
import type { LlamaConfig } from './config.ts';
import { weightShapes } from './weights.ts';

/** Numbers of all weights together. */
export function parameterCount(config: LlamaConfig): number {
  let count = 0;
  for (const shape of weightShapes(config).values()) count += shape.reduce((product, n) => product * n, 1);
  return count;
}

/** Bytes of the weights as the engine holds them: in float32, whatever a file has them in. */
export const weightBytes = (config: LlamaConfig): number => 4 * parameterCount(config);

/** What a heap needs beside the weights at least, for a short text: work space, logits, keys and values. */
const leastBeside = 2 ** 27;

/** Throws `model.failed` where the engine cannot hold the weights, before any is read; `source` names them. */
export function requireRoom(config: LlamaConfig, source: string): void {
  const room = heapRoom();
  const needed = weightBytes(config) + leastBeside;
  if (room === null || needed <= room.free) return;
  const inUse = room.all - room.free;
  throw new OptimaError(
    'model.failed',
    `${source}: ${millions(parameterCount(config))} million weights in float32 take ${gib(needed)} GiB with the least work space, and the engine's heap has ${gib(room.all)} GiB${inUse < leastBeside ? '' : `, of which ${gib(inUse)} are in use`}.`,
    {
      hint: `Take a model of at most ${millions((room.free - leastBeside) / 4)} million weights, or fewer models at once.`,
    },
  );
}

const gib = (bytes: number): string => (bytes / 2 ** 30).toFixed(1);
const millions = (count: number): string => Math.floor(count / 1e6).toLocaleString('en');
