import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { OptimaError } from '../../src/domain/errors.ts';
import { agreement, defineScenario, dialogue, f1, generated, tagged } from '../../src/scenario/index.ts';

const valid = {
  name: 'tiny',
  kind: 'information-exchange' as const,
  description: 'A test.',
  tasks: generated((rng) => ({ n: rng.int(9) })),
  roles: {
    alice: { sees: (task: { n: number }) => `n is ${task.n}` },
    bob: { sees: () => 'ask' },
  },
  protocol: dialogue({ order: ['alice', 'bob'], maxTurns: 4, until: agreement() }),
  answer: tagged('A'),
  answers: (task: { n: number }) => [String(task.n)],
  metric: f1,
  reward: { lambdaToken: 0.6, lambdaLoss: 1 },
  formats: [],
};

const refused = (change: object): string => {
  try {
    defineScenario({ ...valid, ...change } as never);
  } catch (error) {
    assert.instance(error, OptimaError);
    assert.is((error as OptimaError).code, 'scenario.invalid');
    return (error as OptimaError).message;
  }
  throw new Error('nothing was thrown');
};

test('a valid definition comes back as it is, also at the edges of what is allowed', () => {
  assert.is(defineScenario(valid), valid);
  for (const change of [
    { name: 'a' },
    { name: 'two-hop-qa2' },
    { name: '2-b' },
    { kind: 'debate' },
    { description: '' },
    { maxMessageTokens: 1 },
    { variants: { 'b-2': valid.tasks } },
    { reward: { lambdaToken: 0, lambdaLoss: 0 } },
    { protocol: { ...valid.protocol, maxTurns: 2 } },
    { names: true, notes: 'think', environment: { open: () => null } },
    {
      environment: { respond: () => null },
      roles: { ...valid.roles, bob: { sees: () => '', name: 'Robert' } },
    },
    { protocol: { ...valid.protocol, order: ['bob', 'alice', 'bob'] } },
    {
      formats: [
        { name: 'x', prompt: 'a' },
        { name: 'y', prompt: 'a' },
      ],
    },
  ]) {
    const definition = { ...valid, ...change } as never;
    assert.is(defineScenario(definition), definition);
  }
});

/** The parts that every definition must hold, and something else than each may be. */
const parts = {
  description: ['string', 7, 'number'],
  tasks: ['object', [], 'list'],
  'tasks.load': ['function', 'load', 'string'],
  roles: ['object', null, 'null'],
  protocol: ['object', () => 1, 'function'],
  'protocol.order': ['list', {}, 'object'],
  'protocol.next': ['function', {}, 'object'],
  'protocol.agreed': ['function', true, 'boolean'],
  answer: ['object', null, 'null'],
  'answer.parse': ['function', /a/, 'object'],
  'answer.example': ['function', 'a', 'string'],
  answers: ['function', ['a'], 'list'],
  metric: ['object', 'f1', 'string'],
  'metric.name': ['string', null, 'null'],
  'metric.score': ['function', 1, 'number'],
  reward: ['object', 1, 'number'],
  formats: ['list', {}, 'object'],
} as const;

for (const [field, [type, wrong, found]] of Object.entries(parts)) {
  test(`without ${field}, or with one that is no ${type}, a definition is refused by that field`, () => {
    const [name, part] = field.split('.') as [keyof typeof valid, string?];
    const change = (value: unknown) => ({
      [name]: part === undefined ? value : { ...(valid[name] as object), [part]: value },
    });
    assert.is(refused(change(undefined)), `Scenario "tiny": ${field} is missing.`);
    assert.is(refused(change(wrong)), `Scenario "tiny": ${field} must be of type ${type}, not ${found}.`);
  });
}

test('a name is lower-case words joined by hyphens, and nothing else', () => {
  for (const name of ['Tiny', 'ti ny', '-tiny', 'tiny-', 'a--b', 'a_b', '', 'tiny\n', 'é', undefined]) {
    assert.is(refused({ name }), `Scenario "${name}": name must be lower-case words joined by hyphens.`);
  }
});

test('a variant has a name of the same kind and is a source of tasks', () => {
  for (const [variants, problem] of [
    [{ 'Not so': valid.tasks }, 'variant "Not so" must be lower-case words joined by hyphens.'],
    [{ a: 3 }, 'variants.a must be of type object, not number.'],
    [{ a: {} }, 'variants.a.load is missing.'],
  ] as const) {
    assert.is(refused({ variants }), `Scenario "tiny": ${problem}`);
  }
});

test('only a role can answer for the team', () => {
  const answeredBy = ['alice', 'carol'];
  assert.is(
    refused({ protocol: { ...valid.protocol, answeredBy } }),
    'Scenario "tiny": role "carol" in protocol.answeredBy is not one of alice, bob.',
  );
});

test('a cap on messages is a whole number of tokens', () => {
  for (const maxMessageTokens of [0, 1.5, '96', null]) {
    assert.is(
      refused({ maxMessageTokens }),
      `Scenario "tiny": maxMessageTokens must be a whole number of at least 1, not ${maxMessageTokens}.`,
    );
  }
});

test('every role must say what it sees', () => {
  for (const role of ['alice', 'bob'] as const) {
    const message = refused({ roles: { ...valid.roles, [role]: { sees: 'all' } } });
    assert.is(message, `Scenario "tiny": roles.${role}.sees must be of type function, not string.`);
  }
});

test('every format must have a name of its own and a prompt', () => {
  const good = { name: 'x', prompt: 'a' };
  for (const [formats, problem] of [
    [[good, { prompt: 'b' }], 'formats.1.name is missing.'],
    [[good, { name: 'y' }], 'formats.1.prompt is missing.'],
    [[{ name: 1, prompt: 'b' }], 'formats.0.name must be of type string, not number.'],
    [[{ name: 'y', prompt: null }, good], 'formats.0.prompt must be of type string, not null.'],
    [[good, { name: 'y', prompt: 'b' }, { name: 'x', prompt: 'c' }], 'formats name "x" twice.'],
  ] as const) {
    assert.is(refused({ formats }), `Scenario "tiny": ${problem}`);
  }
});

test('a dialogue needs two roles, and a cap of two turns or more', () => {
  assert.is(refused({ roles: {} }), 'Scenario "tiny": roles must name at least two roles, not 0.');
  assert.is(
    refused({ roles: { alice: valid.roles.alice } }),
    'Scenario "tiny": roles must name at least two roles, not 1.',
  );
  for (const maxTurns of [1, 0, -2, 2.5, Number.NaN, Number.POSITIVE_INFINITY, '4', undefined]) {
    assert.is(
      refused({ protocol: { ...valid.protocol, maxTurns } }),
      `Scenario "tiny": protocol.maxTurns must be a whole number from 2 to 1000, not ${maxTurns}.`,
    );
  }
});

test('both weights of the reward must be numbers of at least 0', () => {
  for (const field of ['lambdaToken', 'lambdaLoss']) {
    for (const weight of [-0.1, Number.NaN, Number.POSITIVE_INFINITY, '1', undefined]) {
      assert.is(
        refused({ reward: { ...valid.reward, [field]: weight } }),
        `Scenario "tiny": reward.${field} must be a number of at least 0, not ${weight}.`,
      );
    }
  }
});

test('whoever speaks must be a role, and every role must speak', () => {
  const inOrder = (...order: string[]) => {
    try {
      defineScenario({ ...valid, protocol: { ...valid.protocol, order } } as never);
    } catch (error) {
      return [(error as OptimaError).message, (error as OptimaError).hint];
    }
    return [];
  };
  const problem = 'in protocol.order is not one of alice, bob.';
  assert.equal(inOrder('alice', 'bob', 'bib'), [
    `Scenario "tiny": role "bib" ${problem}`,
    'Did you mean "bob"?',
  ]);
  assert.equal(inOrder('zoe', 'alice', 'bob'), [`Scenario "tiny": role "zoe" ${problem}`, undefined]);
  const answeredBy = { ...valid.protocol, answeredBy: ['allice'] };
  try {
    defineScenario({ ...valid, protocol: answeredBy } as never);
    assert.unreachable();
  } catch (error) {
    assert.is((error as OptimaError).hint, 'Did you mean "alice"?');
  }
  assert.equal(inOrder('bob', 'bob'), [
    'Scenario "tiny": role "alice" never speaks: it is not in protocol.order.',
    undefined,
  ]);
});

test('two who are called the same cannot be told apart', () => {
  const { alice, bob } = valid.roles;
  const roles = { alice: { ...alice, name: 'Bob' }, bob };
  assert.is(refused({ names: true, roles }), 'Scenario "tiny": roles has two that are called "Bob".');
  // Without names nobody is called anything.
  defineScenario({ ...valid, roles } as never);
});

test('every wrong field is named, with what is wrong', () => {
  assert.match(refused({ name: 'Two Words' }), /^Scenario "Two Words": name must be/);
  assert.match(refused({ tasks: undefined }), /tasks is missing/);
  assert.match(
    refused({ protocol: dialogue({ order: ['alice', 'bbo'], maxTurns: 4, until: agreement() }) }),
    /role "bbo" in protocol.order is not one of alice, bob\./,
  );
  assert.match(
    refused({ protocol: dialogue({ order: ['alice'], maxTurns: 4, until: agreement() }) }),
    /role "bob" never speaks/,
  );
  assert.match(refused({ protocol: { ...valid.protocol, maxTurns: 1 } }), /protocol.maxTurns/);
  assert.match(refused({ reward: { lambdaToken: -1, lambdaLoss: 1 } }), /reward.lambdaToken/);
  assert.match(
    refused({
      formats: [
        { name: 'x', prompt: 'a' },
        { name: 'x', prompt: 'b' },
      ],
    }),
    /formats name "x" twice/,
  );
  assert.match(refused({ roles: { alice: valid.roles.alice } }), /at least two roles/);
  assert.match(refused({ kind: 'talk' }), /kind must be information-exchange or debate, not "talk"/);
  assert.match(
    refused({ protocol: { ...valid.protocol, order: 'alice' } }),
    /protocol\.order must be of type list/,
  );
  assert.match(refused({ metric: { name: 'f1' } }), /metric\.score is missing/);
  assert.match(refused({ roles: { ...valid.roles, bob: {} } }), /roles\.bob\.sees is missing/);
  assert.match(refused({ formats: [{ name: 'x' }] }), /formats\.0\.prompt is missing/);
});

test('what may be left out must fit where it is given', () => {
  for (const [change, problem] of [
    [{ names: 'yes' }, 'names must be of type boolean, not string.'],
    [{ notes: true }, 'notes must be of type string, not boolean.'],
    [{ notes: '<think>' }, 'notes must be a tag\'s name, such as think, not "<think>".'],
    [{ environment: 'desk' }, 'environment must be of type object, not string.'],
    [{ environment: {} }, 'environment has neither open nor respond.'],
    [{ environment: { open: 'hi' } }, 'environment.open must be of type function, not string.'],
    [{ environment: { respond: [] } }, 'environment.respond must be of type function, not list.'],
    [
      { roles: { ...valid.roles, bob: { sees: () => '', name: 7 } } },
      'roles.bob.name must be of type string, not number.',
    ],
    [
      { protocol: { ...valid.protocol, decide: 'last' } },
      'protocol.decide must be of type function, not string.',
    ],
  ] as const) {
    assert.is(refused(change), `Scenario "tiny": ${problem}`);
  }
});

test.run();
