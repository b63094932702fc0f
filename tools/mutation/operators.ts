// What a small fault looks like: one change to one place of a source file, found in its syntax tree.
import { parse } from '@babel/parser';
import type * as t from '@babel/types';

/** A fault: the text from `start` to `end` becomes `replacement`. */
export interface Mutant {
  readonly file: string;
  readonly start: number;
  readonly end: number;
  /** From 1. */
  readonly line: number;
  readonly original: string;
  readonly replacement: string;
}

type Change = readonly [start: number, end: number, replacement: string];
type Node = t.Node & { readonly start: number; readonly end: number };

const binary: Readonly<Record<string, readonly string[]>> = {
  '===': ['!=='],
  '!==': ['==='],
  '<': ['<=', '>='],
  '>': ['>=', '<='],
  '<=': ['<', '>'],
  '>=': ['>', '<'],
  '+': ['-'],
  '-': ['+'],
  '*': ['/'],
  '/': ['*'],
  '%': ['*'],
  '**': ['*'],
  '&': ['|'],
  '|': ['&'],
  '^': ['|'],
  '<<': ['>>'],
  '>>>': ['<<'],
};

const assignment: Readonly<Record<string, string>> = {
  '+=': '-=',
  '-=': '+=',
  '*=': '/=',
  '^=': '|=',
  '??=': '=',
  '||=': '&&=',
};

/** Methods that are confused with each other; those that map to null are left out, so that the receiver stands alone. */
const methods: Readonly<Record<string, string | null>> = {
  min: 'max',
  max: 'min',
  floor: 'ceil',
  ceil: 'floor',
  round: 'floor',
  some: 'every',
  every: 'some',
  find: 'findLast',
  findLast: 'find',
  indexOf: 'lastIndexOf',
  lastIndexOf: 'indexOf',
  startsWith: 'endsWith',
  endsWith: 'startsWith',
  shift: 'pop',
  pop: 'shift',
  slice: null,
  filter: null,
  sort: null,
  toSorted: null,
  reverse: null,
  trim: null,
  flat: null,
  toLowerCase: null,
  // Of a generator: the child becomes its parent.
  split: null,
};

/** What only words a message is not mutated: the tests hold what an error says only where it matters. */
const wordsOnly = new Set(['OptimaError', 'RangeError', 'TypeError', 'Error']);
const wordsOnlyProperties = new Set(['hint', 'cause', 'description']);
/** What a machine is told for the compiler's sake. */
const typesOnlyProperties = new Set(['types']);

const isSilent = (property: string) => wordsOnlyProperties.has(property) || typesOnlyProperties.has(property);

/** All faults of a file that the operators know, in the order of their places. */
export function mutantsOf(file: string, source: string): Mutant[] {
  const tree = parse(source, { sourceType: 'module', plugins: ['typescript'] });
  const mutants: Mutant[] = [];
  const visit = (node: Node, parent: Node | null) => {
    for (const [start, end, replacement] of changesOf(node, parent, source)) {
      const line = source.slice(0, start).split('\n').length;
      const original = source.slice(start, end);
      if (original !== replacement) mutants.push({ file, start, end, line, original, replacement });
    }
    for (const child of childrenOf(node)) visit(child, node);
  };
  visit(tree.program as Node, null);
  return mutants.sort((a, b) => a.start - b.start || a.end - b.end);
}

/** The parts of a node that are carried out: no types, no wording. */
function childrenOf(node: Node): Node[] {
  if (node.type === 'NewExpression' && node.callee.type === 'Identifier' && wordsOnly.has(node.callee.name)) {
    return [];
  }
  return Object.entries(node)
    .filter(([key]) => key !== 'loc' && !key.endsWith('Comments') && key !== 'typeAnnotation')
    .flatMap(([, value]) => (Array.isArray(value) ? value : [value]) as (Node | null | undefined)[])
    .filter((child): child is Node => typeof child?.type === 'string')
    .filter(
      (child) =>
        !child.type.startsWith('TS') ||
        child.type === 'TSAsExpression' ||
        child.type === 'TSNonNullExpression' ||
        child.type === 'TSSatisfiesExpression',
    )
    .filter((child) => !(child.type === 'ObjectProperty' && isSilent(nameOf(child.key))))
    .filter((child) => !child.type.startsWith('Import') && child.type !== 'ExportAllDeclaration');
}

function changesOf(node: Node, parent: Node | null, source: string): Change[] {
  const text = (part: t.Node) => source.slice(part.start!, part.end!);
  const whole = (replacement: string): Change => [node.start, node.end, replacement];
  /** The operator stands between the two, in one place. */
  const operator = (left: t.Node, name: string, right: t.Node, other: string): Change => {
    const at = source.indexOf(name, left.end!);
    return at < right.start! ? [at, at + name.length, other] : whole(text(node));
  };
  switch (node.type) {
    case 'BinaryExpression':
      return (binary[node.operator] ?? []).map((other) =>
        operator(node.left, node.operator, node.right, other),
      );
    case 'LogicalExpression':
      return node.operator === '??'
        ? [whole(`(${text(node.right)})`)]
        : [operator(node.left, node.operator, node.right, node.operator === '&&' ? '||' : '&&')];
    case 'AssignmentExpression': {
      const other = assignment[node.operator];
      const swapped = other === undefined ? [] : [operator(node.left, node.operator, node.right, other)];
      return parent?.type === 'ExpressionStatement' ? [...swapped, whole('undefined')] : swapped;
    }
    case 'UpdateExpression':
      return [whole(text(node).replace(/\+\+|--/, (sign) => (sign === '++' ? '--' : '++')))];
    case 'UnaryExpression':
      return node.operator === '!' || node.operator === '-' ? [whole(`(${text(node.argument)})`)] : [];
    case 'IfStatement':
    case 'WhileStatement':
      return ['true', 'false']
        .filter((value) => value !== text(node.test) && !(node.type === 'WhileStatement' && value === 'true'))
        .map((value): Change => [node.test.start!, node.test.end!, value]);
    case 'ConditionalExpression':
      return [node.consequent, node.alternate].map((part) => whole(`(${text(part)})`));
    case 'BooleanLiteral':
      return [whole(String(!node.value))];
    case 'NumericLiteral':
      return parent?.type === 'UnaryExpression' ? [] : [whole(String(node.value === 0 ? 1 : node.value + 1))];
    case 'AwaitExpression':
      return [whole(`(${text(node.argument)})`)];
    case 'ExpressionStatement': {
      const called = node.expression.type === 'AwaitExpression' ? node.expression.argument : node.expression;
      return called.type === 'CallExpression' || called.type === 'OptionalCallExpression'
        ? [whole('{}')]
        : [];
    }
    case 'ThrowStatement':
    case 'ContinueStatement':
    case 'BreakStatement':
      return [whole('{}')];
    case 'ReturnStatement':
      return node.argument == null ? [whole('{}')] : [];
    case 'SpreadElement':
      return [whole(parent?.type === 'ObjectExpression' ? '...{}' : '...[]')];
    case 'ObjectProperty':
      return parent?.type === 'ObjectExpression' ? [whole('...{}')] : [];
    case 'CallExpression': {
      if (node.callee.type !== 'MemberExpression') return [];
      const { object, property } = node.callee;
      const other = methods[nameOf(property)];
      if (other === undefined) return [];
      return [other === null ? whole(text(object)) : [property.start!, property.end!, other]];
    }
    default:
      return [];
  }
}

const nameOf = (key: t.Node): string => (key.type === 'Identifier' ? key.name : '');
