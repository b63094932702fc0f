// The formats in which others read training data, a JSON object a row. Each row says where it comes from and has its token ids
// beside its text, under names that the readers leave alone; `openai-dpo` alone has nothing that its service does not ask for.
import type { ChatMessage } from '../domain/model.ts';
import type { DialogueRow, PairRow, TrainingRow } from './rows.ts';

/** What of a run is exported: dialogues that were fine-tuned on, or pairs of turns. */
export type RowKind = TrainingRow['kind'];

/** How a format writes the kinds of rows that it has. */
export interface RowFormat {
  readonly dialogue?: (row: DialogueRow) => object;
  readonly pair?: (row: PairRow) => object;
}

type Plain = Pick<ChatMessage, 'role' | 'content'>;

const plain = ({ role, content }: ChatMessage): Plain => ({ role, content });
const said = (content: string): Plain[] => [{ role: 'assistant', content }];

const sourceOf = ({ iteration, task, role, policy }: TrainingRow) => ({ iteration, task, role, policy });

const dialogueFields = (row: DialogueRow) => ({
  ...sourceOf(row),
  ...{ dialogue: row.dialogue, reward: row.reward, token_ids: row.tokenIds, loss_mask: row.lossMask },
});

const pairFields = (row: PairRow) => ({
  ...sourceOf(row),
  ...{ value: row.value, prompt_token_ids: row.promptIds },
  ...{ chosen_token_ids: row.chosenIds, rejected_token_ids: row.rejectedIds },
  ...{ chosen_logprob: row.chosenLogprob, rejected_logprob: row.rejectedLogprob, fork: row.fork },
});

const speakers = { system: 'system', user: 'human', assistant: 'gpt' } as const;
const from = ({ role, content }: Plain) => ({ from: speakers[role], value: content });

/**
 * The messages behind the system's as a format takes them that knows only turns about: what was heard in several messages is
 * one, and an empty one stands where an agent spoke before it, or twice, with nothing heard.
 */
function turnsAbout(messages: readonly ChatMessage[]): Plain[] {
  const turns: Plain[] = [];
  for (const message of messages) {
    if (message.role === 'system') continue;
    const last = turns.at(-1);
    if (message.role === 'user' && last?.role === 'user') {
      turns[turns.length - 1] = { role: 'user', content: `${last.content}\n${message.content}` };
    } else {
      if (message.role === 'assistant' && last?.role !== 'user') turns.push({ role: 'user', content: '' });
      turns.push(plain(message));
    }
  }
  return turns;
}

const systemOf = (messages: readonly ChatMessage[]): string =>
  messages.find(({ role }) => role === 'system')?.content ?? '';

/** The turns of a view up to the last that its agent took. */
function upToOwn(messages: readonly ChatMessage[]): Plain[] {
  const turns = turnsAbout(messages);
  return turns.slice(0, turns.findLastIndex(({ role }) => role === 'assistant') + 1);
}

/** As a prompt: it ends with what was heard. */
function upToHeard(messages: readonly ChatMessage[]): Plain[] {
  const turns = turnsAbout(messages);
  return turns.at(-1)?.role === 'user' ? turns : [...turns, { role: 'user', content: '' }];
}

/** The formats of rows, by name. */
export const rowFormats = {
  'trl-sft': {
    dialogue: (row) => ({ id: row.id, messages: row.messages.map(plain), ...dialogueFields(row) }),
  },
  'trl-preference': {
    pair: (row) => ({
      ...{
        id: row.id,
        prompt: row.prompt.map(plain),
        chosen: said(row.chosen),
        rejected: said(row.rejected),
      },
      ...{ ...pairFields(row), gap: row.gap },
    }),
  },
  'openai-dpo': {
    pair: (row) => ({
      input: { messages: row.prompt.map(plain) },
      preferred_output: said(row.chosen),
      non_preferred_output: said(row.rejected),
    }),
  },
  openrlhf: {
    dialogue: (row) => ({ id: row.id, input: row.messages.map(plain), ...dialogueFields(row) }),
    pair: (row) => ({
      ...{
        id: row.id,
        prompt: row.prompt.map(plain),
        chosen: said(row.chosen),
        rejected: said(row.rejected),
      },
      ...{ margin: row.gap, ...pairFields(row) },
    }),
  },
  'llama-factory': {
    dialogue: (row) => ({
      ...{ id: row.id, system: systemOf(row.messages), conversations: upToOwn(row.messages).map(from) },
      ...dialogueFields(row),
    }),
    pair: (row) => ({
      ...{ id: row.id, system: systemOf(row.prompt), conversations: upToHeard(row.prompt).map(from) },
      ...{ chosen: { from: 'gpt', value: row.chosen }, rejected: { from: 'gpt', value: row.rejected } },
      ...{ ...pairFields(row), gap: row.gap },
    }),
  },
  sharegpt: {
    dialogue: (row) => ({
      id: row.id,
      conversations: row.messages.map((message) => from(message)),
      ...dialogueFields(row),
    }),
  },
} as const satisfies Record<string, RowFormat>;

export type RowFormatName = keyof typeof rowFormats;

/** What LLaMA-Factory's `dataset_info.json` says of a file of rows. */
export const datasetInfo = (fileName: string, kind: RowKind) => ({
  file_name: fileName,
  formatting: 'sharegpt',
  ...(kind === 'pair' && { ranking: true }),
  columns: {
    messages: 'conversations',
    system: 'system',
    ...(kind === 'pair' && { chosen: 'chosen', rejected: 'rejected' }),
  },
});
