// Searches of many tasks: a cohort's trees grow side by side, each at its own pace, and what all of them ask of a model
// decodes together.
import { concat, Observable, of } from 'rxjs';
import {
  type Cast,
  type CohortOptions,
  type Exploration,
  openSessions,
  runExplorer,
  type ValueDialogues,
} from '../actors/index.ts';
import { longestTimerMs } from '../domain/clock.ts';
import { OptimaError } from '../domain/errors.ts';
import type { RunEventOf } from '../domain/events.ts';
import type { DialogueMessage } from '../domain/messages.ts';
import type { GenerativeModel, LanguageModel, ScoringModel, SessionStatistics } from '../domain/model.ts';
import type { Rng } from '../domain/rng.ts';
import type { Scenario } from '../scenario/types.ts';
import type { SearchConfig } from '../search/index.ts';
import { tellingEnds } from './executor.ts';
import { inOrder } from './work-queue.ts';

/** As a roll-out's events, and the rewards of its dialogues. */
export type SearchEvent = DialogueMessage | RunEventOf<'trajectory.ranked'> | RunEventOf<'cohort.completed'>;

/** What can search a cohort: who speaks, and the model under which what was said is scored. */
export interface SearchLane {
  readonly cast: Cast;
  readonly base: LanguageModel;
  /** Whom the scenario's metric may ask. */
  readonly judge?: GenerativeModel | undefined;
}

export interface ExplorePlan {
  readonly phase: string;
  readonly scenario: Scenario;
  /** One and the same, as often as cohorts can be searched side by side. */
  readonly lanes: readonly SearchLane[];
  readonly cohorts: Iterable<readonly Exploration[]>;
  /** Number of the first of them. */
  readonly first: number;
  /** Trees of a cohort that grow at the same time. */
  readonly together: number;
  /** Most bytes that a session remembers. */
  readonly memoryBytes: number;
  readonly search: SearchConfig;
  readonly temperature: number;
  readonly maxMessageTokens: number;
  /** The rewards of dialogues, scored with a session of the base. */
  readonly valueWith: (base: ScoringModel) => ValueDialogues;
  /** The run's generator. */
  readonly rng: Rng;
  readonly signal?: AbortSignal | undefined;
  readonly recallReply?: CohortOptions['recallReply'];
  /** Hears of each roll-out's end when it comes, which may be long before its events do. */
  readonly onClosed?: () => void;
  /** Gets what the turns of a cohort cost. */
  readonly onMeasured?: (cost: SearchCost) => void;
}

/** What the turns of a cohort cost its speakers' models. */
export interface SearchCost {
  /** Tokens that went through a model; null where that is not known. */
  readonly computed: number | null;
  /** Tokens that would have, had each turn read its whole prompt anew. */
  readonly naive: number;
  /** How full the batches of each model were. */
  readonly fill: readonly SessionStatistics['fill'][];
}

/** The events of all trees, cohort by cohort, tree by tree, whichever is done first. Errors as `runExplorer` does. */
export function exploreTrees(plan: ExplorePlan): Observable<SearchEvent> {
  const { phase, lanes, cohorts, first } = plan;
  return inOrder(lanes, cohorts, (lane, trees, index) =>
    concat(
      exploreCohort(plan, lane, trees),
      of({ type: 'cohort.completed' as const, phase, cohort: first + index }),
    ),
  );
}

/** One cohort, whose trees share sessions. */
function exploreCohort(
  plan: ExplorePlan,
  lane: SearchLane,
  trees: readonly Exploration[],
): Observable<SearchEvent> {
  const { scenario, together, memoryBytes, search, temperature, maxMessageTokens, rng, signal } = plan;
  return new Observable((subscriber) => {
    const speakers = openSessions(lane.cast, { memoryBytes });
    const base = lane.base.openSession?.({ memoryBytes });
    const judge = lane.judge?.openSession?.({ memoryBytes });
    const options = {
      ...{ judge: judge ?? lane.judge, recallReply: plan.recallReply },
      ...{ scenario, search, signal, cast: speakers.cast, turnTimeoutMs: longestTimerMs },
      sampling: { temperature, topP: 1, topK: 0, maxTokens: maxMessageTokens },
      rng: rng.split('nodes'),
      choices: rng.split('search'),
      value: plan.valueWith(base ?? lane.base),
    };
    let naive = 0;
    const measure = async () => {
      const measured = await Promise.all(speakers.sessions.map((session) => session.measure?.() ?? null));
      const known = measured.filter((statistics) => statistics !== null);
      plan.onMeasured?.({
        computed:
          known.length < measured.length ? null : known.reduce((sum, { computed }) => sum + computed, 0),
        naive,
        fill: known.map(({ fill }) => fill),
      });
    };
    const interrupt = () => {
      subscriber.error(new OptimaError('interrupted', 'The search was interrupted.'));
    };
    signal?.addEventListener('abort', interrupt, { once: true });
    const places = Array.from({ length: together }, (_, place) => place);
    const exploring = inOrder(places, trees, (_, tree) =>
      runExplorer(tree, options).pipe(tellingEnds(() => plan.onClosed?.())),
    ).subscribe({
      next: (event) => {
        naive += tokensRead(event);
        subscriber.next(event);
      },
      error: (error) => subscriber.error(error),
      complete: () => {
        measure().then(
          () => subscriber.complete(),
          (error) => subscriber.error(error),
        );
      },
    });
    return () => {
      signal?.removeEventListener('abort', interrupt);
      exploring.unsubscribe();
      speakers.close();
      base?.close();
      judge?.close();
    };
  });
}

/** Tokens that a model reads to say what an event says: all of the prompt, and what it wrote itself but for its last token. */
function tokensRead(event: SearchEvent): number {
  if (event.type !== 'turn.taken' && event.type !== 'turn.merged') return 0;
  const { promptTokens, tokenIds } = event.type === 'turn.taken' ? event.turn : event;
  return promptTokens + Math.max(0, tokenIds.length - 1);
}
