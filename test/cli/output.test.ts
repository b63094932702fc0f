// What reaches a terminal or a pipe: no control characters of others, no line that passes for one of ours; and what becomes of a
// command whose output nobody takes.
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { formatTable, line, quoted, reportError, withOutput } from '../../src/cli/output.ts';
import { OptimaError } from '../../src/domain/errors.ts';
import { launcher, optimaHere, temporaryFolder, writeRandomCheckpoint } from '../support/run.ts';

const folder = temporaryFolder('output');
test.after(() => fs.rmSync(folder, { recursive: true }));
test.before(() => writeRandomCheckpoint(path.join(folder, 'model')));

/** What `work` writes meanwhile. */
async function written(work: () => unknown): Promise<{ stdout: string; stderr: string }> {
  const texts = { stdout: '', stderr: '' };
  const writes = [process.stdout.write, process.stderr.write] as const;
  for (const name of ['stdout', 'stderr'] as const) {
    process[name].write = (text: unknown) => {
      texts[name] += String(text);
      return true;
    };
  }
  try {
    await work();
  } finally {
    [process.stdout.write, process.stderr.write] = writes;
  }
  return texts;
}

// Escape sequences of both kinds, a bell, a return over the line, a reversal of what is read, a line separator.
const hostile = '\u001b[2J\u009b31m\u0007\rx\u202ey\u2028z\u{e0041}';
const spelt = '\\u{1b}[2J\\u{9b}31m\\u{7}\\u{d}x\\u{202e}y\\u{2028}z\\u{e0041}';

test('whatever is said, remarked or shown as progress comes without control characters, with its lines and joined letters', async () => {
  const { stdout, stderr } = await written(() =>
    withOutput({}, async ({ say, remark, progress }) => {
      say(`a\n\t${hostile} 👩‍🔬`);
      remark(hostile);
      progress.begin(hostile, 1, hostile);
      progress.end(`${hostile}\nerror: forged`);
    }),
  );
  assert.is(stdout, `a\n\t${spelt} 👩‍🔬\n`);
  const [remarked, shown, ...more] = stderr.split('\n');
  assert.is(remarked, spelt);
  assert.ok(shown!.startsWith(`${spelt}: ${spelt} error: forged (`), shown);
  assert.equal(more, ['']);
});

test('progress says no pace while nothing is done', async () => {
  const { now } = Date;
  let at = 0;
  Date.now = () => at;
  try {
    const { stderr } = await written(() =>
      withOutput({}, async ({ progress }) => {
        progress.begin('probe', 32, 'dialogues');
        for (const done of [0, 8]) {
          at += 10_000;
          progress.advance(done);
        }
      }),
    );
    assert.is(stderr, 'probe: 0 of 32 dialogues\nprobe: 8 of 32 dialogues (0.4/s, 60 s left)\n');
  } finally {
    Date.now = now;
  }
});

test('under --json they are escaped, and what is read back is the same', async () => {
  const object = { event: 'message', text: hostile, [hostile]: [1, 'ü👩‍🔬'] };
  const { stdout } = await written(() =>
    withOutput({ json: true }, async ({ emit, progress }) => {
      emit(object);
      progress.measured({ event: 'metrics', phase: hostile } as never);
    }),
  );
  assert.not.match(stdout.replaceAll('\n', ''), /[\p{Cc}\p{Cf}\u2028\u2029]/u);
  const [first, second] = stdout.split('\n').map((text) => text && JSON.parse(text));
  assert.equal(first, object);
  assert.is(second.phase, hostile);
});

test('an error is one line and its hint another, whatever they quote', async () => {
  const error = new OptimaError('usage', `No ${hostile}\nerror: forged.`, { hint: `Try\n${hostile}` });
  const plain = await written(() => assert.is(reportError(error, false), 2));
  assert.equal(plain, { stdout: '', stderr: `error: No ${spelt} error: forged.\nhint: Try ${spelt}\n` });
  const { stdout } = await written(() => reportError(error, true));
  assert.not.match(stdout.trimEnd(), /[\p{Cc}\p{Cf}\u2028\u2029]/u);
  assert.is(JSON.parse(stdout).message, `No ${hostile} error: forged.`);
});

test('quoted texts break neither the lines around them nor the columns of a table', () => {
  assert.is(quoted('one\nerror: forged'), 'one\n  error: forged');
  assert.is(quoted(''), '(empty)');
  assert.is(line('one \n  error: forged\u001b'), 'one error: forged\\u{1b}');
  const rows = [
    ['\u001b', 'b\nb'],
    ['aa', 'c'],
  ];
  assert.is(formatTable(rows), '\\u{1b}  b b\naa        c');
  assert.is(formatTable(rows, 'left'), '\\u{1b}  b b\naa      c');
});

const scenario = (sees: string) => `
import { agreement, defineScenario, dialogue, f1, generated, tagged } from 'optima-actors';
export default defineScenario({
  name: 'sums', kind: 'information-exchange', description: 'one\\nerror: forged \\u001b[2J',
  tasks: generated((rng) => ({ left: rng.int(50) })),
  roles: { alice: { sees: (task) => ${sees} }, bob: { sees: () => 'right' } },
  protocol: dialogue({ order: ['alice', 'bob'], maxTurns: 2, until: agreement() }),
  answer: tagged('A'), answers: () => ['1\\nerror: forged'], metric: f1,
  reward: { lambdaToken: 0.6, lambdaLoss: 0.1 }, formats: [],
});
`;

test('a person and a scenario that write control characters see them spelt out', async () => {
  fs.writeFileSync(
    path.join(folder, 'sums.mjs'),
    scenario("'number ' + task.left + ' \\u001b]0;mine\\u0007'"),
  );
  const args = ['chat', 'sums.mjs', '--role', 'alice', '--model', path.join(folder, 'model')];
  const input = '<A>\u001b[31m9</A>\n'.repeat(2);
  const { stdout, stderr, code } = await optimaHere(args, { folder, input });
  assert.is(code, 0, stderr);
  assert.match(stdout, /number \d+ \\u\{1b\}\]0;mine\\u\{7\}/);
  assert.match(stdout, /^answer: \\u\{1b\}\[31m9; right: 1 error: forged$/m);
  assert.not.ok(stdout.includes('\u001b'));
  assert.not.match(stdout, /^error:/m);
});

/** Runs a command whose stdout nobody reads any more once it has said what `until` matches; by default from the start. */
function unread(
  args: readonly string[],
  until?: RegExp,
  program: readonly string[] = [launcher],
): Promise<{ code: number | null; stderr: string }> {
  const env = { ...process.env, OPTIMA_BACKEND: 'wasm' };
  const child = spawn(process.execPath, [...program, ...args], { cwd: folder, env });
  if (until === undefined) child.stdout.destroy();
  else {
    child.stdout.on('data', (text) => {
      if (until.test(String(text))) child.stdout.destroy();
    });
  }
  let stderr = '';
  child.stderr.on('data', (text) => {
    stderr += text;
  });
  return new Promise((resolve) => child.on('close', (code) => resolve({ code, stderr })));
}

test('a command whose reader has gone ends as other programs do, without a word', async () => {
  for (const args of [['list'], ['list', '--json'], ['--help'], ['eval', 'nowhere', '--json']]) {
    assert.equal(await unread(args), { code: 141, stderr: '' }, args.join(' '));
  }
});

test('what is poured into an output that is lost meanwhile is no fault of the program', async () => {
  const of = (file: string) => JSON.stringify(new URL(`../../src/cli/${file}`, import.meta.url).href);
  const script = path.join(folder, 'pour.mjs');
  fs.writeFileSync(
    script,
    `import { interruptible, loseOutput } from ${of('interrupt.ts')};
import { reportError, withOutput } from ${of('output.ts')};
process.stdout.on('error', loseOutput);
await withOutput({}, (output) =>
  interruptible(output, async (signal) => {
    while (!signal.aborted) await output.pour('x'.repeat(1e6));
  }),
).catch((error) => reportError(error, false));
`,
  );
  const loader = new URL('../support/types-stripped.mjs', import.meta.url).href;
  assert.equal(await unread(['--import', loader, script], undefined, []), { code: 141, stderr: '' });
});

test('a training whose reader has gone stops, unlocks its run and says how to go on', async () => {
  fs.writeFileSync(path.join(folder, 'plain.mjs'), scenario("'number ' + task.left"));
  const args = ['train', 'plain.mjs', '--model', 'model', '--anyway', '--out', 'run', '--workers', '0'];
  const { code, stderr } = await unread([...args, '--json'], /"event":"plan"/);
  assert.is(code, 141, stderr);
  assert.match(stderr, /^(note: .*\n)?hint: Continue with: optima train --resume run\n$/);
  const left = fs.readdirSync(path.join(folder, 'run'));
  assert.ok(left.includes('events.jsonl'));
  assert.not.ok(
    left.some((name) => name.includes('lock')),
    left.join(),
  );
});

if (fs.existsSync('/dev/full')) {
  test('a command whose output cannot be written says so in one line and fails', async () => {
    for (const args of [['list'], ['list', '--json'], ['--help'], ['eval', 'nowhere', '--json']]) {
      const full = fs.openSync('/dev/full', 'w');
      const child = spawn(process.execPath, [launcher, ...args], {
        stdio: ['ignore', full, 'pipe'],
        cwd: folder,
      });
      let stderr = '';
      child.stderr!.on('data', (text) => {
        stderr += text;
      });
      const code = await new Promise((resolve) => child.on('close', resolve));
      fs.closeSync(full);
      assert.is(code, 1, args.join(' '));
      assert.match(stderr, /^error: Cannot write the output: .*no space left.*\n$/, args.join(' '));
    }
  });
}

test.run();
