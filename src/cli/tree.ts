// `optima tree <run> --task T`: all that was said of a task in a phase, as a tree: values, visits, merged siblings, pairs.
import type { Command } from 'commander';
import type {
  ComparedTurns,
  Comparison,
  ForkReading,
  NoPair,
  RunReader,
  TreeReading,
  TurnReading,
} from '../reading/index.ts';
import { jsonOption } from './options.ts';
import { counted, type JsonFlag, line, type Output, withOutput } from './output.ts';
import { notInRun, shortened, widthOf, withReader } from './reader.ts';
import { describe, describeFork } from './show.ts';

interface TreeOptions extends JsonFlag {
  readonly task: string;
  readonly phase?: string;
  readonly all?: boolean;
}

export function addTree(program: Command): void {
  program
    .command('tree')
    .argument('<run>', 'folder of a run, also of one under way')
    .description(
      'show the tree of a task: what was said, what it was worth, which pairs were kept and why others were not',
    )
    .requiredOption(
      '--task <id>',
      'a task, such as train-00012, or its tree, such as idpo-1/search/train-00012',
    )
    .option(
      '--phase <name>',
      'in this phase (default: the last search that has the task, else the last phase)',
    )
    .option('--all', 'every pair of siblings that was compared, also those that are no pair')
    .addOption(jsonOption())
    .action((folder: string, options: TreeOptions) =>
      withOutput(options, (output) =>
        withReader(folder, output, (reader) => {
          const root = rootOf(reader, options);
          show(reader.tree(root)!, reader.forks(root), options, output);
        }),
      ),
    );
}

/** The tree that is meant. */
function rootOf(reader: RunReader, { task, phase }: TreeOptions): string {
  if (reader.tree(task) !== null) return task;
  const trees = [...reader.trees({ taskId: task })];
  if (trees.length === 0) throw notInRun(reader, task.includes('/') ? 'tree' : 'task', task);
  const found =
    phase === undefined
      ? (trees.findLast(({ root }) => reader.tree(root)!.worth !== null) ?? trees.at(-1))
      : trees.find((tree) => tree.phase === phase);
  if (found !== undefined) return found.root;
  throw notInRun(reader, 'tree', `${phase}/${task}`);
}

/** Why two siblings are no pair, in words; none: they are one. */
const reasons: Readonly<Record<Exclude<NoPair, null>, string>> = {
  sameText: 'they say the same',
  notEligible:
    'the better one may not be chosen: its role is not trained, or an open case is on the way to it',
  belowFilter: 'the better one is not worth enough (pairs.thetaFilter)',
  gapTooSmall: 'they are worth too much alike (pairs.thetaDiff)',
  worse: 'there were better pairs (pairs.keepShare)',
  undecided: 'pairs have not been chosen yet',
  unknown: 'the log alone does not tell',
};

function show(
  tree: TreeReading,
  forks: readonly ForkReading[],
  { all = false }: TreeOptions,
  output: Output,
): void {
  const { root, taskId, phase, turns, worth, dialogues, children, pairs, expansions } = tree;
  for (const turn of turns) output.emit({ event: 'turn', ...turn });
  for (const dialogue of dialogues) output.emit({ event: 'dialogue', ...dialogue });
  for (const pair of pairs?.compared ?? []) output.emit({ event: 'pair', ...pair });
  for (const { begun, ranked, turns: path } of forks)
    output.emit({ event: 'fork', ...begun, reward: ranked.reward, turns: path.length });
  const { dropped = null, untold = [] } = pairs ?? {};
  const counts = { turns: turns.length, dialogues: dialogues.length, pairs: pairs?.kept?.length ?? null };
  output.emit({ event: 'summary', tree: root, taskId, phase, worth, expansions, ...counts, dropped, untold });

  const merged = turns.reduce((sum, turn) => sum + turn.merged.length, 0);
  const valued =
    worth === null
      ? ''
      : `, worth ${worth.value?.toFixed(3) ?? 'nothing known'}, ${merged} turns merged, e${expansions.join(',')}`;
  output.say(
    `${line(root)}: ${counted(dialogues.length, 'dialogue')}, ${counted(turns.length, 'turn')}${valued}`,
  );
  if (worth !== null)
    output.say(
      'v value, n dialogues through it, +m turns merged into it, e expansions that began there, ✓ better and ✗ worse turn of a pair',
    );
  const byId = new Map(turns.map((turn) => [turn.id as string, turn]));
  const chosen = new Set(pairs?.kept?.map((pair) => pair.chosen as string));
  const rejected = new Set(pairs?.kept?.map((pair) => pair.rejected as string));
  const endsAt = new Map<string, string[]>();
  for (const dialogue of dialogues) {
    const end = turns.findLast(
      (turn) =>
        turn.dialogues.includes(dialogue.id) &&
        !turn.children.some((child) => byId.get(child)!.dialogues.includes(dialogue.id)),
    );
    if (end !== undefined) endsAt.set(end.id, [...(endsAt.get(end.id) ?? []), describe(dialogue)]);
  }
  const width = widthOf();
  const draw = (id: string, indent: string, isLast: boolean): void => {
    const turn = byId.get(id)!;
    const marks = `${chosen.has(id) ? ' ✓' : ''}${rejected.has(id) ? ' ✗' : ''}`;
    const head = `${indent}${isLast ? '└─' : '├─'} ${nameIn(turn)} ${line(turn.speaker)}${figuresOf(turn)}${marks} `;
    output.say(head + shortened(line(turn.text) || '(empty)', Math.max(24, width - head.length)));
    const below = `${indent}${isLast ? '   ' : '│  '}`;
    const ends = endsAt.get(id) ?? [];
    const shown = all ? ends : ends.slice(0, 1);
    for (const end of shown)
      output.say(
        `${below}⇒ ${shortened(end, Math.max(24, width - below.length - 8))}${shown.length < ends.length ? ` (+${ends.length - 1})` : ''}`,
      );
    for (const [place, child] of turn.children.entries())
      draw(child, below, place === turn.children.length - 1);
  };
  for (const [place, child] of children.entries()) draw(child, '', place === children.length - 1);
  if (pairs !== null) showPairs(pairs, root, all, output);
  for (const fork of forks) {
    const { fork: number, dialogueId } = fork.begun;
    output.say(`fork ${number}, ${line(dialogueId)}, ${line(describeFork(fork))}`);
  }
}

/** A turn's place below its parent. */
const nameIn = ({ id, parent }: TurnReading) => id.slice(id.startsWith(parent) ? parent.length : 0);

function figuresOf({ worth, merged, expansions, dialogues }: TurnReading): string {
  if (worth === null) return dialogues.length > 1 ? ` n ${dialogues.length}` : '';
  const value = worth.value === null ? 'none' : worth.value.toFixed(2);
  const also = `${merged.length > 0 ? ` +${merged.length}` : ''}${expansions.length > 0 ? ` e${expansions.join(',')}` : ''}`;
  return ` v ${value} n ${worth.visits}${also}`;
}

function showPairs({ kept, compared, untold }: Comparison, root: string, all: boolean, output: Output): void {
  const within = (id: string) => line(id.startsWith(root) ? id.slice(root.length) : id);
  const row = ({ better, worse, speaker, value, gap }: ComparedTurns) =>
    `${within(better)} over ${within(worse)} (${line(speaker)}): worth ${value?.toFixed(3) ?? '?'}, ${gap?.toFixed(3) ?? '?'} more`;
  output.say(
    kept === null
      ? '\nno pairs have been chosen of it yet'
      : `\n${counted(kept.length, 'pair')} kept of ${compared.length} compared`,
  );
  for (const pair of compared) if (pair.reason === null) output.say(`  ${row(pair)}`);
  for (const [reason, words] of Object.entries(reasons)) {
    const own = compared.filter((pair) => pair.reason === reason);
    if (own.length === 0) continue;
    output.say(`${own.length} not: ${words}`);
    if (all) for (const pair of own) output.say(`  ${row(pair)}`);
  }
  for (const what of untold) output.say(`not told by the log: ${line(what)}`);
  if (!all && compared.some(({ reason }) => reason !== null)) output.say('--all lists them');
}
