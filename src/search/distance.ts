// How unlike two turns are: S of the paper, the edit distance of their texts over the longer one's length, in [0, 1].

/**
 * Whether S(a, b) = editDistance(a, b) / max(|a|, |b|) is below `limit`; of two empty texts it is 0. Insertions, deletions
 * and substitutions of UTF-16 units count 1 each (Levenshtein, 1966).
 */
export function isNearer(a: string, b: string, limit: number): boolean {
  return distanceBelow(a, b, limit) !== null;
}

/** S(a, b) if it is below `limit`, else null, found out as soon as no way below the limit is left. */
export function distanceBelow(a: string, b: string, limit: number): number | null {
  const longest = Math.max(a.length, b.length);
  if (longest === 0) return limit > 0 ? 0 : null;
  const allowed = limit * longest;
  if (Math.abs(a.length - b.length) >= allowed) return null;
  let above = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let row = 1; row <= a.length; row++) {
    const current = [row];
    let least = row;
    for (let column = 1; column <= b.length; column++) {
      const substituted = above[column - 1]! + Number(a[row - 1] !== b[column - 1]);
      const edits = Math.min(substituted, above[column]! + 1, current[column - 1]! + 1);
      current.push(edits);
      least = Math.min(least, edits);
    }
    // No later row has a smaller number than the least of this one.
    if (least >= allowed) return null;
    above = current;
  }
  const edits = above[b.length]!;
  return edits < allowed ? edits / longest : null;
}
