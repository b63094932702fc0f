// Runs from code: the library behind the command line. A run needs a started engine (src/tensor), a scenario,
// a recipe, a base policy and a folder.

export { systemClock } from '../domain/clock.ts';
export { OptimaError } from '../domain/errors.ts';
export { type Progress, silent } from '../domain/progress.ts';
export { loadPolicy } from '../models/llama/index.ts';
export { presetNames, presetRecipe, recipeNamed } from '../recipe/presets.ts';
export { applySettings, type Recipe, type RecipeName, recipeKeys, recipeNames } from '../recipe/schema.ts';
export { type Evaluation, type EvaluationPlan, evaluateTeam } from '../rollouts/evaluate.ts';
export { loadScenario } from '../scenario/load.ts';
export { EventLog } from '../store/event-log.ts';
export { formatVersion, type Manifest, readManifest } from '../store/manifest.ts';
export { RunFolder } from '../store/run-folder.ts';
export { startEngine } from '../tensor/index.ts';
export type { IterationFigures } from './figures.ts';
export type { FrozenModel } from './frozen.ts';
export { type RankedTrajectory, rankTrajectories } from './ranking.ts';
export { type Selection, selectTrajectories } from './selection.ts';
export { type TrainingResult, type TrainingRun, trainTeam } from './train.ts';
