// Evaluations as logs of Inspect AI (EvalLog, version 2, JSON), so that its viewer shows them. A dialogue is a sample; its turns are
// the assistant's messages, each behind its speaker's name.
import type { PhaseOutputOf } from '../domain/events.ts';
import { dialoguesIn } from '../domain/metrics.ts';
import { messageTokens, type Observation, type Trajectory, type Turn } from '../domain/transcript.ts';
import type { Manifest } from '../store/manifest.ts';
import type { RunFolder } from '../store/run-folder.ts';

/** When a phase began and ended, ISO 8601. */
export interface PhaseTimes {
  readonly startedAt: string;
  readonly endedAt: string;
}

/** A completed evaluation of a run. */
export interface RecordedEvaluation {
  readonly phase: string;
  readonly times: PhaseTimes;
  readonly output: PhaseOutputOf<'evaluate'>;
}

/** The name that Inspect lists a log by: it begins with the time. */
export function evalLogName({ phase, times }: RecordedEvaluation, { scenario }: Manifest): string {
  const time = times.startedAt.replace(/\.\d+Z$/, '+00:00').replaceAll(':', '-');
  const name = `${scenario.name}_${phase}`.replaceAll(/[^\w.-]+/g, '-');
  return `${time}_${name}.json`;
}

/** The text of an evaluation's log, piece by piece: its dialogues come last, one after the other. */
export function* evalLog(
  evaluation: RecordedEvaluation,
  run: Pick<RunFolder, 'manifest' | 'dialoguesOf'>,
): Generator<string> {
  yield `${JSON.stringify(headerOf(evaluation, run.manifest)).slice(0, -1)},"samples":[`;
  let before = '\n';
  for (const dialogue of run.dialoguesOf(evaluation.phase)) {
    yield `${before}${JSON.stringify(sampleOf(dialogue))}`;
    before = ',\n';
  }
  yield '\n]}\n';
}

const modelName = (policy: string) => `optima/${policy}`;

function headerOf(
  { phase, times, output: { metrics, policy } }: RecordedEvaluation,
  { run, version, node, scenario, engine, recipe }: Manifest,
): object {
  const { startedAt: started_at, endedAt: completed_at } = times;
  const { taskScore, taskScoreInterval, exactMatch, n, failed, refused = 0 } = metrics;
  const samples = dialoguesIn(metrics);
  const counts = { scored_samples: n, unscored_samples: failed - refused };
  const hashes = [...new Set(Object.values(policy))];
  const metricsOf = (values: Readonly<Record<string, number>>) =>
    Object.fromEntries(Object.entries(values).map(([name, value]) => [name, { name, value }]));
  const [low, high] = taskScoreInterval;
  return {
    version: 2,
    status: 'success',
    eval: {
      ...{ eval_id: `${run}/${phase}`, run_id: run, created: started_at },
      ...{ task: scenario.name, task_id: `${scenario.name}@${scenario.tasks}`, task_version: 0 },
      task_file: scenario.file,
      dataset: { name: scenario.name, samples, shuffled: false },
      model: modelName(hashes.join('+')),
      config: {},
      packages: { 'optima-actors': version },
      metadata: { phase, policy, engine, node, recipe },
    },
    plan: { name: 'dialogue', steps: [{ solver: 'dialogue' }] },
    results: {
      ...{ total_samples: samples, completed_samples: n - refused },
      scores: [
        {
          ...{ name: 'task_score', scorer: 'task_score', ...counts },
          metrics: metricsOf({ mean: taskScore, interval_low: low, interval_high: high }),
        },
        {
          ...{ name: 'exact_match', scorer: 'exact_match', ...counts },
          metrics: metricsOf({ mean: exactMatch }),
        },
      ],
      metadata: { ...metrics },
    },
    stats: { started_at, completed_at },
  };
}

function sampleOf(dialogue: Trajectory): object {
  const { id, taskId, views, turns, outcome, failure, verdict, format } = dialogue;
  const told = Object.entries(views).map(([role, view]) => `${role} is told:\n${view}`);
  const last = turns.at(-1);
  const message = { role: 'assistant', content: verdict?.answer ?? '' };
  return {
    ...{ id: taskId, epoch: 1, input: told.join('\n\n'), target: '' },
    messages: [...messagesOf(dialogue)],
    output: {
      model: modelName(last?.policyHash ?? 'none'),
      choices: [{ message, stop_reason: last?.finish === 'length' ? 'max_tokens' : 'stop' }],
      completion: message.content,
    },
    ...(verdict !== null && {
      scores: {
        task_score: {
          value: verdict.taskScore,
          answer: verdict.answer,
          ...(verdict.seats && { metadata: { seats: verdict.seats } }),
        },
        exact_match: { value: Number(verdict.exactMatch), answer: verdict.answer },
      },
    }),
    ...(failure !== null && { error: { message: failure, traceback: '', traceback_ansi: '' } }),
    metadata: { dialogue: id, outcome, format, tokens: messageTokens(turns) },
    model_usage: usageOf(turns),
  };
}

function* messagesOf({ views, opening = [], turns }: Trajectory): Generator<object> {
  for (const [role, view] of Object.entries(views))
    yield { role: 'system', content: view, metadata: { role } };
  const observed = (observations: readonly Observation[]) =>
    observations.map(({ text, to }) => ({
      ...{ role: 'user', content: `environment: ${text}` },
      ...(to && { metadata: { to } }),
    }));
  yield* observed(opening);
  for (const turn of turns) {
    const { id, speaker, text, written, policyHash, provenance, seed, to } = turn;
    yield {
      ...{ role: 'assistant', content: `${speaker}: ${text}`, model: modelName(policyHash) },
      metadata: {
        ...{ node: id, role: speaker, provenance, seed, tokenIds: turn.tokenIds },
        ...(written !== undefined && { written }),
        ...(to && { to }),
      },
    };
    yield* observed(turn.observed ?? []);
  }
}

/** Tokens that each policy read and wrote. */
function usageOf(turns: readonly Turn[]): Record<string, object> {
  const sums = new Map<string, { read: number; written: number }>();
  for (const { policyHash, promptTokens, tokenIds } of turns) {
    const { read, written } = sums.get(policyHash) ?? { read: 0, written: 0 };
    sums.set(policyHash, { read: read + promptTokens, written: written + tokenIds.length });
  }
  return Object.fromEntries(
    [...sums].map(([policy, { read, written }]) => [
      modelName(policy),
      { input_tokens: read, output_tokens: written, total_tokens: read + written },
    ]),
  );
}
