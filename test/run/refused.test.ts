// A run in whose evaluations models refuse to speak: the trained role's own model, which scores 0, and a partner's, which has no
// score. What it says of that is the same in its log, its figures, `eval`, exports and a replay, which reads older logs too.
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import {
  eventsIn,
  optimaHere,
  replaceLog,
  smallRun,
  temporaryFolder,
  writeRandomCheckpoint,
} from '../support/run.ts';

const folder = temporaryFolder('refused');
test.after(() => fs.rmSync(folder, { recursive: true }));
const inFolder = (name: string) => path.join(folder, name);
const out = inFolder('run');
const source = new URL('../../src/index.ts', import.meta.url).href;
/** Of six test tasks Ann's view is too long for the context in two, Ben's in one. */
const scenario = `
import { agreement, defineScenario, dialogue, exactMatch, tagged } from ${JSON.stringify(source)};
const long = 'It is so. '.repeat(1000);
const load = async (split, count) => Array.from({ length: count }, (_, n) => ({ n, isLong: split === 'test' ? n : 0 }));
export default defineScenario({
  name: 'too-long', kind: 'information-exchange', description: '',
  tasks: { load },
  roles: {
    ann: { sees: ({ n, isLong }) => 'Ann has ' + n + (isLong === 1 || isLong === 4 ? long : '') },
    ben: { sees: ({ n, isLong }) => 'Ben has ' + n + (isLong === 2 ? long : ''), trained: false },
  },
  protocol: dialogue({ order: ['ann', 'ben'], maxTurns: 3, until: agreement() }),
  answer: tagged('A'), answers: ({ n }) => [String(n)], metric: exactMatch,
  reward: { lambdaToken: 0.6, lambdaLoss: 0.1 }, formats: [],
});
`;
const last = (stdout: string) => JSON.parse(stdout.trim().split('\n').at(-1)!);
const counts = { n: 5, failed: 3, refused: 2 };
const countsIn = ({ n, failed, refused }: Record<string, unknown>) => ({ n, failed, refused });

test.before(async () => {
  await writeRandomCheckpoint(inFolder('model'), 'Ann Ben has It is so. 0 1 2 3 4 5 6 7 8 9');
  fs.writeFileSync(inFolder('too-long.mjs'), scenario);
  const { code, stdout } = await optimaHere([
    ...['train', inFolder('too-long.mjs'), '--model', inFolder('model'), '--anyway', '--recipe', 'isft'],
    ...[...smallRun, '--set', 'evaluation.tasks=6', '--set', 'iterations=0'],
    ...['--workers', '0', '--json', '--out', out],
  ]);
  assert.is(code, 0, stdout);
});

test('the log says who refused, and the figures hold it against the trained role alone', async () => {
  const events = eventsIn(out);
  const refusals = events.flatMap((event) =>
    event.type === 'dialogue.closed' && event.refusedBy !== undefined && event.dialogueId.startsWith('base/')
      ? [[event.dialogueId.slice(-7), event.refusedBy]]
      : [],
  );
  assert.equal(refusals, [
    ['00001.0', 'ann'],
    ['00002.0', 'ben'],
    ['00004.0', 'ann'],
  ]);
  for (const phase of ['base', 'trained']) {
    const completed = events.find((event) => event.type === 'phase.completed' && event.phase === phase);
    assert.ok(completed?.type === 'phase.completed' && completed.output.kind === 'evaluate');
    assert.equal(countsIn(completed.output.metrics), counts, phase);
  }
  const rows = fs.readFileSync(path.join(out, 'metrics.jsonl'), 'utf8').trim().split('\n');
  assert.equal(countsIn(JSON.parse(rows[0]!)), counts);
});

test('results, an evaluation of the run’s policy and the export for Inspect say the same', async () => {
  assert.match(
    (await optimaHere(['show', out])).stdout,
    /^base .* % agree, 3 \(2 of them with score 0\) failed$/m,
  );
  const document = inFolder('results.md');
  assert.is((await optimaHere(['results', out, '--out', document])).code, 0);
  assert.match(
    fs.readFileSync(document, 'utf8'),
    'that failed, base → trained: seed 1: 3 (2 of them with score 0) → 3 (2 of them with score 0).',
  );
  const args = ['eval', inFolder('too-long.mjs'), '--model', out, '--tasks', '6', '--workers', '0'];
  const table = await optimaHere([...args, '--max-tokens', '6']);
  assert.match(table.stdout, /^failed dialogues +3 \(2 of them with score 0\)$/m);
  const { code, stdout, stderr } = await optimaHere([...args, '--json', '--max-tokens', '6']);
  assert.is(code, 0, stdout + stderr);
  const summary = last(stdout);
  assert.equal(countsIn(summary), counts);
  const rows = fs.readFileSync(path.join(out, 'metrics.jsonl'), 'utf8').trim().split('\n');
  const trained = JSON.parse(rows.at(-1)!);
  assert.equal([summary.tokens, summary.turns, summary.f1], [trained.tokens, trained.turns, trained.f1]);
  const inspect = inFolder('inspect');
  assert.is((await optimaHere(['export', out, '--format', 'inspect', '--out', inspect])).code, 0);
  const name = fs.readdirSync(inspect).find((file) => file.includes('_base'))!;
  const log = JSON.parse(fs.readFileSync(path.join(inspect, name), 'utf8'));
  assert.is(log.samples.length, 6);
  const { total_samples, completed_samples, scores } = log.results;
  assert.equal([total_samples, completed_samples], [6, 3]);
  assert.equal([scores[0].scored_samples, scores[0].unscored_samples], [5, 1]);
});

test('a partner that is named for the evaluation is not held against the others', async () => {
  const args = ['eval', inFolder('too-long.mjs'), '--model', inFolder('model'), '--tasks', '6'];
  const partner = ['--policy', `ann=${inFolder('model')}`, '--workers', '0', '--json', '--max-tokens', '6'];
  const { code, stdout } = await optimaHere([...args, ...partner]);
  assert.is(code, 0, stdout);
  assert.equal(countsIn(last(stdout)), { n: 3, failed: 3, refused: undefined });
});

test('it is replayed, and so is a log that does not say who refused; one that says another is not', async () => {
  assert.is((await optimaHere(['replay', out])).code, 0);
  const changed = (name: string, refusedBy: string | undefined) => {
    const run = inFolder(name);
    fs.cpSync(out, run, { recursive: true });
    const events = eventsIn(out).map((event) =>
      event.type === 'dialogue.closed' && event.refusedBy !== undefined ? { ...event, refusedBy } : event,
    );
    replaceLog(run, JSON.parse(JSON.stringify(events)));
    return run;
  };
  const older = await optimaHere(['replay', changed('older', undefined)]);
  assert.is(older.code, 0, older.stderr);
  const other = await optimaHere(['replay', changed('other', 'nobody')]);
  assert.is(other.code, 1);
  assert.match(other.stdout, /^replayed: .*"refusedBy":"ann"/m);
});

test.run();
