// The hash of what is loaded, computed by a thread of its own: of a large model it takes as long as bringing the weights to the
// engine, which goes on meanwhile.
import { availableParallelism } from 'node:os';
import { Worker } from 'node:worker_threads';
import { OptimaError } from '../../domain/errors.ts';
import { createHash16, type Hash16 } from '../../domain/hash.ts';

/** A hash that holds a thread until `digest` or `stop`. */
export interface HashThread extends Hash16 {
  /** Gives up. */
  stop(): void;
}

/** Pieces that may wait to be hashed, and the bytes of one. */
const [pieces, pieceBytes] = [4, 2 ** 22];
/** Bytes below which a thread is not worth its start. */
const leastBytes = 2 ** 26;
/** Milliseconds after which a thread that hashes no piece is taken for dead. */
const mostWait = 120_000;
/** Words that both sides wait on: pieces written, pieces hashed; behind them the length of each piece, and then the digest. */
const [written, hashed, lengths, digestAt] = [0, 1, 2, 2 + pieces];
/** Lengths that are none: the end, with and without a digest. */
const [end, stopped] = [-1, -2];

/** What the thread runs: as text, since neither this file nor what it is compiled to needs to be found then. */
const program = `
const { workerData: { words, bytes } } = require('node:worker_threads');
const hash = require('node:crypto').createHash('sha256');
for (let n = 0; ; n++) {
  Atomics.wait(words, ${written}, n);
  const length = words[${lengths} + n % ${pieces}];
  if (length === ${stopped}) break;
  if (length === ${end}) words.set(new Int32Array(new Uint8Array(hash.digest()).buffer), ${digestAt});
  else hash.update(bytes.subarray(n % ${pieces} * ${pieceBytes}, n % ${pieces} * ${pieceBytes} + length));
  Atomics.store(words, ${hashed}, n + 1);
  Atomics.notify(words, ${hashed});
  if (length === ${end}) break;
}`;

/** As `createHash16`, of so many bytes: in a thread of its own where that is faster. */
export function createHashThread(size: number): HashThread {
  if (size < leastBytes || availableParallelism() === 1) return Object.assign(createHash16(), { stop() {} });
  const words = new Int32Array(new SharedArrayBuffer(4 * (digestAt + 8)));
  const bytes = new Uint8Array(new SharedArrayBuffer(pieces * pieceBytes));
  const worker = new Worker(program, { eval: true, workerData: { words, bytes }, execArgv: [] });
  worker.unref();
  let count = 0;
  const waitFor = (n: number) => {
    for (let done = Atomics.load(words, hashed); done < n; done = Atomics.load(words, hashed)) {
      if (Atomics.wait(words, hashed, done, mostWait) !== 'timed-out') continue;
      throw new OptimaError('model.failed', 'The thread that hashes what is loaded does not answer.');
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
      waitFor(count + 1 - pieces);
      say(stopped);
    },
  };
}
