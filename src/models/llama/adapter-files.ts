// An adapter's folder in the layout of Hugging Face's PEFT: what adapter-header.ts reads, and adapter_model.safetensors.
import { existsSync, realpathSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { OptimaError } from '../../domain/errors.ts';
import type { PolicyHash } from '../../domain/ids.ts';
import { adaptableMatrices } from '../../domain/lora.ts';
import { type Adapter, factorShapes } from './adapter.ts';
import { type AdapterHeader, adapterBaseFile, adapterConfigFile } from './adapter-header.ts';
import { writeJson, writeWhole } from './checkpoint.ts';
import type { LlamaConfig } from './config.ts';
import { readSafetensors, writeSafetensors } from './safetensors.ts';
import { isShape, type NamedArray } from './weights.ts';

const [weightsName, pickledName] = ['adapter_model.safetensors', 'adapter_model.bin'];
/** What PEFT puts before a module's path. */
const prefix = 'base_model.model.';

/**
 * Reads an adapter of a decoder. Throws `checkpoint.missing`, and `checkpoint.invalid` where a factor is damaged, missing, unknown
 * or of another shape than the decoder asks for.
 */
export async function readAdapter({ folder, config }: AdapterHeader, decoder: LlamaConfig): Promise<Adapter> {
  const path = join(folder, weightsName);
  if (!existsSync(path)) {
    const isPickled = existsSync(join(folder, pickledName));
    const beside = isPickled ? `, and ${pickledName} is not read` : '';
    throw new OptimaError('checkpoint.missing', `${path}: no such file${beside}.`, {
      hint: isPickled
        ? 'Have Python write safetensors: PeftModel.from_pretrained(BASE, FOLDER).save_pretrained(NEW).'
        : `An adapter's folder holds ${adapterConfigFile} and ${weightsName}.`,
    });
  }
  const found = await readSafetensors(path);
  const refuse = (problem: string): never => {
    throw new OptimaError('checkpoint.invalid', `${path}: ${problem}.`, {
      hint: 'Is it an adapter of another base?',
    });
  };
  const names = new Set([...found.keys()].map((name) => name.split('.').at(-3)));
  const targets = adaptableMatrices.filter((target) => names.has(target));
  const lora = { ...config, targets };
  const factors = new Map<string, NamedArray>();
  for (const [name, shape] of factorShapes(decoder, lora)) {
    const array = found.get(`${prefix}${name}`) ?? refuse(`tensor ${prefix}${name} is missing`);
    if (!isShape(array.shape, shape)) {
      refuse(`tensor ${prefix}${name} has shape [${array.shape}], but the base asks for [${shape}]`);
    }
    factors.set(name, array);
  }
  const stray = [...found.keys()].find((name) => !factors.has(name.slice(prefix.length)));
  if (stray !== undefined) refuse(`tensor ${stray} is no factor of a matrix of the base`);
  if (factors.size === 0) refuse('it adapts nothing');
  return { config: lora, factors };
}

/** Throws `usage` where an adapter would replace the checkpoint that it adapts. */
export function requireApart(folder: string, base: { readonly folder: string | null }): void {
  const real = (path: string) => (existsSync(path) ? realpathSync(path) : resolve(path));
  if (base.folder === null || real(folder) !== real(base.folder)) return;
  throw new OptimaError('usage', `${folder}: an adapter would replace its own base there.`, {
    hint: 'Give it another folder with --out.',
  });
}

/** Writes an adapter's folder, whole or not at all: see `writeWhole`. Throws as `requireApart` does. */
export async function writeAdapter(
  folder: string,
  { config, factors }: Adapter,
  base: { readonly folder: string | null; readonly hash: PolicyHash },
): Promise<void> {
  requireApart(folder, base);
  await writeWhole(folder, async (at) => {
    await writeJson(join(at, adapterConfigFile), {
      peft_type: 'LORA',
      task_type: 'CAUSAL_LM',
      base_model_name_or_path: base.folder,
      r: config.rank,
      lora_alpha: config.alpha,
      lora_dropout: config.dropout,
      use_rslora: config.rankStabilized ?? false,
      target_modules: config.targets,
      bias: 'none',
      fan_in_fan_out: false,
      inference_mode: true,
      init_lora_weights: true,
    });
    await writeJson(join(at, adapterBaseFile), { base: base.hash });
    const tensors = [...factors].map(([name, array]) => [`${prefix}${name}`, array] as const);
    await writeSafetensors(join(at, weightsName), new Map(tensors));
  });
}
