// Options that several commands share, and the checks of their values.
import { fileURLToPath } from 'node:url';
import { Option } from 'commander';
import { nearest, OptimaError } from '../domain/errors.ts';
import { maxWorkers } from '../run/engines.ts';
import { splits } from '../scenario/types.ts';

export const packageFolder = fileURLToPath(new URL('../../', import.meta.url));

/** A whole number from `least` to `most`; anything else is a `usage` error that names the option. */
export function wholeNumber(option: string, least: number, most = 0xffffffff): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (/^\d+$/.test(text) && value >= least && value <= most) return value;
    const range = most === 0xffffffff ? `of at least ${least} and below 2^32` : `from ${least} to ${most}`;
    throw new OptimaError('usage', `${option} ${text}: must be a whole number ${range}.`);
  };
}

/** A number above 0. */
export function positiveNumber(option: string): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (text.trim() !== '' && Number.isFinite(value) && value > 0) return value;
    throw new OptimaError('usage', `${option} ${text}: must be a number above 0.`);
  };
}

/** One of the names; anything else is a `usage` error with the nearest one. */
export function oneOf<Name extends string>(option: string, names: readonly Name[]): (text: string) => Name {
  return (text) => {
    const found = names.find((name) => name === text);
    if (found !== undefined) return found;
    const guess = nearest(text, names);
    throw new OptimaError('usage', `${option} ${text}: must be one of ${names.join(', ')}.`, {
      hint: guess && `Did you mean "${guess}"?`,
    });
  };
}

/** An option that may be given several times. */
export const collect = (text: string, earlier: readonly string[] = []): readonly string[] => [
  ...earlier,
  text,
];

export const backends = ['auto', 'tensorflow', 'wasm', 'cpu'] as const;
export type Backend = (typeof backends)[number];

export const jsonOption = () => new Option('--json', 'print one JSON object a line, for machines');

export const seedOption = (initial?: number) =>
  new Option('--seed <n>', 'the one seed from which everything random follows')
    .argParser(wholeNumber('--seed', 0))
    .default(initial);

export const modelOption = () =>
  new Option(
    '--model <folder>',
    'checkpoint in the Hugging Face layout, or a run for the policy it ended with (default: models/tiny, which ships)',
  );

export const policyOption = () =>
  new Option(
    '--policy <role=model>',
    'who plays a role and is not trained: a checkpoint, or a module whose default export replies; may be repeated',
  ).argParser(collect);

export const judgeOption = () =>
  new Option('--judge <model>', "whom the scenario's metric asks: a checkpoint, or a module that replies");

export const backendOption = () =>
  new Option(
    '--backend <name>',
    `tensor backend: ${backends.join(', ')} (default: $OPTIMA_BACKEND or auto)`,
  ).argParser(oneOf('--backend', backends));

export const workersOption = () =>
  new Option(
    '--workers <n>',
    'worker threads, 0 for none; results do not depend on their number (default: one for each core, at most 4)',
  ).argParser(wholeNumber('--workers', 0, maxWorkers));

export const splitOption = () =>
  new Option('--split <name>', `tasks of this split: ${splits.join(', ')}`)
    .argParser(oneOf('--split', splits))
    .default('test');
