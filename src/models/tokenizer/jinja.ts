// Renders Jinja templates that may come from anywhere as Python's jinja2 does: no clock, no endless loop, and white space that
// is stripped is Python's.
import { Environment, Interpreter, parse, tokenize } from '@huggingface/jinja';
import { messageOf, OptimaError } from '../../domain/errors.ts';

/** Most elements of a `range` that a template may ask for, and most steps of one rendering: a clock would make load an error. */
const [maxRange, maxSteps] = [10_000, 50_000];

/** What Jinja gives every template. It has no clock: what a template writes may not depend on the day. */
const builtIns = {
  ...{ true: true, false: false, none: null, True: true, False: false, None: null },
  raise_exception: (message: unknown) => {
    throw new Error(String(message));
  },
  range: (start: number, stop?: number, step = 1) => {
    const [from, to] = stop === undefined ? [0, start] : [start, stop];
    const length = Math.max(0, Math.ceil((to - from) / step));
    if (!(length <= maxRange)) throw new Error(`range() of more than ${maxRange} elements`);
    return Array.from({ length }, (_, i) => from + i * step);
  },
};

/** Renders with these variables; throws what the template raises, and an Error for one still at work after `maxSteps`. */
export type Render = (variables: Readonly<Record<string, unknown>>) => string;

/** Throws `checkpoint.invalid` where the source does not parse. */
export function compileTemplate(source: string): Render {
  let template: ReturnType<typeof parse>;
  try {
    // As the Hugging Face library does: a block takes its line with it.
    template = parse(tokenize(source, { lstrip_blocks: true, trim_blocks: true }));
  } catch (cause) {
    // So the library says that there is nothing more to read.
    const ended = cause instanceof TypeError ? 'it ends within a block' : messageOf(cause);
    throw new OptimaError('checkpoint.invalid', `The chat template does not parse: ${ended}`, { cause });
  }
  return (variables) => {
    const environment = new Environment();
    for (const [name, value] of Object.entries({ ...builtIns, ...variables })) environment.set(name, value);
    const interpreter = new Interpreter(environment);
    limitSteps(interpreter);
    stripAsPython(interpreter);
    return String(interpreter.run(template).value);
  };
}

/** The interpreter's own methods, which it calls on itself. */
type Steps = Record<string, (...given: never[]) => unknown>;

function limitSteps(interpreter: Interpreter): void {
  const steps = interpreter as unknown as Steps;
  let left = maxSteps;
  for (const name of ['evaluate', 'evaluateBlock']) {
    const step = steps[name]!.bind(interpreter);
    steps[name] = (...given) => {
      if (--left < 0) throw new Error(`it takes more than ${maxSteps} steps`);
      return step(...given);
    };
  }
}

interface TextValue {
  readonly type: string;
  readonly value: string;
  readonly builtins: ReadonlyMap<string, object>;
  readonly constructor: new (text: string) => TextValue;
}

/** `trim`, and strip methods with what they are to strip, which the library in JavaScript does not look at. */
function stripAsPython(interpreter: Interpreter): void {
  const steps = interpreter as unknown as Steps;
  const filter = steps.applyFilter!.bind(interpreter) as (...given: unknown[]) => unknown;
  steps.applyFilter = (operand: TextValue, node: { type: string; value?: unknown }, ...more: unknown[]) =>
    operand.type === 'StringValue' && node.type === 'Identifier' && node.value === 'trim'
      ? new operand.constructor(strip(operand.value))
      : filter(operand, node, ...more);
  const member = steps.evaluateMemberExpression!.bind(interpreter) as (...given: unknown[]) => unknown;
  type Member = { object: unknown; computed: boolean; property: { value?: unknown } };
  steps.evaluateMemberExpression = (node: Member, scope: unknown) => {
    const sides = node.computed ? undefined : stripped[String(node.property.value)];
    const object = sides && (steps.evaluate!(node.object as never, scope as never) as TextValue);
    if (object?.type !== 'StringValue') return member(node, scope);
    const method = object.builtins.get('strip')!.constructor as new (
      run: (args: TextValue[]) => TextValue,
    ) => object;
    return new method(([set]) => new object.constructor(strip(object.value, set?.value, ...sides!)));
  };
}

/** Whether a method strips the start and the end. */
const stripped: Readonly<Record<string, [boolean, boolean]>> = {
  strip: [true, true],
  lstrip: [true, false],
  rstrip: [false, true],
};

/** What `str.isspace` is true of: no byte order mark, but separators of files, groups, records and units, and U+0085. */
const isPythonSpace = (one: string): boolean =>
  one === '\uFEFF' ? false : /^\s$/.test(one) || '\x1c\x1d\x1e\x1f\x85'.includes(one);

/** Python's `str.strip(set)`: without a set, white space. */
export function strip(text: string, set?: string, atStart = true, atEnd = true): string {
  const characters = Array.from(text);
  const isStripped = (one: string | undefined) =>
    one !== undefined && (set === undefined ? isPythonSpace(one) : set.includes(one));
  let [from, to] = [0, characters.length];
  if (atStart) while (from < to && isStripped(characters[from])) from++;
  if (atEnd) while (from < to && isStripped(characters[to - 1])) to--;
  return characters.slice(from, to).join('');
}
