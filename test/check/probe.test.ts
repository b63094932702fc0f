// The look before training: what it says of teams that do not speak, speak in vain, are right now and then, or fail.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { describeProbe, probeTeam, whyUnready } from '../../src/check/probe.ts';
import type { OptimaError } from '../../src/domain/errors.ts';
import type { GenerationRequest } from '../../src/domain/model.ts';
import { hash32 } from '../../src/domain/rng.ts';
import { scriptedModel } from '../../src/models/scripted/index.ts';
import type { Metric, Scenario } from '../../src/scenario/types.ts';
import { solveWordPair, type WordPair, wordPairs } from '../support/scenarios.ts';

const look = (
  reply: (request: GenerationRequest) => string,
  change: Partial<Scenario<WordPair>> = {},
  seed = 1,
) => probeTeam({ scenario: wordPairs(change), models: [scriptedModel({ reply })], seed });

test('a team that solves its tasks is ready, and is looked at no further', async () => {
  const probe = await look(solveWordPair);
  assert.equal(probe, {
    ...{ dialogues: 32, failed: 0, messages: 96, capped: 0, cappedRoles: [], maxMessageTokens: 96 },
    ...{ stated: 1, agreed: 1, scored: 1, right: 1, tokens: 10 },
  });
  assert.is(whyUnready(probe), null);
  assert.is(
    describeProbe(probe),
    '32 dialogues on 8 training tasks: 100 % stated an answer, 100 % agreed, 100 % were right, 0 % of the messages ran into their cap, 10 tokens a dialogue',
  );
});

test('where every message runs into its cap, that is why', async () => {
  const probe = await look(() => 'well '.repeat(9), { maxMessageTokens: 4 });
  assert.equal([probe.dialogues, probe.capped, probe.stated, probe.agreed], [32, 1, 0, 0]);
  assert.is(whyUnready(probe), `all ${32 * 8} messages ran into their cap of 4 tokens`);
});

test('a team that agrees on wrong answers is looked at longer, under the format prompts, before that is said', async () => {
  const systems: string[] = [];
  const probe = await look(({ messages }) => {
    systems.push(messages[0]!.content);
    return '<A>wrong</A>';
  });
  assert.equal([probe.dialogues, probe.stated, probe.agreed, probe.right], [128, 1, 1, 0]);
  assert.is(whyUnready(probe), 'none of 128 dialogues scored above 0');
  assert.is(systems.filter((text) => text.endsWith('\nBe terse.')).length, 2 * 96);
});

test('where nobody is turned away for it, it is not looked at longer', async () => {
  const model = scriptedModel({ reply: () => '<A>wrong</A>' });
  const probe = await probeTeam({ scenario: wordPairs(), models: [model], seed: 1, brief: true });
  assert.is(whyUnready(probe), 'none of 32 dialogues scored above 0');
});

test('one that is right once in a while is ready', async () => {
  const seldom = (request: GenerationRequest) => {
    const [, dialogue] = /^(probe\/longer.*?\.\d+)/.exec(request.id) ?? [];
    return dialogue !== undefined && hash32(dialogue) % 20 === 0 ? solveWordPair(request) : '<A>wrong</A>';
  };
  const probe = await look(seldom);
  assert.is(probe.dialogues, 128);
  assert.ok(probe.scored > 0 && probe.scored < 0.2, `${probe.scored}`);
  assert.is(whyUnready(probe), null);
});

test('a score short of right is something to learn from', async () => {
  const half = { name: 'half', score: () => ({ score: 0.5, exactMatch: false }) };
  const probe = await look(() => '<A>half</A>', { metric: half });
  assert.equal([probe.scored, probe.right, whyUnready(probe)], [1, 0, null]);
});

test('its tasks are the first of the run, by its seed', async () => {
  const heard = async (seed: number) => {
    const views = new Set<string>();
    await look(
      (request) => {
        views.add(request.messages[0]!.content);
        return solveWordPair(request);
      },
      {
        tasks: {
          load: async (_, count, rng) =>
            Array.from({ length: count }, (_, n) => ({
              left: `${n}-${rng.split(n).int(1e6)}`,
              right: 'oak',
            })),
        },
      },
      seed,
    );
    return [...views].sort().join();
  };
  assert.is(await heard(1), await heard(1));
  assert.is.not(await heard(1), await heard(2));
});

test('dialogues that fail are counted beside the others, and are an error where all do', async () => {
  const { score: exactly } = wordPairs().metric;
  const metric: Metric = {
    name: 'picky',
    score: (answer, right, dialogue) => {
      if (right[0]!.startsWith('oak')) throw new Error('no oaks today');
      return exactly(answer, right, dialogue);
    },
  };
  const some = await look(solveWordPair, { metric }, 3);
  assert.ok(some.failed > 0 && some.failed < some.dialogues);
  assert.is(some.right, 1);
  assert.match(describeProbe(some), new RegExp(`, ${some.failed} failed$`));
  const score = (): number => {
    throw new Error('no score today');
  };
  const error = await look(solveWordPair, { metric: { name: 'broken', score } }).then(
    () => null,
    (reason: OptimaError) => reason,
  );
  assert.is(error?.code, 'evaluation.empty');
  assert.match(
    error!.message,
    /^All 32 dialogues of a first look failed, the first because: .*no score today/,
  );
});

test.run();
