// How far apart two turns are, S of docs/method.md §5: edit distance by the length of the longer text.
import { distance } from 'fastest-levenshtein';

/** Whether S(a, b) is below the limit. */
export const isNearer = (a: string, b: string, limit: number): boolean => distanceBelow(a, b, limit) !== null;

/**
 * S(a, b) = levenshtein(a, b) / max(length of a, length of b) where it is below the limit, else null. S is in [0, 1]; that of
 * two empty texts is 0. Lengths are in UTF-16 units.
 */
export function distanceBelow(a: string, b: string, limit: number): number | null {
  if (a === b) return limit > 0 ? 0 : null;
  const longest = Math.max(a.length, b.length);
  // So many edits there are at least.
  if (Math.abs(a.length - b.length) / longest >= limit) return null;
  const share = distance(a, b) / longest;
  return share < limit ? share : null;
}
