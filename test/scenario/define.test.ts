import { mkdtemp, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { OptimaError } from '../../src/domain/errors.ts';
import { agreement, defineScenario, dialogue, f1, generated, tagged } from '../../src/scenario/index.ts';
import { loadScenario } from '../../src/scenario/load.ts';

const valid = {
  name: 'tiny',
  kind: 'information-exchange' as const,
  description: 'A test.',
  tasks: generated((rng) => ({ n: rng.int(9) })),
  roles: {
    alice: { sees: (task: { n: number }) => `n is ${task.n}` },
    bob: { sees: () => 'ask' },
  },
  protocol: dialogue({ order: ['alice', 'bob'], maxTurns: 4, until: agreement() }),
  answer: tagged('A'),
  answers: (task: { n: number }) => [String(task.n)],
  metric: f1,
  reward: { lambdaToken: 0.6, lambdaLoss: 1 },
  formats: [],
};

const refused = (change: object): string => {
  try {
    defineScenario({ ...valid, ...change } as never);
  } catch (error) {
    assert.instance(error, OptimaError);
    assert.is((error as OptimaError).code, 'scenario.invalid');
    return (error as OptimaError).message;
  }
  throw new Error('nothing was thrown');
};

test('a valid definition comes back as it is', () => {
  assert.is(defineScenario(valid).name, 'tiny');
});

test('every wrong field is named, with what is wrong', () => {
  assert.match(refused({ name: 'Two Words' }), /^Scenario "Two Words": name must be/);
  assert.match(refused({ tasks: undefined }), /tasks is missing/);
  assert.match(
    refused({ protocol: dialogue({ order: ['alice', 'bbo'], maxTurns: 4, until: agreement() }) }),
    /role "bbo" in protocol.order is not one of alice, bob\./,
  );
  assert.match(
    refused({ protocol: dialogue({ order: ['alice'], maxTurns: 4, until: agreement() }) }),
    /role "bob" never speaks/,
  );
  assert.match(refused({ protocol: { ...valid.protocol, maxTurns: 1 } }), /protocol.maxTurns/);
  assert.match(refused({ reward: { lambdaToken: -1, lambdaLoss: 1 } }), /reward.lambdaToken/);
  assert.match(
    refused({
      formats: [
        { name: 'x', prompt: 'a' },
        { name: 'x', prompt: 'b' },
      ],
    }),
    /formats name "x" twice/,
  );
  assert.match(refused({ roles: { alice: valid.roles.alice } }), /at least two roles/);
  assert.match(refused({ kind: 'talk' }), /kind must be information-exchange or debate, not "talk"/);
  assert.match(
    refused({ protocol: { ...valid.protocol, order: 'alice' } }),
    /protocol\.order must be of type list/,
  );
  assert.match(refused({ metric: { name: 'f1' } }), /metric\.score is missing/);
  assert.match(refused({ roles: { ...valid.roles, bob: {} } }), /roles\.bob\.sees is missing/);
  assert.match(refused({ formats: [{ name: 'x' }] }), /formats\.0\.prompt is missing/);
});

const loadFailure = async (name: string): Promise<OptimaError> => {
  try {
    await loadScenario(name);
  } catch (error) {
    assert.instance(error, OptimaError);
    return error as OptimaError;
  }
  throw new Error('nothing was thrown');
};

test('an unknown scenario name is answered with the nearest one', async () => {
  const error = await loadFailure('two-hop-aq');
  assert.is(error.code, 'scenario.invalid');
  assert.match(error.hint ?? '', /two-hop-qa/);
});

test('a type error in a scenario file is one line naming file, line and column', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'optima-define-'));
  const file = join(folder, 'wrong.mts');
  await writeFile(file, "const turns: number = 'ten';\nexport default turns;\n");
  const error = await loadFailure(file);
  assert.is(error.code, 'scenario.types');
  assert.ok(
    error.message.includes(`${file}:1:7: Type 'string' is not assignable to type 'number'.`),
    error.message,
  );
  assert.not.match(error.message, /\n/);
});

test('a file without a default export is refused', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'optima-define-'));
  const file = join(folder, 'empty.mts');
  await writeFile(file, 'export const nothing = 1;\n');
  assert.match((await loadFailure(file)).message, /has no default export/);
});

test('a wrong field in a scenario file is named with the file', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'optima-define-'));
  const file = join(folder, 'plain.mjs');
  await writeFile(file, "export default { name: 'plain', kind: 'debate', description: '', tasks: 3 };\n");
  assert.is(
    (await loadFailure(file)).message,
    `${file}: Scenario "plain": tasks must be of type object, not number.`,
  );
});

test('a scenario anywhere on the disk can import the package', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'optima-define-'));
  const file = join(folder, 'outside.mts');
  await writeFile(
    file,
    `import { agreement, defineScenario, dialogue, f1, generated, tagged } from 'optima-actors';
export default defineScenario({
  name: 'outside', kind: 'information-exchange', description: 'A test.',
  tasks: generated((rng) => ({ n: rng.int(9) })),
  roles: { alice: { sees: (task) => 'n is ' + task.n }, bob: { sees: () => 'ask' } },
  protocol: dialogue({ order: ['alice', 'bob'], maxTurns: 4, until: agreement() }),
  answer: tagged('A'), answers: (task) => [String(task.n)], metric: f1,
  reward: { lambdaToken: 0.6, lambdaLoss: 1 }, formats: [],
});
`,
  );
  assert.is((await loadScenario(file)).scenario.name, 'outside');
});

test.run();
