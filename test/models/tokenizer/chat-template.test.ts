// Chat templates taken apart, and the caches over them: a view is encoded the same whatever was encoded before it.
import { Interpreter, Template } from '@huggingface/jinja';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { OptimaError } from '../../../src/domain/errors.ts';
import type { ChatMessage } from '../../../src/domain/model.ts';
import { compileChatTemplate } from '../../../src/models/tokenizer/chat-template.ts';
import { tokenizerFrom, trainTokenizer } from '../../../src/models/tokenizer/index.ts';
import { compileTemplate } from '../../../src/models/tokenizer/jinja.ts';

const files = trainTokenizer(['a'], { vocabSize: 261 });
const tokenizerOf = (template: string, config: Readonly<Record<string, unknown>> = {}) =>
  tokenizerFrom(files.tokenizerJson, { ...files.tokenizerConfig, chat_template: template, ...config });

const prompt = "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}";
const loop = (body: string, end = prompt) => `{% for m in messages %}${body}{% endfor %}${end}`;
const framed = "{{ '<|' + m.role + '|>' + m.content + '<|end|>' }}";

const view = (...said: string[]): ChatMessage[] =>
  said.map((entry) => ({
    role: ({ s: 'system', u: 'user', a: 'assistant' } as const)[entry[0] as 's' | 'u' | 'a'],
    content: entry.slice(1),
  }));

/** What a view is as text, special tokens included: what the ids stand for. */
const special = ['<|pad|>', '<|system|>', '<|user|>', '<|assistant|>', '<|end|>'];
function written(
  tokenizer: ReturnType<typeof tokenizerOf>,
  messages: readonly ChatMessage[],
  prompted: boolean,
) {
  return tokenizer
    .encodeChat(messages, prompted)
    .tokenIds.map((id) => special[id] ?? tokenizer.decode([id]))
    .join('');
}

const errorOf = (run: () => unknown): OptimaError => {
  try {
    run();
  } catch (error) {
    assert.instance(error, OptimaError);
    return error as OptimaError;
  }
  throw new Error('nothing was thrown');
};

const plain = loop(framed);
/** Each of them writes something differently by what came before; none may be taken for one that does not. */
const contextual: Readonly<Record<string, string>> = {
  'numbers its messages': loop(`{{ loop.index }}${framed}`),
  'marks a user that speaks twice': loop(
    `{% if loop.previtem and loop.previtem.role == 'user' and m.role == 'user' %}!{% endif %}${framed}`,
  ),
  'marks an assistant that speaks twice': loop(
    `{% if loop.previtem and loop.previtem.role == 'assistant' and m.role == 'assistant' %}!{% endif %}${framed}`,
  ),
  'marks what follows an assistant': loop(
    `{% if loop.previtem and loop.previtem.role == 'assistant' %}!{% endif %}${framed}`,
  ),
  'marks dialogues without a system message': loop(
    `{% if not loop.first and messages[0].role != 'system' %}!{% endif %}${framed}`,
  ),
  'marks dialogues that an assistant opens': loop(
    `{% if not loop.first and messages[0].role == 'assistant' %}!{% endif %}${framed}`,
  ),
  'counts in its generation prompt alone': loop(
    framed,
    "{% if add_generation_prompt %}{{ '<|assistant|>' ~ (messages | length) }}{% endif %}",
  ),
  'tells how long the message before was': loop(
    `{% if not loop.first %}{{ loop.previtem.content | length }}{% endif %}${framed}`,
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% if messages %}{{ (messages | last).content | length }}{% endif %}{% endif %}",
  ),
  'refuses system messages': loop(
    `{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}${framed}`,
  ),
  'trims what is not the first content': loop(
    "{{ '<|' + m.role + '|>' + (m.content if loop.first else (m.content | trim)) + '<|end|>' }}",
  ),
};
/** These write each message after the first alike, but not each role, and not the first one. */
const local: Readonly<Record<string, string>> = {
  'writes all alike': plain,
  'opens with a mark': loop(`{% if loop.first %}^{% endif %}${framed}`),
  'trims users alone': loop(
    "{{ '<|' + m.role + '|>' + ((m.content | trim) if m.role == 'user' else m.content) + '<|end|>' }}",
  ),
  'closes roles differently': loop("{{ '<|' + m.role + '|>' + m.content + '<|end|>' + m.role[0] }}"),
};

/** Views of which each shares with others all but one of: role, content, what came before, how often. */
const views = [
  ...[view(), view('u x '), view('a x '), view('u x ', 'u x '), view('u x ', 'a x '), view('a x ', 'u x ')],
  ...[view('u x ', 'u x ', 'u x '), view('a x ', 'a x '), view('u x ', 'a x ', 'u x '), view('uy', 'u x ')],
  ...[view('s x ', 'u x '), view('s x ', 'a x ', 'a x '), view('s x '), view('a x ', 'u x ', 'a x ', 'u x ')],
  ...[view('s', 'ux', 'ay', 'ux', 'ux'), view('u'), view('a')],
  // The same letters, divided otherwise.
  ...['', ' ', ',', '|'].flatMap((mark) => [
    view(`ux${mark}assistant${mark}y`),
    view('ux', 'ay'),
    view(`ux${mark}assistant`, 'ay'),
  ]),
];

for (const [name, template] of Object.entries({ ...local, ...contextual })) {
  test(`a template that ${name} writes every view as it renders it, whatever was encoded before`, () => {
    const jinja = new Template(template);
    const used = tokenizerOf(template);
    for (const [prompted, order] of [
      [true, views],
      [false, views.toReversed()],
    ] as const) {
      for (const messages of order) {
        if (name.startsWith('refuses') && messages.some(({ role }) => role === 'system')) continue;
        const rendered = jinja.render({ messages, add_generation_prompt: prompted });
        assert.is(written(used, messages, prompted), rendered, JSON.stringify(messages));
      }
    }
  });
}

const { run: interpret } = Interpreter.prototype;
/** How often templates are rendered while `run` runs. */
function rendersOf(run: () => void): number {
  let count = 0;
  Interpreter.prototype.run = function (this: Interpreter, ...args: Parameters<typeof interpret>) {
    count++;
    return interpret.apply(this, args);
  };
  try {
    run();
  } finally {
    Interpreter.prototype.run = interpret;
  }
  return count;
}

test('what has been encoded is not rendered again, nor is what stands behind other messages', () => {
  const tokenizer = tokenizerOf(plain);
  const messages = view('sfacts', 'uone', 'atwo', 'uone');
  assert.ok(rendersOf(() => tokenizer.encodeChat(messages, true)) > 0);
  const renders = (again: ChatMessage[], prompted = true) =>
    rendersOf(() => tokenizer.encodeChat(again, prompted));
  assert.is(renders(messages), 0);
  assert.is(renders(messages, false), 0);
  // The template treats all messages after the first alike: these are known from their first places.
  assert.is(renders(view('sfacts', 'atwo', 'atwo', 'uone', 'uone', 'atwo')), 0);
  const sampled: ChatMessage = { role: 'assistant', content: 'never seen', tokenIds: [97, 4] };
  assert.is(renders([...messages, sampled]), 0, 'sampled ids need no rendering of their text');
  assert.ok(renders(view('sfacts', 'uother')) > 0);
});

test('8192 contents are kept, and those that were used longest ago go first', () => {
  const tokenizer = tokenizerOf(plain);
  const renders = (name: string) => rendersOf(() => tokenizer.encodeChat(view(`u${name}`), false));
  for (let i = 0; i < 8192; i++) renders(`${i}`);
  assert.is(renders('0'), 0, 'all of them are kept');
  assert.ok(renders('new') > 0);
  assert.is(renders('0'), 0, 'it was used since');
  assert.is(renders('2'), 0);
  assert.ok(renders('1') > 0, 'it was used longest ago when a new one came');
});

test('a template that does not write a content exactly once is refused by the role', () => {
  for (const body of ["{{ '<|' + m.role + '|>' + '<|end|>' }}", `${framed}${framed}`]) {
    const only = loop(`{% if m.role == 'user' %}${body}{% else %}${framed}{% endif %}`);
    const error = errorOf(() => tokenizerOf(only).encodeChat(view('shi', 'uhi'), false));
    assert.is(error.code, 'tokenizer.mismatch');
    assert.is(error.message, "The chat template does not write a user message's content exactly once.");
  }
});

test('a template whose frame or text follows the content is refused, and one that trims it is not', () => {
  const bodies = {
    // Either way the slice between header and footer is as long as it should be.
    header: "{{ ('[' if m.content[0] == 'x' else '(') + m.content + '<|end|>' }}",
    footer: "{{ '(' + m.content + (']' if m.content[0] == 'x' else ')') + '<|end|>' }}",
    text: "{{ '(' + (m.content | replace('x', 'y')) + '<|end|>' }}",
  };
  for (const [name, body] of Object.entries(bodies)) {
    const tokenizer = tokenizerOf(loop(body));
    assert.is(written(tokenizer, view('uabc'), false), name === 'footer' ? '(abc)<|end|>' : '(abc<|end|>');
    const error = errorOf(() => tokenizer.encodeChat(view('uxbc'), false));
    assert.is(error.code, 'tokenizer.mismatch', name);
    assert.is(error.message, 'The chat template rewrites the content of a user message.');
    assert.match(error.hint!, /writes contents as they are/);
  }
  const trimming = tokenizerOf(loop("{{ '(' + (m.content | trim) + '<|end|>' }}"));
  assert.is(written(trimming, view('u \n abc '), false), '(abc<|end|>');
});

test('a template that rewrites earlier messages, or refuses a dialogue, says so', () => {
  const rewriting = loop(`{% if messages | length > 1 %}{% if loop.first %}+{% endif %}{% endif %}${framed}`);
  const rewrites = errorOf(() => tokenizerOf(rewriting).encodeChat(view('ua', 'ub'), false));
  assert.is(rewrites.code, 'tokenizer.mismatch');
  assert.match(rewrites.message, 'rewrites earlier messages');
  assert.match(rewrites.hint!, 'only appends');
  const refusing = tokenizerOf(
    loop(`{% if loop.index > 3 %}{{ raise_exception('no more') }}{% endif %}${framed}`),
  );
  const refuses = errorOf(() => refusing.encodeChat(view('ua', 'ab', 'uc', 'ad'), false));
  assert.is(refuses.code, 'tokenizer.mismatch');
  assert.is(
    refuses.message,
    'The chat template refuses a dialogue of the roles user, assistant, user, assistant: no more',
  );
});

test('a template that takes back more than what opened an earlier answer is refused', () => {
  const back = (role: string, what: string) =>
    loop(
      `{{ '<|' + m.role + '|>' }}{% if m.role == '${role}' %}{{ '(now)' if loop.last else '${what}' }}{% endif %}{{ m.content + '<|end|>' }}`,
    );
  const dialogue = view('ua', 'ab', 'uc');
  const kept = written(tokenizerOf(back('assistant', '')), dialogue, false);
  assert.is(kept, '<|user|>a<|end|><|assistant|>(now)b<|end|><|user|>c<|end|>', 'what was written stays');
  for (const template of [back('user', ''), back('assistant', '(then)')]) {
    const error = errorOf(() => tokenizerOf(template).encodeChat(dialogue, false));
    assert.match(error.message, 'rewrites earlier messages');
  }
});

/** Refuses what the templates of many published models refuse. */
const alternating = loop(
  `{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('in turn') }}{% endif %}${framed}`,
);

test('without system messages the system text opens the first message of the user', () => {
  const refusing = tokenizerOf(contextual['refuses system messages']!);
  const text = (...said: string[]) => written(refusing, view(...said), false);
  assert.is(text('sfacts', 'uone', 'utwo'), '<|user|>facts\n\none<|end|><|user|>two<|end|>');
  assert.is(text('s', 'uone'), '<|user|>one<|end|>');
  assert.is(text('sfacts', 'aone'), '<|user|>facts<|end|><|assistant|>one<|end|>');
});

test('where roles must take turns, what is heard in a row is one message and what is not heard an empty one', () => {
  const taking = tokenizerOf(alternating);
  const text = (...said: string[]) => written(taking, view(...said), true);
  assert.is(text('uone', 'utwo', 'uthree'), '<|user|>one\ntwo\nthree<|end|><|assistant|>');
  assert.is(
    text('sfacts', 'aone', 'atwo', 'uthree'),
    '<|user|>facts<|end|><|assistant|>one<|end|><|user|><|end|><|assistant|>two<|end|><|user|>three<|end|><|assistant|>',
  );
  assert.is(text('aone'), '<|user|><|end|><|assistant|>one<|end|><|assistant|>');
  const sampled: ChatMessage = { role: 'assistant', content: 'x', tokenIds: [97, 4] };
  const ids = taking.encodeChat([...view('sfacts', 'uone'), sampled], false).tokenIds;
  assert.equal(ids.slice(-3), [3, 97, 4], 'sampled ids stay what they are');
});

test('a checkpoint says under which names its template gets the roles, and what stands before every system text', () => {
  const told = view('sfacts', 'uone', 'atwo', 'uthree');
  const named = tokenizerOf(plain, {
    optima: { roles: { user: 'assistant' }, systemPrompt: 'Be kind.' },
  });
  const ordinary = tokenizerOf(plain);
  assert.is(
    written(named, told, true),
    '<|system|>Be kind.\n\nfacts<|end|><|assistant|>one<|end|><|assistant|>two<|end|><|assistant|>three<|end|><|assistant|>',
  );
  const learnt = (tokenizer: typeof named) => {
    const { tokenIds, lossMask } = tokenizer.encodeChat(told, false);
    return tokenIds.filter((_, i) => lossMask[i] === 1);
  };
  assert.equal(learnt(named), learnt(ordinary), 'what is learnt goes by who speaks, not by the name');
  assert.is(
    written(tokenizerOf(plain, { optima: { systemPrompt: 'Be kind.' } }), view('s'), false),
    '<|system|>Be kind.<|end|>',
  );
  assert.is.not(named.hash, ordinary.hash, 'a policy that is told otherwise is another one');
  // A name that the template does not know.
  const knowing = loop(`{% if m.role in ['system', 'user', 'assistant'] %}${framed}{% endif %}`);
  const unknown = errorOf(() => tokenizerOf(knowing, { optima: { roles: { user: 'Alice' } } }));
  assert.is(unknown.message, "The chat template does not write a user message's content exactly once.");
  const taken = errorOf(() => tokenizerOf(alternating, { optima: { roles: { user: 'assistant' } } }));
  assert.is(taken.message, 'The chat template refuses a dialogue of the roles assistant, assistant: in turn');
  for (const optima of [{ rols: {} }, { roles: { tool: 'x' } }, { roles: { user: '' } }, 7]) {
    const error = errorOf(() => tokenizerOf(plain, { optima }));
    assert.match(error.message, /^tokenizer_config\.json: field optima/);
    assert.match(error.hint!, /systemPrompt/);
  }
});

test('white space is stripped as Python strips it, by filters and by methods with what they are to strip', () => {
  const cases: readonly (readonly [string, string, string])[] = [
    ['m.content | trim', '\u0085\x1c a\uFEFF ', 'a\uFEFF'],
    ['m.content.strip()', '\u2003\x1f a \x85', 'a'],
    ["m.content.lstrip('\\n')", '\n\n  a \n', '  a \n'],
    ["m.content.rstrip('ba')", 'cab ab', 'cab '],
    ["m.content.strip('xy')", 'xyaxyx', 'a'],
  ];
  for (const [expression, content, expected] of cases) {
    assert.is(
      compileTemplate(`{% for m in messages %}{{ ${expression} }}{% endfor %}`)({ messages: [{ content }] }),
      expected,
    );
  }
});

test('a template that does not parse is refused when it is compiled', () => {
  const error = errorOf(() => compileChatTemplate('{% for %}', {}));
  assert.is(error.code, 'checkpoint.invalid');
  assert.match(error.message, /^The chat template does not parse: /);
  for (const source of ['{% for message in messages %}', '{% if messages %}x', '{%'])
    assert.match(
      errorOf(() => compileChatTemplate(source, {})).message,
      'does not parse: it ends within a block',
    );
});

test('a template may read the special tokens, as text, and the same date on every day', () => {
  const variables =
    "'<|assistant|>[' ~ [bos_token, eos_token, pad_token, unk_token, date_string] | join('|') ~ ']'";
  const tokenizer = tokenizerOf(loop(framed, `{% if add_generation_prompt %}{{ ${variables} }}{% endif %}`), {
    bos_token: { content: '<|system|>' },
    pad_token: null,
    unk_token: '<|user|>',
  });
  assert.is(
    written(tokenizer, view('ua'), true),
    '<|user|>a<|end|><|assistant|>[<|system|>|<|end|>||<|user|>|26 Jul 2024]',
  );
});

test.run();
