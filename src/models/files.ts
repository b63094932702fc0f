// Files of a checkpoint, which may come from anywhere: nothing is read that is no plain file or that is absurdly large.
import { readFile, stat } from 'node:fs/promises';
import { basename } from 'node:path';
import { messageOf, OptimaError } from '../domain/errors.ts';

/** A tokenizer of a million tokens has a tenth of it. */
const maxTextBytes = 2 ** 28;

export const folderHint =
  'A checkpoint folder holds config.json, model.safetensors, tokenizer.json and tokenizer_config.json.';

/** How a file of weights in a format that is not read becomes a folder that is; undefined where its name is of none. */
export function howToConvert(file: string): string | undefined {
  const read = (more: string) =>
    `Have Python write safetensors: AutoModelForCausalLM.from_pretrained(FOLDER${more}).save_pretrained(NEW), and AutoTokenizer likewise.`;
  if (file.endsWith('.gguf')) return read(`, gguf_file=${JSON.stringify(basename(file))}`);
  return /\.(bin|pth?|ckpt|h5|msgpack|npz|onnx)$/.test(file) ? read('') : undefined;
}

/** Throws `checkpoint.missing` where there is no such file, and `checkpoint.invalid` where it is no plain one. Returns its bytes' number. */
export async function requirePlainFile(path: string): Promise<number> {
  try {
    const found = await stat(path);
    // A pipe, for one, would be waited for without end.
    if (found.isFile()) return found.size;
  } catch (cause) {
    throw readError(path, cause);
  }
  throw new OptimaError('checkpoint.invalid', `${path} is not a plain file.`);
}

/** The text of a file. Throws as `requirePlainFile` does, and `io.read`. */
export async function readTextFile(path: string): Promise<string> {
  const bytes = await requirePlainFile(path);
  if (bytes > maxTextBytes) {
    throw new OptimaError(
      'checkpoint.invalid',
      `${path}: ${bytes} bytes are more than such a file can have.`,
    );
  }
  try {
    return await readFile(path, 'utf8');
  } catch (cause) {
    throw readError(path, cause);
  }
}

/** A file of JSON. Throws as `readTextFile` does, and `checkpoint.invalid` where it is none. */
export async function readJsonFile(path: string): Promise<unknown> {
  const text = await readTextFile(path);
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new OptimaError('checkpoint.invalid', `${path}: not JSON (${messageOf(cause)}).`, { cause });
  }
}

function readError(path: string, cause: unknown): OptimaError {
  if ((cause as NodeJS.ErrnoException).code !== 'ENOENT') {
    return new OptimaError('io.read', `Cannot read ${path}: ${messageOf(cause)}.`, { cause });
  }
  return new OptimaError('checkpoint.missing', `${path}: no such file.`, {
    cause,
    hint: folderHint,
  });
}

/** Whether there is anything of that name. Throws `io.read` where that cannot be said. */
export async function exists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw readError(path, error);
  }
}
