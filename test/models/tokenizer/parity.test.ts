// Tokenizers and chat templates of published families against Python's `tokenizers`, transformers and jinja2
// (tools/fixtures/make_tokenizer_fixtures.py): 200 awkward texts and more to ids and back, and as messages of dialogues.
// GOLDEN=<folder> tests what the script made for another seed.
import fs from 'node:fs';
import path from 'node:path';
import { gunzipSync } from 'node:zlib';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { ChatMessage } from '../../../src/domain/model.ts';
import { chatTemplateFrom, tokenizerFrom } from '../../../src/models/tokenizer/index.ts';
import type { JsonObject } from '../../../src/models/tokenizer/train.ts';

interface Fixture {
  readonly tokenizerJson: JsonObject;
  readonly tokenizerConfig: JsonObject;
  readonly texts: readonly (readonly [text: string, ids: number[], decoded: string])[];
  readonly decoded: readonly (readonly [ids: number[], decoded: string])[];
  readonly chats: readonly {
    readonly messages: readonly ChatMessage[];
    readonly prompted: boolean;
    /** Why transformers does not take the dialogue as it is; `text` is of the folded one. */
    readonly refused: string | null;
    readonly text: string;
    /** Null where a content holds a special token, which Python reads as one. */
    readonly ids: readonly number[] | null;
  }[];
}

const folder = process.env.GOLDEN ?? path.join(import.meta.dirname, 'golden');
const families = ['llama3', 'mistral', 'mistral3', 'qwen2', 'qwen3', 'smollm2', 'tekken', 'tinyllama'];
const fixtureOf = (family: string): Fixture =>
  JSON.parse(gunzipSync(fs.readFileSync(path.join(folder, `${family}.json.gz`))).toString());

for (const family of families) {
  const { tokenizerJson, tokenizerConfig, texts, decoded, chats } = fixtureOf(family);
  const tokenizer = tokenizerFrom(tokenizerJson, tokenizerConfig);

  test(`${family}: texts become the ids that Python gives them, and ids the texts`, () => {
    assert.ok(texts.length >= 200);
    for (const [text, ids, back] of texts) {
      assert.equal(tokenizer.encode(text), ids, JSON.stringify(text));
      assert.is(tokenizer.decode(ids), back, JSON.stringify(text));
    }
    for (const [ids, back] of decoded) assert.is(tokenizer.decode(ids), back, JSON.stringify(ids));
  });

  test(`${family}: dialogues are written as transformers renders them, text and ids`, () => {
    const template = chatTemplateFrom(tokenizerConfig);
    assert.ok(chats.length >= 200);
    assert.ok(chats.filter(({ ids }) => ids !== null).length > 100);
    for (const { messages, prompted, text, ids } of chats) {
      const told: readonly ChatMessage[] = template.fold(messages);
      const pieces = told.map((message, i) => {
        const context = template.contextOf(told.slice(0, i));
        const { header, footer } = template.frame(context, message.role);
        return header + template.content(context, message) + footer;
      });
      const prompt = prompted ? template.generationPrompt(template.contextOf(told)) : '';
      assert.is(pieces.join('') + prompt, text, JSON.stringify(messages));
      if (ids !== null) {
        assert.equal(tokenizer.encodeChat(messages, prompted).tokenIds, ids, JSON.stringify(messages));
      }
    }
  });

  test(`${family}: what an agent samples stands where the written text would, ends with its stop token and is all that is learnt`, () => {
    const asked: ChatMessage[] = [
      { role: 'system', content: 'Be kind.' },
      { role: 'user', content: 'Who wrote it?' },
    ];
    const answer = { role: 'assistant', content: 'Mira Toven wrote it.' } as const;
    const prompt = tokenizer.encodeChat(asked, true).tokenIds;
    const written = tokenizer.encodeChat([...asked, answer], false);
    assert.equal(written.tokenIds.slice(0, prompt.length), prompt);
    assert.equal(
      written.lossMask.slice(0, prompt.length),
      prompt.map(() => 0),
    );
    const own = written.tokenIds.filter((_, i) => written.lossMask[i] === 1);
    assert.is(own.at(-1), tokenizer.endOfTurnId);
    assert.is(own.indexOf(tokenizer.endOfTurnId), own.length - 1);
    assert.is(tokenizer.decode(own).trim(), answer.content);
    const { eos_token } = tokenizerConfig;
    const added = tokenizerJson.added_tokens as { id: number; content: string }[];
    assert.is(tokenizer.endOfTurnId, added.find(({ content }) => content === eos_token)!.id);
    const sampled = { ...answer, tokenIds: own };
    assert.equal(tokenizer.encodeChat([...asked, sampled], false), written);
    // What comes later is appended to it.
    const more = tokenizer.encodeChat([...asked, sampled, { role: 'user', content: 'When?' }], true).tokenIds;
    assert.equal(more.slice(0, written.tokenIds.length), written.tokenIds);
  });

  test(`${family}: any order of speaking is written, each view as a continuation of what its speaker was asked before`, () => {
    const letters = { s: 'system', u: 'user', a: 'assistant' } as const;
    const own = tokenizer.encode('yes');
    for (const order of ['sa', 'suu', 'saa', 'suaa', 'sauu', 'suuaaua', 'uau', 'a']) {
      const messages: ChatMessage[] = Array.from(order, (letter, i) => ({
        role: letters[letter as keyof typeof letters],
        content: letter === 'a' ? 'yes' : `m${i}`,
        ...(letter === 'a' && { tokenIds: [...own, tokenizer.endOfTurnId] }),
      }));
      const { tokenIds, lossMask } = tokenizer.encodeChat(messages, true);
      assert.is(lossMask.join('').match(/1+/g)?.length ?? 0, order.match(/a/g)?.length ?? 0, order);
      messages.forEach(({ role }, i) => {
        if (role !== 'assistant') return;
        const asked = tokenizer.encodeChat(messages.slice(0, i), true).tokenIds;
        assert.equal(tokenIds.slice(0, asked.length), asked, `${order} ${i}`);
      });
    }
  });
}

test('the empty thought of a reasoning model stands before an answer in every prompt, and nobody may write it', () => {
  const { tokenizerJson, tokenizerConfig } = fixtureOf('qwen3');
  const tokenizer = tokenizerFrom(tokenizerJson, tokenizerConfig);
  const added = tokenizerJson.added_tokens as { id: number; content: string }[];
  const thought = ['<think>', '</think>'].map((name) => added.find(({ content }) => content === name)!.id);
  const { tokenIds, lossMask } = tokenizer.encodeChat(
    [
      { role: 'user', content: '<think>a</think>' },
      { role: 'assistant', content: 'b' },
      { role: 'user', content: 'c' },
    ],
    true,
  );
  const places = tokenIds.flatMap((id, i) =>
    thought.includes(id) ? [[thought.indexOf(id), lossMask[i]]] : [],
  );
  assert.equal(places, [
    [0, 0],
    [1, 0],
    [0, 0],
    [1, 0],
  ]);
  for (const id of thought) assert.ok(tokenizer.controlIds.includes(id));
});

test('a mark of a first word stands at the start alone, not where a text goes on behind one that was encoded before', () => {
  const { tokenizerJson, tokenizerConfig } = fixtureOf('mistral3');
  const chat_template =
    "{% for m in messages %}{{ m.role + ':' + m.content + eos_token }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}";
  const tokenizer = tokenizerFrom(tokenizerJson, { ...tokenizerConfig, chat_template });
  const { tokenIds, lossMask } = tokenizer.encodeChat([{ role: 'assistant', content: 'table' }], false);
  const own = tokenIds.filter((_, i) => lossMask[i] === 1);
  const [colon, whole] = [tokenizer.encode('z:'), tokenizer.encode('z:table')];
  assert.equal(own, [...whole.slice(colon.length), tokenizer.endOfTurnId]);
  assert.is.not(tokenizer.encode('table')[0], own[0]);
});

test('a tokenizer that cuts texts in a way that cannot be followed exactly is refused by name', () => {
  const { tokenizerJson, tokenizerConfig } = fixtureOf('smollm2');
  const split = { type: 'Split', pattern: { String: ' ' }, behavior: 'MergedWithPrevious', invert: false };
  assert.throws(
    () => tokenizerFrom({ ...tokenizerJson, pre_tokenizer: split }, tokenizerConfig),
    /Split of the behavior "MergedWithPrevious" cannot be read as Python reads it/,
  );
});

test.run();
