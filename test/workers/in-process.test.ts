// A host without worker threads: which policies it uses, loads and frees, and what it computes with them.
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { PolicyHash } from '../../src/domain/ids.ts';
import type { GenerationRequest } from '../../src/domain/model.ts';
import { createRng } from '../../src/domain/rng.ts';
import { type LlamaPolicy, loadPolicy } from '../../src/models/llama/index.ts';
import { tf } from '../../src/tensor/index.ts';
import { trainEpochs } from '../../src/training/epochs.ts';
import type { StepReport } from '../../src/training/loop.ts';
import { inProcessHost, type PolicyHost, type PolicySource } from '../../src/workers/index.ts';
import { temporaryFolder, writeRandomCheckpoint } from '../support/run.ts';
import { pullObjective } from '../training/toy-objective.ts';
import { withPolicy } from '../training/toy-policy.ts';

const folder = temporaryFolder('in-process');
test.after(() => fs.rmSync(folder, { recursive: true }));

/** The base, and three checkpoints that differ from it in one weight. */
let base: LlamaPolicy;
let ofBase: PolicySource;
let sources: [PolicySource, PolicySource, PolicySource];
let host: PolicyHost;
let tensors: number;

test.before(async () => {
  await writeRandomCheckpoint(path.join(folder, 'base'));
  base = await loadPolicy(path.join(folder, 'base'));
  // Its own folder is empty: a host that knows the base has no need of it.
  ofBase = { folder: path.join(folder, 'nowhere'), hash: base.hash };
  const copy = await loadPolicy(path.join(folder, 'base'));
  const [weights] = [...copy.parameters.values()];
  const save = async (name: string) => {
    tf.tidy(() => weights!.assign(tf.add(weights!, 0.25)));
    const place = path.join(folder, name);
    return { folder: place, hash: await copy.save(place) };
  };
  sources = [await save('0'), await save('1'), await save('2')];
  copy.dispose();
});
test.before.each(() => {
  tensors = tf.memory().numTensors;
  host = inProcessHost([base]);
});

/** Enough turns for all that is due. */
async function settled() {
  for (let i = 0; i < 3; i++) await new Promise((resolve) => setImmediate(resolve));
}

/** How many policies were loaded and are still there. */
async function loaded(): Promise<number> {
  await settled();
  return (tf.memory().numTensors - tensors) / base.parameters.size;
}

const requests: GenerationRequest[] = [0, 1].map((seed) => ({
  id: `request ${seed}`,
  messages: [{ role: 'system', content: `The mayor of Baldale is Kenron ${seed}.` }],
  sampling: { temperature: 0.9, topP: 1, topK: 0, maxTokens: 12 },
  seed,
}));
const views = [
  {
    id: 'view',
    messages: [
      { role: 'system', content: 'Baldale' },
      { role: 'assistant', content: 'Kenron' },
    ] as const,
  },
];

const modelOf = async (source: PolicySource) => (await host.modelsOf(source))[0]!;
const failureOf = (asked: Promise<unknown>) =>
  asked.then(
    () => assert.unreachable('resolved') as never,
    (error) => error,
  );

test('a known policy is used as it is, and never freed', async () => {
  const models = await host.modelsOf(ofBase);
  assert.is(models.length, 1);
  assert.is(models[0]!.hash, base.hash);
  assert.equal(await models[0]!.generate(requests), await base.generate(requests));
  const session = models[0]!.openSession!();
  assert.is(session.hash, base.hash);
  assert.equal(await session.score(views), await base.score(views));
  session.close();
  host.keep([]);
  await host.stop();
  assert.is(await loaded(), 0);
  assert.is((await base.score(views)).length, 1);
});

test('as many policies as are asked for are loaded once each, and all freed in the end', async () => {
  for (const source of [...sources, ...sources]) {
    const model = await modelOf(source);
    const own = await loadPolicy(source.folder);
    assert.is(model.hash, source.hash);
    assert.equal(await model.generate(requests), await own.generate(requests));
    assert.equal(await model.score(views), await own.score(views));
    own.dispose();
  }
  assert.is(await loaded(), 3);
  await host.stop();
  assert.is(await loaded(), 0);
});

test('what is not needed is freed at once, but not while a session is open or a call under way', async () => {
  const [first, second] = [await modelOf(sources[0]), await modelOf(sources[1])];
  await modelOf(sources[2]);
  const [generated, scores] = [await first.generate(requests), await second.score(views)];
  host.keep([sources[0].hash, sources[1].hash]);
  assert.is(await loaded(), 2);
  const session = first.openSession!();
  const underway = second.score(views);
  host.keep([base.hash]);
  assert.equal(await underway, scores);
  assert.equal(await session.generate(requests), generated);
  assert.is(await loaded(), 1);
  const last = session.score(views);
  session.close();
  await last;
  assert.is(await loaded(), 0);

  host.keep([sources[1].hash]);
  await modelOf(sources[1]);
  assert.equal(await second.score(views), scores);
  assert.is(await loaded(), 1, 'it is needed again');
  assert.equal(await first.generate(requests), generated, 'what is asked all the same is loaded again');
  assert.is(await loaded(), 1);
  await host.stop();
});

test('a policy that is not what it was is refused, not kept, and tried again', async () => {
  const late = { ...sources[0], folder: path.join(folder, 'late') };
  fs.cpSync(sources[1].folder, late.folder, { recursive: true });
  const { code, message } = await failureOf(host.modelsOf(late));
  assert.is(code, 'checkpoint.invalid');
  assert.match(message, `has the hash ${sources[1].hash}, not ${late.hash}`);
  assert.is(await loaded(), 0);
  fs.rmSync(late.folder, { recursive: true });
  assert.is((await failureOf(host.modelsOf(late))).code, 'checkpoint.missing');
  fs.cpSync(sources[0].folder, late.folder, { recursive: true });
  const model = await modelOf(late);

  host.keep([]);
  fs.rmSync(late.folder, { recursive: true });
  await settled();
  const session = model.openSession!();
  model.openSession!().close();
  await settled();
  assert.is((await failureOf(session.generate(requests))).code, 'checkpoint.missing');
  session.close();
  assert.is(await loaded(), 0);
});

test('an abort reaches the call', async () => {
  const model = await modelOf(ofBase);
  const signal = AbortSignal.abort();
  assert.is((await failureOf(model.generate(requests, { signal }))).code, 'interrupted');
  assert.is((await failureOf(model.openSession!().score(views, { signal }))).code, 'interrupted');
});

test('an objective of any kind trains through the host as without it', async () => {
  const train = async (throughHost: boolean) => {
    const reports: StepReport[] = [];
    let weights: number[] = [];
    await withPolicy(async (policy) => {
      const pulls = [3, 4, 5, 6, 7].map((target) => ({ target, weight: target }));
      const config = {
        ...{ learningRate: 0.05, epochs: 2, batchSize: 3, warmupFraction: 0, floorFraction: 0 },
        ...{ weightDecay: 0, clipNorm: 1, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, tokensPerPass: 20 },
      };
      const source = { folder: '', hash: 'toy' as PolicyHash };
      await trainEpochs(policy, pullObjective, pulls, config, createRng(1), {
        computePasses: throughHost ? host.gradientsOf(pullObjective, source, policy) : undefined,
        onStep: (report) => void reports.push(report),
      });
      weights = policy.weights();
    });
    return { reports, weights };
  };
  const trained = await train(true);
  assert.equal(trained, await train(false));
  assert.equal(
    trained.reports.map(({ figures }) => figures.examples),
    [2, 3, 2, 3],
  );
});

test.run();
