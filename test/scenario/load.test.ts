// Scenario files: found by name or path, type-checked, imported, and refused with the file's name.
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { OptimaError } from '../../src/domain/errors.ts';
import { createRng } from '../../src/domain/rng.ts';
import { checkScenarioTypes, listScenarios, loadScenario, pathOf } from '../../src/scenario/load.ts';
import { temporaryFolder } from '../../src/scenario/temporary.ts';

const root = await mkdtemp(join(tmpdir(), 'optima-load-'));
test.after(() => rm(root, { recursive: true }));
const freshFolder = () => mkdtemp(join(root, 'folder-'));

const loadFailure = async (
  name: string,
  importing?: Parameters<typeof loadScenario>[2],
): Promise<OptimaError> => {
  try {
    await loadScenario(name, undefined, importing);
  } catch (error) {
    assert.instance(error, OptimaError);
    return error as OptimaError;
  }
  throw new Error('nothing was thrown');
};

test('an unknown scenario name is answered with the nearest one', async () => {
  const error = await loadFailure('two-hop-aq');
  assert.is(error.code, 'scenario.invalid');
  assert.is(error.hint, 'Did you mean "two-hop-qa"?');
});

test('a type error in a scenario file is one line naming file, line and column', async () => {
  const folder = await freshFolder();
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

test('a file that was type-checked is not checked again: what runs is what was read first', async () => {
  const file = join(await freshFolder(), 'twice.mts');
  const wrong = "export default { name: 'twice', kind: 'debate', description: '', tasks: 3 };\n";
  await writeFile(file, wrong);
  await checkScenarioTypes([file]);
  await writeFile(file, `const turns: number = 'ten';\n${wrong}`);
  assert.is((await loadFailure(file)).code, 'scenario.invalid');
});

test('a file without a default export is refused', async () => {
  const folder = await freshFolder();
  const file = join(folder, 'empty.mts');
  await writeFile(file, 'export const nothing = 1;\n');
  assert.match((await loadFailure(file)).message, /has no default export/);
});

test('a wrong field in a scenario file is named with the file', async () => {
  const folder = await freshFolder();
  const file = join(folder, 'plain.mjs');
  await writeFile(file, "export default { name: 'plain', kind: 'debate', description: '', tasks: 3 };\n");
  assert.is(
    (await loadFailure(file)).message,
    `${file}: Scenario "plain": tasks must be of type object, not number.`,
  );
});

test('a scenario anywhere on the disk can import the package', async () => {
  const folder = await freshFolder();
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

test('a scenario that has no zod around it gets the package’s; one that has its own keeps it', async () => {
  const folder = await freshFolder();
  const schema = "import { z } from 'zod';\nimport type { ZodType } from 'zod/v4';\n";
  const named = 'const kept: ZodType<string> = z.string();\n';
  const scenario = minimal('x').replace("name: 'x'", "name: kept.parse('schematic')");
  const file = join(folder, 'schematic.mts');
  await writeFile(file, schema + named + scenario);
  let imports = 0;
  const importing = (imported: ReturnType<typeof loadScenario>) => {
    imports++;
    return imported;
  };
  assert.is((await loadScenario(file, undefined, importing)).scenario.name, 'schematic');
  const wrong = join(folder, 'wrong.mts');
  await writeFile(wrong, schema + named.replace('<string>', '<number>') + scenario);
  assert.match((await loadFailure(wrong, importing)).message, /wrong\.mts:3:7: .*ZodString/);
  assert.is(imports, 1, 'whoever waits for the author’s code does not wait for the compiler');
  const own = join(folder, 'node_modules', 'zod');
  await mkdir(own, { recursive: true });
  const manifest = {
    name: 'zod',
    type: 'module',
    exports: { '.': { types: './i.d.ts', default: './i.js' } },
  };
  await writeFile(join(own, 'package.json'), JSON.stringify(manifest));
  await writeFile(join(own, 'i.js'), "export const z = { own: () => 'mine' };\n");
  await writeFile(join(own, 'i.d.ts'), 'export declare const z: { own(): string };\n');
  const other = join(folder, 'other.mts');
  await writeFile(other, `import { z } from 'zod';\n${minimal('x').replace("name: 'x'", 'name: z.own()')}`);
  assert.is((await loadScenario(other)).scenario.name, 'mine');
});

const minimal = (name: string) => `export default {
  name: '${name}', kind: 'debate', description: 'A test.', tasks: { load: async () => [] },
  roles: { a: { sees: () => '' }, b: { sees: () => '' } },
  protocol: { order: ['a', 'b'], maxTurns: 2, next: () => 'a', agreed: () => true },
  answer: { parse: () => null, example: () => '' }, answers: () => [''],
  metric: { name: 'm', score: () => ({ score: 0, exactMatch: false }) },
  reward: { lambdaToken: 0, lambdaLoss: 0 }, formats: [],
};
`;

test('behind a colon stands a variant: its tasks take the place of the others', async () => {
  const folder = await freshFolder();
  const file = join(folder, 'of-two.mjs');
  const variant = "variants: { other: { load: async () => ['other'] } }, formats: []";
  await writeFile(file, minimal('of-two').replace('formats: []', variant));
  const { scenario, file: found } = await loadScenario(`${file}:other`);
  assert.equal([scenario.name, found], ['of-two:other', file]);
  assert.equal(await scenario.tasks.load('train', 1, createRng(1)), ['other']);
  assert.equal(await (await loadScenario(file)).scenario.tasks.load('train', 1, createRng(1)), []);
  assert.is(pathOf(file, scenario.name), `${file}:other`);
  assert.is(pathOf(file, 'of-two'), file);
  const { message, hint } = await loadFailure(`${file}:othr`);
  assert.is(message, 'Scenario "of-two" has no variant "othr".');
  assert.is(hint, 'Did you mean "of-two:other"?');
  await writeFile(file.replace('of-two', 'without'), minimal('without'));
  assert.is((await loadFailure(`${file.replace('of-two', 'without')}:x`)).hint, 'It has none.');
});

/** Runs with another working folder, which gets the files of \`files\`. */
async function inFolder(files: Record<string, string>, run: (folder: string) => Promise<void>) {
  const folder = await freshFolder();
  const before = process.cwd();
  await mkdir(join(folder, 'scenarios'));
  for (const [name, text] of Object.entries(files)) await writeFile(join(folder, name), text);
  process.chdir(folder);
  try {
    await run(process.cwd());
  } finally {
    process.chdir(before);
  }
}

test('scenarios are listed by name, those of the working folder before those of the package', async () => {
  const files = ['mine.mts', 'own.ts', 'two-hop-qa.mts', 'notes.md', 'plain.js', 'ts'];
  const entries = Object.fromEntries(files.map((name) => [`scenarios/${name}`, minimal('mine')]));
  await inFolder(entries, async (folder) => {
    const known = await listScenarios();
    assert.equal([...known.keys()].slice(0, 3), ['mine', 'own', 'two-hop-qa']);
    assert.not([...known.keys()].some((name) => ['notes', 'notes.md', 'plain.js', 'ts'].includes(name)));
    assert.is(known.get('own'), join(folder, 'scenarios', 'own.ts'));
    assert.is(known.get('two-hop-qa'), join(folder, 'scenarios', 'two-hop-qa.mts'));

    const { scenario, file } = await loadScenario('mine');
    assert.is(scenario.name, 'mine');
    assert.is(file, join(folder, 'scenarios', 'mine.mts'));
  });
  // Without a folder of that name, or with a file, there are those of the package alone.
  const shipped = join(process.cwd(), 'scenarios', 'two-hop-qa.ts');
  const elsewhere = await freshFolder();
  const before = process.cwd();
  process.chdir(elsewhere);
  try {
    assert.is((await listScenarios()).get('two-hop-qa'), shipped);
    await writeFile('scenarios', '');
    assert.is((await listScenarios()).get('two-hop-qa'), shipped);
  } finally {
    process.chdir(before);
  }
});

test('a name that is near to none is answered with all there are, a path with the path', async () => {
  const unknown = await loadFailure('zzzzzz');
  assert.is(unknown.message, 'There is no scenario "zzzzzz".');
  assert.match(unknown.hint!, /^Known: (.*, )?two-hop-qa(, .*)?\. Or give a file's path\.$/);
  for (const path of ['no/such/file.ts', 'nothing.mts', 'nothing.js', './two-hop-qa', 'test/scenario/']) {
    const error = await loadFailure(path);
    assert.is(error.code, 'scenario.invalid');
    assert.is(error.message, `There is no scenario file ${path}.`);
  }
});

test('a file that cannot be imported is named as seen from the working folder, with the reason', async () => {
  const files = {
    'throws.mjs': "throw new Error('out of\\n luck');",
    'null.mjs': 'export default null;',
    'number.mjs': 'export default 7;',
  };
  await inFolder(files, async (folder) => {
    const thrown = await loadFailure('throws.mjs');
    assert.equal(
      [thrown.code, thrown.message, thrown.hint],
      ['scenario.invalid', 'throws.mjs: cannot be loaded: out of luck', undefined],
    );
    for (const name of ['null.mjs', 'number.mjs']) {
      const error = await loadFailure(join(folder, name));
      assert.is(error.message, `${name}: has no default export.`);
      assert.match(error.hint!, /export default defineScenario/);
    }
  });
});

test('what a file throws of its own accord keeps its code, and a refused definition gets the file', async () => {
  const errors = new URL('../../src/domain/errors.ts', import.meta.url).href;
  const throwing = (code: string) =>
    `import { OptimaError } from '${errors}';
throw new OptimaError('${code}', 'Something.', { hint: 'Do.' });`;
  await inFolder({ 'a.mjs': throwing('io.read'), 'b.mjs': throwing('scenario.invalid') }, async () => {
    const [read, invalid] = [await loadFailure('a.mjs'), await loadFailure('b.mjs')];
    assert.equal([read.code, read.message, read.hint], ['io.read', 'Something.', 'Do.']);
    assert.equal(
      [invalid.code, invalid.message, invalid.hint],
      ['scenario.invalid', 'b.mjs: Something.', 'Do.'],
    );
  });
});

test('a definition that is refused keeps its hint, and the file stands before it', async () => {
  const text = minimal('near')
    .replace("['a', 'b']", "['alpha', 'alphb']")
    .replace('a: {', 'alpha: {')
    .replace('b: {', 'beta: {');
  await inFolder({ 'near.mjs': text }, async () => {
    const error = await loadFailure('near.mjs');
    assert.is(
      error.message,
      'near.mjs: Scenario "near": role "alphb" in protocol.order is not one of alpha, beta.',
    );
    assert.is(error.hint, 'Did you mean "alpha"?');
  });
});

test('of several type errors the first is told, be it in a file that is imported, and nothing is left behind', async () => {
  const files = {
    'many.ts': "import { b } from './part.mts';\nexport default b;\n",
    'part.mts': "\n\nexport const b: string = 7;\nexport const c: number = 'x';\n",
  };
  await inFolder(files, async (folder) => {
    const temporary = join(folder, 'tmp');
    await mkdir(temporary);
    const before = process.env.TMPDIR;
    process.env.TMPDIR = temporary;
    try {
      const error = await loadFailure('many.ts');
      assert.is(
        error.message,
        "Type error in the scenario: part.mts:3:14: Type 'number' is not assignable to type 'string'. (TS2322)",
      );
      assert.equal(await readdir(temporary), []);
    } finally {
      if (before === undefined) delete process.env.TMPDIR;
      else process.env.TMPDIR = before;
    }
  });
});

/** A scenario beside others in a folder, and a folder for temporary files of its own. */
async function typed(text = 'export default 1;'): Promise<{ file: string; own: string }> {
  const folder = await freshFolder();
  const own = join(folder, 'tmp');
  await mkdir(own);
  const file = join(folder, 'one.mts');
  await writeFile(file, text);
  process.env.TMPDIR = own;
  return { file, own };
}
const { TMPDIR } = process.env;
test.after.each(() => {
  if (TMPDIR === undefined) delete process.env.TMPDIR;
  else process.env.TMPDIR = TMPDIR;
});

/** Numbers of this process's children, on Linux. */
const children = () =>
  readFileSync(`/proc/self/task/${process.pid}/children`, 'utf8').split(' ').filter(Boolean);

test('a type check ends at once when it is interrupted, and leaves neither its compiler nor its folder', async () => {
  const { file, own } = await typed();
  const before = existsSync('/proc') ? children() : [];
  const controller = new AbortController();
  const checked = checkScenarioTypes([file], controller.signal).catch((error) => error);
  while ((await readdir(own)).length === 0) await setTimeout(5);
  await setTimeout(50);
  controller.abort();
  assert.is((await checked).code, 'interrupted');
  assert.equal(await readdir(own), []);
  if (existsSync('/proc')) assert.equal(children(), before);
  const late = await checkScenarioTypes([file], AbortSignal.abort()).catch((error) => error);
  assert.is(late.code, 'interrupted');
});

test('a compiler that is killed is no type error', async () => {
  if (!existsSync('/proc')) return;
  const { file, own } = await typed();
  const checked = checkScenarioTypes([file]).catch((error) => error);
  const compiler = () => children().find((id) => readFileSync(`/proc/${id}/cmdline`, 'utf8').includes(own));
  while (compiler() === undefined) await setTimeout(5);
  process.kill(Number(compiler()), 'SIGKILL');
  const error = await checked;
  assert.is(error.code, 'scenario.types');
  assert.match(error.message, /could not be checked: the compiler ended with SIGKILL/);
});

test('what killed processes have left behind is removed, and nothing else', async () => {
  const { file, own } = await typed('export default { name: 1 };');
  const dead = spawnSync(process.execPath, ['-e', '']).pid;
  const first = temporaryFolder('warmup');
  const { namespace } = /-(?<namespace>\d+)\./.exec(first.path)!.groups!;
  const stale = `optima-types-${namespace}.${dead}-abcdef`;
  const kept = [`optima-types-1${namespace}.${dead}-abcdef`, `optima-notes-${dead}`, `optima-${dead}`];
  for (const name of [stale, ...kept]) {
    await mkdir(join(own, name));
    await writeFile(join(own, name, 'file'), '');
  }
  await checkScenarioTypes([file]);
  assert.equal((await readdir(own)).sort(), [...kept, first.path.slice(own.length + 1)].sort());
  first.remove();
  assert.not.ok(existsSync(first.path));
  process.env.TMPDIR = join(own, 'nowhere');
  assert.throws(() => temporaryFolder('types'), /Cannot make a temporary folder: .*nowhere/);
});

test.run();
