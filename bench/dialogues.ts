// Dialogues per second with a model that answers at once: what actors, bus, validation and fold cost.
// node --import tsx bench/dialogues.ts [dialogues]
import { everyRole, runDialogues } from '../src/actors/index.ts';
import { createRng } from '../src/domain/rng.ts';
import { scriptedModel } from '../src/models/scripted/index.ts';
import { chatter, wordPairEpisodes, wordPairs } from '../test/support/scenarios.ts';
import { countArgument, report } from './shared.ts';

const count = countArgument(0, 2000);
const scenario = wordPairs();
const speakers = everyRole(scenario, scriptedModel({ reply: chatter }));
const sampling = { temperature: 0, topP: 1, topK: 0, maxTokens: 64 };

async function measure(dialogues: number) {
  let messages = 0;
  let turns = 0;
  const sink = () => {
    messages++;
  };
  const startedAt = performance.now();
  const episodes = wordPairEpisodes(dialogues);
  for await (const trajectory of runDialogues(episodes, {
    scenario,
    speakers,
    sampling,
    rng: createRng(1),
    sink,
  })) {
    turns += trajectory.turns.length;
  }
  const seconds = (performance.now() - startedAt) / 1000;
  return { dialogues, turns, messages, seconds };
}

await measure(200);
const { dialogues, turns, messages, seconds } = await measure(count);
report({
  bench: 'dialogues',
  dialogues,
  turnsPerDialogue: turns / dialogues,
  messagesPerDialogue: messages / dialogues,
  dialoguesPerSecond: Math.round(dialogues / seconds),
  microsecondsPerTurn: Math.round((seconds * 1e6) / turns),
});
