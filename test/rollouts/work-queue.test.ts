// Work side by side: who takes what, in which order results come, and what a failure leaves undone.
import { lastValueFrom, Observable, of, Subject, type Subscriber, take, toArray } from 'rxjs';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { calling, inOrder } from '../../src/rollouts/work-queue.ts';

/** Work whose results come, and that ends, when the test says so; what is begun and what is left is noted. */
function controlled() {
  const notes: string[] = [];
  const running = new Map<string, Subscriber<string>>();
  const work = (worker: string, item: string, index: number) =>
    new Observable<string>((subscriber) => {
      notes.push(`${worker} begins ${item} ${index}`);
      running.set(item, subscriber);
      return () => void notes.push(`${worker} leaves ${item}`);
    });
  const of = (item: string) => running.get(item)!;
  /** What was noted since the last time. */
  const news = () => notes.splice(0);
  return { news, work, of };
}

/** Items that note when they are asked for. */
function* noting(items: Iterable<string>, asked: string[]) {
  for (const item of items) {
    asked.push(item);
    yield item;
  }
}

/** All that an observable says. */
function heard(source: Observable<string>) {
  const said: string[] = [];
  const subscription = source.subscribe({
    next: (value) => said.push(value),
    error: (error) => said.push(`error: ${error?.message ?? error}`),
    complete: () => said.push('complete'),
  });
  return { said, subscription };
}

test('items are taken in order by whoever is free, one at a time with each', () => {
  const { news, work, of } = controlled();
  const { said } = heard(inOrder(['x', 'y'], ['a', 'b', 'c', 'd'], work));
  assert.equal(news(), ['x begins a 0', 'y begins b 1']);
  of('b').complete();
  assert.equal(news(), ['y leaves b', 'y begins c 2'], 'what belongs to b is put away before c begins');
  of('c').complete();
  assert.equal(news(), ['y leaves c', 'y begins d 3']);
  of('d').complete();
  assert.equal(news(), ['y leaves d']);
  assert.equal(said, []);
  of('a').complete();
  assert.equal(news(), ['x leaves a']);
  assert.equal(said, ['complete']);
});

test('an item is asked for when a worker is free for it, not before', () => {
  const asked: string[] = [];
  const { work, of } = controlled();
  const source = inOrder(['x', 'y'], noting(['a', 'b', 'c', 'd'], asked), work);
  assert.equal(asked, []);
  const { said } = heard(source);
  assert.equal(asked, ['a', 'b']);
  of('a').next('a1');
  assert.equal(asked, ['a', 'b']);
  of('a').complete();
  assert.equal(asked, ['a', 'b', 'c']);
  of('b').complete();
  assert.equal(asked, ['a', 'b', 'c', 'd']);
  assert.equal(said, ['a1']);
});

test('the results of the first item come at once, those of later ones when all before have ended', () => {
  const { work, of } = controlled();
  const { said } = heard(inOrder(['x', 'y', 'z'], ['a', 'b', 'c'], work));
  of('b').next('b1');
  of('c').next('c1');
  of('a').next('a1');
  assert.equal(said, ['a1']);
  of('c').next('c2');
  of('c').complete();
  of('b').next('b2');
  of('a').next('a2');
  assert.equal(said, ['a1', 'a2']);
  of('a').complete();
  assert.equal(said, ['a1', 'a2', 'b1', 'b2'], 'b is the first now');
  of('b').next('b3');
  assert.is(said.at(-1), 'b3');
  of('b').complete();
  assert.equal(said, ['a1', 'a2', 'b1', 'b2', 'b3', 'c1', 'c2', 'complete']);
});

test('results are in the order of the items in whatever order the items end', async () => {
  const items = Array.from({ length: 20 }, (_, index) => index);
  for (const workers of [[1], [1, 2], [1, 2, 3, 4, 5], items]) {
    const busy = new Map<number, number>();
    const work = async (worker: number, item: number) => {
      assert.is(busy.get(worker) ?? 0, 0);
      busy.set(worker, 1);
      for (let turn = 0; turn < (item * 7) % 5; turn++) await new Promise((resolve) => setImmediate(resolve));
      busy.set(worker, 0);
      return item;
    };
    assert.equal(await lastValueFrom(inOrder(workers, items, work).pipe(toArray())), items);
  }
});

test('work that is done at once leaves nothing out', async () => {
  const items = Array.from({ length: 100 }, (_, index) => index);
  const all = inOrder(['x', 'y'], items, (_, item, index) => [item, -index]);
  assert.equal(
    await lastValueFrom(all.pipe(toArray())),
    items.flatMap((item) => [item, -item]),
  );
});

test('the first error ends everything: the others are left, and nothing more is begun', () => {
  const asked: string[] = [];
  const { news, work, of } = controlled();
  const { said } = heard(inOrder(['x', 'y', 'z'], noting(['a', 'b', 'c', 'd', 'e'], asked), work));
  news();
  of('a').next('a1');
  of('c').next('c1');
  of('b').error(new Error('first'));
  assert.equal(said, ['a1', 'error: first']);
  assert.equal(news().sort(), ['x leaves a', 'y leaves b', 'z leaves c']);
  of('c').error(new Error('second'));
  of('a').next('a2');
  of('a').complete();
  assert.equal(said, ['a1', 'error: first']);
  assert.equal(news(), []);
  assert.equal(asked, ['a', 'b', 'c']);
});

test('who unsubscribes leaves what is under way, and nothing more is begun', () => {
  const asked: string[] = [];
  const { news, work, of } = controlled();
  const { said, subscription } = heard(inOrder(['x', 'y'], noting(['a', 'b', 'c'], asked), work));
  of('a').next('a1');
  news();
  subscription.unsubscribe();
  assert.equal(news().sort(), ['x leaves a', 'y leaves b']);
  of('a').complete();
  assert.equal(said, ['a1']);
  assert.equal(asked, ['a', 'b']);
});

test('who unsubscribes at the first result begins nothing with the other workers', () => {
  const begun: string[] = [];
  const work = (worker: string, item: string) => {
    begun.push(`${worker} ${item}`);
    return [item];
  };
  const { said } = heard(inOrder(['x', 'y'], ['a', 'b', 'c'], work).pipe(take(1)));
  assert.equal(said, ['a', 'complete']);
  assert.equal(begun, ['x a']);
});

test('a failure with nothing is a failure, and so is work that throws at once', () => {
  const outcome = (work: () => Promise<string> | Observable<string>) => {
    const { said } = heard(inOrder([1], [1], work));
    return said;
  };
  const nothing = new Observable<string>((subscriber) => subscriber.error(undefined));
  assert.equal(
    outcome(() => nothing),
    ['error: undefined'],
  );
  assert.equal(
    outcome(() => {
      throw new Error('at once');
    }),
    ['error: at once'],
  );
});

test('work that throws at once ends what is under way', () => {
  const { news, work } = controlled();
  const { said } = heard(
    inOrder(['x', 'y', 'z'], ['a', 'b', 'c'], (worker, item, index) => {
      if (item === 'b') throw new Error('at once');
      return work(worker, item, index);
    }),
  );
  assert.equal(said, ['error: at once']);
  assert.equal(news(), ['x begins a 0', 'x leaves a']);
});

test('items that cannot be given end what is under way', () => {
  const broken = function* () {
    yield 'a';
    throw new Error('no more');
  };
  const { news, work } = controlled();
  assert.equal(heard(inOrder(['x', 'y'], broken(), work)).said, ['error: no more']);
  assert.equal(news(), ['x begins a 0', 'x leaves a']);
  const later = controlled();
  const { said } = heard(inOrder(['x'], broken(), later.work));
  later.of('a').next('a1');
  later.of('a').complete();
  assert.equal(said, ['a1', 'error: no more']);
  assert.equal(later.news(), ['x begins a 0', 'x leaves a']);
});

test('of a long list of items that end at once none is lost', async () => {
  const items = Array.from({ length: 20_000 }, (_, index) => index);
  const results = await lastValueFrom(inOrder(['only'], items, (_, item) => of(item)).pipe(toArray()));
  assert.equal(results, items);
});

test('nobody runs far ahead of an item that is slow', () => {
  const begun: number[] = [];
  const slow = new Subject<number>();
  const results: number[] = [];
  inOrder(['a', 'b'], Array(50).keys(), (_, item) => {
    begun.push(item);
    return item === 0 ? slow : of(item);
  }).subscribe((result) => results.push(result));
  assert.equal(begun, [0, 1, 2, 3]);
  assert.equal(results, []);
  slow.complete();
  assert.equal(begun.length, 50);
  assert.equal(results, [...Array(50).keys()].slice(1));
});

test('without workers there is an error, not an endless wait', () => {
  assert.throws(() => inOrder([], [1], () => of(1)), /nobody to do the work/);
});

test('without items there is nothing to wait for', () => {
  assert.equal(heard(inOrder(['x', 'y'], [], () => assert.unreachable() as never)).said, ['complete']);
});

test('more workers than items do no harm', () => {
  const { news, work, of } = controlled();
  const { said } = heard(inOrder(['x', 'y', 'z'], ['a'], work));
  assert.equal(news(), ['x begins a 0']);
  assert.equal(said, []);
  of('a').next('a1');
  of('a').complete();
  assert.equal(said, ['a1', 'complete']);
});

/** Enough turns of the event loop for anything that is due. */
const settled = () => new Promise((resolve) => setImmediate(resolve));

/** A call that the test answers; `signal` is what it was given. */
function manualCall() {
  const given = { signal: undefined as AbortSignal | undefined, calls: 0 };
  let answer!: (value: string) => void;
  let fail!: (error: unknown) => void;
  const result = new Promise<string>((resolve, reject) => {
    answer = resolve;
    fail = reject;
  });
  const source = calling((signal) => {
    given.calls++;
    given.signal = signal;
    return result;
  });
  return { source, given, answer, fail };
}

test('a call is made when somebody waits for it, and gives its one result', async () => {
  const { source, given, answer } = manualCall();
  assert.is(given.calls, 0);
  const { said } = heard(source);
  assert.is(given.calls, 1);
  answer('done');
  await settled();
  assert.equal(said, ['done', 'complete']);
});

test('a call that fails, or throws at once, is an error', async () => {
  const { source, fail } = manualCall();
  const { said } = heard(source);
  fail(new Error('no'));
  await settled();
  assert.equal(said, ['error: no']);
  const thrown = calling<string>(() => {
    throw new Error('at once');
  });
  assert.equal(heard(thrown).said, ['error: at once']);
});

test('a call is aborted when nobody waits for it any more, and its result is heard by nobody', async () => {
  for (const end of ['answer', 'fail'] as const) {
    const { source, given, [end]: settle } = manualCall();
    const { said, subscription } = heard(source);
    assert.not(given.signal!.aborted);
    subscription.unsubscribe();
    assert.ok(given.signal!.aborted);
    settle('too late');
    await settled();
    assert.equal(said, []);
  }
});

test('a call that has ended is not aborted', async () => {
  for (const end of ['answer', 'fail'] as const) {
    const { source, given, [end]: settle } = manualCall();
    const { said } = heard(source);
    settle('x');
    await settled();
    assert.is(said.length, end === 'answer' ? 2 : 1);
    assert.not(given.signal!.aborted, end);
  }
});

test('calls side by side are aborted by the failure of one', async () => {
  const calls = [manualCall(), manualCall(), manualCall()];
  const { said } = heard(inOrder([0, 1, 2], calls, (_, { source }) => source));
  calls[1]!.fail(new Error('down'));
  await settled();
  assert.equal(said, ['error: down']);
  assert.equal(
    [0, 2].map((index) => calls[index]!.given.signal!.aborted),
    [true, true],
  );
});

test.run();
