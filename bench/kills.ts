// Small runs of each recipe that are killed at random instants and resumed: each must end with the log, but for its times, and
// the checkpoints of the run that nobody killed. Says in which phases the kills fell; ends with 1 if a run ended otherwise.
// node --import tsx bench/kills.ts [kills] [seed] [recipe…], a recipe with adapters being isft:lora
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import path from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { createRng } from '../src/domain/rng.ts';
import { recipeNames } from '../src/recipe/schema.ts';
import {
  launcher,
  smallRunOf,
  temporaryFolder,
  writeRandomCheckpoint,
  writeSmallScenario,
} from '../test/support/run.ts';
import { countArgument } from './shared.ts';

const kills = countArgument(0, 20);
const seed = countArgument(1, 1);
const recipes = process.argv.length > 4 ? process.argv.slice(4) : [...recipeNames, 'isft-dpo:lora'];
process.env.OPTIMA_BLAS = 'off'; // its threads would be a part of the engine's name

const folder = temporaryFolder('kills');
process.on('exit', () => fs.rmSync(folder, { recursive: true }));
const model = path.join(folder, 'model');
await writeRandomCheckpoint(model);
const scenario = writeSmallScenario(folder, 10);

const logOf = (run: string) => path.join(run, 'events.jsonl');

/** What a run came to: its log without times, and the names of its checkpoints, which are hashes of the weights. */
function outcomeOf(run: string): string {
  const log = fs.readFileSync(logOf(run), 'utf8').replaceAll(/"at":"[^"]*"/g, '');
  return [log, ...fs.readdirSync(path.join(run, 'checkpoints')).sort()].join('\n');
}

/** The phase of the log's last whole line; null before the first. */
function phaseOf(run: string): string | null {
  const lines = fs.readFileSync(logOf(run), 'utf8').split('\n').slice(0, -1);
  const started = lines.findLast((line) => line.includes('"type":"phase.started"'));
  return started === undefined ? null : JSON.parse(started).phase;
}

/** Whether a run has come to its first phase: until then nothing is there to be lost. */
const hasBegun = (run: string) => fs.existsSync(logOf(run)) && phaseOf(run) !== null;

/** Runs `optima train`; kills it `killAfterMs` after its first phase began. Gives the milliseconds from there to its end. */
async function train(run: string, args: readonly string[], killAfterMs: number | null): Promise<number> {
  const child = spawn(process.execPath, [launcher, 'train', ...args], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const ended = once(child, 'close');
  let stderr = '';
  child.stderr.setEncoding('utf8').on('data', (text) => {
    stderr += text;
  });
  while (child.exitCode === null && !hasBegun(run)) await wait(2);
  const startedAt = performance.now();
  if (killAfterMs !== null) {
    await Promise.race([wait(killAfterMs), ended]);
    child.kill('SIGKILL');
  }
  const [code, signal] = await ended;
  if (code !== 0 && signal !== 'SIGKILL') throw new Error(`optima train ${args.join(' ')}: ${stderr}`);
  return performance.now() - startedAt;
}

for (const recipe of recipes) {
  const first = [scenario, '--model', model, ...smallRunOf(recipe)];
  const undisturbed = path.join(folder, recipe);
  const duration = await train(undisturbed, [...first, '--workers', '0', '--out', undisturbed], null);
  const expected = outcomeOf(undisturbed);
  const rng = createRng(seed).split(recipe);
  const fell: Record<string, number> = {};
  const differing: string[] = [];
  for (let kill = 0; kill < kills; ) {
    const run = path.join(folder, `${recipe}-${kill}`);
    const workers = ['--workers', `${kill % 3}`];
    await train(run, [...first, ...workers, '--out', run], rng.next() * duration);
    const phase = phaseOf(run);
    // Whoever came too late has killed nothing.
    if (!fs.readFileSync(logOf(run), 'utf8').includes('"type":"run.completed"')) {
      kill++;
      fell[phase!] = (fell[phase!] ?? 0) + 1;
      await train(run, ['--resume', run, ...workers], null);
      if (outcomeOf(run) !== expected) differing.push(run);
    }
    fs.rmSync(run, { recursive: true });
  }
  console.log(JSON.stringify({ bench: 'kills', recipe, kills, seed, fell, differing: differing.length }));
  if (differing.length > 0) process.exitCode = 1;
}
