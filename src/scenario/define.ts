// `defineScenario`: the one function a scenario file calls. Checks what the types cannot.
import { nearest, OptimaError } from '../domain/errors.ts';
import type { Scenario, ScenarioDefinition, TaskSource } from './types.ts';

/** What a definition must hold, and as what: a JavaScript file has met no type checker. */
const parts = [
  ['description', 'string'],
  ['tasks', 'object'],
  ['tasks.load', 'function'],
  ['roles', 'object'],
  ['protocol', 'object'],
  ['protocol.order', 'list'],
  ['protocol.next', 'function'],
  ['protocol.agreed', 'function'],
  ['answer', 'object'],
  ['answer.parse', 'function'],
  ['answer.example', 'function'],
  ['answers', 'function'],
  ['metric', 'object'],
  ['metric.name', 'string'],
  ['metric.score', 'function'],
  ['reward', 'object'],
  ['formats', 'list'],
] as const;

const namePattern = /^[a-z0-9]+(-[a-z0-9]+)*$/;

const typeOf = (value: unknown) => (Array.isArray(value) ? 'list' : value === null ? 'null' : typeof value);

/**
 * Validates a scenario and gives it back, fully typed: the task type flows from `tasks` into every callback,
 * and role names from `roles` into `protocol`. Throws `scenario.invalid` naming the scenario and the field.
 */
export function defineScenario<Task, const Role extends string>(
  definition: ScenarioDefinition<Task, Role>,
): Scenario<Task, Role> {
  const fail = (field: string, problem: string, hint?: string): never => {
    throw new OptimaError('scenario.invalid', `Scenario "${definition.name}": ${field} ${problem}`, { hint });
  };
  if (!namePattern.test(definition.name ?? '')) {
    fail('name', 'must be lower-case words joined by hyphens.');
  }
  const require = (field: string, value: unknown, type: string) => {
    if (value === undefined) fail(field, 'is missing.');
    if (typeOf(value) !== type) fail(field, `must be of type ${type}, not ${typeOf(value)}.`);
  };
  if (definition.kind !== 'information-exchange' && definition.kind !== 'debate') {
    fail('kind', `must be information-exchange or debate, not ${JSON.stringify(definition.kind)}.`);
  }
  for (const [field, type] of parts) {
    const [name, part] = field.split('.') as [keyof typeof definition, string?];
    const value: unknown = definition[name];
    require(field, part === undefined ? value : (value as Record<string, unknown>)[part], type);
  }
  for (const [variant, source] of Object.entries<unknown>(definition.variants ?? {})) {
    if (!namePattern.test(variant)) {
      fail(`variant ${JSON.stringify(variant)}`, 'must be lower-case words joined by hyphens.');
    }
    require(`variants.${variant}`, source, 'object');
    require(`variants.${variant}.load`, (source as TaskSource<Task>).load, 'function');
  }
  const roles = Object.keys(definition.roles);
  for (const [role, { sees, name }] of Object.entries<{ sees: unknown; name?: unknown }>(definition.roles)) {
    require(`roles.${role}.sees`, sees, 'function');
    if (name !== undefined) require(`roles.${role}.name`, name, 'string');
  }
  for (const [index, { name, prompt }] of definition.formats.entries()) {
    require(`formats.${index}.name`, name, 'string');
    require(`formats.${index}.prompt`, prompt, 'string');
  }
  if (roles.length < 2) fail('roles', `must name at least two roles, not ${roles.length}.`);
  const { order, maxTurns } = definition.protocol;
  for (const role of order as readonly string[]) {
    if (!roles.includes(role)) {
      const guess = nearest(role, roles);
      fail(
        `role "${role}" in protocol.order`,
        `is not one of ${roles.join(', ')}.`,
        guess && `Did you mean "${guess}"?`,
      );
    }
  }
  for (const role of definition.protocol.answeredBy ?? []) {
    if (!roles.includes(role))
      fail(`role "${role}" in protocol.answeredBy`, `is not one of ${roles.join(', ')}.`);
  }
  for (const role of roles) {
    if (!(order as readonly string[]).includes(role)) {
      fail(`role "${role}"`, 'never speaks: it is not in protocol.order.');
    }
  }
  if (!Number.isInteger(maxTurns) || maxTurns < 2) {
    fail('protocol.maxTurns', `must be a whole number of at least 2, not ${maxTurns}.`);
  }
  requireEnvironment(definition, require, fail);
  const { maxMessageTokens } = definition;
  if (maxMessageTokens !== undefined && !(Number.isInteger(maxMessageTokens) && maxMessageTokens >= 1)) {
    fail('maxMessageTokens', `must be a whole number of at least 1, not ${maxMessageTokens}.`);
  }
  for (const field of ['lambdaToken', 'lambdaLoss'] as const) {
    const weight = definition.reward[field];
    if (!(Number.isFinite(weight) && weight >= 0)) {
      fail(`reward.${field}`, `must be a number of at least 0, not ${weight}.`);
    }
  }
  const names = definition.formats.map((format) => format.name);
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice !== undefined) fail('formats', `name "${twice}" twice.`);
  return definition;
}

/** What a scenario may leave out, and has a default. */
function requireEnvironment(
  { environment, names, notes, protocol }: Scenario,
  require: (field: string, value: unknown, type: string) => void,
  fail: (field: string, problem: string) => never,
): void {
  if (names !== undefined) require('names', names, 'boolean');
  if (notes !== undefined) {
    require('notes', notes, 'string');
    if (!/^\w+$/u.test(notes))
      fail('notes', `must be a tag's name, such as think, not ${JSON.stringify(notes)}.`);
  }
  if (protocol.decide !== undefined) require('protocol.decide', protocol.decide, 'function');
  if (environment === undefined) return;
  require('environment', environment, 'object');
  const { open, respond } = environment;
  if (open === undefined && respond === undefined) fail('environment', 'has neither open nor respond.');
  if (open !== undefined) require('environment.open', open, 'function');
  if (respond !== undefined) require('environment.respond', respond, 'function');
}
