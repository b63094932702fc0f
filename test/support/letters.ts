// A tokenizer small enough to read by eye, for tests of models: one token per character, 40 ids.
import type { ChatMessage } from '../../src/domain/model.ts';
import type { ChatTokenizer } from '../../src/models/tokenizer/index.ts';

const pad = 0;
const end = 1;
const roleIds = { system: 2, user: 3, assistant: 4 } as const;
const letters = ' abcdefghijklmnopqrstuvwxyz01234567';
const firstLetterId = 5;

const encode = (text: string): number[] => [...text].map((letter) => firstLetterId + letters.indexOf(letter));

function encodeChat(messages: readonly ChatMessage[], addGenerationPrompt: boolean) {
  const tokenIds: number[] = [];
  const lossMask: (0 | 1)[] = [];
  const append = (ids: readonly number[], mask: 0 | 1) => {
    tokenIds.push(...ids);
    lossMask.push(...ids.map(() => mask));
  };
  for (const { role, content, tokenIds: sampled } of messages) {
    append([roleIds[role]], 0);
    const ids = role === 'assistant' && sampled !== undefined ? sampled : [...encode(content), end];
    append(ids, role === 'assistant' ? 1 : 0);
    if (ids.at(-1) !== end) append([end], 0);
  }
  if (addGenerationPrompt) append([roleIds.assistant], 0);
  return { tokenIds, lossMask };
}

/** Ids 0–4 are pad, end of turn, system, user and assistant; the rest are letters, digits and the space. */
export const lettersTokenizer: ChatTokenizer = {
  vocabSize: firstLetterId + letters.length,
  endOfTurnId: end,
  padId: pad,
  controlIds: [pad, end, ...Object.values(roleIds)],
  files: { tokenizerJson: {}, tokenizerConfig: {} },
  hash: 'letters',
  encode,
  decode: (ids) => ids.map((id) => letters[id - firstLetterId] ?? '').join(''),
  encodeChat,
};
