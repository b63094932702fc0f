// From a dialogue to its training sequences, token by token.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { Provenance, Turn } from '../../../src/domain/transcript.ts';
import { sftExamples } from '../../../src/training/sft/index.ts';
import { lettersTokenizer } from '../../support/letters.ts';

const [endOfTurn, system, user, assistant] = [1, 2, 3, 4];
const policy = {
  encode: (messages: Parameters<typeof lettersTokenizer.encodeChat>[0]) =>
    lettersTokenizer.encodeChat(messages, false),
};

/** Turns such as `alice: one`; what a policy sampled carries its ids, here those of its text in reverse. */
const turnsOf = (lines: string[], provenance: (index: number) => Provenance = () => 'sampled'): Turn[] =>
  lines.map((line, index) => {
    const [speaker, text] = line.split(': ') as [string, string];
    const ids = [...lettersTokenizer.encode(text)].reverse();
    const own = provenance(index);
    return {
      speaker,
      text,
      tokenIds: own === 'human' ? [] : [...ids, endOfTurn],
      provenance: own,
    } as unknown as Turn;
  });

const views = { alice: 'a', bob: 'b' };

/** A sequence as text: what is learnt in brackets, special tokens as signs. */
const shown = ({
  tokenIds,
  lossMask,
}: {
  tokenIds: readonly number[];
  lossMask: readonly number[];
}): string => {
  assert.is(lossMask.length, tokenIds.length);
  const signs = new Map([
    [endOfTurn, '.'],
    [system, '#'],
    [user, '<'],
    [assistant, '>'],
  ]);
  return tokenIds
    .map((id, i) => {
      const sign = signs.get(id) ?? lettersTokenizer.decode([id]);
      return lossMask[i] === 1 ? `[${sign}]` : sign;
    })
    .join('')
    .replaceAll('][', '');
};

const examplesOf = (turns: Turn[], given: Record<string, string> = views) =>
  sftExamples({ views: given, turns }, policy).map(shown);

test('each role gets its plain view, what it heard, and its own turns to learn in the ids it sampled', () => {
  assert.equal(examplesOf(turnsOf(['alice: one', 'bob: two', 'alice: yes'])), [
    '#a.>[eno.]<two.>[sey.]',
    '#b.<one.>[owt.]<yes.',
  ]);
});

test('a role that said nothing gives no example', () => {
  assert.equal(examplesOf(turnsOf(['bob: two', 'bob: yes']), { ...views, carol: 'c' }), [
    '#b.>[owt.]>[sey.]',
  ]);
  assert.equal(examplesOf([]), []);
});

test('a turn that no policy sampled is read to its last token and not learnt', () => {
  const lines = ['alice: one', 'bob: two', 'alice: no', 'bob: ok', 'alice: yes'];
  // The third turn was typed, the fourth comes from a recording, with ids.
  const provenance = (index: number): Provenance =>
    index === 2 ? 'human' : index === 3 ? 'recorded' : 'sampled';
  assert.equal(examplesOf(turnsOf(lines, provenance)), [
    '#a.>[eno.]<two.>no.<ok.>[sey.]',
    '#b.<one.>[owt.]<no.>ko.<yes.',
  ]);
  assert.equal(examplesOf(turnsOf(['alice: no', 'bob: ok'], () => 'human')), []);
});

test.run();
