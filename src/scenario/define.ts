// `defineScenario`: the one function a scenario file calls. Checks what the types cannot.
import { nearest, OptimaError } from '../domain/errors.ts';
import {
  type Metric,
  type Scenario,
  type ScenarioDefinition,
  shownName,
  type TaskSource,
  trainedRoles,
} from './types.ts';

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

/** More than any model has context for; what has no end must not be waited for. */
const mostTurns = 1000;

const namePattern = /^[a-z0-9]+(-[a-z0-9]+)*$/;

const typeOf = (value: unknown) => (Array.isArray(value) ? 'list' : value === null ? 'null' : typeof value);

/** A metric that was written as a function, as a metric. */
function metricOf<Task, Role extends string>(
  metric: ScenarioDefinition<Task, Role>['metric'],
): Metric<Task, Role> {
  if (typeof metric !== 'function') return metric;
  // An arrow that stands in the definition itself is called like its field.
  const name = metric.name === 'metric' || metric.name === '' ? 'score' : metric.name;
  return { name, score: (_prediction, _answers, dialogue) => metric(dialogue) };
}

/** The definition with all that may be left out or abbreviated. */
function complete<Task, Role extends string>(
  definition: ScenarioDefinition<Task, Role>,
): Scenario<Task, Role> {
  const { metric } = definition;
  if (typeof metric !== 'function') return definition as Scenario<Task, Role>;
  return { ...definition, metric: metricOf(metric), answers: definition.answers ?? (() => []) };
}

/**
 * Validates a scenario and gives it back, fully typed: the task type flows from `tasks` into every callback,
 * and role names from `roles` into `protocol`. Throws `scenario.invalid` naming the scenario and the field.
 */
export function defineScenario<Task, const Role extends string>(
  given: ScenarioDefinition<Task, Role>,
): Scenario<Task, Role> {
  const definition = complete(given);
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
  const { names: named = roles.length > 2 } = definition;
  const called = roles.map((role) => shownName(definition.roles, role));
  const shared = called.find((name, index) => called.indexOf(name) !== index);
  if (named && shared !== undefined) fail('roles', `has two that are called "${shared}".`);
  if (roles.length < 2) fail('roles', `must name at least two roles, not ${roles.length}.`);
  if (trainedRoles(definition).length === 0) fail('roles', 'must have one that is trained.');
  const { order, maxTurns } = definition.protocol;
  const failRole = (role: string, where: 'order' | 'answeredBy') => {
    const guess = nearest(role, roles);
    fail(
      `role "${role}" in protocol.${where}`,
      `is not one of ${roles.join(', ')}.`,
      guess && `Did you mean "${guess}"?`,
    );
  };
  for (const role of order as readonly string[]) {
    if (!roles.includes(role)) {
      failRole(role, 'order');
    }
  }
  for (const role of definition.protocol.answeredBy ?? []) {
    if (!roles.includes(role)) failRole(role, 'answeredBy');
  }
  for (const role of roles) {
    if (!(order as readonly string[]).includes(role)) {
      fail(`role "${role}"`, 'never speaks: it is not in protocol.order.');
    }
  }
  if (!Number.isInteger(maxTurns) || maxTurns < 2 || maxTurns > mostTurns) {
    fail('protocol.maxTurns', `must be a whole number from 2 to ${mostTurns}, not ${maxTurns}.`);
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
  const { timeoutMs } = definition.metric;
  if (timeoutMs !== undefined && !(timeoutMs > 0 && timeoutMs < 2 ** 31)) {
    fail('metric.timeoutMs', `must be a number of milliseconds above 0 and below 2^31, not ${timeoutMs}.`);
  }
  if (definition.judge !== undefined) {
    require('judge', definition.judge, 'object');
    const { maxTokens = 1, temperature = 0 } = definition.judge;
    if (!(Number.isInteger(maxTokens) && maxTokens >= 1)) {
      fail('judge.maxTokens', `must be a whole number of at least 1, not ${maxTokens}.`);
    }
    if (!(Number.isFinite(temperature) && temperature >= 0)) {
      fail('judge.temperature', `must be a number of at least 0, not ${temperature}.`);
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
