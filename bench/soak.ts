// Whether memory grows: training steps and dialogues by the thousand, with what the process, the JavaScript heap and the
// tensor engine hold on the way. By hand; about a quarter of an hour.
// node --expose-gc --import tsx bench/soak.ts [steps] [dialogues]
import { everyRole, runCohort } from '../src/actors/index.ts';
import { chunk } from '../src/domain/chunk.ts';
import { createRng } from '../src/domain/rng.ts';
import { scriptedModel } from '../src/models/scripted/index.ts';
import { trajectoriesOf } from '../src/rollouts/executor.ts';
import { heapBytes, startEngine, tf } from '../src/tensor/index.ts';
import { createAdamW } from '../src/training/adamw.ts';
import { defaultSftConfig, sftObjective } from '../src/training/sft/index.ts';
import { takeStep } from '../src/training/step.ts';
import { chatter, wordPairEpisodes, wordPairs } from '../test/support/scenarios.ts';
import { countArgument, openSubject, rounded, trainingBatch } from './shared.ts';

const [steps, dialogues] = [countArgument(0, 2000), countArgument(1, 20_000)];
const reports = 10;

const engine = await startEngine({ threads: 1 });
console.log(JSON.stringify({ bench: 'soak', engine: engine.name, steps, dialogues }));

function reportMemory(done: Record<string, number>): void {
  globalThis.gc?.();
  const { rss, heapUsed } = process.memoryUsage();
  const mebibytes = (bytes: number) => rounded(bytes / 2 ** 20, 1);
  console.log(
    JSON.stringify({
      ...done,
      tensors: tf.memory().numTensors,
      rssMiB: mebibytes(rss),
      heapUsedMiB: mebibytes(heapUsed),
      engineMiB: mebibytes(heapBytes()),
    }),
  );
}

const subject = await openSubject('tiny');
// A few sequences a step: growth shows as well, and the run is not for a day.
const batch = (await trainingBatch(subject)).slice(0, 4);
const optimizer = createAdamW(subject.policy.parameters, defaultSftConfig);
for (let step = 1; step <= steps; step++) {
  await takeStep(subject.policy, sftObjective, optimizer, batch, {
    learningRate: 1e-5,
    tokensPerPass: 2048,
  });
  if (step % Math.ceil(steps / reports) === 0) reportMemory({ steps: step });
}
optimizer.dispose();

const scenario = wordPairs();
const options = {
  scenario,
  cast: everyRole(scenario, scriptedModel({ reply: chatter })),
  sampling: { temperature: 0, topP: 1, topK: 0, maxTokens: 64 },
  rng: createRng(1),
};
let held = 0;
let reported = 0;
for (const cohort of chunk(wordPairEpisodes(dialogues), 96)) {
  held += (await trajectoriesOf(runCohort(cohort, options))).length;
  if (Math.floor((held * reports) / dialogues) === reported) continue;
  reported = Math.floor((held * reports) / dialogues);
  reportMemory({ dialogues: held });
}
