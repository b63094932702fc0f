// The package as a user has it: packed from a copy of this clone, unpacked into a fresh project, type-checked by a strict tsc
// and run under plain node and tsx. Needs no network: what it depends on is linked from this clone's node_modules.
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { temporaryFolder, writeRandomCheckpoint } from '../support/run.ts';

const root = path.resolve(import.meta.dirname, '../..');
const folder = temporaryFolder('package');
const clone = path.join(folder, 'clone');
const project = path.join(folder, 'project');
const installed = path.join(project, 'node_modules/optima-actors');
const manifest = JSON.parse(fs.readFileSync(path.join(root, 'package.json'), 'utf8'));
test.after(() => fs.rmSync(folder, { recursive: true }));

function run(command: string, args: readonly string[], cwd = project) {
  // Neither tsx nor what a test runner sets may leak into what a user has.
  const { NODE_OPTIONS, ...env } = process.env;
  const { status, stdout, stderr } = spawnSync(command, args, { cwd, env, encoding: 'utf8' });
  return { status, stdout, output: `${stdout}${stderr}` };
}
const node = (...args: string[]) => run(process.execPath, args);

/** Files and their sizes as `npm pack` tells them. */
let packed: { readonly size: number; readonly files: readonly { readonly path: string }[] };

test.before(() => {
  const parts = [...manifest.files, 'src', 'tools', 'package.json', 'README.md', 'LICENSE'];
  for (const part of parts.filter((part) => fs.existsSync(path.join(root, part)) && part !== 'dist')) {
    fs.cpSync(path.join(root, part), path.join(clone, part), { recursive: true });
  }
  fs.symlinkSync(path.join(root, 'node_modules'), path.join(clone, 'node_modules'));
  const { stdout, output } = run('npm', ['pack', '--json', '--pack-destination', folder], clone);
  const told = JSON.parse(/^[[{]\n[\s\S]*/m.exec(stdout)?.[0] ?? assert.unreachable(output) ?? '');
  packed = (Array.isArray(told) ? told : Object.values(told))[0];

  fs.mkdirSync(installed, { recursive: true });
  const tarball = path.join(folder, `optima-actors-${manifest.version}.tgz`);
  assert.is(run('tar', ['-xzf', tarball, '--strip-components=1', '-C', installed]).status, 0);
  for (const name of Object.keys(manifest.dependencies)) {
    const link = path.join(project, 'node_modules', name);
    fs.mkdirSync(path.dirname(link), { recursive: true });
    fs.symlinkSync(path.join(root, 'node_modules', name), link);
  }
  fs.writeFileSync(path.join(project, 'package.json'), '{ "type": "module" }');
});

test('it is small, compiled, and holds no sources', () => {
  assert.ok(packed.size < 10e6, `${packed.size} bytes`);
  const files = packed.files.map((file) => file.path);
  assert.equal(
    files.filter((file) => /^(src|test|bench|tools)\//.test(file)),
    [],
  );
  // Declarations only of what the entries tell of.
  assert.equal(
    files.filter((file) => /^dist\/(cli|tensor|viewer|workers)\/.*\.d\.c?ts$/.test(file)),
    [],
  );
  for (const file of [
    'dist/index.js',
    'dist/run/index.d.ts',
    'dist/tensor/tfjs.cjs',
    'dist/viewer/client/app.js',
    'bin/optima.js',
  ]) {
    assert.ok(files.includes(file), file);
  }
});

test('packing leaves the clone as it was', () => {
  assert.equal(JSON.parse(fs.readFileSync(path.join(clone, 'package.json'), 'utf8')), manifest);
  assert.not(fs.existsSync(path.join(clone, 'dist')));
  assert.match(manifest.exports['.'], /^\.\/src\//);
});

/** The examples of docs/library.md, by file, with what they say they print. */
const page = fs.readFileSync(path.join(root, 'docs/library.md'), 'utf8');
const examples = [
  ...page.matchAll(/^```js\n\/\/ (\S+)\n([\s\S]*?)^```$(?:\n\n```text\n([\s\S]*?)^```$)?/gm),
].map(([, name, code, output = '']) => ({ name: name!, code: code!, output }));

test('every example of docs/library.md runs under plain node and prints what the page says', () => {
  assert.ok(examples.length >= 7);
  for (const { name, code, output } of examples) {
    fs.writeFileSync(path.join(project, name), code);
    const result = node(name);
    assert.is(result.output, output, name);
  }
});

test('what the declarations of the package lead to names no tensor and no actor', () => {
  for (const entry of ['index', 'run/index']) {
    const seen = new Set<string>();
    const open = [path.join(installed, 'dist', `${entry}.d.ts`)];
    for (let file = open.pop(); file !== undefined; file = open.pop()) {
      if (seen.has(file)) continue;
      seen.add(file);
      const text = fs.readFileSync(file, 'utf8');
      for (const [, name] of text.matchAll(/(?:from|import\() ?['"](\.[^'"]+)['"]/g)) {
        open.push(path.resolve(path.dirname(file), name!.replace(/\.js$/, '.d.ts')));
      }
      assert.not.match(text, /@tensorflow|xstate|rxjs/, file);
    }
    const inside = [...seen].map((file) => path.relative(path.join(installed, 'dist'), file));
    assert.equal(
      inside.filter((file) => /^(tensor|actors|machines)\b/.test(file)),
      [],
      entry,
    );
    assert.ok(inside.length > 10);
  }
});

test('a strict tsc that checks libraries too finds no error, whatever it resolves like', () => {
  const options = {
    strict: true,
    noEmit: true,
    target: 'es2023',
    lib: ['es2023'],
    types: [],
    exactOptionalPropertyTypes: true,
    noUncheckedIndexedAccess: true,
    noPropertyAccessFromIndexSignature: true,
    verbatimModuleSyntax: true,
  };
  fs.writeFileSync(
    path.join(project, 'typed.mts'),
    `import { createRng, defineScenario, dialogue, exactMatch, generated, jsonl, tagged, unchangedAnswer } from 'optima-actors';
import { evaluate, holdDialogue, type LoggedEvent, openModel, readEvents, RunReader, train, type Trajectory, type TreeReading } from 'optima-actors/run';
import { z } from 'zod';

export const scenario = defineScenario({
  name: 'sum',
  kind: 'debate',
  description: 'Sums.',
  tasks: generated((rng) => ({ sum: rng.int(9) })),
  roles: { solver: { sees: (task) => String(task.sum) }, critic: { sees: () => '' } },
  protocol: dialogue({ order: ['solver', 'critic'], maxTurns: 4, until: unchangedAnswer('solver') }),
  answer: tagged('A'),
  answers: (task) => [task.sum.toFixed(0)],
  metric: exactMatch,
  reward: { lambdaToken: 0.6, lambdaLoss: 1 },
  formats: [],
});
export const rows = jsonl('rows.jsonl', z.object({ question: z.string() }), { deal: (row) => row.question.length });
export async function all(): Promise<string[]> {
  const model = await openModel();
  const held: Trajectory = await holdDialogue({ scenario, models: { solver: model, critic: model } });
  const { metrics } = await evaluate({ scenario, models: model, tasks: 1 });
  const { policies } = await train({ scenario: 'two-hop-qa', recipe: 'idpo', settings: { iterations: 1 } });
  const said: string[] = [held.outcome, metrics.taskScore.toFixed(2), ...Object.values(policies)];
  for await (const event of readEvents('runs/one')) said.push(textOf(event) ?? '');
  const reader: RunReader = RunReader.open('runs/one');
  for (const { root } of reader.trees({ phase: 'base' })) {
    const tree: TreeReading | null = reader.tree(root);
    said.push(...(tree?.turns.map(({ text }) => text) ?? []), ...Object.keys(reader.recipe ?? {}));
  }
  for await (const { speaker, text } of reader.said('hello')) said.push(speaker ?? text);
  reader.close();
  return createRng(1).shuffle(said);
}
const textOf = (event: LoggedEvent): string | undefined =>
  event.type === 'turn.taken' ? event.turn.text : undefined;
// @ts-expect-error: a role that is not there.
defineScenario({ ...scenario, protocol: dialogue({ order: ['solver', 'judge'], maxTurns: 4, until: () => true }) });
// @ts-expect-error: a recipe that is not there.
train({ scenario, recipe: 'ppo' });
`,
  );
  const compiler = path.join(root, 'node_modules/typescript/bin/tsc');
  const modules = [
    { module: 'nodenext', moduleResolution: 'nodenext' },
    { module: 'esnext', moduleResolution: 'bundler' },
  ];
  for (const resolution of modules) {
    // Whoever skips declarations has fewer of the same errors.
    const compilerOptions = { ...options, ...resolution, skipLibCheck: false };
    const config = { compilerOptions, files: ['typed.mts'] };
    fs.writeFileSync(path.join(project, 'tsconfig.json'), JSON.stringify(config));
    const { status, output } = node(compiler, '-p', '.');
    assert.is(output, '', resolution.module);
    assert.is(status, 0);
  }
});

test('a scenario in TypeScript is checked and played by the command, with a worker', () => {
  const optima = path.join(installed, 'bin/optima.js');
  assert.is(node(optima, 'new', 'sum').status, 0);
  const checked = node(optima, 'check', 'sum');
  assert.is(checked.status, 0, checked.output);
  const played = node(optima, 'eval', 'sum', '--tasks', '2', '--workers', '1', '--json');
  assert.is(played.status, 0, played.output);
  assert.match(played.stdout, /"workers":1.*\n[\s\S]*"event":"summary"/);

  const file = path.join(
    project,
    fs.readdirSync(path.join(project, 'scenarios')).map((name) => `scenarios/${name}`)[0]!,
  );
  fs.writeFileSync(file, fs.readFileSync(file, 'utf8').replace(/order: \[[^\]]*\]/, "order: ['nobody']"));
  const wrong = node(optima, 'check', 'sum');
  assert.is(wrong.status, 1);
  assert.match(wrong.output, 'nobody');
});

test('tsx runs a program in TypeScript that names a scenario in TypeScript', () => {
  const text = fs.readFileSync(path.join(project, 'sum-of-two.mjs'), 'utf8');
  fs.writeFileSync(path.join(project, 'typed-sum.ts'), text);
  const program = `import { holdDialogue, scriptedModel } from 'optima-actors/run';
const model = scriptedModel({ reply: (): string => '<A>0</A>' });
const { outcome } = await holdDialogue({ scenario: './typed-sum.ts', models: model });
console.log(outcome as string);
`;
  fs.writeFileSync(path.join(project, 'program.ts'), program);
  const { output } = node('--import', 'tsx', 'program.ts');
  assert.is(output, 'agreed\n');
  fs.writeFileSync(
    path.join(project, 'program.mjs'),
    program.replace(': string', '').replace(' as string', ''),
  );
  assert.is(node('program.mjs').output, 'agreed\n');
});

test('tfjs-node-gpu beside it is the engine, also with a TF.js of its own', async () => {
  // Stands in for the real one, whose library a test cannot download: another copy of TF.js' core that registers the backend.
  const scope = path.join(project, 'node_modules/@tensorflow/tfjs-node-gpu');
  const parts = ['tfjs-core', 'tfjs-backend-cpu'];
  for (const part of parts) {
    const from = path.join(root, 'node_modules/@tensorflow', part);
    const to = path.join(scope, 'node_modules/@tensorflow', part);
    const main = JSON.parse(fs.readFileSync(path.join(from, 'package.json'), 'utf8')).main;
    fs.mkdirSync(path.dirname(path.join(to, main)), { recursive: true });
    fs.copyFileSync(path.join(from, 'package.json'), path.join(to, 'package.json'));
    fs.copyFileSync(path.join(from, main), path.join(to, main));
  }
  fs.symlinkSync(path.join(root, 'node_modules/seedrandom'), path.join(scope, 'node_modules/seedrandom'));
  fs.symlinkSync(path.join(root, 'node_modules/long'), path.join(scope, 'node_modules/long'));
  fs.writeFileSync(path.join(scope, 'package.json'), '{ "main": "index.js" }');
  fs.writeFileSync(
    path.join(scope, 'index.js'),
    `const tf = require('@tensorflow/tfjs-core');
const { MathBackendCPU } = require('@tensorflow/tfjs-backend-cpu');
class Backend extends MathBackendCPU { isUsingGpuDevice = true; }
tf.registerBackend('tensorflow', () => new Backend());
tf.copyRegisteredKernels('cpu', 'tensorflow');
`,
  );
  const optima = path.join(installed, 'bin/optima.js');
  // It computes as TF.js does without any kernel of ours: a small model, and few words.
  await writeRandomCheckpoint(path.join(project, 'small'));
  const few = ['--model', 'small', '--tasks', '1', '--max-tokens', '4', '--show', '0'];
  const { output, status } = node(optima, 'eval', 'two-hop-qa', ...few);
  assert.is(status, 0, output);
  assert.match(output, 'engine: tensorflow on the GPU');
  fs.rmSync(scope, { recursive: true });
});

test.run();
