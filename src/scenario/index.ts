// What a scenario file imports: `import { defineScenario, … } from 'optima-actors'`.
export type { Rng } from '../domain/rng.ts';
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
export { agreement, dialogue, type StopRule, unchangedAnswer } from './protocol.ts';
export { generated, jsonl, splitOf } from './sources.ts';
export * from './types.ts';
