// The patterns of a tokenizer.json, which may come from anywhere. A pattern that backtracks without end would hang the command, and
// none can be told by its looks: those of published tokenizers run as they are, others against the clock.
import fs from 'node:fs';
import vm from 'node:vm';
import { OptimaError } from '../../domain/errors.ts';

/** Digits, and GPT-2's, as ByteLevel has it; see python-reading.ts. */
export const digitPatterns = { each: '\\p{N}', runs: '\\p{N}+' } as const;
export const gpt2Pattern =
  "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
/**
 * Words with the space before them; punctuation marks one by one, with the space before them; digits one by
 * one and without it, so that a number is spelt the same wherever it stands; runs of white space.
 * The pattern covers every character, so nothing is lost.
 */
export const ownPattern = ' ?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]|\\s+(?!\\S)|\\s';

/** That of cl100k and its kin, by how many digits are taken together. */
const cl100k = (digits: string) =>
  `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|${digits}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+`;
const [upper, lower] = ['[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]', '[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]'];
const tekken = `[^\\r\\n\\p{L}\\p{N}]?${upper}*${lower}+|[^\\r\\n\\p{L}\\p{N}]?${upper}+${lower}*|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+`;

/** Whose time grows with a text's length, or that of one run in it squared. */
const known: ReadonlySet<string> = new Set([
  ...Object.values(digitPatterns),
  gpt2Pattern,
  ownPattern,
  // Llama 3; Qwen 2 and 3.
  ...['\\p{N}{1,3}', '\\p{N}'].map(cl100k),
  tekken,
]);

/** What holds the patterns of a tokenizer.json to their time. */
export interface PatternLimit {
  /** Texts to try when the tokenizer is opened; none where all patterns are known. */
  readonly trials: readonly string[];
  /** Carries out what applies the patterns to so many characters; throws `checkpoint.invalid` where it takes longer than any should. */
  within<T>(characters: number, work: () => T): T;
}

/** Half a second, and 10 times what a tokenizer needs for a character. */
const limitMs = (characters: number): number => 500 + characters / 100;

export function limitPatterns(json: Readonly<Record<string, unknown>>): PatternLimit {
  const foreign = patternsIn([json.normalizer, json.pre_tokenizer, json.decoder]).filter(
    (pattern) => !known.has(pattern),
  );
  if (foreign.length === 0) return { trials: [], within: (_, work) => work() };
  const said = foreign.map((pattern) => JSON.stringify(pattern).slice(0, 100)).join(' or ');
  return {
    trials,
    within(characters, work) {
      const limit = limitMs(characters);
      for (let patience = limit; ; patience *= 2) {
        const before = processorMs();
        try {
          return runFor(patience, work);
        } catch (error) {
          if ((error as { code?: unknown }).code !== 'ERR_SCRIPT_EXECUTION_TIMEOUT') throw error;
          // Where others keep the processor busy, the clock says nothing of the pattern.
          if (processorMs() - before < limit / 2) continue;
          throw new OptimaError(
            'checkpoint.invalid',
            `tokenizer.json: its pattern ${said} takes more than ${Math.round(limit)} ms for ${characters} characters.`,
            { hint: 'Take the tokenizer.json that belongs to this checkpoint.' },
          );
        }
      }
    },
  };
}

/** Milliseconds that the processor has given this thread; where the system does not tell, the whole process. */
function processorMs(): number {
  try {
    return Number.parseInt(fs.readFileSync('/proc/thread-self/schedstat', 'utf8'), 10) / 1e6;
  } catch {
    const { user, system } = process.cpuUsage();
    return (user + system) / 1000;
  }
}

/** Runs of one kind of character and of two, cut short by another: there most patterns that backtrack without end do so. */
const kinds = ['a', 'A', '0', ' ', '\n', '!', '_', '\u5b57'];
const trials = kinds.flatMap((one) =>
  kinds.flatMap((other) => [one.repeat(64) + other, `${(one + other).repeat(32)}\0`]),
);

function patternsIn(part: unknown): string[] {
  if (typeof part !== 'object' || part === null) return [];
  return Object.entries(part).flatMap(([key, value]) =>
    key === 'Regex' && typeof value === 'string' ? [value] : patternsIn(value),
  );
}

// The one thing that ends an expression which is at work in its own thread.
const sandbox = vm.createContext({ work: () => {} });
const script = new vm.Script('work()');

function runFor<T>(milliseconds: number, work: () => T): T {
  sandbox.work = work;
  return script.runInContext(sandbox, { timeout: Math.ceil(milliseconds) });
}
