// Whatever byte of a run is changed: the command says so and names the file, or what the run comes to is the same.
// DAMAGE=300 changes so many bytes of each file; by default a few.
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { createRng } from '../../src/domain/rng.ts';
import {
  changeManifest,
  optimaHere,
  smallHybridRun,
  temporaryFolder,
  writeRandomCheckpoint,
} from '../support/run.ts';

const rounds = Number(process.env.DAMAGE ?? 2);
const folder = temporaryFolder('damage');
test.after(() => fs.rmSync(folder, { recursive: true }));
const model = path.join(folder, 'model');
const finished = path.join(folder, 'finished');
const begun = path.join(folder, 'begun');
const resume = (run: string) => ['train', '--resume', run, '--json', '--workers', '0'];

/** What a run came to: its log without times, and how often each thing was said; checkpoints are named by their hashes. */
const outcomeOf = (run: string): string =>
  [
    fs.readFileSync(path.join(run, 'events.jsonl'), 'utf8').replaceAll(/"at":"[^"]*"/g, ''),
    fs.readFileSync(path.join(run, 'metrics.jsonl'), 'utf8'),
    ...fs.readdirSync(path.join(run, 'checkpoints')).sort(),
  ].join('\n');

let undisturbed: string;
test.before(async () => {
  process.env.OPTIMA_BLAS = 'off';
  await writeRandomCheckpoint(model);
  // JavaScript: no process has to check its types.
  const scenario = path.join(folder, 'two-hop-qa.mjs');
  const original = new URL('../../scenarios/two-hop-qa.ts', import.meta.url).href;
  fs.writeFileSync(scenario, `export { default } from ${JSON.stringify(original)};\n`);
  const args = [
    'train',
    scenario,
    '--model',
    model,
    '--anyway',
    ...smallHybridRun,
    '--json',
    '--workers',
    '0',
  ];
  const { code, stderr } = await optimaHere([...args, '--out', finished]);
  assert.is(code, 0, stderr);
  undisturbed = outcomeOf(finished);
  // As a process leaves it that was killed in its search.
  fs.cpSync(finished, begun, { recursive: true });
  fs.rmSync(path.join(begun, 'checkpoints', 'final'), { recursive: true });
  const lines = fs.readFileSync(path.join(finished, 'events.jsonl'), 'utf8').split('\n');
  const search = lines.findIndex((line) => line.includes('"phase.started","phase":"idpo-2/search"'));
  const cut = lines.findIndex((line, at) => at > search && line.includes('"cohort.completed"')) + 5;
  fs.writeFileSync(path.join(begun, 'events.jsonl'), `${lines.slice(0, cut).join('\n')}\n`);
  changeManifest(begun, ({ log }) => ({ log: { ...log, events: search, sum: sumIn(lines[search - 1]!) } }));
});
const sumIn = (line: string): string => JSON.parse(line).sum;

/** All files of a run, by their names in it; links are the files that they lead to. */
function filesOf(run: string, within = ''): string[] {
  return fs.readdirSync(path.join(run, within), { withFileTypes: true }).flatMap((entry) => {
    const name = path.join(within, entry.name);
    return entry.isDirectory() ? filesOf(run, name) : entry.isSymbolicLink() ? [] : [name];
  });
}

for (const [what, source] of [
  ['finished', finished],
  ['begun', begun],
] as const) {
  test(`a ${what} run: every byte that is changed is found, or changes nothing`, async () => {
    const rng = createRng(1).split(what);
    let [found, harmless] = [0, 0];
    const silent: string[] = [];
    for (const file of filesOf(source)) {
      for (let round = 0; round < rounds; round++) {
        const run = path.join(folder, 'damaged');
        fs.cpSync(source, run, { recursive: true, verbatimSymlinks: true });
        const at = path.join(run, file);
        const bytes = fs.readFileSync(at);
        const offset = Math.floor(rng.next() * bytes.length);
        bytes[offset]! ^= 1 << rng.int(8);
        fs.writeFileSync(at, bytes);
        const results = file === 'metrics.jsonl' && what === 'finished';
        const doctor = await optimaHere(['doctor', run, '--json']);
        const { code, stdout } = await optimaHere(results ? ['results', run, '--json'] : resume(run));
        const last = JSON.parse(stdout.trim().split('\n').at(-1)!);
        if (code !== 0) {
          assert.is(last.event, 'error', `${file}:${offset}: ${stdout}`);
          // Where: the file, or the folder of the checkpoint.
          const named = new RegExp(`${path.basename(file)}|${path.basename(path.dirname(file))}`);
          assert.match(last.message, named, `${file}:${offset}: ${last.message}`);
          // What ends a command the doctor finds too, and names the same.
          assert.is(doctor.code, 1, `${file}:${offset}: ${doctor.stdout}`);
          assert.match(doctor.stdout, named, `${file}:${offset}`);
          found++;
        } else if (outcomeOf(run) === undisturbed || results) harmless++;
        else silent.push(`${file}:${offset}`);
        fs.rmSync(run, { recursive: true });
      }
    }
    assert.equal(silent, []);
    assert.ok(found > harmless, `${found} found, ${harmless} change nothing`);
  });
}

test.run();
