// The guide to writing a scenario: each of its examples that is a whole scenario type-checks, is checked and is played.
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { checkScenario } from '../../src/check/check.ts';
import { loadScenario } from '../../src/scenario/load.ts';
import { temporaryFolder } from '../support/run.ts';

const guide = fs.readFileSync(new URL('../../docs/scenario-authoring.md', import.meta.url), 'utf8');
const examples = [...guide.matchAll(/^```ts\n([\s\S]*?)^```$/gmu)].flatMap(([, code]) =>
  code!.includes('export default defineScenario') ? [code!] : [],
);
// Inside the project: an example may import zod, as a scenario beside an installed package may.
const folder = path.join(temporaryFolder('guide'), 'scenarios');
test.before(() => {
  fs.mkdirSync(folder);
  fs.symlinkSync(new URL('../../node_modules', import.meta.url), path.join(folder, 'node_modules'));
});
test.after(() => fs.rmSync(path.dirname(folder), { recursive: true }));

for (const [index, code] of examples.entries()) {
  const [, name] = /name: '([\w-]+)'/u.exec(code)!;
  test(`the guide’s ${name} type-checks, and nothing is found wrong with it`, async () => {
    const file = path.join(folder, `example-${index}.mts`);
    fs.writeFileSync(file, code);
    const { scenario } = await loadScenario(file);
    const errors = (await checkScenario(scenario, 1)).filter(({ severity }) => severity === 'error');
    assert.equal(errors, []);
  });
}

test('the guide has an example of each kind', () => {
  assert.ok(examples.length >= 4, `${examples.length}`);
});

test.run();
