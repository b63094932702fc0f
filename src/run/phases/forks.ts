// Pairs of forks that were kept, as a training by preference takes them: beside its own pairs, each once, and only where the run was
// told to. Which ones stands in the log, so that a phase that was cut off trains on the same ones again.
import { OptimaError } from '../../domain/errors.ts';
import type { RunEventOf } from '../../domain/events.ts';
import type { ChatMessage, ScoringModel, TrainablePolicy } from '../../domain/model.ts';
import type { PlannedPhase, PlannedPhases } from '../../machines/index.ts';
import { type Scenario, trainedRoles } from '../../scenario/types.ts';
import { ForkLog, forksPath, pairKey } from '../../store/fork-log.ts';
import type { RunFolder } from '../../store/run-folder.ts';
import { responseIn } from '../../training/dpo/examples.ts';
import type { PreferenceExample } from '../../training/dpo/index.ts';
import type { PhaseContext } from './context.ts';

type KeptPair = RunEventOf<'pair.kept'>;

const keyOf = ({ chosen, rejected, from }: KeptPair) => pairKey(chosen.id, rejected.id, from);

/** Whether a scenario's team may be trained on a pair: its speaker is trained, and its task measures nobody. */
export const trainsOn = (
  scenario: Pick<Scenario, 'roles'>,
  { speaker, taskId }: Pick<KeptPair, 'speaker' | 'taskId'>,
): boolean => taskId.startsWith('train-') && trainedRoles(scenario).includes(speaker);

/**
 * The kept pairs that a training phase takes, which is noted in the log. What an earlier process noted there holds, whether or
 * not forks are asked for now; a phase that began without any has none. Throws `run.corrupt` where they are not there any more.
 */
export function takeForks(
  { run, scenario, withForks = false }: PhaseContext,
  { name: phase, on }: PlannedPhases['train'],
): readonly KeptPair[] {
  if (on.method !== 'dpo') return [];
  const [ahead] = run.log.ahead();
  const noted = ahead?.type === 'forks.taken' ? ahead : null;
  // Where the phase before it found none of its own, it is for these that it is carried out.
  const areAlone = (run.outputOf({ name: on.pairs, kind: 'pair' })?.forks ?? 0) > 0;
  if (noted === null && (ahead !== undefined || !(withForks || areAlone))) return [];
  const forks = ForkLog.read(run.path, noted?.log.events);
  if (noted !== null && !forks.holds(noted.log)) {
    throw new OptimaError(
      'run.corrupt',
      `${forksPath(run.path)}: its first ${noted.log.events} events are not those that ${phase} trained on.`,
      { hint: 'The file was cut, deleted or replaced; restore it.' },
    );
  }
  const taken = noted ?? {
    type: 'forks.taken' as const,
    phase,
    pairs: waitingPairs({ run, scenario }, forks).map(({ fork, chosen, rejected, from }) => ({
      ...{ fork, chosen: chosen.id, rejected: rejected.id },
      ...(from !== undefined && { from }),
    })),
    log: forks.end,
  };
  if (taken.pairs.length === 0) return [];
  run.record(taken);
  const wanted = new Set(taken.pairs.map(({ chosen, rejected, from }) => pairKey(chosen, rejected, from)));
  return forks.kept.filter((pair) => wanted.has(keyOf(pair)));
}

/** The kept pairs that the next training takes: of whom it trains, and no training phase of the run has taken them. */
export function waitingPairs(
  { run, scenario }: Pick<PhaseContext, 'run' | 'scenario'>,
  forks = ForkLog.read(run.path),
): readonly KeptPair[] {
  const taken = new Set<string>();
  for (const { from, to, output } of run.phases.values()) {
    if (output.kind !== 'train') continue;
    const [, noted] = run.log.events(from, Math.min(from + 2, to));
    if (noted?.type !== 'forks.taken') continue;
    for (const { chosen, rejected, from } of noted.pairs) taken.add(pairKey(chosen, rejected, from));
  }
  return forks.kept.filter((pair) => !taken.has(keyOf(pair)) && trainsOn(scenario, pair));
}

/** Throws `usage` where a plan has no training by preference left that could take pairs of forks. */
export function requirePairsTaken(plan: readonly PlannedPhase[], run?: RunFolder): void {
  const takes = plan.filter((phase) => phase.kind === 'train' && phase.on.method === 'dpo');
  if (takes.length === 0) {
    throw new OptimaError(
      'usage',
      '--with-forks: this recipe trains on whole dialogues, and forks give pairs of turns.',
      {
        hint: 'Use a recipe that trains by preference: idpo, isft-dpo.',
      },
    );
  }
  if (run === undefined || takes.some((phase) => run.outputOf({ name: phase.name, kind: 'train' }) === null))
    return;
  throw new OptimaError('usage', `--with-forks: no training by preference is left in ${run.path}.`, {
    hint: `Start a run from its policy: optima train --init-from ${run.path} --with-forks`,
  });
}

/**
 * Kept pairs in token space. Reference log-probabilities are computed under the policy as it is before its training: a person has none,
 * and another policy's are not its own.
 */
export async function forkExamples(
  pairs: readonly KeptPair[],
  policy: Pick<TrainablePolicy, 'encode'> & ScoringModel,
  maxTokens: number,
): Promise<PreferenceExample[]> {
  const sides = pairs.flatMap(({ view, chosen, rejected }) =>
    [chosen, rejected].map(({ id, text, tokenIds }) => {
      const messages: ChatMessage[] = [...view, { role: 'assistant', content: text, tokenIds }];
      const { promptIds, ids, end } = responseIn(messages, tokenIds.length, policy);
      return { request: { id, messages, last: 1 }, promptIds, ids, fits: end <= maxTokens };
    }),
  );
  // What is too long to be trained on may be too long to be read.
  const fitting = sides.filter(({ fits }) => fits);
  const scores = fitting.length === 0 ? [] : await policy.score(fitting.map(({ request }) => request));
  const sums = new Map(
    fitting.map((side, index) => [side, scores[index]!.at(-1)!.reduce((sum, logprob) => sum + logprob, 0)]),
  );
  return pairs.map(({ tree }, index) => {
    const [better, worse] = [sides[2 * index]!, sides[2 * index + 1]!];
    return {
      promptIds: better.promptIds,
      chosenIds: better.ids,
      rejectedIds: worse.ids,
      refChosen: sums.get(better) ?? 0,
      refRejected: sums.get(worse) ?? 0,
      group: tree,
    };
  });
}
