// How far apart two turns are, S of docs/method.md §5: edit distance by the length of the longer text.

/** Whether S(a, b) is below the limit. */
export const isNearer = (a: string, b: string, limit: number): boolean => distanceBelow(a, b, limit) !== null;

/**
 * S(a, b) = levenshtein(a, b) / max(length of a, length of b) where it is below the limit, else null. S is in [0, 1]; that of
 * two empty texts is 0. Lengths are in UTF-16 units.
 *
 * Two rows of the table (Wagner and Fischer, 1974), of which only the cells near enough to the diagonal are computed
 * (Ukkonen, 1985); it ends at the first row that is beyond the limit as a whole.
 */
export function distanceBelow(a: string, b: string, limit: number): number | null {
  if (a === b) return limit > 0 ? 0 : null;
  const longest = Math.max(a.length, b.length);
  if (Math.abs(a.length - b.length) / longest >= limit) return null;
  // One edit more than may be needed: the product is rounded.
  const band = Math.min(longest, Math.ceil(limit * longest));
  const codes = Array.from({ length: b.length }, (_, j) => b.charCodeAt(j));
  let above = Int32Array.from({ length: b.length + 1 }, (_, j) => j);
  let row = new Int32Array(b.length + 1);
  for (let i = 1; i <= a.length; i++) {
    const code = a.charCodeAt(i - 1);
    const first = Math.max(1, i - band);
    const last = Math.min(b.length, i + band);
    row[first - 1] = first === 1 ? i : band + 1;
    if (last === i + band) above[last] = band + 1;
    let least = row[first - 1]!;
    for (let j = first; j <= last; j++) {
      const replaced = above[j - 1]! + (code === codes[j - 1] ? 0 : 1);
      const edited = Math.min(above[j]!, row[j - 1]!) + 1;
      row[j] = Math.min(replaced, edited);
      least = Math.min(least, row[j]!);
    }
    if (least / longest >= limit) return null;
    [above, row] = [row, above];
  }
  const distance = above[b.length]! / longest;
  return distance < limit ? distance : null;
}
