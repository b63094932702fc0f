// What a scenario file imports: `import { defineScenario, … } from 'optima-actors'`.
export type { Rng } from '../domain/rng.ts';
export type { Observation, Turn } from '../domain/transcript.ts';
export { hashes, option, tagged } from './answer.ts';
export { defineScenario } from './define.ts';
export { compactFormats } from './formats.ts';
export { answerF1, exactMatch, exactNumber, exactOption, f1, normalizeAnswer } from './metric.ts';
export {
  agreement,
  type DialogueOptions,
  dialogue,
  majority,
  type StopRule,
  unchangedAnswer,
} from './protocol.ts';
export { generated, jsonl, splitOf } from './sources.ts';
export { type Tool, type ToolCall, tool, tools } from './tools.ts';
export * from './types.ts';
