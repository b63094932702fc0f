// A small run of each recipe, killed at every operation on its files: before each write, rename, flush, unlink, link, mkdir and
// truncation, and in the middle of those that can be half done. Each must go on to the log, the figures and the files of the run that
// nobody killed. Of the lines of the log, which are most, the first of each kind of event in each phase is tried, half of the last
// one, and a sample. Every tenth is killed a second time as it goes on. A few are killed in earnest, which must leave the same
// files as those that are resumed here (test/support/crash.ts). Ends with 1 if one ended otherwise.
// node --import tsx bench/crash.ts [sample] [seed] [recipe…], a recipe with adapters being isft:lora
import fs from 'node:fs';
import path from 'node:path';
import { createRng, type Rng } from '../src/domain/rng.ts';
import { recipeNames } from '../src/recipe/schema.ts';
import {
  goOn,
  isAppend,
  killAnywhere,
  labelOf,
  type Moment,
  outcomeOf,
  stateOf,
} from '../test/support/crash.ts';
import {
  optima,
  optimaHere,
  smallRunOf,
  temporaryFolder,
  writeRandomCheckpoint,
  writeSmallScenario,
} from '../test/support/run.ts';
import { countArgument } from './shared.ts';

const sample = countArgument(0, 40);
const seed = countArgument(1, 1);
const recipes = process.argv.length > 4 ? process.argv.slice(4) : [...recipeNames, 'isft-dpo:lora'];
/** One of so many is killed twice. */
const twiceEvery = 10;
const earnestKills = 6;
process.env.OPTIMA_BLAS = 'off'; // its threads would be a part of the engine's name

/** Smaller than the small run: each of its operations is a run to go on with. */
const smaller: Readonly<Record<string, readonly string[]>> = {
  isft: ['isft.tasks=1'],
  idpo: ['search.tasks=2', 'search.pilotDialogues=1'],
  'isft-dpo': ['isft.tasks=1', 'search.tasks=1', 'search.pilotDialogues=1'],
};
const settingsOf = (recipe: string) => [
  ...smallRunOf(recipe),
  ...['initialization.tasks=1', 'evaluation.tasks=2', 'evaluation.validationTasks=1', 'maxMessageTokens=3']
    .concat(smaller[recipe.split(':')[0]!] ?? [])
    .flatMap((setting) => ['--set', setting]),
];

const folder = temporaryFolder('crash');
process.on('exit', () => fs.rmSync(folder, { recursive: true, force: true }));
const model = path.join(folder, 'model');
await writeRandomCheckpoint(model);
const scenario = writeSmallScenario(folder, 10);

/** Those that are tried: all that are no line of the log; of these the first and a half of the last of each kind, and a sample. */
function choose(moments: readonly Moment[], rng: Rng): Moment[] {
  const kinds = new Map<string, Moment[]>();
  const chosen = new Set<Moment>();
  let phase = '';
  for (const moment of moments) {
    if (!isAppend(moment)) chosen.add(moment);
    else {
      phase = /"phase.started","phase":"([^"]+)"/.exec(moment.text)?.[1] ?? phase;
      const kind = `${phase} ${labelOf(moment)}`;
      kinds.set(kind, [...(kinds.get(kind) ?? []), moment]);
    }
  }
  for (const group of kinds.values()) chosen.add(group[0]!.half ? group.at(-1)! : group[0]!);
  const rest = moments.filter((moment) => !chosen.has(moment));
  for (const moment of rng.shuffle(rest).slice(0, sample)) chosen.add(moment);
  return moments.filter((moment) => chosen.has(moment));
}

const isSame = (one: Moment, other: Moment) => one.number === other.number && one.half === other.half;

/** Ends a process of its own there, by a SIGKILL. */
async function kill(run: string, begin: readonly string[], { number, half }: Moment): Promise<void> {
  const { signal, stderr } = await optima([...begin, '--out', run], {
    preload: new URL('../test/support/kill-at-operation.mjs', import.meta.url).href,
    env: { KILL_AT: JSON.stringify({ folder: run, number, half }) },
  });
  if (signal !== 'SIGKILL') throw new Error(`It was not killed at operation ${number}: ${stderr}`);
}

/** All files of a folder with their content, but for times, what a process calls itself, and sums of these. */
function contentOf(run: string): string {
  if (!fs.existsSync(run)) return '';
  const own = /"at":"[^"]*"|"(run|sum|seconds)": ?[^,}]+/g;
  const textOf = (file: string) => {
    const entry = fs.lstatSync(file);
    if (entry.isSymbolicLink()) return fs.readlinkSync(file);
    if (entry.isDirectory() || path.basename(file).startsWith('lock')) return '';
    return fs.readFileSync(file, 'latin1').replaceAll(own, '');
  };
  const names = fs.readdirSync(run, { recursive: true, encoding: 'utf8' }).sort();
  return JSON.stringify(
    names.map((name) => [name.replace(/lock\.[\w-]{21}/, 'lock.<id>'), textOf(path.join(run, name))]),
  );
}

for (const recipe of recipes) {
  const rng = createRng(seed).split(recipe);
  const begin = [
    'train',
    scenario,
    '--model',
    model,
    '--anyway',
    ...settingsOf(recipe),
    '--json',
    '--workers',
    '0',
  ];
  const at = (name: string) => path.join(folder, `${recipe}-${name}`);
  const train = async (run: string) => {
    const { code, stdout, stderr } = await optimaHere([...begin, '--out', run]);
    if (code !== 0) throw new Error(stdout + stderr);
  };

  const moments = await killAnywhere(at('undisturbed'), () => train(at('undisturbed')), null);
  const expected = outcomeOf(at('undisturbed'));
  const chosen = choose(moments, rng.split('chosen'));
  const isChosen = (moment: Moment) => chosen.some((one) => isSame(one, moment));
  const again = await killAnywhere(at('watched'), () => train(at('watched')), at('states'), isChosen);
  if (again.map(labelOf).join() !== moments.map(labelOf).join()) throw new Error('Not the same operations.');

  const differing: string[] = [];
  const finish = async (run: string, what: string) => {
    const { code, stdout, stderr } = await goOn(run, begin);
    if (code !== 0) differing.push(`${what}: ${stdout.trim().split('\n').at(-1)} ${stderr}`);
    else if (outcomeOf(run) !== expected) differing.push(what);
    fs.rmSync(run, { recursive: true, force: true });
  };
  const copied = (run: string, copy: string) => {
    fs.rmSync(copy, { recursive: true, force: true });
    if (fs.existsSync(run)) fs.cpSync(run, copy, { recursive: true, verbatimSymlinks: true });
    return copy;
  };

  let earnest = 0;
  for (const moment of rng.split('earnest').shuffle(chosen).slice(0, earnestKills)) {
    // Under the name of the run whose state it must be: the manifest has it.
    const run = at('watched');
    fs.rmSync(run, { recursive: true, force: true });
    await kill(run, begin, moment);
    const left = contentOf(run);
    if (left !== contentOf(stateOf(at('states'), moment)))
      differing.push(`in earnest, other files: ${labelOf(moment)}`);
    await finish(run, `in earnest: ${labelOf(moment)}`);
    earnest++;
  }

  const tried: Record<string, number> = {};
  let twice = 0;
  for (const [index, moment] of chosen.entries()) {
    const run = stateOf(at('states'), moment);
    const kind = `${moment.half ? 'half of a' : 'before a'} ${isAppend(moment) ? 'line' : moment.kind}`;
    tried[kind] = (tried[kind] ?? 0) + 1;
    if (index % twiceEvery === twiceEvery - 1) {
      const once = copied(run, at('once'));
      const left = await killAnywhere(once, () => goOn(once, begin), null);
      const second = rng.pick(left);
      copied(run, once);
      await killAnywhere(
        once,
        () => goOn(once, begin),
        at('second'),
        (one) => isSame(one, second),
      );
      await finish(stateOf(at('second'), second), `${labelOf(moment)}, then ${labelOf(second)}`);
      twice++;
    }
    await finish(run, labelOf(moment));
  }
  console.log(
    JSON.stringify({
      bench: 'crash',
      ...{ recipe, seed, moments: moments.length, ofLines: moments.filter(isAppend).length },
      ...{ tried: chosen.length, triedOfLines: chosen.filter(isAppend).length, kinds: tried },
      ...{ twice, earnest, differing: differing.length },
    }),
  );
  for (const one of differing) console.error(one);
  if (differing.length > 0) process.exitCode = 1;
}
