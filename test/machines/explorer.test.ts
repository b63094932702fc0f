// The explorer's statechart: what it asks of its search and of the world, in which order, and how it ends.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { createActor, fromPromise, toPromise } from 'xstate';
import { type NodeId, rootId, taskId } from '../../src/domain/ids.ts';
import { explorerMachine, type Rollout, type ValuedRollout } from '../../src/machines/index.ts';
import type { Expansion, Search } from '../../src/search/index.ts';

const root = rootId('s', taskId('train', 0));
const expansion = (index: number): Expansion => ({ index, node: root, rollouts: [2 * index, 2 * index + 1] });
const rollout = (number: number) => ({ number, dialogue: { id: `${number}` } }) as unknown as Rollout;
const valued = (number: number): ValuedRollout => ({
  number,
  leaf: `${root}.${number}` as NodeId,
  reward: number % 2 === 0 ? number / 2 : null,
});

/** Carries out a search of so many expansions; `boom` names what rejects, and when. */
async function explore(count: number, boom: { readonly at?: string } = {}) {
  const said: string[] = [];
  let asked = 0;
  const search = {
    ask: () => {
      said.push(`ask ${asked}`);
      return asked < count ? expansion(asked++) : null;
    },
    tell: (number: number, leaf: NodeId, reward: number | null) =>
      said.push(`tell ${number} ${leaf} ${reward}`),
  } as unknown as Search;
  const act = <Result>(what: string, result: Result) => {
    said.push(what);
    if (what === boom.at) throw new Error(`no ${what}`);
    return result;
  };
  const machine = explorerMachine.provide({
    actors: {
      rollOut: fromPromise<readonly Rollout[], Expansion>(async ({ input: { index, rollouts } }) =>
        act(`roll out ${index}`, rollouts.map(rollout)),
      ),
      value: fromPromise<readonly ValuedRollout[], readonly Rollout[]>(async ({ input }) => {
        const numbers = input.map(({ number }) => number);
        return act(`value ${numbers}`, numbers.map(valued));
      }),
    },
  });
  const actor = createActor(machine, { input: { search } });
  const ended = toPromise(actor);
  actor.start();
  const output = await ended;
  return { said, output, state: actor.getSnapshot().value };
}

test('it rolls out what the search asks for, values it, tells it, and asks again until nothing is left', async () => {
  const { said, output, state } = await explore(2);
  assert.equal(said, [
    ...['ask 0', 'roll out 0', 'value 0,1', `tell 0 ${root}.0 0`, `tell 1 ${root}.1 null`],
    ...['ask 1', 'roll out 1', 'value 2,3', `tell 2 ${root}.2 1`, `tell 3 ${root}.3 null`],
    'ask 2',
  ]);
  assert.equal(output, { error: null });
  assert.is(state, 'finished');
});

test('a search that asks for nothing is over at once', async () => {
  const { said, state } = await explore(0);
  assert.equal(said, ['ask 0']);
  assert.is(state, 'finished');
});

for (const [at, last] of [
  ['roll out 1', 'roll out 1'],
  ['value 2,3', 'value 2,3'],
] as const) {
  test(`what ${at} rejects with ends the search, and is what it came to`, async () => {
    const { said, output, state } = await explore(5, { at });
    assert.is(said.at(-1), last);
    assert.is((output.error as Error).message, `no ${at}`);
    assert.is(state, 'failed');
  });
}

test('an explorer without a world says so', async () => {
  const search = { ask: () => expansion(0) } as unknown as Search;
  const actor = createActor(explorerMachine, { input: { search } });
  const ended = toPromise(actor);
  actor.start();
  assert.match(((await ended).error as Error).message, 'Actor "rollOut" was not provided');
});

test('a search of any length is led: no bound on its steps is reached', async () => {
  const { said } = await explore(300);
  assert.is(said.at(-1), 'ask 300');
});

test.run();
