// Files that were damaged: how, by chance, and what must come of it.
import * as assert from 'uvu/assert';
import { OptimaError } from '../../src/domain/errors.ts';
import type { Rng } from '../../src/domain/rng.ts';

/** How often tests damage each file; FUZZ=300 is more. */
export const rounds = Number(process.env.FUZZ ?? 12);

/** The bytes cut off, one of them changed, a few left out, or some numbers in them a hundred times as large. */
export function damaged(whole: Uint8Array, round: number, rng: Rng): Buffer {
  const bytes = Buffer.from(whole);
  const at = Math.floor(rng.next() * bytes.length);
  const kind = round % 4;
  if (kind === 0) return bytes.subarray(0, at);
  if (kind === 2) return Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + 1 + (at % 7))]);
  if (kind === 3) {
    const grown = bytes.toString('latin1').replace(/\d+/g, (n) => (rng.next() < 0.02 ? `${n}99` : n));
    return Buffer.from(grown, 'latin1');
  }
  bytes[at] = Math.floor(rng.next() * 256);
  return bytes;
}

/** What loading is refused with, in one line and within two seconds; null where it is not. */
export async function refusalOf(load: () => Promise<unknown>): Promise<OptimaError | null> {
  // The processor's time: a busy machine is not the file's doing.
  const before = process.cpuUsage();
  try {
    await load();
    return null;
  } catch (error) {
    assert.instance(error, OptimaError, String((error as Error).stack));
    assert.not.match((error as OptimaError).message, '\n');
    return error as OptimaError;
  } finally {
    const { user, system } = process.cpuUsage(before);
    assert.ok(user + system < 2e6);
  }
}
