// What a log holds of dialogues that are replayed: it speaks for models, environment, metric and judge, and what the actors send is
// compared with it.
import type { Episode, RecalledReply } from '../actors/index.ts';
import { OptimaError } from '../domain/errors.ts';
import type { RunEvent, RunEventOf } from '../domain/events.ts';
import type { DialogueId, NodeId, PolicyHash } from '../domain/ids.ts';
import type { MessageOf } from '../domain/messages.ts';
import { type Generation, type GenerativeModel, RequestsRefused } from '../domain/model.ts';
import type { Observation, Turn } from '../domain/transcript.ts';
import { Course } from '../scenario/course.ts';
import type { Metric, Scenario } from '../scenario/types.ts';
import type { LoggedLine } from '../store/event-log.ts';

/** An event of the log, and its line. */
export interface Recorded extends LoggedLine {
  readonly event: RunEvent;
}

/** A message that is not the one that was recorded. */
export class ReplayDivergence extends OptimaError {
  /** Number of the recorded event; null where there is none at that place. */
  readonly number: number | null;
  /** As JSON; null: nothing. */
  readonly recorded: string | null;
  readonly sent: string | null;

  constructor(where: string, number: number | null, recorded: string | null, sent: string | null) {
    super('run.diverged', `${where}: what is replayed is not what was recorded.`, {
      hint: 'The code that holds dialogues is another than that which held them: replay with the version that began the run.',
    });
    this.number = number;
    this.recorded = recorded;
    this.sent = sent;
  }
}

/** What a replay says again, message by message, against what was recorded. */
export class Comparison {
  readonly #file: string;
  readonly #expected: Iterator<Recorded>;
  readonly #deals: Deals;
  #next: IteratorResult<Recorded>;
  #messages = 0;

  /** `expected` are the messages in their order, `dealt` what was dealt in what is replayed before. */
  constructor({ file, dealtBefore }: RecordedLog, expected: readonly Recorded[], dealt: Map<string, string>) {
    this.#file = file;
    this.#expected = expected.values();
    this.#deals = { dealt, dealtBefore };
    this.#next = this.#expected.next();
  }

  /** Takes what is said next; throws `ReplayDivergence` where that is not what was. */
  hear(event: RunEvent): void {
    this.#messages++;
    const recorded = this.#next.value?.event;
    // Logs of before do not say who refused.
    const isOfBefore = recorded?.type === 'dialogue.closed' && recorded.refusedBy === undefined;
    const sent = JSON.stringify(isOfBefore ? { ...event, refusedBy: undefined } : event);
    const isDeal = event.type === 'task.dealt' || event.type === 'format.dealt';
    const { dealt, dealtBefore } = this.#deals;
    if (isDeal && recorded?.type !== event.type) {
      // A run notes the first one of each alone.
      const key = keyOf(event);
      const before = dealt.get(key) ?? JSON.stringify(dealtBefore(event));
      dealt.set(key, before);
      if (before === sent) return;
      throw new ReplayDivergence(`${this.#file}: ${event.type} ${key}`, null, before ?? null, sent);
    }
    if (this.#next.done) throw new ReplayDivergence(`${this.#file}: ${nameOf(event)}`, null, null, sent);
    const { body, number } = this.#next.value;
    if (body !== sent) throw new ReplayDivergence(this.#where(number), number, body, sent);
    if (isDeal) dealt.set(keyOf(event), sent);
    this.#next = this.#expected.next();
  }

  /** The number of messages that were said; throws `ReplayDivergence` where more were recorded. */
  end(): number {
    if (this.#next.done) return this.#messages;
    const { body, number } = this.#next.value;
    throw new ReplayDivergence(this.#where(number), number, body, null);
  }

  #where(number: number): string {
    return `${this.#file}:${number + 1}`;
  }
}

/** The first deal of each task and format, as JSON. */
export interface Deals {
  /** Those of what is replayed, by task or format. */
  readonly dealt: Map<string, string>;
  /** What dealt before, in a part of the log that is not replayed. */
  dealtBefore(event: RunEvent): RunEvent | undefined;
}

type DealEvent = MessageOf<'task.dealt'> | MessageOf<'format.dealt'>;

/** What a deal is known by. */
export const keyOf = (event: DealEvent): string =>
  event.type === 'task.dealt' ? event.taskId : event.format;

const nameOf = (event: RunEvent): string =>
  'dialogueId' in event ? `${event.type} of ${event.dialogueId}` : event.type;

/** The log that recorded events are from. */
export interface RecordedLog extends Pick<Deals, 'dealtBefore'> {
  /** Where it is. */
  readonly file: string;
}

/** What the log holds of a cohort, by what its actors ask for. */
export class Recording {
  readonly #scenario: Scenario;
  readonly #log: RecordedLog;
  readonly #said = new Map<string, Generation | OptimaError>();
  readonly #observed = new Map<NodeId, readonly Observation[]>();
  readonly #openings = new Map<string, readonly Observation[]>();
  readonly #failures = new Map<DialogueId, string>();
  readonly #verdicts = new Map<DialogueId, MessageOf<'verdict.given'> | MessageOf<'verdict.failed'>>();
  /** Dialogues whose verdict took its time. */
  readonly #late = new Set<DialogueId>();
  readonly #asked = new Map<DialogueId, MessageOf<'judge.asked'>[]>();
  readonly #ranked = new Map<DialogueId, RunEventOf<'trajectory.ranked'>>();

  /** `history` are turns that its dialogues go on from. */
  constructor(
    scenario: Scenario,
    log: RecordedLog,
    events: readonly Recorded[],
    history: readonly Turn[] = [],
  ) {
    this.#scenario = scenario;
    this.#log = log;
    for (const { id, observed } of history) if (observed !== undefined) this.#observed.set(id, observed);
    let closed: DialogueId | null = null;
    for (const { event } of events) {
      const justClosed = closed;
      closed = null;
      if (event.type === 'turn.taken') {
        const { turn } = event;
        this.#said.set(turn.id, { ...turn, text: turn.written ?? turn.text });
      } else if (event.type === 'turn.merged') {
        this.#said.set(event.nodeId, { ...event, logprobs: [], finish: 'stop' });
      } else if (event.type === 'turn.failed') {
        this.#said.set(event.nodeId, new OptimaError('model.failed', event.reason));
      } else if (event.type === 'observation.given') this.#observed.set(event.nodeId, event.observations);
      else if (event.type === 'task.dealt') this.#openings.set(event.taskId, event.opening ?? []);
      else if (event.type === 'judge.asked') {
        this.#asked.set(event.dialogueId, [...(this.#asked.get(event.dialogueId) ?? []), event]);
      } else if (event.type === 'dialogue.closed') {
        closed = event.dialogueId;
        if (event.failure !== null) this.#failures.set(event.dialogueId, event.failure);
      } else if (event.type === 'verdict.given' || event.type === 'verdict.failed') {
        this.#verdicts.set(event.dialogueId, event);
        if (event.dialogueId !== justClosed) this.#late.add(event.dialogueId);
      } else if (event.type === 'trajectory.ranked') this.#ranked.set(event.dialogueId, event);
    }
  }

  /** Says what was said; where there is a model, after it has said the same. */
  model(hash: PolicyHash, own?: GenerativeModel): GenerativeModel {
    if (own !== undefined) return verifying(own, (id) => this.#said.get(id));
    return {
      hash,
      generate: async (requests) => {
        const refused = new Map<string, OptimaError>();
        const said = requests.map(({ id }) => {
          const said = this.#said.get(id) ?? notRecorded(id);
          if (said instanceof OptimaError) refused.set(id, said);
          return said;
        });
        if (refused.size > 0) throw new RequestsRefused(refused);
        return said as readonly Generation[];
      },
    };
  }

  courseOf({ id, taskId, task }: Episode): Course {
    return new RecordedCourse(this.#scenario, task, {
      opening: () => this.openingOf(taskId),
      observed: (node) => this.#observed.get(node) ?? [],
      failure: this.#failures.get(id) ?? null,
    });
  }

  metricOf(dialogue: DialogueId): Metric {
    const { name } = this.#scenario.metric;
    const verdict = this.#verdicts.get(dialogue);
    const say = () => {
      if (verdict?.type !== 'verdict.given') {
        throw new OptimaError('metric.failed', verdict?.reason ?? 'The log has no verdict.');
      }
      const { taskScore: score, exactMatch, seats } = verdict;
      return { score, exactMatch, ...(seats && { seats }) };
    };
    if (!this.#late.has(dialogue)) return { name, score: say };
    const asked = this.#asked.get(dialogue) ?? [];
    return {
      name,
      score: async (_prediction, _answers, { judge }) => {
        for (const { prompt } of asked) await judge.ask(prompt);
        return say();
      },
    };
  }

  readonly recallReply: RecalledReply = ({ dialogueId, question, prompt }) =>
    this.#asked.get(dialogueId)?.find((asked) => asked.question === question && asked.prompt === prompt) ??
    null;

  rankedOf(dialogue: DialogueId): RunEventOf<'trajectory.ranked'> {
    const ranked = this.#ranked.get(dialogue);
    if (ranked !== undefined) return ranked;
    throw new OptimaError('run.corrupt', `${this.#log.file}: no trajectory.ranked of ${dialogue}.`);
  }

  /** What the environment of a task opened with. */
  openingOf(taskId: Episode['taskId']): readonly Observation[] {
    const known = this.#openings.get(taskId);
    if (known !== undefined) return known;
    const dealt = this.#log.dealtBefore({ type: 'task.dealt', taskId, views: {} });
    const opening = dealt?.type === 'task.dealt' ? (dealt.opening ?? []) : [];
    this.#openings.set(taskId, opening);
    return opening;
  }
}

const notRecorded = (node: string): OptimaError =>
  new OptimaError('run.diverged', `The log has no turn ${node}.`);

interface RecordedCourseOptions {
  opening(): readonly Observation[];
  observed(node: NodeId): readonly Observation[];
  /** Why the dialogue failed. */
  readonly failure: string | null;
}

/** A course whose environment says what it said, and throws what it threw. */
class RecordedCourse extends Course {
  readonly #recorded: RecordedCourseOptions;

  constructor(scenario: Scenario, task: unknown, recorded: RecordedCourseOptions) {
    super(scenario, task);
    this.#recorded = recorded;
  }

  protected override observe(by: 'open' | 'respond', turns: readonly Turn[]): Observation[] {
    const { opening, observed, failure } = this.#recorded;
    const last = turns.at(-1);
    const threw =
      by === 'open'
        ? failure?.startsWith(`${dealingFailed}environment.open `)
        : failure?.startsWith(`environment.respond after turn ${turns.length - 1} `) ||
          (failure?.startsWith('Environment said ') && failure.includes(` after turn ${last!.id}, and `));
    if (threw) throw new Error(failure!.replace(dealingFailed, ''));
    return [...(by === 'open' ? opening() : observed(last!.id))];
  }
}

const dealingFailed = 'Dealing the views failed: ';

/** A model that samples anew, and says what was recorded where that is the same; throws `ReplayDivergence` where it is not. */
function verifying(
  model: GenerativeModel,
  recordedOf: (id: string) => Generation | OptimaError | undefined,
): GenerativeModel {
  const wrap = (speaker: GenerativeModel): GenerativeModel => ({
    hash: model.hash,
    generate: async (requests, options) => {
      const sampled = await speaker.generate(requests, options);
      return requests.map(({ id }, row) =>
        compareSampled(id, recordedOf(id) ?? notRecorded(id), sampled[row]!),
      );
    },
  });
  return {
    ...wrap(model),
    openSession: (options) => {
      const session = model.openSession?.(options);
      return { ...wrap(session ?? model), close: () => session?.close() };
    },
  };
}

function compareSampled(id: string, recorded: Generation | OptimaError, sampled: Generation): Generation {
  const said = ({ text, tokenIds, promptTokens }: Generation) =>
    JSON.stringify({ text, tokenIds, promptTokens });
  const before = recorded instanceof OptimaError ? recorded.message : said(recorded);
  if (before === said(sampled)) return recorded as Generation;
  throw new ReplayDivergence(`Turn ${id}`, null, before, said(sampled));
}
