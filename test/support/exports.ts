// A small run and all its exports, as the readers' fixture was made of them (tools/fixtures/make_export_fixture.py).
import fs from 'node:fs';
import path from 'node:path';
import { presetRecipe } from '../../src/recipe/presets.ts';
import { applySettings } from '../../src/recipe/schema.ts';
import { trainTeam } from '../../src/run/train.ts';
import { optimaHere, writeRandomCheckpoint } from './run.ts';
import { type Spied, spyOn } from './spy.ts';

/** Makes a run of isft-dpo whose models are spies in `folder`, with what its spies saw. */
export async function makeSmallRun(folder: string, settings: readonly string[] = []): Promise<Spied> {
  const model = `${folder}-model`;
  await writeRandomCheckpoint(model, 'alice bob train validation test number well 0 1 2 3 4 5 6 7 8 9');
  const recipe = applySettings(presetRecipe('quick', 'isft-dpo'), [
    ...[
      'iterations=2',
      'initialization.tasks=3',
      'initialization.samplesPerTask=3',
      'initialization.thetaInit=0',
    ],
    ...['isft.tasks=2', 'isft.samplesPerTask=3', 'isft.thetaSft=0', 'eligible.repetition=true'],
    ...['search.tasks=2', 'search.expansions=2', 'search.rolloutsPerExpansion=3', 'search.pilotDialogues=2'],
    ...['pairs.thetaFilter=-1', 'pairs.thetaDiff=0.05', 'sft.epochs=1', 'sft.batchSize=4', 'dpo.epochs=1'],
    ...['dpo.batchSize=4', 'evaluation.tasks=2', 'evaluation.validationTasks=1'],
    ...settings,
  ]);
  const spied = await spyOn({ folder, model, recipe });
  try {
    await trainTeam(spied.training);
  } finally {
    spied.training.run.close();
  }
  return spied;
}

/** The exports of rows, by the name of their file, and how they are asked for. */
export const rowExports: Readonly<Record<string, readonly string[]>> = {
  'trl-sft': ['trl-sft'],
  'trl-preference': ['trl-preference'],
  'openai-dpo': ['openai-dpo'],
  openrlhf: ['openrlhf'],
  'openrlhf-dialogues': ['openrlhf', '--of', 'dialogues'],
  'llama-factory': ['llama-factory'],
  'llama-factory-dialogues': ['llama-factory', '--of', 'dialogues'],
  sharegpt: ['sharegpt'],
};

/** Writes every export of a run into `out`, with a policy of it as `checkpoint`. */
export async function writeExports(run: string, out: string): Promise<void> {
  const exported = async (...args: string[]) => {
    const { code, stdout, stderr } = await optimaHere(['export', run, ...args]);
    if (code !== 0) throw new Error(`${args.join(' ')}: ${stdout}${stderr}`);
  };
  for (const [name, [format, ...more]] of Object.entries(rowExports))
    await exported('--format', format!, ...more, '--out', path.join(out, `${name}.jsonl`));
  await exported('--format', 'inspect', '--out', path.join(out, 'inspect'));
  await exported('--format', 'tensorboard', '--out', path.join(out, 'tensorboard'));
  fs.cpSync(fs.realpathSync(path.join(run, 'checkpoints', 'final')), path.join(out, 'checkpoint'), {
    recursive: true,
  });
}
