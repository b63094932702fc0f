// Patterns of a tokenizer.json that backtrack without end: refused in time, when it is opened or when a text meets them.
import { pbkdf2 } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { gunzipSync } from 'node:zlib';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { OptimaError } from '../../../src/domain/errors.ts';
import { tokenizerFrom, trainTokenizer } from '../../../src/models/tokenizer/index.ts';
import { limitPatterns, ownPattern } from '../../../src/models/tokenizer/patterns.ts';
import type { JsonObject } from '../../../src/models/tokenizer/train.ts';

const { tokenizerJson, tokenizerConfig } = trainTokenizer(['the film was directed by'], { vocabSize: 270 });
const [, bytes] = (tokenizerJson.pre_tokenizer as { pretokenizers: JsonObject[] }).pretokenizers;
const splitBy = (pattern: string): JsonObject => ({
  ...tokenizerJson,
  pre_tokenizer: {
    type: 'Sequence',
    pretokenizers: [
      { type: 'Split', pattern: { Regex: pattern }, behavior: 'Isolated', invert: false },
      bytes,
    ],
  },
});

function refusal(run: () => unknown): OptimaError {
  try {
    run();
  } catch (error) {
    if (error instanceof OptimaError) return error;
    throw error;
  }
  throw new Error('It was not refused.');
}

test('the patterns of published families run as they are, without a clock', () => {
  const folder = path.join(import.meta.dirname, 'golden');
  const files = fs.readdirSync(folder);
  assert.ok(files.length >= 8);
  for (const file of files) {
    const fixture = JSON.parse(gunzipSync(fs.readFileSync(path.join(folder, file))).toString());
    assert.is(limitPatterns(fixture.tokenizerJson).trials.length, 0, file);
  }
  assert.is(limitPatterns(tokenizerJson).trials.length, 0);
});

test('an unknown pattern gives the ids that it should', () => {
  const json = splitBy(`(?:${ownPattern})`);
  assert.ok(limitPatterns(json).trials.length > 0);
  const [known, unknown] = [tokenizerJson, json].map((of) => tokenizerFrom(of, tokenizerConfig));
  for (const text of ['the film, directed by 12 (of 34)', '  \n', 'é字!'.repeat(500)]) {
    assert.equal(unknown!.encode(text), known!.encode(text));
    assert.is(unknown!.decode(unknown!.encode(text)), text);
  }
});

test('a pattern that backtracks without end is refused when the tokenizer is opened, wherever it stands', () => {
  const replace = { type: 'Replace', pattern: { Regex: '(?:\\s*\\w*)*;' }, content: '' };
  const hostile: readonly (readonly [string, JsonObject])[] = [
    ['(?:\\p{L}+)+$', splitBy('(?:\\p{L}+)+$')],
    ['(?:\\p{N}|[0-9])*x', splitBy('(?:\\p{N}|[0-9])*x')],
    ['(?:\\s*\\w*)*;', { ...tokenizerJson, normalizer: { type: 'Sequence', normalizers: [replace] } }],
  ];
  for (const [pattern, json] of hostile) {
    const { code, message } = refusal(() => tokenizerFrom(json, tokenizerConfig));
    assert.is(code, 'checkpoint.invalid');
    assert.ok(message.startsWith(`tokenizer.json: its pattern ${JSON.stringify(pattern)} takes more than`));
    assert.not.match(message, '\n');
  }
});

test('one that only some text sets off is refused when that comes', () => {
  const tokenizer = tokenizerFrom(splitBy('(?:q+q+)+;|.'), tokenizerConfig);
  assert.is(tokenizer.decode(tokenizer.encode('quite quick')), 'quite quick');
  assert.match(refusal(() => tokenizer.encode('q'.repeat(30))).message, 'for 30 characters');
  assert.is(tokenizer.decode(tokenizer.encode('quick')), 'quick');
});

test('what other threads compute meanwhile is not the time of the pattern', () => {
  for (let thread = 0; thread < 2; thread++) pbkdf2('', '', 700_000, 32, 'sha512', () => {});
  const asleep = new Int32Array(new SharedArrayBuffer(4));
  const { within } = limitPatterns(splitBy('(?:.)'));
  assert.is(
    within(10, () => Atomics.wait(asleep, 0, 0, 900)),
    'timed-out',
  );
});

test('what the work itself throws comes through', () => {
  const { within } = limitPatterns(splitBy('(?:.)'));
  assert.throws(
    () =>
      within(1, () => {
        throw new RangeError('its own');
      }),
    (error: unknown) => error instanceof RangeError && error.message === 'its own',
  );
});

test.run();
