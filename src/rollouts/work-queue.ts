// Work side by side: items are taken in order by whoever is free.

/**
 * Calls `work` for every item, at most one at a time with each of the workers. When one rejects no further item is
 * begun, `stop` asks those under way to end, and the first rejection is passed on once all have.
 */
export async function inLanes<Worker, Item>(
  workers: readonly Worker[],
  items: readonly Item[],
  work: (worker: Worker, item: Item, index: number) => Promise<void>,
  stop: () => void = () => {},
): Promise<void> {
  const queue = items.entries();
  const failures: unknown[] = [];
  await Promise.all(
    workers.map(async (worker) => {
      for (const [index, item] of queue) {
        if (failures.length > 0) return;
        try {
          await work(worker, item, index);
        } catch (error) {
          failures.push(error);
          stop();
        }
      }
    }),
  );
  if (failures.length > 0) throw failures[0];
}
