// Whom the look before training blames: the model, a partner who plays a role, or nobody in particular; and whose weights it reads.
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { probeTeam, whyUnready } from '../../src/check/probe.ts';
import { adviceFor, unreadyMessage } from '../../src/cli/look.ts';
import { OptimaError } from '../../src/domain/errors.ts';
import { scriptedModel } from '../../src/models/scripted/index.ts';
import { canFreeze } from '../../src/tensor/index.ts';
import type { PolicySource } from '../../src/workers/host.ts';
import { Workers } from '../../src/workers/index.ts';
import { optimaHere, temporaryFolder, writeRandomCheckpoint, writeSmallScenario } from '../support/run.ts';
import { wordPairs } from '../support/scenarios.ts';

const scenario = wordPairs({ maxMessageTokens: 4 });
const long = 'well '.repeat(9);
const wrong = '<A>wrong</A>';

/** What is said, and advised, of a team in which a partner plays bob. */
async function verdictOf(alice: string, bob: string) {
  const model = (text: string) => scriptedModel({ reply: () => text });
  const probe = await probeTeam({ scenario, models: [{ alice: model(alice), bob: model(bob) }], seed: 1 });
  const partners = { bob: { folder: 'other', model: model(bob) } };
  const team = { scenario, name: 'pairs', model: 'mine', base: null as never, partners };
  return { message: unreadyMessage(team, whyUnready(probe)!, probe), advice: () => adviceFor(team, probe) };
}

test('who never ends a message does not speak the scenario, be it a partner', async () => {
  const partner = await verdictOf(wrong, long);
  assert.is(
    partner.message,
    `other as bob does not speak "${scenario.name}": every message ran into its cap of 4 tokens.`,
  );
  assert.match(await partner.advice(), /^Give bob a policy that speaks it/);
  for (const bob of [wrong, long])
    assert.match((await verdictOf(long, bob)).message, /^mine does not speak .* every message ran into/);
});

test('where both speak and nothing is right, the two are named together', async () => {
  assert.is(
    (await verdictOf(wrong, wrong)).message,
    `mine with other as bob does not solve "${scenario.name}": none of 128 dialogues scored above 0.`,
  );
});

test('workers look with the weights that the run has opened, and do not read others', async () => {
  const folder = temporaryFolder('look');
  const model = path.join(folder, 'model');
  await writeRandomCheckpoint(model);
  const sources: PolicySource[] = [];
  const { start } = Workers;
  Workers.start = async () =>
    ({
      modelsOf: (source: PolicySource) => {
        sources.push(source);
        return Promise.reject(new OptimaError('model.failed', 'That is enough.'));
      },
      stop: async () => {},
    }) as never;
  try {
    const { stderr } = await optimaHere([
      ...['train', writeSmallScenario(folder), '--model', model, '--workers', '1'],
      ...['--out', path.join(folder, 'run')],
    ]);
    assert.match(stderr, 'That is enough.');
  } finally {
    Workers.start = start;
    fs.rmSync(folder, { recursive: true });
  }
  assert.is(sources.length, 1);
  assert.is(sources[0]!.shared?.hash, canFreeze() ? sources[0]!.hash : undefined);
});

test.run();
