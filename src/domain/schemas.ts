// What the schemas of messages, events and manifests are made of.
import { z } from 'zod';
import { OptimaError } from './errors.ts';

/** A text that is not empty and bears a brand. Brands are types alone: a transform would send it down zod's slow path. */
export const branded = <T extends string>(): z.ZodType<T, T> => z.custom<T>(isText, 'must be a text');

const isText = (value: unknown): boolean => typeof value === 'string' && value !== '';

/** Parses with the schema of the value's `type`; throws `message.invalid` with the type, the field and what is wrong. */
export function parseByType<Schemas extends Readonly<Record<string, z.ZodType>>>(
  schemas: Schemas,
  value: unknown,
): z.output<Schemas[keyof Schemas]> {
  const type: unknown = (value as { type?: unknown } | null)?.type;
  if (typeof type !== 'string' || !Object.hasOwn(schemas, type)) {
    throw new OptimaError('message.invalid', `Type ${JSON.stringify(type)} is not one of an event.`);
  }
  const result = (schemas[type] as Schemas[keyof Schemas]).safeParse(value);
  if (result.success) return result.data;
  const issue = result.error.issues[0]!;
  throw new OptimaError('message.invalid', `Event ${type}: field ${issue.path.join('.')}: ${issue.message}.`);
}
