// Names by content: the first 16 hexadecimal digits of a SHA-256, 64 bits, enough that no two things of a run collide.
import { createHash, hash } from 'node:crypto';

/** A hash in the making. */
export interface Hash16 {
  /** Adds a text, as UTF-8, or bytes. */
  update(data: string | Uint8Array): this;
  /** The hash of all that was added; ends it. */
  digest(): string;
}

/** Starts the hash of what comes in pieces. */
export function createHash16(): Hash16 {
  const sha256 = createHash('sha256');
  return {
    update(data) {
      sha256.update(data);
      return this;
    },
    digest: () => sha256.digest('hex').slice(0, 16),
  };
}

/** The first 36 bits of the SHA-256 of a text or of bytes as six characters of base64url: enough to find what has changed by accident. */
export const hash6 = (data: string | Uint8Array): string =>
  hash('sha256', data, 'buffer').toString('base64url', 0, 5).slice(0, 6);

/** The hash of a text, as UTF-8, or of bytes. */
export const hash16 = (data: string | Uint8Array): string => createHash16().update(data).digest();
