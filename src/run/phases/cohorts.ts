// Cohort after cohort of a phase into the run's log. Those that an earlier process completed come from the log, with no
// model call.
import { setImmediate as nextTick } from 'node:timers/promises';
import { type Observable, tap } from 'rxjs';
import type { RecalledReply } from '../../actors/index.ts';
import type { RunEvent } from '../../domain/events.ts';
import type { MessageOf } from '../../domain/messages.ts';
import type { GenerativeModel } from '../../domain/model.ts';
import type { RunFolder } from '../../store/run-folder.ts';
import type { PhaseContext } from './context.ts';

/** Whom the scenario's metric may ask, as often as calls can run side by side; nobody where it asks nobody. */
export const judgesOf = async ({ judge, shelf }: PhaseContext): Promise<readonly GenerativeModel[]> =>
  judge === undefined ? [] : shelf.generatorsOf(judge.hash);

/** What an earlier process asked the judge in the cohort that was cut off, and what it replied. */
export function recallFrom({ log }: RunFolder): RecalledReply {
  const keyOf = ({ dialogueId, question, prompt }: Parameters<RecalledReply>[0]) =>
    JSON.stringify([dialogueId, question, prompt]);
  const replies = new Map<string, MessageOf<'judge.asked'>>();
  for (const event of log.ahead()) if (event.type === 'judge.asked') replies.set(keyOf(event), event);
  return (question) => replies.get(keyOf(question)) ?? null;
}

/** A phase that holds dialogues in cohorts. */
export interface CohortsPlan<Cohort> {
  readonly phase: string;
  readonly cohorts: Iterable<Cohort>;
  /** Dialogues of all of them. */
  readonly total: number;
  /** Holds the cohorts that are left, of which `first` is the number of the first; `onClosed` hears of each dialogue's end. */
  hold(left: Iterable<Cohort>, first: number, onClosed: () => void): Promise<Observable<RunEvent>>;
  /** Takes in every event, whichever process held its dialogue. */
  take(event: RunEvent): void;
}

/** Resolves with the tokens that were sampled, when all cohorts are in the log. Rejects with what `hold` errors with. */
export async function recordCohorts<Cohort>(
  { run, progress, signal }: PhaseContext,
  { phase, cohorts, total, hold, take }: CohortsPlan<Cohort>,
): Promise<number> {
  const left = cohorts[Symbol.iterator]();
  progress.begin(phase, total, 'dialogues');
  let [first, done, sampledTokens] = [0, 0, 0];
  const hear = (event: RunEvent) => {
    if (event.type === 'turn.taken') sampledTokens += event.turn.tokenIds.length;
    else if (event.type === 'turn.merged') sampledTokens += event.tokenIds.length;
    take(event);
  };
  for (let past = run.replayCohort(phase, first); past !== null; past = run.replayCohort(phase, first)) {
    for (const event of past) {
      if (event.type === 'dialogue.closed') done++;
      hear(event);
    }
    left.next();
    first++;
    // Room for an interruption, which ends the first cohort that is held: there may be thousands of these.
    await nextTick();
    if (signal?.aborted) break;
  }
  progress.advance(done);
  const onClosed = () => progress.advance(++done);
  const events = await hold({ [Symbol.iterator]: () => left }, first, onClosed);
  await events.pipe(tap((event) => run.record(event))).forEach(hear);
  return sampledTokens;
}
