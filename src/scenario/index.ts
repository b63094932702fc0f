// What a scenario file imports: `import { defineScenario, … } from 'optima-actors'`.
export { OptimaError } from '../domain/errors.ts';
export { createRng, type Rng } from '../domain/rng.ts';
export type { Observation, Turn } from '../domain/transcript.ts';
export { hashes, option, tagged } from './answer.ts';
export { defineScenario } from './define.ts';
export { compactFormats } from './formats.ts';
export {
  type AnswerMetric,
  answerF1,
  closeTo,
  exactMatch,
  exactNumber,
  exactOption,
  f1,
  kendallTau,
  normalizeAnswer,
} from './metric.ts';
export {
  agreement,
  type DialogueOptions,
  dialogue,
  majority,
  type StopRule,
  unchangedAnswer,
} from './protocol.ts';
export { csv, generated, json, jsonl, parquet, type RowOptions, splitOf } from './sources.ts';
export { type Tool, type ToolCall, tool, tools } from './tools.ts';
export * from './types.ts';
