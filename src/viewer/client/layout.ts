// Where the turns of a tree stand: from left to right by depth, leaves one below the other, a turn in the middle of its answers.

/** A turn and the one that it answers. */
export interface LaidNode {
  readonly id: string;
  readonly parent: string;
}

/** Where a node stands: steps from the root, and lines from the top, in halves. */
export interface Place {
  readonly depth: number;
  readonly line: number;
}

export interface Layout {
  readonly places: ReadonlyMap<string, Place>;
  /** By node, the root too, in the order of the log. */
  readonly children: ReadonlyMap<string, readonly string[]>;
  readonly depth: number;
  readonly lines: number;
}

/** Lays out a tree whose nodes come parents before their children. */
export function layOut(root: string, nodes: readonly LaidNode[]): Layout {
  const children = new Map<string, string[]>([[root, []]]);
  for (const { id, parent } of nodes) {
    children.get(parent)?.push(id);
    children.set(id, []);
  }
  const places = new Map<string, Place>();
  let lines = 0;
  let deepest = 0;
  // Without recursion: a dialogue may be longer than the stack.
  const stack: { readonly id: string; readonly depth: number; isOpen: boolean }[] = [
    { id: root, depth: 0, isOpen: false },
  ];
  while (stack.length > 0) {
    const top = stack.at(-1)!;
    const below = children.get(top.id)!;
    if (!top.isOpen && below.length > 0) {
      top.isOpen = true;
      for (const id of below.toReversed()) stack.push({ id, depth: top.depth + 1, isOpen: false });
      continue;
    }
    stack.pop();
    deepest = Math.max(deepest, top.depth);
    const [first, last] = [below[0], below.at(-1)].map((id) =>
      id === undefined ? undefined : places.get(id)!.line,
    );
    places.set(top.id, { depth: top.depth, line: first === undefined ? lines++ : (first + last!) / 2 });
  }
  return { places, children, depth: deepest + 1, lines };
}

/** The node that an arrow key leads to from another one; null: none. */
export function neighbour(
  { places, children }: Layout,
  from: string,
  parent: string | null,
  key: string,
): string | null {
  if (key === 'ArrowLeft') return parent;
  const here = places.get(from)!;
  if (key === 'ArrowRight') {
    // The answer that stands nearest.
    const near = [...(children.get(from) ?? [])].sort(
      (one, other) =>
        Math.abs(places.get(one)!.line - here.line) - Math.abs(places.get(other)!.line - here.line),
    );
    return near[0] ?? null;
  }
  const isBeyond =
    key === 'ArrowDown' ? (line: number) => line > here.line : (line: number) => line < here.line;
  let nearest: string | null = null;
  for (const [id, { depth, line }] of places) {
    if (depth !== here.depth || !isBeyond(line)) continue;
    if (nearest === null || Math.abs(line - here.line) < Math.abs(places.get(nearest)!.line - here.line))
      nearest = id;
  }
  return nearest;
}
