// The headline, from its first run to its document, with a random model of a few thousand weights.
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { studies } from '../../src/cli/study.ts';
import { presetRecipe } from '../../src/recipe/presets.ts';
import { applySettings, type Recipe } from '../../src/recipe/schema.ts';
import { type Manifest, readManifest, writeManifest } from '../../src/store/manifest.ts';
import {
  eventsIn,
  optimaHere,
  replaceLog,
  smallHybridRun,
  temporaryFolder,
  writeRandomCheckpoint,
  writeSmallScenario,
} from '../support/run.ts';

const folder = temporaryFolder('reproduce');
test.after(() => fs.rmSync(folder, { recursive: true }));
test.before(async () => {
  await writeRandomCheckpoint(path.join(folder, 'model'));
  writeSmallScenario(folder);
});

const { conditions } = studies.find(({ name }) => name === 'headline')!;
// A run for each condition: as small as runs can be.
const tiny = ['initialization.tasks=2', 'isft.tasks=2', 'search.tasks=2', 'evaluation.tasks=2'];
const settings = [...smallHybridRun.slice(3), ...tiny.flatMap((setting) => ['--set', setting])];
const reproduce = (...more: readonly string[]) =>
  optimaHere(
    [
      ...[
        'reproduce',
        'headline',
        'two-hop-qa.mjs',
        '--seeds',
        '1',
        '--model',
        'model',
        '--workers',
        '0',
        '--json',
      ],
      ...['--preset', 'quick', ...settings, ...more],
    ],
    { folder },
  );
const eventsOf = (stdout: string) =>
  stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
const stagesOf = (stdout: string, run: string) => {
  const events = eventsOf(stdout);
  const from = events.findIndex((event) => event.event === 'condition' && event.condition === run);
  const to = events.findIndex((event, index) => index > from && event.event === 'condition');
  return events
    .slice(from + 1, to < 0 ? undefined : to)
    .flatMap(({ event, stage, state }) => (event === 'stage' && state === 'done' ? [stage] : []));
};

test('a document and its plots come of a run for each condition', async () => {
  const { code, stdout } = await reproduce();
  assert.is(code, 0, stdout.slice(-500));
  for (const { name, recipe, settings: own } of conditions) {
    const manifest = readManifest(path.join(folder, 'runs/headline', `two-hop-qa-${name}-s1`));
    assert.equal([manifest.recipe.recipe, manifest.recipe.seed], [recipe, 1]);
    // A run of its own, begun with this, is the same.
    const begin = [
      'train',
      'two-hop-qa.mjs',
      '--recipe',
      recipe,
      '--preset',
      'quick',
      '--seed',
      '1',
      '--set',
    ];
    assert.equal(manifest.command.slice(0, begin.length), begin);
    assert.equal(manifest.command.slice(-2), ['--model', 'model']);
    for (const setting of own) assert.ok(manifest.command.includes(setting));
    for (const setting of own) {
      const [key, value] = setting.split('=') as [string, string];
      const [group, part] = key.split('.') as [string, string];
      assert.is((manifest.recipe[group] as Record<string, unknown>)[part], Number(value));
    }
  }
  const text = fs.readFileSync(path.join(folder, 'docs/results.md'), 'utf8');
  for (const { title } of conditions) assert.is(text.split(`| ${title} | 1 |`).length, 2, title);
  assert.match(
    text,
    /^npx optima train two-hop-qa\.mjs --recipe isft-dpo .*search\.expansions=1 .*--model model$/m,
  );
  assert.match(
    text,
    /Written by `npx optima reproduce headline two-hop-qa\.mjs --preset quick --seeds 1 --set .* --model model`/,
  );
  assert.match(text, /iSFT-DPO reaches \S+ times the base's F1 at \S+ % of its tokens/);
  const plots = [...text.matchAll(/!\[[^\]]*\]\(([^)]+)\)/g)].map(([, file]) => file!);
  assert.equal(
    plots,
    ['score', 'tokens', 'frontier'].map((kind) => `results/two-hop-qa-${kind}.svg`),
  );
  for (const plot of plots) {
    assert.match(
      fs.readFileSync(path.join(folder, 'docs', plot), 'utf8'),
      /^<svg [\s\S]*<circle [\s\S]*<\/svg>\n$/,
    );
  }
});

test('what is done is not done again, and what was cut off goes on', async () => {
  const cut = path.join(folder, 'runs/headline/two-hop-qa-no-search-s1');
  const whole = fs.readFileSync(path.join(cut, 'metrics.jsonl'), 'utf8');
  // As a kill leaves it in the last evaluation: its end is not in the log.
  replaceLog(cut, eventsIn(cut).slice(0, -2));
  fs.writeFileSync(
    path.join(cut, 'metrics.jsonl'),
    whole.slice(0, whole.indexOf('"phase":"trained"')).replace(/\n[^\n]*$/, '\n'),
  );
  const { code, stdout } = await reproduce();
  assert.is(code, 0, stdout.slice(-500));
  assert.equal(stagesOf(stdout, 'isft'), []);
  assert.equal(stagesOf(stdout, 'no-search'), ['trained']);
  assert.is(fs.readFileSync(path.join(cut, 'metrics.jsonl'), 'utf8'), whole);
});

test('without the name of a study it says what it takes', async () => {
  const { code, stderr } = await optimaHere(['reproduce']);
  assert.is(code, 2);
  assert.is(
    stderr,
    'error: This command has commands of its own, of which it takes one.\nhint: `optima reproduce --help` lists them.\n',
  );
});

test('runs between which more has changed than the study is about are not compared', async () => {
  const run = path.join(folder, 'runs/headline/two-hop-qa-idpo-s1');
  const manifest = readManifest(run);
  for (const [part, change] of [
    ['base', { base: { ...manifest.base, hash: 'other' } }],
    ['scenario file', { scenario: { ...manifest.scenario, hash: 'other' } }],
    ['version', { version: '0.0.1' }],
    ['engine', { engine: 'other' }],
  ] as const) {
    writeManifest(run, { ...manifest, ...change } as Manifest);
    const { code, stdout } = await reproduce();
    assert.is(code, 2);
    const { message } = eventsOf(stdout).at(-1);
    assert.ok(
      message.startsWith(`runs/headline/two-hop-qa-idpo-s1 began with another ${part} than `),
      message,
    );
  }
  writeManifest(run, manifest);
});

test('every condition of every study has a recipe', () => {
  for (const { recipe, settings } of studies.flatMap((study) => study.conditions)) {
    applySettings<Recipe>(presetRecipe('full', recipe), settings);
  }
});

test('a folder that holds another run, and a setting that no recipe has, are refused before any work', async () => {
  fs.cpSync(path.join(folder, 'model'), path.join(folder, 'other'), { recursive: true });
  for (const [more, message] of [
    [
      ['--set', 'iterations=1'],
      /^runs\/headline\/two-hop-qa-isft-s1 is a run of another recipe than is asked for\.$/,
    ],
    [['--set', 'iteration=1'], /the recipe has no key "iteration"\.$/],
    [['--preset', 'quik'], /^There is no preset "quik"\.$/],
    [
      ['--model', 'other'],
      /^runs\/headline\/two-hop-qa-isft-s1 is a run of another base than is asked for\.$/,
    ],
  ] as const) {
    const { code, stdout } = await reproduce(...more);
    assert.is(code, 2);
    const [error] = eventsOf(stdout);
    assert.match(error.message, message);
  }
});

test.run();
