// Whatever byte of a run is changed: the command says so and names the file, or what the run comes to is the same.
// DAMAGE=300 changes so many bytes of each file, and says what came of it; by default a few. DAMAGE_ONLY=adapters/checkpoints takes
// the files whose names, behind that of their run, begin so.
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { createRng } from '../../src/domain/rng.ts';
import {
  changeManifest,
  optimaHere,
  smallAdapters,
  smallHybridRun,
  temporaryFolder,
  writeRandomCheckpoint,
  writeSmallScenario,
} from '../support/run.ts';

const rounds = Number(process.env.DAMAGE ?? 1);
const only = process.env.DAMAGE_ONLY ?? '';
const folder = temporaryFolder('damage');
test.after(() => fs.rmSync(folder, { recursive: true }));
const inFolder = (name: string) => path.join(folder, name);
/** Where the copy is that is damaged. */
const damaged = inFolder('damaged');
const quiet = ['--json', '--workers', '0'];

/** Every phase, and little of each: whatever is changed, the whole run is read for it. */
const settings = [
  ...['initialization.tasks=1', 'isft.tasks=1', 'search.tasks=1', 'search.pilotDialogues=1'],
  ...['evaluation.tasks=2', 'evaluation.validationTasks=1', 'maxMessageTokens=3'],
].flatMap((setting) => ['--set', setting]);

async function succeed(args: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await optimaHere(args);
  assert.is(code, 0, stdout + stderr);
  return stdout;
}

/** All files of a run, by their names in it; links are the files that they lead to. */
function filesOf(run: string, within = ''): string[] {
  return fs.readdirSync(path.join(run, within), { withFileTypes: true }).flatMap((entry) => {
    const name = path.join(within, entry.name);
    return entry.isDirectory() ? filesOf(run, name) : entry.isSymbolicLink() ? [] : [name];
  });
}

const copy = (run: string, to: string) => {
  fs.rmSync(to, { recursive: true, force: true });
  fs.cpSync(run, to, { recursive: true, verbatimSymlinks: true });
};

/** Cuts a run's log before its line `at`, as a process leaves it that was killed there in the phase that begins at `phase`. */
function cutAt(run: string, at: number, phase: number): void {
  const file = path.join(run, 'events.jsonl');
  const lines = fs.readFileSync(file, 'utf8').split('\n');
  fs.rmSync(path.join(run, 'checkpoints', 'final'), { recursive: true });
  fs.writeFileSync(file, `${lines.slice(0, at).join('\n')}\n`);
  const { sum } = JSON.parse(lines[phase - 1]!);
  changeManifest(run, ({ log }) => ({ log: { ...log, events: phase, sum } }));
}
const linesOf = (run: string) => fs.readFileSync(path.join(run, 'events.jsonl'), 'utf8').split('\n');
const lineWith = (run: string, ...texts: string[]) =>
  texts.reduce((from, text) => linesOf(run).findIndex((line, at) => at > from && line.includes(text)), -1);

test.before(async () => {
  await writeRandomCheckpoint(inFolder('model'));
  const train = (...options: string[]) =>
    succeed([
      ...['train', writeSmallScenario(folder), '--model', inFolder('model')],
      ...[...smallHybridRun, ...settings, ...options, ...quiet],
    ]);
  await train('--out', inFolder('finished'));
  await train(...smallAdapters, '--out', inFolder('adapters'));

  copy(inFolder('finished'), inFolder('begun'));
  const search = lineWith(inFolder('begun'), '"phase.started","phase":"idpo-2/search"');
  const cohort = lineWith(inFolder('begun'), '"phase":"idpo-2/search"', '"cohort.completed"');
  cutAt(inFolder('begun'), cohort + 5, search);

  // A run that took a pair of a fork, killed in the training that did.
  copy(inFolder('finished'), inFolder('forking'));
  const { turn } = JSON.parse(
    linesOf(inFolder('forking'))[
      lineWith(inFolder('forking'), '"phase.started","phase":"init-0/generate"', '"type":"turn.taken"')
    ]!,
  );
  await succeed([
    'fork',
    inFolder('forking'),
    '--instead-of',
    turn.id,
    '--say',
    'Bob has Kenron',
    '--keep',
    '--json',
  ]);
  const training = lineWith(inFolder('forking'), '"phase.started","phase":"idpo-2/train"');
  cutAt(inFolder('forking'), training, training);
  await succeed(['train', '--resume', inFolder('forking'), '--with-forks', ...quiet]);
  copy(inFolder('forking'), inFolder('compressed'));
  cutAt(inFolder('forking'), lineWith(inFolder('forking'), '"type":"forks.taken"') + 2, training);

  await succeed(['runs', folder, '--compress', inFolder('compressed'), '--json']);
  await succeed(['show', inFolder('compressed'), '--json']);
  copy(inFolder('compressed'), damaged);
});

const resume = ['train', '--resume', damaged, ...quiet];
const results = ['results', damaged, '--out', inFolder('results.md'), '--json'];
const [show, pairs] = ['show', 'pairs'].map((command) => [command, damaged, '--json']);
/** Runs, which of their files are damaged, and who reads these: by default all, and whoever goes on with the run. */
const runs: readonly {
  name: string;
  files?: RegExp;
  readers?: Readonly<Record<string, readonly string[]>>;
}[] = [
  { name: 'finished', readers: { 'metrics.jsonl': results } },
  { name: 'begun' },
  { name: 'adapters', readers: { 'metrics.jsonl': results } },
  { name: 'forking', files: /^forks/ },
  {
    name: 'compressed',
    files: /^(events|forks)/,
    readers: { 'events.index': show!, 'forks.jsonl': pairs! },
  },
];

/** What a command says in the end, and what the run is then: its log without times, its figures, and its checkpoints, which are named by their hashes. */
function outcomeOf(stdout: string): string {
  const log = fs.readdirSync(damaged).find((name) => name.startsWith('events.jsonl'))!;
  return [
    stdout
      .trim()
      .split('\n')
      .at(-1)!
      .replace(/"seconds":\d+/, ''),
    fs.readFileSync(path.join(damaged, log), 'latin1').replaceAll(/"at":"[^"]*"/g, ''),
    fs.readFileSync(path.join(damaged, 'metrics.jsonl'), 'utf8'),
    ...fs.readdirSync(path.join(damaged, 'checkpoints')).sort(),
  ].join('\n');
}

for (const { name, files = /./, readers = {} } of runs) {
  test(`${name}: every byte that is changed is found, or changes nothing`, async () => {
    const source = inFolder(name);
    const undisturbed = new Map<readonly string[], string>();
    for (const file of filesOf(source).filter(
      (one) => files.test(one) && `${name}/${one}`.startsWith(only),
    )) {
      const rng = createRng(1).split(`${name}/${file}`);
      const command = readers[file] ?? resume;
      if (!undisturbed.has(command)) {
        copy(source, damaged);
        undisturbed.set(command, outcomeOf(await succeed(command)));
      }
      let [found, harmless] = [0, 0];
      for (let round = 0; round < rounds; round++) {
        copy(source, damaged);
        const at = path.join(damaged, file);
        const bytes = fs.readFileSync(at);
        const offset = Math.floor(rng.next() * bytes.length);
        bytes[offset]! ^= 1 << rng.int(8);
        fs.writeFileSync(at, bytes);
        const where = `${file}:${offset}`;
        const doctor = await optimaHere(['doctor', damaged, '--json']);
        const { code, stdout } = await optimaHere(command);
        if (code === 0) {
          assert.ok(outcomeOf(stdout) === undisturbed.get(command), `${where}: silent`);
          harmless++;
          continue;
        }
        const last = JSON.parse(stdout.trim().split('\n').at(-1)!);
        assert.is(last.event, 'error', `${where}: ${stdout}`);
        // Where: the file, or the folder of the checkpoint.
        const places = file.startsWith('checkpoints')
          ? path.basename(path.dirname(file))
          : path.basename(file);
        const named = new RegExp(`${places}[:/ ]`);
        assert.match(last.message, named, `${where}: ${last.message}`);
        // What ends a command the doctor finds too, and names the same.
        assert.is(doctor.code, 1, `${where}: ${doctor.stdout}`);
        assert.match(doctor.stdout, named, where);
        found++;
      }
      if (process.env.DAMAGE !== undefined) console.log(JSON.stringify({ run: name, file, found, harmless }));
    }
  });
}

test('a run that is named as a model is what its log ended with, or is refused', async () => {
  const end = JSON.parse(linesOf(inFolder('finished')).at(-2)!);
  const hash: string = end.policy.alice;
  const other = fs.readdirSync(path.join(inFolder('finished'), 'checkpoints')).find((name) => name !== hash)!;
  const final = path.join(damaged, 'checkpoints', 'final');
  const evaluate = (model: string) =>
    optimaHere(['eval', inFolder('two-hop-qa.mjs'), '--model', model, '--tasks', '1', ...quiet]);
  const policyOf = async (model: string) =>
    JSON.parse((await evaluate(model)).stdout.trim().split('\n').at(-1)!).policy;

  copy(inFolder('finished'), damaged);
  assert.is(await policyOf(damaged), hash);
  // The link is for people.
  fs.rmSync(final);
  fs.symlinkSync(other, final);
  assert.is(await policyOf(damaged), hash);
  const weights = path.join(damaged, 'checkpoints', hash, 'model.safetensors');
  const bytes = fs.readFileSync(weights);
  bytes[bytes.length - 2]! ^= 1;
  fs.writeFileSync(weights, bytes);
  fs.rmSync(final);
  fs.symlinkSync(hash, final);
  for (const model of [damaged, path.dirname(weights), final]) {
    const { code, stdout } = await evaluate(model);
    assert.is(code, 1, stdout);
    assert.match(stdout, new RegExp(`it has the hash [0-9a-f]{16}, not ${hash}\\.`));
  }
  // Elsewhere it is another policy, and named so.
  fs.cpSync(path.dirname(weights), inFolder('elsewhere'), { recursive: true });
  assert.not.equal(await policyOf(inFolder('elsewhere')), hash);
});

test('what lies in the place of a file, a folder or a pipe, is named and not waited for', async () => {
  const pipe = (at: string) => spawnSync('mkfifo', [at]);
  const checkpoint = fs
    .readdirSync(path.join(inFolder('finished'), 'checkpoints'))
    .find((name) => name !== 'final');
  const files = ['manifest.json', 'events.jsonl', 'metrics.jsonl', 'events.index', 'forks.jsonl', 'lock'];
  for (const name of [...files, 'checkpoints', `checkpoints/${checkpoint}`]) {
    for (const make of [fs.mkdirSync, pipe]) {
      copy(inFolder('finished'), damaged);
      const at = path.join(damaged, name);
      fs.rmSync(at, { recursive: true, force: true });
      make(at);
      for (const command of [['doctor', damaged, '--json'], results, pairs!]) {
        const { code, stdout } = await optimaHere(command);
        if (code === 0) continue;
        const last = JSON.parse(stdout.trim().split('\n').at(-1)!);
        assert.not.equal(last.code, 'internal', `${name}: ${command[0]}: ${last.message}`);
        assert.match(last.message, name, command[0]);
      }
    }
  }
});

test.run();
