// Names by content: the first 16 hexadecimal digits of a SHA-256, 64 bits, enough that no two things of a run collide.
import { createHash } from 'node:crypto';

/** A hash in the making. */
export interface Hash16 {
  /** Adds a text, as UTF-8, or bytes. */
  update(data: string | Uint8Array): this;
  /** The hash of all that was added; ends it. */
  digest(): string;
}

/** Starts the hash of what comes in pieces. */
export function createHash16(): Hash16 {
  const hash = createHash('sha256');
  return {
    update(data) {
      hash.update(data);
      return this;
    },
    digest: () => hash.digest('hex').slice(0, 16),
  };
}

/** The first 36 bits of a text's SHA-256 as six characters of base64url: enough to find what has changed by accident. */
export const hash6 = (text: string): string =>
  createHash('sha256').update(text).digest('base64url').slice(0, 6);

/** The hash of a text, as UTF-8, or of bytes. */
export const hash16 = (data: string | Uint8Array): string => createHash16().update(data).digest();
