// A search, and training by preference, of a scenario whose agents speak at once, under names, with an environment that answers:
// in token space a pair's prompt is what its speaker had read. And the run, cut off in its search, ends in the same log.
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { systemClock } from '../../src/domain/clock.ts';
import { isMidRound } from '../../src/domain/transcript.ts';
import { type LlamaPolicy, loadPolicy } from '../../src/models/llama/index.ts';
import { emptyLog } from '../../src/store/event-log.ts';
import { RunFolder } from '../../src/store/run-folder.ts';
import { preferenceExample } from '../../src/training/dpo/examples.ts';
import {
  changeManifest,
  optimaHere,
  smallHybridRun,
  temporaryFolder,
  writeRandomCheckpoint,
} from '../support/run.ts';

const folder = temporaryFolder('turns');
test.after(() => fs.rmSync(folder, { recursive: true }));
const model = path.join(folder, 'model');
const out = path.join(folder, 'run');
const log = path.join(out, 'events.jsonl');
const phase = 'idpo-2/search';
const source = new URL('../../src/index.ts', import.meta.url).href;
const scenario = `
import { defineScenario, dialogue, exactMatch, generated, majority, tagged } from ${JSON.stringify(source)};
const sees = (name) => ({ sees: ({ n }) => name + ' has ' + n });
export default defineScenario({
  name: 'at-once', kind: 'debate', description: '',
  tasks: generated((rng) => ({ n: rng.int(99) })),
  roles: { ann: sees('Ann'), ben: sees('Ben'), cyd: sees('Cyd') },
  environment: {
    open: ({ task }) => [{ text: 'Begin with ' + task.n + '.', to: ['ben', 'cyd'] }],
    respond: ({ turns }) => [turns.length + ' messages.', { text: 'Last: ' + (turns.at(-1).text.length % 7), to: ['ann'] }],
  },
  protocol: dialogue({
    order: ['ann', 'ben', 'cyd'], maxTurns: 7, until: majority(),
    next: (turns) => (turns.length % 4 === 0 ? 'ann' : [{ speaker: 'ben', to: ['ann'] }, 'cyd', 'ann']),
  }),
  answer: tagged('A'), answers: ({ n }) => [String(n)], metric: exactMatch,
  reward: { lambdaToken: 0.6, lambdaLoss: 0.1 }, formats: [],
});
`;

let run: RunFolder;
let policy: LlamaPolicy;

test.before(async () => {
  await writeRandomCheckpoint(model, 'Ann Ben Cyd has messages Last Begin with 0 1 2 3 4 5 6 7 8 9');
  const file = path.join(folder, 'at-once.mjs');
  fs.writeFileSync(file, scenario);
  const settings = ['search.mergeBelow=0.7', 'maxMessageTokens=4', 'search.expansions=5'].flatMap(
    (setting) => ['--set', setting],
  );
  const args = [
    'train',
    file,
    '--model',
    model,
    '--anyway',
    ...smallHybridRun,
    ...settings,
    '--workers',
    '0',
    '--json',
  ];
  const { code, stdout } = await optimaHere([...args, '--out', out]);
  assert.is(code, 0, stdout);
  run = RunFolder.open(out, systemClock);
  const { policy: team } = run.outputOf({ name: 'isft-1/train', kind: 'train' })!;
  policy = await loadPolicy(run.checkpointFolder(team.ann!));
});
test.after(() => policy.dispose());

test('a pair’s prompt is what its speaker read, also within a round and where the environment has spoken', () => {
  const made = new Map(
    [...run.eventsOf('idpo-2/pair')].flatMap((event) =>
      event.type === 'pairs.made' ? [[event.tree, event.pairs]] : [],
    ),
  );
  let [withinRound, observed, pairs] = [0, 0, 0];
  for (const { conversation, dealOf } of run.treesOf(phase)) {
    assert.is(dealOf().opening!.length, 1);
    for (const pair of made.get(conversation.root)!) {
      const example = preferenceExample(conversation, dealOf(), pair, policy, policy.hash);
      const chosen = conversation.turns[pair.chosen]!;
      const history = conversation.turns[pair.parent];
      assert.is(example.promptIds.length, chosen.promptTokens);
      assert.equal(example.chosenIds, chosen.tokenIds);
      pairs++;
      if (history?.observed !== undefined) observed++;
      if (history !== undefined && isMidRound(history)) withinRound++;
    }
  }
  assert.ok(pairs > 5 && withinRound > 0 && observed > 0, `${pairs} ${withinRound} ${observed}`);
});

test('an observation stands once in the log for each turn that it follows, whichever dialogues share it', () => {
  const given = new Map<string, number>();
  let merged = 0;
  for (const event of run.eventsOf(phase)) {
    if (event.type === 'turn.merged') merged++;
    if (event.type === 'observation.given') given.set(event.nodeId, 1 + (given.get(event.nodeId) ?? 0));
  }
  assert.ok(merged > 0);
  assert.ok([...given.values()].every((times) => times === 1));
  for (const { conversation } of run.treesOf(phase)) {
    for (const { id, observed, round, speaker } of Object.values(conversation.turns)) {
      assert.is(observed !== undefined, !isMidRound({ round, speaker }), id);
      assert.is(given.has(id), observed !== undefined);
    }
  }
});

test('a run that is cut off in its search ends in the same log', async () => {
  run.close();
  const withoutTimes = () => fs.readFileSync(log, 'utf8').replaceAll(/"at":"[^"]*"/g, '');
  const whole = withoutTimes();
  const lines = fs.readFileSync(log, 'utf8').split('\n');
  const from = lines.findIndex((line) => line.includes(`"phase.started","phase":"${phase}"`));
  const end = lines.findIndex((line, index) => index > from && line.includes('"cohort.completed"'));
  const cut = lines.findIndex((line, index) => index > end + 30 && line.includes('"observation.given"'));
  fs.writeFileSync(log, `${lines.slice(0, cut + 1).join('\n')}\n${lines[cut + 1]!.slice(0, 30)}`);
  changeManifest(out, () => ({ log: emptyLog }));
  const { code, stdout } = await optimaHere(['train', '--resume', out, '--workers', '0', '--json']);
  assert.is(code, 0, stdout);
  assert.is(withoutTimes(), whole);
});

test.run();
