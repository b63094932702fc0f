// Work side by side: whoever is free takes the next item, and results come in the order of the items.
import { from, Observable, type ObservableInput } from 'rxjs';

/**
 * Does `work` for every item, at most one at a time with each worker, and passes its results on in the order of the items:
 * what a later one gives is kept until those before it have ended. An item is taken from `items` when a worker is free for
 * it, and while fewer than twice as many as there are workers are begun and not passed on. The first error ends everything,
 * and what is under way is unsubscribed from. Throws a RangeError without workers.
 */
export function inOrder<Worker, Item, Result>(
  workers: readonly Worker[],
  items: Iterable<Item>,
  work: (worker: Worker, item: Item, index: number) => ObservableInput<Result>,
): Observable<Result> {
  if (workers.length === 0) throw new RangeError('inOrder: there is nobody to do the work.');
  return new Observable((subscriber) => {
    const queue = items[Symbol.iterator]();
    const free = [...workers];
    const ahead = 2 * workers.length;
    const early = new Map<number, Result[]>();
    const ended = new Set<number>();
    let begun = 0;
    let current = 0;
    let beginning = false;
    const passOn = (index: number, result: Result) => {
      if (index === current) subscriber.next(result);
      else if (early.has(index)) early.get(index)!.push(result);
      else early.set(index, [result]);
    };
    const end = (index: number) => {
      ended.add(index);
      while (ended.delete(current)) {
        current++;
        for (const result of early.get(current) ?? []) subscriber.next(result);
        early.delete(current);
      }
      beginWithFree();
    };
    const begin = (worker: Worker, item: Item) => {
      const index = begun++;
      const results = from(work(worker, item, index)).subscribe({
        next: (result) => passOn(index, result),
        error: (error) => subscriber.error(error),
        complete: () => end(index),
      });
      // When all that belongs to the item has been put away, not before.
      results.add(() => {
        free.push(worker);
        beginWithFree();
      });
      subscriber.add(results);
    };
    // A loop, not a recursion: work may end as it begins.
    const beginWithFree = (): void => {
      if (beginning) return;
      beginning = true;
      try {
        while (free.length > 0 && begun - current < ahead && !subscriber.closed) {
          const next = queue.next();
          if (!next.done) begin(free.shift()!, next.value);
          else if (current === begun) subscriber.complete();
          else break;
        }
      } catch (error) {
        subscriber.error(error);
      }
      beginning = false;
    };
    beginWithFree();
  });
}

/** A call as a source of its one result; it is aborted when nobody waits for it any more. */
export function calling<Result>(call: (signal: AbortSignal) => Promise<Result>): Observable<Result> {
  return new Observable((subscriber) => {
    const controller = new AbortController();
    let pending = true;
    const result = call(controller.signal).finally(() => {
      pending = false;
    });
    from(result).subscribe(subscriber);
    return () => {
      if (pending) controller.abort();
    };
  });
}
