// `optima show <run> [dialogue]`: what happened in a run, in a page; or one of its dialogues, to read.
import type { Command } from 'commander';
import type { PhaseOutput } from '../domain/events.ts';
import { failedOf, percentile } from '../domain/metrics.ts';
import { messageTokens } from '../domain/transcript.ts';
import type {
  DialogueReading,
  DialogueSummary,
  ForkReading,
  NodeReading,
  PhaseSummary,
  RunReader,
} from '../reading/index.ts';
import { isLocked } from '../store/lock.ts';
import { interruptible } from './interrupt.ts';
import { jsonOption, wholeNumber } from './options.ts';
import { formatTable, type JsonFlag, line, type Output, quoted, spanOf, withOutput } from './output.ts';
import { notInRun, shortened, sizeOf, widthOf, withReader } from './reader.ts';
import { transcript } from './report.ts';
import { showSaid } from './said.ts';

interface ShowOptions extends JsonFlag {
  readonly phase?: string;
  readonly samples: number;
  readonly said?: string;
}

export function addShow(program: Command): void {
  program
    .command('show')
    .argument('<run>', 'folder of a run, also of one under way')
    .argument('[dialogue]', 'a dialogue or a turn, such as base/test-00000.0')
    .description('show what happened in a run, or one of its dialogues')
    .option('--phase <name>', 'best and worst dialogues of this phase (default: the last one with rewards)')
    .option('--samples <n>', 'how many best and worst dialogues', wholeNumber('--samples', 0, 100), 1)
    .option('--said <text>', 'the messages in which this stands, of the whole run or of --phase')
    .addOption(jsonOption())
    .action((folder: string, id: string | undefined, options: ShowOptions) =>
      withOutput(options, (output) =>
        interruptible(output, (signal) =>
          withReader(
            folder,
            output,
            (reader) => {
              const { said, phase } = options;
              if (said !== undefined) return showSaid(reader, said, phase, output, signal);
              return id === undefined ? showRun(reader, options, output) : showOne(reader, id, output);
            },
            signal,
          ),
        ),
      ),
    );
}

/** What state a run is in, in a word or a sentence. */
export function stateOf({ folder, manifest, policy }: RunReader): string {
  if (policy !== null) return 'completed';
  if (isLocked(folder)) return 'running';
  return manifest?.failure === undefined ? 'not completed' : `ended with: ${manifest.failure.message}`;
}

function showRun(reader: RunReader, { phase: asked, samples }: ShowOptions, output: Output): void {
  const { manifest, size, policy, recipe } = reader;
  const phases = reader.phases();
  const rewards = rewardsOf(reader);
  const ranked = [...rewards].filter(([, values]) => values.length > 0).map(([name]) => name);
  const scored = phases.filter(({ dialogues }) => dialogues > 0).map(({ name }) => name);
  if (asked !== undefined && !scored.includes(asked)) throw notInRun(reader, 'phase with dialogues', asked);
  const chosen = asked ?? ranked.at(-1) ?? scored.at(-1);
  const best = chosen === undefined ? [] : extremesOf(reader, chosen, samples);
  output.emit({
    event: 'run',
    ...{ folder: reader.folder, scenario: manifest?.scenario.name ?? null, recipe: recipe?.recipe ?? null },
    ...{ preset: manifest?.preset ?? null, seed: recipe?.seed ?? null, state: stateOf(reader), policy },
    ...{ seconds: manifest?.seconds ?? null, ...size },
  });
  for (const phase of phases) output.emit({ event: 'phase', ...phase });
  for (const name of ranked) output.emit({ event: 'rewards', phase: name, ...spreadOf(rewards.get(name)!) });
  for (const [what, summary] of best) {
    output.emit({ event: 'dialogue', what, ...summary, turns: reader.dialogue(summary.id)!.turns });
  }
  output.emit({ event: 'summary', phases: phases.length, ...size });

  const title = [
    manifest?.scenario.name ?? 'a log alone',
    ...(manifest === null
      ? []
      : [
          `${recipe?.recipe ?? 'a recipe of another version'}, preset ${manifest.preset}, seed ${recipe?.seed ?? '?'}`,
        ]),
    stateOf(reader),
  ];
  output.say(title.map(line).join(' · '));
  const work = manifest === null ? '' : `, ${spanOf(manifest.seconds)} of work in phases that are over`;
  output.say(`${size.events} events, ${sizeOf(size.bytes)}${work}`);
  const names = Math.max(0, ...phases.map(({ name }) => name.length));
  output.say(
    `\n${formatTable([['phase', 'dialogues', 'time', ''], ...phases.map((phase) => phaseRow(phase, names))].map(leftLast))}`,
  );
  if (ranked.length > 0) {
    const all = ranked.flatMap((name) => rewards.get(name)!);
    // A few that are far off would have all others in one bar.
    const range = [percentile(all, 1), percentile(all, 99)] as const;
    const rows = ranked.map((name) => {
      const { n, lowest, median, highest } = spreadOf(rewards.get(name)!);
      return [
        name,
        String(n),
        ...[lowest, median, highest].map((value) => value.toFixed(2)),
        sparkline(rewards.get(name)!, range),
      ];
    });
    output.say(`\n${formatTable([['rewards of', 'n', 'lowest', 'median', 'highest', ''], ...rows])}`);
    output.say(
      `bars from ${range[0].toFixed(2)} to ${range[1].toFixed(2)}; what is beyond counts in the outer ones`,
    );
  }
  for (const [what, summary] of best) {
    output.say(`\n── ${what} of ${line(summary.phase)}: ${line(summary.id)} (${describe(summary)})`);
    output.say(transcript(excerptOf(reader.dialogue(summary.id)!)));
  }
  if (best.length > 0)
    output.say(`\nA dialogue with all that came of it: optima show ${reader.folder} ${best[0]![1].id}`);
}

/** The rewards of each phase's dialogues. */
function rewardsOf(reader: RunReader): Map<string, number[]> {
  const rewards = new Map<string, number[]>();
  for (const { phase, reward } of reader.dialogues()) {
    const own = rewards.get(phase) ?? [];
    rewards.set(phase, own);
    if (reward !== null) own.push(reward);
  }
  return rewards;
}

function spreadOf(values: readonly number[]) {
  const at = (share: number) => percentile(values, share);
  return { n: values.length, lowest: at(0), p10: at(10), median: at(50), p90: at(90), highest: at(100) };
}

const sparks = 16;

/** How values spread over a range, as bars of eight heights; none where there is no value. */
function sparkline(values: readonly number[], [low, high]: readonly [number, number]): string {
  const counts = new Array<number>(sparks).fill(0);
  for (const value of values) {
    const place = high === low ? 0 : Math.floor((sparks * (value - low)) / (high - low));
    counts[Math.max(0, Math.min(sparks - 1, place))]!++;
  }
  const most = Math.max(...counts);
  return counts.map((count) => (count === 0 ? ' ' : '▁▂▃▄▅▆▇█'[Math.ceil((8 * count) / most) - 1])).join('');
}

/** The first cells to the right, the last one to the left: `formatTable` pads what it is given. */
const leftLast = (row: readonly string[], _: number, rows: readonly (readonly string[])[]) => {
  const width = Math.max(...rows.map((one) => line(one.at(-1)!).length));
  return [...row.slice(0, -1), row.at(-1)!.padEnd(width)];
};

function phaseRow({ name, dialogues, startedAt, endedAt, output }: PhaseSummary, names: number): string[] {
  const seconds = endedAt === null ? null : (Date.parse(endedAt) - Date.parse(startedAt)) / 1000;
  const time = seconds === null ? '' : Number.isFinite(seconds) ? spanOf(seconds) : '?';
  // Beside the names, the dialogues and the time.
  const most = Math.max(20, widthOf() - names - 22);
  const said = output === null ? 'not over' : shortened(describeOutput(output), most);
  return [name, dialogues === 0 ? '' : String(dialogues), time, said];
}

/** What a phase handed on, in words. */
function describeOutput(output: PhaseOutput): string {
  switch (output.kind) {
    case 'evaluate': {
      const { taskScore, tokens, agreement, failed } = output.metrics;
      return `score ${taskScore.toFixed(3)}, ${tokens.toFixed(1)} tokens, ${(100 * agreement).toFixed(0)} % agree${failed > 0 ? `, ${failedOf(output.metrics)} failed` : ''}`;
    }
    case 'generate':
      return `${output.sampledTokens} tokens sampled${output.failed > 0 ? `, ${output.failed} failed` : ''}`;
    case 'rank':
      return `mean reward ${output.meanReward.toFixed(3)}, score ${output.metrics.taskScore.toFixed(3)}`;
    case 'select':
      return `${output.kept} kept${output.threshold === null ? '' : `, from a reward of ${output.threshold.toFixed(3)} on`}`;
    case 'search':
      return `mean reward ${output.meanReward.toFixed(3)}, ${output.trees} trees, ${output.merged} turns merged`;
    case 'pair':
      return `${output.kept} of ${output.found} pairs kept, mean difference ${output.meanGap.toFixed(3)}`;
    case 'train':
      return `${output.steps} steps, loss ${output.loss.toFixed(4)}, policy ${[...new Set(Object.values(output.policy))].join(', ')}`;
  }
}

/** The best and the worst dialogues of a phase, by reward; where it has none, by score. */
function extremesOf(
  reader: RunReader,
  phase: string,
  samples: number,
): ['best' | 'worst', DialogueSummary][] {
  const worth = ({ reward, taskScore }: DialogueSummary) => reward ?? taskScore;
  const known = [...reader.dialogues({ phase })].filter((one) => worth(one) !== null);
  known.sort((a, b) => worth(b)! - worth(a)! || a.tokens - b.tokens);
  const best = known.slice(0, samples);
  const worst = known.slice(Math.max(samples, known.length - samples)).reverse();
  return [
    ...best.map((one): ['best', DialogueSummary] => ['best', one]),
    ...worst.map((one): ['worst', DialogueSummary] => ['worst', one]),
  ];
}

/** What became of a dialogue, in a line. */
export function describe({ outcome, tokens, taskScore, reward, terms }: DialogueSummary): string {
  const parts = [`${tokens} tokens`, outcome ?? 'under way'];
  if (taskScore !== null) parts.push(`score ${taskScore.toFixed(2)}`);
  if (reward !== null) parts.push(`reward ${reward.toFixed(3)}`);
  if (terms !== null)
    parts.push(`token share ${terms.tokenShare.toFixed(2)}, R_loss ${terms.loss.toFixed(2)}`);
  return parts.join(', ');
}

/** A dialogue whose turns are cut to a few lines each. */
function excerptOf({
  turns,
  ...dialogue
}: DialogueReading): Pick<DialogueReading, 'opening' | 'turns' | 'failure'> {
  const most = 3 * widthOf();
  const cut = (text: string) =>
    text.length > most ? `${text.slice(0, most)}… (${text.length} characters)` : text;
  return {
    ...dialogue,
    turns: turns.map(({ written, text, ...turn }) => ({ ...turn, text: cut(written ?? text) })),
  };
}

/** A dialogue, or the turn of a node. */
function showOne(reader: RunReader, id: string, output: Output): void {
  const dialogue = reader.dialogue(id);
  const node = dialogue === null ? reader.node(id) : null;
  const isFork = dialogue === null && node === null;
  const fork = (isFork ? reader.forks() : []).find(
    ({ begun, turns }) => begun.dialogueId === id || turns.at(-1)?.id === id,
  );
  if (dialogue !== null) showDialogue(reader, dialogue, output);
  else if (node !== null) showTurn(node, output);
  else if (fork !== undefined) showFork(fork, output);
  else throw notInRun(reader, 'dialogue', id);
}

function showDialogue(reader: RunReader, dialogue: DialogueReading, output: Output): void {
  const { summary, ranked, views, format, verdict, questions, turns } = dialogue;
  output.emit({ event: 'dialogue', ...dialogue });
  output.say(`${line(summary.id)} (${describe(summary)})`);
  output.say(
    `task ${line(summary.taskId)} in ${line(summary.phase)}${format === null ? '' : `, format prompt ${line(format)}`}`,
  );
  for (const [role, view] of Object.entries(views)) output.say(`\n${line(role)} is told:\n  ${quoted(view)}`);
  output.say(`\n${transcript(dialogue)}`);
  for (const { prompt, reply } of questions)
    output.say(`\njudge is asked: ${quoted(prompt)}\njudge: ${quoted(reply)}`);
  output.say('');
  if (verdict !== null) {
    const seats = Object.entries(verdict.seats ?? {}).map(
      ([seat, score]) => `${line(seat)} ${score.toFixed(3)}`,
    );
    output.say(
      `answer: ${verdict.answer === null ? 'none' : line(verdict.answer)}, score ${verdict.taskScore.toFixed(3)}${seats.length > 0 ? ` (${seats.join(', ')})` : ''}`,
    );
  }
  if (ranked !== null) {
    const cases = ranked.edgeCases.length > 0 ? `; open cases: ${ranked.edgeCases.join(', ')}` : '';
    const losses = ranked.turnLosses.map(
      (loss, place) => `${line(turns[place]?.speaker ?? '?')} ${loss.toFixed(2)}`,
    );
    output.say(`reward: ${ranked.reward?.toFixed(4) ?? `none: ${line(ranked.failure ?? '')}`}${cases}`);
    if (losses.length > 0)
      output.say(`loss of each turn under the base, nats per token: ${losses.join(', ')}`);
    if (!ranked.eligible) output.say('it may not be trained on');
  }
  if (summary.kept !== null)
    output.say(summary.kept ? 'it was selected to be trained on' : 'it was not selected to be trained on');
  const { root } = reader.tree(summary.tree)!;
  output.say(`\nits tree: optima tree ${reader.folder} --task ${line(root)}`);
}

function showTurn(node: NodeReading, output: Output): void {
  const { turn, views, loss, dialogues, pairs } = node;
  output.emit({ event: 'turn', ...node });
  output.say(
    `${line(turn.id)}: ${line(turn.speaker)}, ${turn.tokenIds.length} tokens, policy ${turn.policyHash}${loss === null ? '' : `, loss under the base ${loss.toFixed(3)}`}`,
  );
  for (const [role, messages] of Object.entries(views)) {
    output.say(`\n${line(role)} had read:`);
    for (const { role: as, content } of messages)
      output.say(`  ${as}: ${quoted(content).replaceAll('\n', '\n  ')}`);
  }
  output.say(`\n${line(turn.speaker)}: ${quoted(turn.written ?? turn.text)}`);
  if (turn.worth !== null)
    output.say(
      `value ${turn.worth.value?.toFixed(3) ?? 'none'}, ${turn.worth.visits} dialogues through it, ${turn.merged.length} merged into it`,
    );
  output.say(
    `\n${formatTable([['dialogue', 'what became of it'], ...dialogues.map((one) => [one.id, describe(one)])], 'left')}`,
  );
  if (pairs.length > 0)
    output.say(
      `in ${pairs.filter(({ reason }) => reason === null).length} of ${pairs.length} pairs that it was compared for`,
    );
}

/** What a fork is, in a few words. */
export function describeFork({ begun, turns, ranked, closed }: ForkReading): string {
  const by = { written: 'written by a person', played: 'played by a person', sampled: 'sampled' }[begun.said];
  const where = `${begun.at === 'after' ? 'after' : 'instead of'} ${begun.node}`;
  const reward = ranked.reward === null ? 'no reward' : `reward ${ranked.reward.toFixed(3)}`;
  return `${where}, ${by}: ${messageTokens(turns)} tokens, ${closed.outcome}, ${reward}`;
}

function showFork(fork: ForkReading, output: Output): void {
  const { begun, turns, closed, verdict, ranked } = fork;
  output.emit({ event: 'fork', ...begun, turns, closed, verdict, ranked });
  output.say(`${line(begun.dialogueId)}: fork ${begun.fork} ${line(describeFork(fork))}`);
  output.say(`\n${transcript({ turns, failure: closed.failure })}`);
  if (verdict?.type === 'verdict.given')
    output.say(
      `\nanswer: ${verdict.answer === null ? 'none' : line(verdict.answer)}, score ${verdict.taskScore.toFixed(3)}`,
    );
}
