// Lists in pieces.

/** The items in pieces of `size`, the last one maybe smaller; a piece is made when it is asked for. */
export function* chunk<Item>(items: Iterable<Item>, size: number): Generator<Item[]> {
  let piece: Item[] = [];
  for (const item of items) {
    piece.push(item);
    if (piece.length < size) continue;
    yield piece;
    piece = [];
  }
  if (piece.length > 0) yield piece;
}
