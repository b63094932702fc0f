// `optima replay <run>`: drives a run's dialogues anew from its log, without a model, and says where they come out otherwise.
import readline from 'node:readline';
import { setTimeout as wait } from 'node:timers/promises';
import type { Command } from 'commander';
import { cleaningUp, OptimaError } from '../domain/errors.ts';
import type { RunEvent, RunEventOf } from '../domain/events.ts';
import type { DialogueId, NodeId, PolicyHash } from '../domain/ids.ts';
import type { MessageOf } from '../domain/messages.ts';
import { writtenOf } from '../domain/transcript.ts';
import type { RunReader } from '../reading/index.ts';
import { modelsFrom } from '../run/frozen.ts';
import { sourceIn } from '../run/locate.ts';
import type { Recorded, ReplayDivergence } from '../run/recording.ts';
import type { ReplayedCohort } from '../run/replay.ts';
import { forkOf } from '../store/fork-log.ts';
import { readManifest } from '../store/manifest.ts';
import type { PolicyHost } from '../workers/index.ts';
import { interruptible } from './interrupt.ts';
import { openEngines } from './model.ts';
import {
  type Backend,
  backendOption,
  jsonOption,
  positiveNumber,
  wholeNumber,
  workersOption,
} from './options.ts';
import { counted, type JsonFlag, line, type Output, quoted, withOutput } from './output.ts';
import { openReader } from './reader.ts';
import { reopenFrozen, reopenRun } from './reopen.ts';

interface ReplayOptions extends JsonFlag {
  readonly task?: string;
  readonly node?: string;
  readonly iteration?: number;
  readonly fork?: number;
  readonly verifyModel?: boolean;
  readonly verifyScenario?: boolean;
  readonly step?: boolean;
  readonly speed?: number;
  readonly backend?: Backend;
  readonly workers?: number;
}

/** The longest pause between two turns, ms. */
const longestPauseMs = 5_000;

export function addReplay(program: Command): void {
  program
    .command('replay')
    .argument('<run>', 'folder of a run, also of one under way')
    .description("drive a run's dialogues anew from its log and compare every message; no model is called")
    .option('--task <id>', 'only a task, for example train-00012, or its tree in one phase')
    .option('--node <id>', 'only the dialogues of one turn')
    .option('--iteration <n>', 'only an iteration, from 0', wholeNumber('--iteration', 0))
    .option(
      '--fork <n>',
      'only a fork, by its number; without a choice all of them come last',
      wholeNumber('--fork', 0),
    )
    .option('--verify-model', 'call the recorded policies, too, and compare what they sample')
    .option('--verify-scenario', "call the scenario's environment and metric, too, and compare what they say")
    .option('--step', 'play turn by turn: Enter goes on')
    .option(
      '--speed <x>',
      'play turn by turn, this many times as fast as it was held',
      positiveNumber('--speed'),
    )
    .addOption(backendOption())
    .addOption(workersOption())
    .addOption(jsonOption())
    .action((folder: string, options: ReplayOptions) =>
      withOutput(options, (output) =>
        interruptible(output, (signal) => replay(folder, options, output, signal)),
      ),
    );
}

async function replay(folder: string, options: ReplayOptions, output: Output, signal: AbortSignal) {
  const manifest = readManifest(folder);
  const { loaded, recipe } = await reopenRun(folder, manifest, signal);
  const { replayRun } = await import('../run/replay.ts');
  const { replayForks } = await import('../run/replay-forks.ts');
  const { ReplayDivergence } = await import('../run/recording.ts');
  const { task, node, iteration, verifyScenario = false, step = false, speed } = options;
  const fork = options.fork ?? (node === undefined ? undefined : (forkOf(node as NodeId) ?? undefined));
  const isWhole = task === undefined && node === undefined && iteration === undefined;
  refuseMixed(options, fork);
  let host: PolicyHost | undefined;
  const modelsOf = async () => {
    if (options.verifyModel !== true) return {};
    const { startHost } = await openEngines(options, output);
    const frozen = Object.values((await reopenFrozen({ ...manifest, judge: undefined })).partners);
    const started = await startHost(null);
    host = started;
    return {
      modelsOf: (hash: PolicyHash) =>
        modelsFrom(
          frozen.find(({ model }) => model.hash === hash)?.model ??
            sourceIn({ path: folder, manifest }, hash),
          started,
        ),
    };
  };
  const plays = step || speed !== undefined || task !== undefined || node !== undefined || fork !== undefined;
  const input = step ? readline.createInterface({ input: process.stdin, terminal: false }) : null;
  const enters = input?.[Symbol.asyncIterator]();
  const pause = async (ms: number) => {
    if (enters !== undefined) await enters.next();
    else if (speed !== undefined && ms > 0)
      await wait(Math.min(ms / speed, longestPauseMs), undefined, { signal }).catch(() => {});
  };
  let reader: RunReader | null = null;
  const work = async () => {
    const run = await openReader(folder, output, signal);
    reader = run;
    const models = await modelsOf();
    const began = performance.now();
    let playedMs = 0;
    const onCohort = async (cohort: ReplayedCohort) => {
      const from = performance.now();
      for (const { number, event } of cohort.events)
        output.emit({ event: 'message', seq: number, message: event });
      if (plays && options.json !== true) await play(cohort, rewardsOf(run, cohort), output, pause, signal);
      playedMs += performance.now() - from;
    };
    const plan = { run, manifest, scenario: loaded.scenario, recipe, signal, verifyScenario, onCohort };
    const phases =
      fork !== undefined
        ? []
        : await replayRun({
            ...{ ...plan, ...models, choice: { task, node, iteration } },
            onPhase: ({ phase, dialogues, messages, underWay }) => {
              const open = underWay === 0 ? '' : `; ${underWay} of a cohort under way left out`;
              if (!plays)
                output.say(`${phase}: ${dialogues} dialogues, ${messages} messages as recorded${open}`);
              output.emit({ event: 'phase', phase, dialogues, messages, underWay });
            },
          });
    const forks =
      fork !== undefined || (isWhole && models.modelsOf === undefined)
        ? await replayForks({ ...plan, fork })
        : { dialogues: 0, messages: 0, cutOff: 0 };
    if (forks.dialogues + forks.cutOff > 0) {
      const cut = forks.cutOff === 0 ? '' : `; ${forks.cutOff} that were cut off left out`;
      if (!plays)
        output.say(`forks: ${forks.dialogues} dialogues, ${forks.messages} messages as recorded${cut}`);
      output.emit({ event: 'forks', ...forks });
    }
    const seconds = (performance.now() - began - playedMs) / 1000;
    const sum = (read: (phase: (typeof phases)[number]) => number) =>
      phases.reduce((total, phase) => total + read(phase), 0);
    const dialogues = sum((phase) => phase.dialogues) + forks.dialogues;
    const messages = sum((phase) => phase.messages) + forks.messages;
    // Of a fork the log does not say how long it took.
    const known = forks.dialogues === 0 && phases.every(({ heldSeconds }) => heldSeconds !== null);
    const heldSeconds = known ? sum((phase) => phase.heldSeconds!) : null;
    const faster =
      heldSeconds === null || models.modelsOf !== undefined
        ? ''
        : `, ${(heldSeconds / seconds).toFixed(1)} times as fast as they were held`;
    const sampled =
      models.modelsOf === undefined ? 'no model was called' : 'their policies sample the same ids';
    output.say(
      `\n${counted(dialogues, 'dialogue')}, ${messages} messages, each as it was recorded; ${sampled} (${seconds.toFixed(2)} s${faster})`,
    );
    output.emit({ event: 'summary', dialogues, messages, divergences: 0, seconds, heldSeconds });
  };
  const shown = (error: unknown) => {
    if (error instanceof ReplayDivergence) sayDivergence(error, output);
    throw error;
  };
  await cleaningUp(
    () => work().catch(shown),
    () => input?.close(),
    () => host?.stop(),
    () => reader?.close(),
  );
}

function sayDivergence({ number, recorded, sent }: ReplayDivergence, output: Output): void {
  output.emit({ event: 'divergence', seq: number, recorded, sent });
  output.say(`recorded: ${line(recorded ?? 'nothing')}\nreplayed: ${line(sent ?? 'nothing')}`);
}

/** Throws `usage` where a fork is asked for beside what it does not go with. */
function refuseMixed(
  { fork: asked, task, node, iteration, verifyModel }: ReplayOptions,
  fork: number | undefined,
): void {
  if (fork === undefined) return;
  if (verifyModel === true)
    throw new OptimaError(
      'usage',
      '--verify-model is for the dialogues of the run: forks are replayed without a model.',
    );
  if (asked !== undefined && (task ?? node ?? iteration) !== undefined)
    throw new OptimaError('usage', '--fork names one dialogue: it takes no --task, --node or --iteration.');
}

/** The rewards of a cohort's dialogues, where they have been ranked: with them, or in a phase of its own, found through the index. */
function rewardsOf(
  reader: RunReader,
  { dialogues, events }: ReplayedCohort,
): ReadonlyMap<DialogueId, RunEventOf<'trajectory.ranked'>> {
  const ranked = new Map<DialogueId, RunEventOf<'trajectory.ranked'>>();
  for (const { event } of events) if (event.type === 'trajectory.ranked') ranked.set(event.dialogueId, event);
  for (const id of dialogues) {
    const own = ranked.get(id) ?? reader.dialogue(id)?.ranked;
    if (own) ranked.set(id, own);
  }
  return ranked;
}

/** Shows the dialogues of a cohort, one after the other, turn by turn; what roll-outs share is shown where it was said. */
async function play(
  { dialogues, events }: ReplayedCohort,
  rewards: ReadonlyMap<DialogueId, RunEventOf<'trajectory.ranked'>>,
  output: Output,
  pause: (ms: number) => Promise<void>,
  signal: AbortSignal,
): Promise<void> {
  for (const id of dialogues) {
    let before: string | null = null;
    for (const recorded of events) {
      if (!isOf(recorded, id)) continue;
      if (signal.aborted) return;
      const words = wordsOf(recorded.event);
      if (words === null) continue;
      const speaks = recorded.event.type === 'turn.taken' || recorded.event.type === 'turn.merged';
      if (speaks) await pause(before === null ? 0 : Date.parse(recorded.at) - Date.parse(before));
      before = recorded.at;
      output.say(words);
    }
    const ranked = rewards.get(id);
    if (ranked !== undefined) output.say(rewardWords(ranked));
  }
}

const isOf = ({ event }: Recorded, id: DialogueId): boolean =>
  'dialogueId' in event && event.dialogueId === id;

/** What is shown of an event; null: nothing. */
function wordsOf(event: RunEvent): string | null {
  const tokens = (ids: readonly number[]) => counted(ids.length, 'token');
  switch (event.type) {
    case 'dialogue.opened':
      return `\n── ${event.dialogueId}${event.format === null ? '' : `, format ${event.format}`}${event.parent === null ? '' : `, on from ${event.parent}`}`;
    case 'turn.taken': {
      const { turn } = event;
      return `${turn.speaker} (${tokens(turn.tokenIds)}): ${quoted(writtenOf(turn))}`;
    }
    case 'turn.merged':
      return `${event.speaker} (${tokens(event.tokenIds)}, as good as ${event.into}): ${quoted(event.text)}`;
    case 'turn.failed':
      return `${event.speaker} could not speak: ${line(event.reason)}`;
    case 'observation.given':
      return event.observations.map(({ text }) => `environment: ${quoted(text)}`).join('\n');
    case 'dialogue.closed':
      return event.failure === null ? event.outcome : `failed: ${line(event.failure)}`;
    case 'judge.asked':
      return `judge: ${quoted(event.reply)}`;
    case 'verdict.given':
      return verdictWords(event);
    case 'verdict.failed':
      return `no verdict: ${line(event.reason)}`;
    default:
      return null;
  }
}

const verdictWords = ({ answer, taskScore }: MessageOf<'verdict.given'>): string =>
  `answer: ${line(answer ?? 'none')}; task score ${taskScore.toFixed(2)}`;

/** A reward and its terms in a line. */
export function rewardWords({
  reward,
  terms,
  failure,
  turnLosses,
}: Pick<RunEventOf<'trajectory.ranked'>, 'reward' | 'terms' | 'failure' | 'turnLosses'>): string {
  if (reward === null || terms === null) return `no reward: ${line(failure ?? 'it is not ranked')}`;
  const losses = turnLosses.map((loss) => loss.toFixed(2)).join(' ');
  return `reward ${reward.toFixed(3)}: task ${terms.task.toFixed(2)}, token share ${terms.tokenShare.toFixed(2)}, R_loss ${terms.loss.toFixed(2)} (turns: ${losses})`;
}
