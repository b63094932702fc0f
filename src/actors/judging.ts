// Verdicts that take time. What the metrics of a cohort ask of the judge model is asked in rounds, when all its dialogues are
// over and every metric waits; verdicts are given in the order of the episodes, when all are known. So no order depends on a clock.
import { messageOf, OptimaError } from '../domain/errors.ts';
import type { DialogueId } from '../domain/ids.ts';
import type { MessageOf } from '../domain/messages.ts';
import type { Generation, GenerativeModel } from '../domain/model.ts';
import type { Rng } from '../domain/rng.ts';
import type { Verdict } from '../domain/transcript.ts';
import type { ScoreAnswer } from '../machines/index.ts';
import { isMetricFailure, metricFailed, metricTimeoutMs, withoutJudge } from '../scenario/score.ts';
import type { Judged, Scenario } from '../scenario/types.ts';
import type { Episode } from './dialogue.ts';
import { playRound, Ticket } from './pool.ts';

/** What the judge model was asked, and replied. */
type Question = MessageOf<'judge.asked'>;

/** A reply that is known already; null where there is none to this question. */
export type RecalledReply = (
  question: Pick<Question, 'dialogueId' | 'question' | 'prompt'>,
) => Question | null;

export interface Judging {
  /** What the metric is given with a dialogue that is over. */
  askingFor(dialogue: DialogueId): Pick<Judged, 'judge' | 'signal'>;
  /** Takes in a verdict that takes time; `answer` gets it in its turn. */
  await(dialogue: DialogueId, verdict: Promise<Verdict>, answer: (answer: ScoreAnswer) => void): void;
  /** Takes in that a dialogue has ended, with a verdict or without one. */
  leave(dialogue: DialogueId): void;
  /** Drops everything; nothing is answered any more. */
  close(): void;
}

export interface JudgingOptions {
  readonly scenario: Scenario;
  readonly judge?: GenerativeModel | undefined;
  readonly recallReply?: RecalledReply | undefined;
  /** A question's seed is `rng.split(dialogue id).split('judge-' + number).seed32()`. */
  readonly rng: Rng;
  /** Longest time of a call of the judge model, ms. */
  readonly modelTimeoutMs: number;
  /** Hears what ends the cohort: a metric that gives no score in its time, a call of the judge model that fails. */
  readonly onFailure: (error: unknown) => void;
}

/** A dialogue whose metric has not given its score. */
interface Case {
  /** Asked and not replied to. */
  readonly waiting: Map<number, Waiting>;
  readonly asked: Question[];
  questions: number;
  answer: ((answer: ScoreAnswer) => void) | null;
  result: ScoreAnswer | null;
}

interface Waiting {
  readonly question: Pick<Question, 'dialogueId' | 'question' | 'prompt' | 'seed'>;
  reply(result: Question | OptimaError): void;
}

export function createJudging(episodes: readonly Pick<Episode, 'id'>[], options: JudgingOptions): Judging {
  const { scenario, judge, recallReply = () => null, rng, modelTimeoutMs, onFailure } = options;
  const { maxTokens = 128, temperature = 0 } = scenario.judge ?? {};
  const session = scenario.judge && judge?.openSession?.();
  const model = session ?? judge;
  const stop = new AbortController();
  const talking = new Set(episodes.map(({ id }) => id));
  const cases = new Map<DialogueId, Case>(
    episodes.map(({ id }) => [
      id,
      { waiting: new Map(), asked: [], questions: 0, answer: null, result: null },
    ]),
  );
  let round: readonly Ticket[] = [];
  let playing = false;
  let timer: NodeJS.Timeout | undefined;
  let scheduled = false;

  const open = () => [...cases].filter(([, { answer }]) => answer !== null);
  const working = () => open().filter(([, { result }]) => result === null);

  /** What is due now that something has changed: all verdicts, a round of questions, or time for metrics to go on. */
  function advance(): void {
    clearTimeout(timer);
    if (talking.size > 0 || playing || stop.signal.aborted) return;
    const busy = working().filter(([, { waiting }]) => waiting.size === 0);
    if (working().length === 0) deliver();
    else if (busy.length > 0)
      timer = setTimeout(() => giveUp(busy[0]![0]), scenario.metric.timeoutMs ?? metricTimeoutMs);
    else if (!scheduled) {
      scheduled = true;
      // When what metrics have to ask at the same time has been asked.
      setImmediate(() => {
        scheduled = false;
        if (stop.signal.aborted || working().some(([, { waiting }]) => waiting.size === 0)) advance();
        else playQuestions().catch(onFailure);
      });
    }
  }

  function deliver(): void {
    const known = open();
    for (const [, one] of known) {
      const { answer, result, asked } = one;
      one.answer = null;
      // What hears of the one before may have ended everything.
      if (stop.signal.aborted) return;
      answer!({ ...result!, ...(asked.length > 0 && { asked }) });
    }
  }

  function giveUp(dialogue: DialogueId): void {
    const { timeoutMs = metricTimeoutMs } = scenario.metric;
    onFailure(metricFailed(scenario, `gave no score for ${dialogue} within ${timeoutMs} ms`));
  }

  async function playQuestions(): Promise<void> {
    playing = true;
    const questions = working().flatMap(([, { waiting }]) => [...waiting.values()]);
    const replies = new Map<Waiting, Question | OptimaError>();
    round = questions.flatMap((waiting) => {
      const { question } = waiting;
      const known = recallReply(question);
      if (known !== null) {
        replies.set(waiting, known);
        return [];
      }
      const request = {
        id: `${question.dialogueId}:judge-${question.question}`,
        messages: [{ role: 'user' as const, content: question.prompt }],
        sampling: { temperature, topP: 1, topK: 0, maxTokens },
        seed: question.seed,
      };
      const hear = (result: Generation | OptimaError) =>
        replies.set(waiting, result instanceof OptimaError ? result : questionOf(question, result, model!));
      return [new Ticket(model!, request, hear)];
    });
    await playRound(round, modelTimeoutMs);
    playing = false;
    if (stop.signal.aborted) return;
    for (const waiting of questions) waiting.reply(replies.get(waiting)!);
    advance();
  }

  function ask(dialogueId: DialogueId, prompt: string): Promise<string> {
    const one = cases.get(dialogueId)!;
    const refused = refusal(options, prompt);
    if (refused !== null) return Promise.reject(refused);
    const question = one.questions++;
    const seed = rng.split(dialogueId).split(`judge-${question}`).seed32();
    return new Promise((resolve, reject) => {
      const reply = (result: Question | OptimaError) => {
        one.waiting.delete(question);
        if (result instanceof OptimaError) {
          reject(result);
          return;
        }
        one.asked.push(result);
        resolve(result.reply);
      };
      one.waiting.set(question, { question: { dialogueId, question, prompt, seed }, reply });
      advance();
    });
  }

  return {
    askingFor: (dialogue) => ({
      judge: { ask: (prompt) => ask(dialogue, prompt) },
      signal: stop.signal,
    }),
    await(dialogue, verdict, answer) {
      const one = cases.get(dialogue)!;
      one.answer = answer;
      const settle = (result: ScoreAnswer) => {
        one.result = result;
        advance();
      };
      verdict.then(
        (verdict) => settle({ type: 'score.computed', verdict }),
        (error) => {
          if (isMetricFailure(error)) settle({ type: 'score.failed', reason: messageOf(error) });
          else onFailure(error);
        },
      );
      talking.delete(dialogue);
      advance();
    },
    leave(dialogue) {
      if (talking.delete(dialogue)) advance();
    },
    close() {
      stop.abort();
      clearTimeout(timer);
      for (const ticket of round) ticket.withdraw();
      session?.close();
    },
  };
}

/** Why a question cannot be asked; null where it can. */
function refusal({ scenario, judge }: JudgingOptions, prompt: unknown): OptimaError | null {
  if (scenario.judge === undefined) {
    return new OptimaError('usage', 'it asks a judge, and the scenario has none: give it `judge: {}`');
  }
  if (typeof prompt !== 'string')
    return new OptimaError('usage', `it asks the judge ${typeof prompt}, not a text`);
  return judge === undefined ? withoutJudge(scenario) : null;
}

function questionOf(
  question: Waiting['question'],
  { text: reply, tokenIds, finish, promptTokens }: Generation,
  { hash: policyHash }: GenerativeModel,
): Question {
  const { dialogueId, question: number, prompt, seed } = question;
  return {
    ...{ type: 'judge.asked', dialogueId, question: number, prompt, reply },
    ...{ tokenIds, finish, policyHash, seed, promptTokens },
  };
}
