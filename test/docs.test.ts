// The documents hold: every example is a scenario that loads, checks and plays, and every command line is one that optima knows.
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { checkScenario, type Finding } from '../src/check/check.ts';
import { describeScenario } from '../src/check/page.ts';
import { scriptedModel } from '../src/models/scripted/index.ts';
import { checkScenarioTypes, loadScenario } from '../src/scenario/load.ts';
import { optimaHere, temporaryFolder } from './support/run.ts';

const folder = temporaryFolder('docs');
test.after(() => fs.rmSync(folder, { recursive: true }));
const root = fileURLToPath(new URL('..', import.meta.url));
const read = (file: string) => fs.readFileSync(path.join(root, file), 'utf8');
const documents = ['README.md', 'docs/scenario-authoring.md', 'docs/replay.md', 'docs/export.md'];
const blocksOf = (file: string, language: string) =>
  [...read(file).matchAll(new RegExp(`^\`\`\`${language}$([\\s\\S]*?)^\`\`\`$`, 'gmu'))].map(
    ([, text]) => text!,
  );
const written = documents.flatMap((document) =>
  blocksOf(document, 'ts').map((text, index) => {
    const file = path.join(folder, `example-${document.length}-${index}.mts`);
    return { name: `example ${index + 1} of ${document}`, file, text };
  }),
);
const drafts = fs.readdirSync(path.join(root, 'templates'));
const examples = fs.readdirSync(path.join(root, 'examples'));
test.before(async () => {
  // As beside an installed package: an example may import zod.
  fs.symlinkSync(path.join(root, 'node_modules'), path.join(folder, 'node_modules'), 'junction');
  for (const { file, text } of written) fs.writeFileSync(file, text);
  // All at once: a compiler for each would take longer than all else that is done here.
  await checkScenarioTypes([
    ...written.map(({ file }) => file),
    ...drafts.map((name) => path.join(root, 'templates', name)),
    ...examples.map((name) => path.join(root, 'examples', name)),
  ]);
});
const withoutFindings = async (file: string) => {
  const { scenario } = await loadScenario(file);
  const judge = scenario.judge && scriptedModel({ reply: () => 'pro' });
  const findings = await checkScenario(scenario, 1, judge);
  // What is to be read at once may have few different tasks.
  const isSmall = ({ message }: Finding) => /test tasks are among the first/.test(message);
  assert.equal(
    findings.filter((finding) => !(file.startsWith(folder) && isSmall(finding))),
    [],
  );
  return scenario;
};

for (const { name, file } of written) {
  test(name, async () => {
    await withoutFindings(file);
  });
}

for (const draft of drafts) {
  test(`the draft ${draft} has nothing wrong, and no more lines than can be read at once`, async () => {
    await withoutFindings(path.join(root, 'templates', draft));
    assert.ok(read(`templates/${draft}`).split('\n').length <= 120);
  });
}

for (const example of examples) {
  test(`the example ${example} is short, has nothing wrong, and plays: it leaves something to learn from and to gain`, async () => {
    const scenario = await withoutFindings(path.join(root, 'examples', example));
    const [rest, ...demonstrators] = read(`examples/${example}`).split(/^ {2}demonstrate:/mu);
    assert.is(demonstrators.length, 1);
    assert.ok(rest!.split('\n').length <= 60);
    const { demonstrated } = await describeScenario(scenario, 1, ({ length }) => length);
    assert.is(demonstrated?.n, 10);
    assert.ok(demonstrated!.right > 0 && demonstrated!.right < 1);
  });
}

test('README and the guide show one and the same first scenario', () => {
  const [first, second] = documents.map((document) => blocksOf(document, 'ts')[0]);
  assert.is(first, second);
});

test('every command line of the documents is one that optima knows', async () => {
  const lines = documents.flatMap((document) =>
    blocksOf(document, 'sh').flatMap((text) => text.match(/npx optima .*/gu) ?? []),
  );
  assert.ok(lines.length > 5);
  for (const line of lines) {
    const [command] = line
      .replace(/\s*#.*/u, '')
      .replace('npx optima ', '')
      .split(' ');
    const { code, stdout } = await optimaHere([command!, '--help']);
    assert.is(code, 0, line);
    for (const [option] of line.matchAll(/--[a-z-]+/gu))
      assert.match(stdout, new RegExp(`${option}\\b`, 'u'), line);
  }
});

test.run();
