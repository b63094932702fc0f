// The hash of what is loaded, computed by a thread of its own: of a large model it takes as long as bringing the weights to the
// engine, which goes on meanwhile.
import { availableParallelism } from 'node:os';
import { Worker } from 'node:worker_threads';
import { messageOf, OptimaError } from '../../domain/errors.ts';
import { createHash16, type Hash16 } from '../../domain/hash.ts';

/** A hash that holds a thread until `digest` or `stop`. */
export interface HashThread extends Hash16 {
  /** Gives up. Never throws. */
  stop(): void;
}

/** Pieces that may wait to be hashed, and the bytes of one. */
const [pieces, pieceBytes] = [4, 2 ** 22];
/** Bytes below which a thread is not worth its start. */
const leastBytes = 2 ** 26;
/** Milliseconds after which a thread that neither hashes a piece nor says that it failed is taken for dead. */
const mostWait = 30_000;
/** Words that both sides wait on: pieces written, pieces hashed; behind them the length of each piece, and then the digest. */
const [written, hashed, lengths, digestAt] = [0, 1, 2, 2 + pieces];
/** A length that is none: the digest is asked for. */
const end = -1;
/** A number of pieces hashed that is none: the thread is gone. */
const failed = -1;

/**
 * What the thread runs: as text, since neither this file nor what it is compiled to needs to be found then. It waits in a loop: the
 * notice of a piece may come when the thread has found and hashed it already, and waits for the next.
 */
export const program = `
const hash = require('node:crypto').createHash('sha256');
for (let n = 0; ; n++) {
  while (Atomics.load(words, ${written}) === n) Atomics.wait(words, ${written}, n);
  const length = words[${lengths} + n % ${pieces}];
  if (length === ${end}) words.set(new Int32Array(new Uint8Array(hash.digest()).buffer), ${digestAt});
  else hash.update(bytes.subarray(n % ${pieces} * ${pieceBytes}, n % ${pieces} * ${pieceBytes} + length));
  Atomics.store(words, ${hashed}, n + 1);
  Atomics.notify(words, ${hashed});
  if (length === ${end}) break;
}`;

/** Who waits hears no events: of its end the thread says itself what it can. */
const guarded = (text: string): string => `
const { workerData: { words, bytes } } = require('node:worker_threads');
try {${text}
} catch (error) {
  Atomics.store(words, ${hashed}, ${failed});
  Atomics.notify(words, ${hashed});
  throw error;
}`;

/**
 * As `createHash16`, of so many bytes: in a thread of its own, which runs `text`, where that is faster. `update` and `digest` throw
 * `model.failed` when that is gone.
 */
export function createHashThread(size: number, text = program): HashThread {
  if (size < leastBytes || availableParallelism() === 1) return Object.assign(createHash16(), { stop() {} });
  const words = new Int32Array(new SharedArrayBuffer(4 * (digestAt + 8)));
  const bytes = new Uint8Array(new SharedArrayBuffer(pieces * pieceBytes));
  const worker = new Worker(guarded(text), { eval: true, workerData: { words, bytes }, execArgv: [] });
  worker.unref();
  let reason = '';
  worker.on('error', (error) => {
    reason = `: ${messageOf(error)}`;
  });
  worker.on('exit', () => Atomics.store(words, hashed, failed));
  let count = 0;
  const waitFor = (n: number) => {
    for (;;) {
      const done = Atomics.load(words, hashed);
      if (done !== failed && done >= n) return;
      if (done !== failed && Atomics.wait(words, hashed, done, mostWait) !== 'timed-out') continue;
      const what = done === failed ? `failed${reason}` : 'does not answer';
      throw new OptimaError('model.failed', `The thread that hashes what is loaded ${what}.`, {
        hint: 'Try again, with fewer other programs where memory is short.',
      });
    }
  };
  const say = (length: number) => {
    words[lengths + (count % pieces)] = length;
    Atomics.store(words, written, ++count);
    Atomics.notify(words, written);
  };
  return {
    update(data) {
      const whole = typeof data === 'string' ? new TextEncoder().encode(data) : data;
      for (let at = 0; at < whole.length; at += pieceBytes) {
        waitFor(count + 1 - pieces);
        const piece = whole.subarray(at, at + pieceBytes);
        bytes.set(piece, (count % pieces) * pieceBytes);
        say(piece.length);
      }
      return this;
    },
    digest() {
      waitFor(count + 1 - pieces);
      say(end);
      waitFor(count);
      return Buffer.from(words.slice(digestAt).buffer).toString('hex').slice(0, 16);
    },
    stop() {
      void worker.terminate();
    },
  };
}
