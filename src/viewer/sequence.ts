// What the actors of a dialogue said to each other, in order, and in which state each was after it: as src/machines has it,
// of which this is what a finished dialogue went through.
import type { ActorView, DialogueAnswer } from './api.ts';

/** A message from one actor to others. */
export interface SequenceMessage {
  readonly from: string;
  readonly to: readonly string[];
  /** The message's type. */
  readonly type: string;
  /** What it says, in its own words or in ours. */
  readonly text: string;
  /** The turn that it is, or asks for. */
  readonly node: string | null;
}

export const environment = 'environment';
export const judge = 'judge';

/** The messages of a dialogue, those that it goes on from left out. */
export function sequenceOf(dialogue: DialogueAnswer): SequenceMessage[] {
  const { roles, opening, way, outcome, failure, questions, taskScore, answer } = dialogue;
  const messages: SequenceMessage[] = [];
  const say = (from: string, to: readonly string[], type: string, text: string, node: string | null = null) =>
    messages.push({ from, to, type, text, node });
  say(environment, roles, 'dialogue.opened', dialogue.format === null ? '' : `format ${dialogue.format}`);
  for (const { text, to } of opening) say(environment, to ?? roles, 'task.dealt', text);
  for (const turn of way.filter(({ isOwn }) => isOwn)) {
    const hearers = (turn.to ?? roles).filter((role) => role !== turn.speaker);
    say(environment, [turn.speaker], 'turn.requested', '', turn.id);
    const said = turn.mergedFrom ?? turn.text;
    const type = turn.mergedFrom === null ? 'turn.taken' : 'turn.merged';
    say(turn.speaker, [...hearers, environment], type, said, turn.id);
    for (const { text, to } of turn.observed)
      say(environment, to ?? roles, 'observation.given', text, turn.id);
  }
  if (outcome === null) return messages;
  // A turn that failed, or code of the scenario that did.
  say(environment, [judge], 'dialogue.closed', failure ?? outcome);
  for (const { reply } of questions) say(judge, [judge], 'judge.asked', reply);
  if (taskScore !== null) {
    say(judge, [environment], 'verdict.given', `score ${taskScore.toFixed(2)}, answer ${answer ?? 'none'}`);
  }
  return messages;
}

/** The states of a dialogue's actors after its first messages. */
export function statesAfter(
  roles: readonly string[],
  messages: readonly SequenceMessage[],
  outcome: string | null,
): ActorView[] {
  const said = (type: string) => messages.some((message) => message.type === type);
  const isClosed = said('dialogue.closed');
  const last = messages.at(-1);
  const floor = last?.type === 'turn.requested' ? last.to[0] : null;
  return [
    {
      name: environment,
      machine: 'environment',
      state: isClosed ? 'closed' : said('dialogue.opened') ? 'awaitingTurn' : 'opening',
      note: floor === null ? '' : `${floor} has the floor`,
    },
    ...roles.map((role) => ({
      name: role,
      machine: 'agent',
      state: 'present',
      note: role === floor ? 'composes' : '',
    })),
    {
      name: judge,
      machine: 'judge',
      state: said('verdict.given')
        ? 'verdictGiven'
        : !isClosed
          ? 'waiting'
          : outcome === 'failed'
            ? 'dismissed'
            : 'judging',
      note: '',
    },
  ];
}
