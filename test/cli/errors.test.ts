// Bad input of every kind: a clear line, what to do, an exit code that is not 0, and nothing half-written. Most commands
// run in this process; those whose end as a process of its own matters, or that need a fresh engine, do not.
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { optima, optimaHere, temporaryFolder, writeRandomCheckpoint } from '../support/run.ts';

const folder = temporaryFolder('errors');
test.after(() => fs.rmSync(folder, { recursive: true }));
const at = (...parts: string[]) => path.join(folder, ...parts);

/** JavaScript as well as TypeScript: only the latter is type-checked, which takes its time. */
const scenario = (change: { sees?: string; tasks?: string; metric?: string } = {}) => `
import { agreement, defineScenario, dialogue, f1, generated, jsonl, tagged } from 'optima-actors';
export default defineScenario({
  name: 'sums',
  kind: 'information-exchange',
  description: '',
  tasks: ${change.tasks ?? 'generated((rng) => ({ left: rng.int(50), right: rng.int(50) }))'},
  roles: {
    alice: { sees: (task) => ${change.sees ?? '`$' + '{task.left}`'} },
    bob: { sees: () => 'right' },
  },
  protocol: dialogue({ order: ['alice', 'bob'], maxTurns: 4, until: agreement() }),
  answer: tagged('A'),
  answers: () => ['1'],
  metric: ${change.metric ?? 'f1'},
  reward: { lambdaToken: 0.6, lambdaLoss: 0.1 },
  formats: [],
});
`;

test.before(async () => {
  await writeRandomCheckpoint(at('model'));
  await writeRandomCheckpoint(
    at('larger'),
    'The director of Zelpax lives in Hinfin. The director of Zelpax lives in Hinfin.',
  );
  fs.cpSync(at('model'), at('truncated'), { recursive: true });
  fs.truncateSync(at('truncated', 'model.safetensors'), 2000);
  fs.cpSync(at('model'), at('mismatched'), { recursive: true });
  fs.copyFileSync(at('larger', 'tokenizer.json'), at('mismatched', 'tokenizer.json'));
  fs.writeFileSync(at('sums.mjs'), scenario());
  fs.writeFileSync(at('typo.mts'), scenario({ sees: '`$' + '{task.lefft}`' }));
  fs.writeFileSync(at('throws.mjs'), `throw new Error('no scenario today');\n${scenario()}`);
  fs.writeFileSync(at('lines.jsonl'), '{"left":1}\n{"left":\n');
  const schema = '{ safeParse: (value) => ({ success: true, data: value }) }';
  fs.writeFileSync(
    at('lines.mjs'),
    scenario({ tasks: `jsonl('lines.jsonl', ${schema}, { base: import.meta.url })` }),
  );
  fs.writeFileSync(at('few.mjs'), scenario({ tasks: '{ load: async () => [{ left: 1 }] }' }));
  fs.writeFileSync(
    at('blind.mjs'),
    scenario({ sees: "{ if (task.left >= 0) throw new Error('no view today'); return ''; }" }),
  );
  fs.writeFileSync(
    at('unjudged.mjs'),
    scenario({ metric: "{ name: 'none', score: () => { throw new Error('no score today'); } }" }),
  );
  fs.writeFileSync(at('file'), '');
  fs.writeFileSync(at('weights.gguf'), 'GGUF');
  fs.mkdirSync(at('old'));
  fs.writeFileSync(at('old', 'manifest.json'), '{"format":1,"version":"0.0.1"}');
});

interface BadInput {
  readonly what: string;
  readonly args: readonly string[];
  readonly exit: 1 | 2;
  readonly code: string;
  readonly message: RegExp;
  readonly hint?: RegExp;
  /** In a process of its own. */
  readonly apart?: true;
}

const random = ['--model', at('model')];
const table: readonly BadInput[] = [
  {
    what: 'a scenario file with a type error',
    args: ['train', 'typo.mts', ...random],
    exit: 1,
    code: 'scenario.types',
    message: /typo\.mts:9:\d+: .*'lefft'/,
    apart: true,
  },
  {
    what: 'an evaluation in which every dialogue fails',
    args: ['eval', 'unjudged.mjs', ...random, '--tasks', '2', '--max-tokens', '4', '--workers', '1'],
    exit: 1,
    code: 'evaluation.empty',
    message: /^eval: all 2 dialogues failed, the first because: .*no score today/,
    apart: true,
  },
  {
    what: 'a scenario file that throws',
    args: ['check', 'throws.mjs'],
    exit: 1,
    code: 'scenario.invalid',
    message: /throws\.mjs.*no scenario today/,
  },
  {
    what: 'an unknown scenario',
    args: ['train', 'two-hop-qaa'],
    exit: 1,
    code: 'scenario.invalid',
    message: /"two-hop-qaa"/,
    hint: /"two-hop-qa"/,
  },
  {
    what: 'a missing checkpoint',
    args: ['train', 'sums.mjs', '--model', 'nowhere'],
    exit: 1,
    code: 'checkpoint.missing',
    message: /nowhere/,
  },
  {
    what: 'a model that does not speak the scenario',
    args: ['train', 'sums.mjs', ...random],
    exit: 1,
    code: 'model.unready',
    message:
      /does not speak "sums": (none of 128 dialogues scored above 0|all \d+ messages ran into their cap)/,
    hint: /demonstrator.*npx optima warmup sums\.mjs --from .* --anyway trains/,
    apart: true,
  },
  {
    what: 'a base of a warm-up that is no checkpoint',
    args: ['warmup', 'sums.mjs', '--from', 'file'],
    exit: 1,
    code: 'checkpoint.missing',
    message: /^--from file: is no checkpoint/,
  },
  {
    what: 'weights in a format that only others read',
    args: ['eval', 'sums.mjs', '--model', 'weights.gguf'],
    exit: 1,
    code: 'checkpoint.missing',
    message: /^--model weights\.gguf: is no checkpoint/,
    hint: /save_pretrained/,
  },
  {
    what: 'a truncated checkpoint',
    args: ['train', 'sums.mjs', '--model', 'truncated'],
    exit: 1,
    code: 'checkpoint.invalid',
    message: /truncated.model\.safetensors/,
  },
  {
    what: 'a tokenizer that does not fit the model',
    args: ['eval', 'sums.mjs', '--model', 'mismatched'],
    exit: 1,
    code: 'tokenizer.mismatch',
    message: /tokenizer has \d+ tokens/,
  },
  {
    what: 'an output folder that cannot be written',
    args: ['train', 'sums.mjs', ...random, '--out', path.join('file', 'run')],
    exit: 1,
    code: 'io.write',
    message: /^Cannot write file.run: /,
  },
  {
    what: 'an output folder that is in use',
    args: ['train', 'sums.mjs', ...random, '--out', 'old'],
    exit: 1,
    code: 'run.exists',
    message: /old already holds a run/,
    hint: /--resume old/,
    apart: true,
  },
  {
    what: 'a run directory of another version',
    args: ['train', '--resume', 'old'],
    exit: 1,
    code: 'run.version',
    message:
      /^old\/manifest\.json: written by optima-actors 0\.0\.1 in run format 1; this version reads formats 5 to 6\.$/,
    hint: /version that wrote it/,
  },
  {
    what: 'results of a run directory of another version',
    args: ['results', 'old', '--out', 'results.md'],
    exit: 1,
    code: 'run.version',
    message: /^old\/manifest\.json: .* in run format 1; this version reads formats 5 to 6\.$/,
    hint: /version that wrote it/,
  },
  {
    what: 'a resume of what is no run',
    args: ['train', '--resume', 'model'],
    exit: 1,
    code: 'run.missing',
    message: /model is not a run folder/,
  },
  {
    what: 'a data line that is not JSON',
    args: ['check', 'lines.mjs', '--json'],
    exit: 1,
    code: 'scenario.invalid',
    message: /1 error/,
  },
  {
    what: 'a run on data with a line that is not JSON',
    args: ['train', 'lines.mjs', ...random],
    exit: 1,
    code: 'data.invalid',
    message: /lines\.jsonl:2: not JSON/,
  },
  {
    what: 'a run on fewer tasks than it needs',
    args: ['train', 'few.mjs', ...random],
    exit: 1,
    code: 'data.invalid',
    message: /"sums": tasks\.load\('train', \d+\) gave 1 tasks/,
  },
  {
    what: 'a run on a task that cannot be dealt',
    args: ['train', 'blind.mjs', ...random],
    exit: 1,
    code: 'scenario.invalid',
    message: /"sums": task train-00000 cannot be dealt: no view today/,
  },
  {
    what: 'too many arguments',
    args: ['train', 'sums.mjs', 'more'],
    exit: 2,
    code: 'usage',
    message: /got 2\.$/,
  },
  {
    what: 'an unknown option',
    args: ['train', 'sums.mjs', '--presset', 'full'],
    exit: 2,
    code: 'usage',
    message: /'--presset'/,
    hint: /--preset/,
    apart: true,
  },
  {
    what: 'an unknown command',
    args: ['trian'],
    exit: 2,
    code: 'usage',
    message: /'trian'/,
    hint: /train/,
  },
  {
    what: 'an ill-typed option',
    args: ['eval', 'sums.mjs', '--tasks', '1.5'],
    exit: 2,
    code: 'usage',
    message: /^--tasks 1\.5: must be a whole number/,
  },
  {
    what: 'more workers than anyone needs',
    args: ['train', 'typo.mts', '--workers', '300'],
    exit: 2,
    code: 'usage',
    message: /^--workers 300: must be a whole number from 0 to \d+\.$/,
  },
  {
    what: 'an unknown value of an option',
    args: ['eval', 'sums.mjs', '--split', 'tests'],
    exit: 2,
    code: 'usage',
    message: /train, validation, test/,
    hint: /"test"/,
  },
  {
    what: 'an unknown kind of policies',
    args: ['train', 'sums.mjs', '--policies', 'per-rol'],
    exit: 2,
    code: 'usage',
    message: /^--policies per-rol: must be one of shared, per-role\.$/,
    hint: /"per-role"/,
  },
  {
    what: 'a resume with other policies',
    args: ['train', '--resume', 'old', '--policies', 'per-role'],
    exit: 2,
    code: 'usage',
    message: /takes no --policies/,
  },
  {
    what: 'an unknown key of --set',
    args: ['train', 'sums.mjs', '--set', 'sft.learnigRate=1'],
    exit: 2,
    code: 'usage',
    message: /"sft\.learnigRate"/,
    hint: /"sft\.learningRate"/,
  },
  {
    what: 'a resume with another seed',
    args: ['train', '--resume', 'old', '--seed', '3'],
    exit: 2,
    code: 'usage',
    message: /takes no --seed/,
  },
  {
    what: 'no scenario at all',
    args: ['train'],
    exit: 2,
    code: 'usage',
    message: /scenario/,
  },
];

for (const { what, args, exit, code, message, hint, apart } of table) {
  test(what, async () => {
    const before = fs.readdirSync(folder, { recursive: true });
    const ended = await (apart ? optima : optimaHere)([...args, '--json'], { folder });
    const error = JSON.parse(ended.stdout.trim().split('\n').at(-1)!);
    assert.is(error.event, 'error', ended.stdout + ended.stderr);
    assert.is(error.code, code);
    assert.match(error.message, message);
    assert.not.match(error.message, /\n/);
    if (hint !== undefined) assert.match(error.hint, hint);
    assert.is(ended.code, exit);
    assert.is(ended.stderr, '');
    assert.equal(fs.readdirSync(folder, { recursive: true }), before);
  });
}

test('for people an error is one line and a hint, without a stack trace', async () => {
  const { code, stdout, stderr } = await optimaHere(['train', 'two-hop-qaa']);
  assert.is(code, 1);
  assert.is(stdout, '');
  assert.is(stderr, 'error: There is no scenario "two-hop-qaa".\nhint: Did you mean "two-hop-qa"?\n');
  const debug = await optima(['train', 'two-hop-qaa'], { env: { OPTIMA_DEBUG: '1' } });
  assert.match(debug.stderr, /\n {4}at .*load\.ts/);
});

test.run();
