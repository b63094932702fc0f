// Runs from code: the library behind the command line. A run needs a started engine (src/tensor), a scenario,
// a recipe, a base policy and a folder.
export { systemClock } from '../domain/clock.ts';
export { OptimaError } from '../domain/errors.ts';
export { loadPolicy } from '../models/llama/index.ts';
export { loadScenario } from '../scenario/load.ts';
export { startEngine } from '../tensor/index.ts';
export { checkScenario, type Finding } from './check.ts';
export { type Evaluation, type EvaluationPlan, evaluateTeam } from './evaluate.ts';
export { RunFolder } from './folder.ts';
export type { IterationFigures } from './iterations.ts';
export { EventLog } from './log.ts';
export { formatVersion, type Manifest, readManifest } from './manifest.ts';
export { presetNames, presetRecipe } from './presets.ts';
export { type Progress, silent } from './progress.ts';
export { type RankedTrajectory, rankTrajectories } from './rank.ts';
export { applySettings, type Recipe, recipeKeys } from './recipe.ts';
export { type Selection, selectTrajectories } from './select.ts';
export { type TrainingResult, type TrainingRun, trainTeam } from './train.ts';
