// Whom the look before training blames: the model, a partner who plays a role, or nobody in particular.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { probeTeam, whyUnready } from '../../src/check/probe.ts';
import { adviceFor, unreadyMessage } from '../../src/cli/look.ts';
import { scriptedModel } from '../../src/models/scripted/index.ts';
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

test.run();
