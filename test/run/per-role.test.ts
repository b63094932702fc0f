// A run whose roles have their own weights: who is trained on what, who speaks, the swapped team, and a kill between two
// trainings. One real run; its trainings are carried out again on other dialogues and pairs.
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { systemClock } from '../../src/domain/clock.ts';
import type { OptimaError } from '../../src/domain/errors.ts';
import type { PhaseOutputOf, RunEvent } from '../../src/domain/events.ts';
import type { PolicyHash, TeamPolicy } from '../../src/domain/ids.ts';
import { mean } from '../../src/domain/metrics.ts';
import { silent } from '../../src/domain/progress.ts';
import { createRng } from '../../src/domain/rng.ts';
import type { Turn } from '../../src/domain/transcript.ts';
import type { PlannedPhases } from '../../src/machines/index.ts';
import { loadPolicy } from '../../src/models/llama/index.ts';
import type { Recipe } from '../../src/recipe/schema.ts';
import type { PhaseContext } from '../../src/run/phases/context.ts';
import { train } from '../../src/run/phases/train.ts';
import { planIterations, planRun } from '../../src/run/plan.ts';
import { PolicyShelf } from '../../src/run/policy-shelf.ts';
import { RunFolder } from '../../src/store/run-folder.ts';
import { inProcessHost } from '../../src/workers/index.ts';
import {
  cutRun,
  optima,
  optimaHere,
  smallHybridRun,
  temporaryFolder,
  writeRandomCheckpoint,
  writeSmallScenario,
} from '../support/run.ts';
import { wordPairs } from '../support/scenarios.ts';

const folder = temporaryFolder('per-role');
test.after(() => fs.rmSync(folder, { recursive: true }));
const model = path.join(folder, 'model');
const whole = path.join(folder, 'whole');
const scenario = writeSmallScenario(folder);
const roles = ['alice', 'bob'] as const;
const iterations = ['init-0', 'isft-1', 'idpo-2'];

const withoutTimes = (run: string) =>
  fs.readFileSync(path.join(run, 'events.jsonl'), 'utf8').replaceAll(/"at":"[^"]*"/g, '"at":""');
const objects = (text: string) =>
  text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));

let stdout: string;
let run: RunFolder;
test.before(async () => {
  await writeRandomCheckpoint(model);
  const args = ['train', scenario, '--model', model, ...smallHybridRun, '--policies', 'per-role'];
  const ended = await optimaHere([...args, '--workers', '0', '--json', '--out', whole]);
  assert.is(ended.code, 0, ended.stdout + ended.stderr);
  stdout = ended.stdout;
  run = RunFolder.open(whole, systemClock);
});
test.after(() => run.close());

const trained = (iteration: string) => run.outputOf({ name: `${iteration}/train`, kind: 'train' })!;
const stepsOf = (iteration: string, of: string) =>
  [...run.eventsOf(`${iteration}/train`)].flatMap((event) =>
    event.type === 'step.trained' && event.role === of ? [event] : [],
  );
/** Which policies said the turns of each role in a phase. */
const speakers = (phase: string): Record<string, PolicyHash[]> => {
  const said = [...run.eventsOf(phase)].flatMap((event) => (event.type === 'turn.taken' ? [event.turn] : []));
  return Object.fromEntries(
    roles.map((role) => [
      role,
      [...new Set(said.filter(({ speaker }) => speaker === role).map(({ policyHash }) => policyHash))],
    ]),
  );
};
const eachOnce = (team: TeamPolicy) =>
  Object.fromEntries(Object.entries(team).map(([role, hash]) => [role, [hash]]));
const swap = ({ alice, bob }: TeamPolicy): TeamPolicy => ({ alice: bob!, bob: alice! });

test('every training leaves a checkpoint for each role, and each speaks with its own from then on', () => {
  const { hash } = run.manifest.base;
  const teams = iterations.map((iteration) => trained(iteration).policy);
  const hashes = teams.flatMap((team) => roles.map((role) => team[role]!));
  assert.is(new Set([hash, ...hashes]).size, 7);
  assert.equal(fs.readdirSync(path.join(whole, 'checkpoints')), [...hashes, 'final'].toSorted());
  for (const [phase, team] of [
    ['base', { alice: hash, bob: hash }],
    ['init-0/generate', { alice: hash, bob: hash }],
    ['init-0/evaluate', teams[0]!],
    ['isft-1/generate', teams[0]!],
    ['idpo-2/pilot', teams[1]!],
    ['idpo-2/search', teams[1]!],
    ['idpo-2/evaluate', teams[2]!],
    ['trained', teams[2]!],
  ] as const) {
    assert.equal(speakers(phase), eachOnce(team), phase);
  }
});

test('steps are logged with their role; the phase has the sum of them, and the mean of losses and figures', () => {
  for (const iteration of iterations) {
    const steps = roles.map((role) => stepsOf(iteration, role));
    for (const own of steps) {
      assert.equal(
        own.map(({ step, steps }) => [step, steps]),
        own.map((_, step) => [step, own.length]),
      );
      assert.ok(own.length > 0, iteration);
    }
    const all = [...run.eventsOf(`${iteration}/train`)].filter(({ type }) => type === 'step.trained');
    assert.equal(all, steps.flat());
    assert.is(trained(iteration).steps, all.length);
  }
});

test('progress and plan tell of both', async () => {
  const done = objects(stdout).filter(({ event, state }) => event === 'stage' && state === 'done');
  for (const iteration of iterations) {
    const losses = done.flatMap(({ stage, result }) => {
      const [, role] = stage.split(`${iteration}/train `);
      return role === undefined ? [] : [[role, Number(/^loss (\d+\.\d{3})/.exec(result)![1])] as const];
    });
    assert.equal(
      losses.map(([role]) => role),
      roles,
    );
    assert.ok(Math.abs(trained(iteration).loss - mean(losses.map(([, loss]) => loss))) < 0.001);
  }
  // Nothing is left to be done: this prints what a run begins and ends with.
  run.close();
  const ended = await optimaHere(['train', '--resume', whole, '--workers', '0']);
  run = RunFolder.open(whole, systemClock);
  assert.is(ended.code, 0, ended.stderr);
  assert.match(ended.stdout, /init-0: SFT on 2 dialogues at most, 2 epochs, a policy for each role +8\n/);
  assert.match(ended.stdout, /idpo-2: DPO on the pairs that are found, a policy for each role +\d+\n/);
  assert.match(ended.stdout, /trained: measured on test tasks +4\nswapped: measured on test tasks +4\n/);
  assert.match(ended.stdout, /\n +base +trained +swapped\nF1( +\d\.\d{3}){3}\n/);
  assert.match(ended.stdout, /\nswapped: each role speaks .* the roles have specialised\.\n/);
  for (const role of roles) {
    const { [role]: hash } = trained('idpo-2').policy;
    assert.match(ended.stdout, `policy of ${role}: ${run.checkpointFolder(hash!)}\n`);
  }
});

test('the run ends with the weights exchanged, and tells of it wherever it tells of the trained team', async () => {
  const kept = trained('idpo-2').policy;
  assert.equal(run.outputOf({ name: 'trained', kind: 'evaluate' })!.policy, kept);
  const swapped = run.outputOf({ name: 'swapped', kind: 'evaluate' })!;
  assert.equal(swapped.policy, swap(kept));
  assert.equal(speakers('swapped'), eachOnce(swap(kept)));
  const tasksOf = (phase: string) => [...run.dialoguesOf(phase)].map(({ taskId }) => taskId);
  assert.equal(tasksOf('swapped'), tasksOf('trained'));

  const rows = objects(fs.readFileSync(path.join(whole, 'metrics.jsonl'), 'utf8'));
  assert.equal(
    rows.slice(-2).map(({ phase, policy }) => [phase, policy]),
    [
      ['trained', kept],
      ['swapped', swap(kept)],
    ],
  );
  assert.equal(
    rows.flatMap(({ event, policy }) => (event === 'iteration' ? [policy] : [])),
    iterations.map((iteration) => trained(iteration).policy),
  );
  const summary = objects(stdout).at(-1);
  assert.equal(summary.policy, kept);
  assert.is(summary.swapped.f1, swapped.metrics.taskScore);
  assert.is(summary.swapped.tokens, swapped.metrics.tokens);
  assert.equal(Object.keys(summary.swapped), Object.keys(summary.trained));
  const { dialogues } = objects(stdout).find(({ event }) => event === 'plan')!;
  assert.is(dialogues, withoutTimes(whole).match(/"type":"dialogue.closed"/g)!.length);
});

/** What another training of an iteration goes by instead of what the log holds. */
interface Change {
  readonly phase?: Partial<PlannedPhases['train']>;
  readonly turn?: (turn: Turn) => Turn;
  readonly isPairKept?: (speaker: string) => boolean;
}

/** Trains an iteration again, without a trace in the run, and returns what it hands on, and what it started from. */
async function trainAgain(
  iteration: string,
  { phase, turn = (same) => same, isPairKept = () => true }: Change = {},
) {
  const base = await loadPolicy(model);
  const shelf = new PolicyShelf(base, run, inProcessHost([base]));
  const recipe = run.manifest.recipe as Recipe;
  const plan = planRun(recipe, wordPairs());
  const starts: PolicyHash[] = [];
  const load: PolicyShelf['load'] = (hash) => {
    starts.push(hash);
    return shelf.load(hash);
  };
  const context = {
    ...{ base, recipe, plan, iterations: planIterations(recipe, wordPairs()), scenario: wordPairs() },
    ...{ rng: createRng(recipe.seed), progress: silent },
    shelf: { load, gradientsOf: shelf.gradientsOf.bind(shelf) },
    run: {
      // Nothing of the phase is there.
      log: { ahead: () => [] },
      outputOf: run.outputOf.bind(run),
      record: () => {},
      saveCheckpoint: async ({ hash }: { hash: PolicyHash }) => hash,
      *eventsOf(name: string): Generator<RunEvent> {
        const turns = Object.assign({}, ...[...searched()].map(({ conversation }) => conversation.turns));
        for (const event of run.eventsOf(name)) {
          if (event.type !== 'pairs.made') yield event;
          else
            yield { ...event, pairs: event.pairs.filter(({ chosen }) => isPairKept(turns[chosen].speaker)) };
        }
      },
      *dialoguesOf(name: string) {
        for (const dialogue of run.dialoguesOf(name)) {
          yield { ...dialogue, turns: dialogue.turns.map(turn) };
        }
      },
      *treesOf() {
        for (const { conversation, dealOf } of searched()) {
          const changed = Object.entries(conversation.turns).map(([id, one]) => [id, turn(one)]);
          yield { dealOf, conversation: { ...conversation, turns: Object.fromEntries(changed) } };
        }
      },
    },
  } as unknown as PhaseContext;
  const planned = plan.find(({ name }) => name === `${iteration}/train`) as PlannedPhases['train'];
  try {
    return { starts, output: await train(context, { ...planned, ...phase }) };
  } finally {
    base.dispose();
  }
}
const searched = () => run.treesOf('idpo-2/search');

const otherIds = (turn: Turn): Turn => ({ ...turn, tokenIds: turn.tokenIds.map((id) => (id + 1) % 200) });
const of = (role: string, change: (turn: Turn) => Turn) => (turn: Turn) =>
  turn.speaker === role ? change(turn) : turn;

test('a training that is carried out again comes to the same', async () => {
  for (const iteration of iterations) {
    const { output, starts } = await trainAgain(iteration);
    assert.equal(output, trained(iteration));
    const before = iterations[iterations.indexOf(iteration) - 1];
    const { hash } = run.manifest.base;
    assert.equal(starts, before === undefined ? [hash, hash] : Object.values(trained(before).policy));
  }
});

for (const iteration of iterations) {
  for (const [role, partner] of [roles, roles.toReversed()] as const) {
    test(`${iteration}: what ${partner} sampled changes its own weights and nothing of ${role}'s`, async () => {
      const { policy } = trained(iteration);
      // The partner hears the text: other ids of the same text are its speaker's alone.
      const { output } = await trainAgain(iteration, { turn: of(partner!, otherIds) });
      assert.is(output.policy[role!], policy[role!]);
      assert.is.not(output.policy[partner!], policy[partner!]);
    });
  }
}

test('fine-tuning that starts from the base does so for each role', async () => {
  const { starts, output } = await trainAgain('isft-1', { phase: { startFrom: 'base' } });
  const { hash } = run.manifest.base;
  assert.equal(starts, [hash, hash]);
  for (const role of roles) assert.is.not(output.policy[role], trained('isft-1').policy[role]);
});

test('a role without an example keeps its weights, wherever training starts, and that is said', async () => {
  const human = (turn: Turn): Turn => ({ ...turn, provenance: 'human' });
  for (const startFrom of ['latest', 'base'] as const) {
    const phase = { startFrom };
    const both = await trainAgain('isft-1', { phase });
    const { output } = await trainAgain('isft-1', { phase, turn: of('bob', human) });
    assert.equal(output.policy, { alice: both.output.policy.alice, bob: trained('init-0').policy.bob });
    assert.is(output.steps, stepsOf('isft-1', 'alice').length);
    const [warning, ...others] = output.warnings;
    assert.match(warning!, /^bob: keeps its weights\. None of 0 sequences has a token to train on\.$/);
    assert.equal(others, []);
  }
});

test('a role without a pair keeps its weights; loss and figures are means over the roles that were trained', async () => {
  const whole = trained('idpo-2');
  const before = trained('isft-1').policy;
  const alone: PhaseOutputOf<'train'>[] = [];
  for (const [role, partner] of [roles, roles.toReversed()] as const) {
    const { output } = await trainAgain('idpo-2', { isPairKept: (speaker) => speaker === role });
    assert.is(output.policy[role!], whole.policy[role!]);
    assert.is(output.policy[partner!], before[partner!]);
    assert.ok(output.warnings.includes(`${partner}: keeps its weights. None of 0 pairs can be trained on.`));
    // What a guard says has its role, too.
    assert.ok(output.warnings.some((words) => words.startsWith(`${role}: too few pairs: `)));
    assert.ok(whole.warnings.some((words) => words.startsWith(`${role}: too few pairs: `)));
    alone.push(output);
  }
  assert.is(whole.steps, alone[0]!.steps + alone[1]!.steps);
  assert.is(whole.loss, mean(alone.map(({ loss }) => loss)));
  for (const [name, value] of Object.entries(whole.figures)) {
    assert.is(value, mean(alone.map(({ figures }) => figures[name]!)), name);
  }
  const [one, other] = alone;
  assert.is.not(one!.loss, other!.loss);
});

test('where no role has anything to train on, the run ends', async () => {
  const error = await trainAgain('idpo-2', { isPairKept: () => false }).then(
    () => null,
    (reason: OptimaError) => reason,
  );
  assert.is(error?.code, 'selection.empty');
  assert.is(error?.message, 'idpo-2/train: no role has a turn to train on.');
});

test('a pair of turns that another policy than its own role’s said is refused', async () => {
  const { policy } = trained('isft-1');
  for (const [role, partner] of [roles, roles.toReversed()] as const) {
    const said = (turn: Turn): Turn => ({ ...turn, policyHash: policy[partner!]! });
    const error = await trainAgain('idpo-2', { turn: of(role!, said) }).then(
      () => null,
      (reason: OptimaError) => reason,
    );
    assert.is(error?.code, 'run.corrupt');
    assert.match(error!.message, `said by policy ${policy[partner!]}, not by ${policy[role!]}`);
  }
});

test('killed between the trainings of two roles and resumed, it ends in the same weights and the same log', async () => {
  for (const [iteration, kill, ofBob, workers] of [
    // A worker trains and plays all that comes after the first.
    ['init-0', { renamed: true }, 0, '1'],
    ['isft-1', { lines: stepsOf('isft-1', 'alice').length }, 0, '0'],
    ['idpo-2', { lines: stepsOf('idpo-2', 'alice').length + 1 }, 1, '0'],
  ] as const) {
    const phase = `${iteration}/train`;
    const cut = path.join(folder, `cut-${iteration}`);
    cutRun(whole, cut, { phase, lines: 0 });
    const log = path.join(cut, 'events.jsonl');
    const killed = await optima(['train', '--resume', cut, '--workers', '0', '--json'], {
      preload: new URL('kill-at.mjs', import.meta.url).href,
      env: { KILL_AT: JSON.stringify({ ...kill, log, phase, signal: 'SIGKILL' }) },
    });
    assert.is(killed.signal, 'SIGKILL', killed.stdout + killed.stderr);
    const left = withoutTimes(cut).split(`"type":"phase.started","phase":"${phase}"`)[1]!;
    assert.equal(
      [...left.matchAll(/"role":"(\w+)"/g)].map(([, role]) => role),
      [...stepsOf(iteration, 'alice').map(() => 'alice'), ...Array(ofBob).fill('bob')],
    );
    const resumed = await optimaHere(['train', '--resume', cut, '--workers', workers, '--json']);
    assert.is(resumed.code, 0, resumed.stdout);
    assert.is(withoutTimes(cut), withoutTimes(whole));
    const [one, other] = [whole, cut].map((of) => fs.readdirSync(path.join(of, 'checkpoints')));
    assert.equal(one, other);
  }
});

test('a step that the log has as another role’s is a divergence', async () => {
  const changed = path.join(folder, 'changed');
  const place = { phase: 'isft-1/train', lines: 2 };
  cutRun(whole, changed, place, (line) => line.replace('"role":"alice"', '"role":"bob"'));
  const ended = await optimaHere(['train', '--resume', changed, '--workers', '0', '--json']);
  assert.is(ended.code, 1);
  assert.is(objects(ended.stdout).at(-1).code, 'run.diverged');
});

test.run();
