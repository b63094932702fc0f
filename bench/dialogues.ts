// Dialogues per second with a model that answers at once: what actors, bus, validation and fold cost. Speed drifts with
// the machine's clock, so each run stands beside the cost of one transition of the smallest machine.
// node --import tsx bench/dialogues.ts [dialogues a run] [runs]
import { createActor, createMachine } from 'xstate';
import { everyRole } from '../src/actors/index.ts';
import { chunk } from '../src/domain/chunk.ts';
import { createRng } from '../src/domain/rng.ts';
import { scriptedModel } from '../src/models/scripted/index.ts';
import { type RolloutEvent, rollOut } from '../src/rollouts/executor.ts';
import { chatter, wordPairEpisodes, wordPairs } from '../test/support/scenarios.ts';
import { countArgument, report, rounded } from './shared.ts';

const count = countArgument(0, 960);
const runs = countArgument(1, 9);
const scenario = wordPairs();
const cast = everyRole(scenario, scriptedModel({ reply: chatter }));
const toggle = createMachine({
  initial: 'off',
  states: { off: { on: { press: 'on' } }, on: { on: { press: 'off' } } },
});

/** Seconds that `count` dialogues take, and what they hold. */
async function holdDialogues() {
  let messages = 0;
  let turns = 0;
  const startedAt = performance.now();
  const events = rollOut({
    phase: 'bench',
    scenario,
    casts: [cast],
    cohorts: chunk(wordPairEpisodes(count), 96),
    temperature: 0,
    maxMessageTokens: 64,
    rng: createRng(1),
  });
  await events.forEach(({ type }: RolloutEvent) => {
    if (type !== 'cohort.completed') messages++;
    if (type === 'turn.taken') turns++;
  });
  return {
    seconds: (performance.now() - startedAt) / 1000,
    turns: turns / count,
    messages: messages / count,
  };
}

/** Microseconds of one transition of a machine with two states and nothing else. */
function timeTransition(): number {
  const transitions = 10_000;
  const actor = createActor(toggle).start();
  const startedAt = performance.now();
  for (let i = 0; i < transitions; i++) actor.send({ type: 'press' });
  actor.stop();
  return ((performance.now() - startedAt) * 1000) / transitions;
}

// Until V8 has compiled what runs often.
timeTransition();
const { turns, messages } = await holdDialogues();
const measured = [];
for (let run = 0; run < runs; run++) {
  const before = timeTransition();
  const { seconds } = await holdDialogues();
  const transition = (before + timeTransition()) / 2;
  measured.push({ seconds, transitions: (seconds * 1e6) / count / transition });
}
measured.sort((a, b) => a.seconds - b.seconds);
const median = measured[runs >> 1]!;
report({
  bench: 'dialogues',
  dialogues: count,
  runs,
  turnsPerDialogue: turns,
  messagesPerDialogue: messages,
  dialoguesPerSecond: Math.round(count / median.seconds),
  bestDialoguesPerSecond: Math.round(count / measured[0]!.seconds),
  microsecondsPerTurn: Math.round((median.seconds * 1e6) / count / turns),
  transitionsPerDialogue: rounded(median.transitions, 0),
});
