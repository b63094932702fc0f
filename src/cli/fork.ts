// `optima fork <run>`: lets a dialogue of a run go on otherwise from one of its turns. `optima pairs <run>`: the preference pairs
// of a run, those that forks make included.
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import readline from 'node:readline';
import { type Command, Option } from 'commander';
import { cleaningUp, OptimaError } from '../domain/errors.ts';
import type { RunEventOf } from '../domain/events.ts';
import type { PolicyHash } from '../domain/ids.ts';
import type { GenerativeModel } from '../domain/model.ts';
import { messageTokens, type Trajectory, type Turn, writtenOf } from '../domain/transcript.ts';
import type { LlamaPolicy } from '../models/llama/index.ts';
import type { RunReader } from '../reading/index.ts';
import type { Fork, ForkedRun, ForkRequest, ForkSetting } from '../run/fork.ts';
import type { FrozenModel } from '../run/frozen.ts';
import { locateModel, sourceIn } from '../run/locate.ts';
import { ForkLog, pairKey } from '../store/fork-log.ts';
import { checkpointFolder, readManifest } from '../store/manifest.ts';
import { interruptible } from './interrupt.ts';
import { openEngine, openModel } from './model.ts';
import { type Backend, backendOption, jsonOption, wholeNumber } from './options.ts';
import { counted, formatTable, type JsonFlag, line, type Output, quoted, withOutput } from './output.ts';
import { openReader, withReader } from './reader.ts';
import { reopenBase, reopenFrozen, reopenRun } from './reopen.ts';
import { rewardWords } from './replay.ts';

interface ForkOptions extends JsonFlag {
  readonly insteadOf?: string;
  readonly after?: string;
  readonly say?: string;
  readonly edit?: boolean;
  readonly reroll?: number;
  readonly interactive?: boolean;
  readonly policy?: string;
  readonly keep?: boolean;
  readonly backend?: Backend;
}

export function addFork(program: Command): void {
  program
    .command('fork')
    .argument('<run>', 'folder of a run, also of one under way')
    .description('let a dialogue go on otherwise from one of its turns; it is scored as the run scores')
    .option('--instead-of <turn>', 'say something else in its place: a sibling of that turn')
    .option('--after <turn>', 'say something after it: a child of that turn, or of a task’s root')
    .option('--say <text>', 'what is said')
    .option('--edit', 'write what is said in $EDITOR, from the turn’s text')
    .option('--reroll <n>', 'let the policy speak again, this many times', wholeNumber('--reroll', 1, 1000))
    .option('--interactive', 'play that role yourself, to the end')
    .option(
      '--policy <checkpoint>',
      'who speaks from there on: a checkpoint, a run, or the hash of one of the run’s own',
    )
    .option('--keep', 'keep the pair that it makes with the turn beside it, to train on')
    .addOption(backendOption())
    .addOption(jsonOption())
    .action((folder: string, options: ForkOptions) =>
      withOutput(options, (output) =>
        interruptible(output, (signal) => fork(folder, options, output, signal)),
      ),
    );
}

interface PairsOptions extends JsonFlag {
  readonly includeHuman?: boolean;
  readonly keep?: number;
  readonly backend?: Backend;
}

export function addPairs(program: Command): void {
  program
    .command('pairs')
    .argument('<run>', 'folder of a run')
    .description('list the preference pairs of a run: those that it made, and those of forks that were kept')
    .option('--include-human', 'those too of which a person wrote a turn')
    .addOption(
      new Option('--keep <fork>', 'keep the pair of a fork and the turn beside it, to train on').argParser(
        wholeNumber('--keep', 0),
      ),
    )
    .addOption(backendOption())
    .addOption(jsonOption())
    .action((folder: string, options: PairsOptions) =>
      withOutput(options, (output) =>
        interruptible(output, (signal) => pairs(folder, options, output, signal)),
      ),
    );
}

/** Opens what a fork needs: the run, its scenario, and where `look` does not reject its models; who calls this closes it. */
export async function openForkSetting(
  folder: string,
  options: { readonly backend?: Backend },
  output: Output,
  signal: AbortSignal,
  look: (found: ForkedRun) => Promise<void> = async () => {},
): Promise<{ readonly setting: ForkSetting & { readonly base: LlamaPolicy }; close(): Promise<void> }> {
  const manifest = readManifest(folder);
  const run = await openReader(folder, output, signal);
  const opened: { dispose(): void }[] = [];
  const close = () => cleaningUp(() => run.close(), ...opened.map((one) => () => one.dispose()));
  try {
    const { loaded, recipe } = await reopenRun(folder, manifest, signal);
    await look({ run, manifest, scenario: loaded.scenario, recipe });
    await openEngine(options, output);
    const base = await reopenBase(manifest);
    opened.push(base);
    const { loadPolicy } = await import('../models/llama/index.ts');
    const { partners, judge } = await reopenFrozen(manifest);
    const known = new Map<PolicyHash, GenerativeModel>([[base.hash, base]]);
    const open = async (from: FrozenModel) => {
      if ('generate' in from) return from;
      const { folder, hash, shared } = from;
      const policy = await loadPolicy(folder, {
        ...{ hash, shared, frozen: true },
        ...(from.base?.hash === base.hash && { base }),
      });
      opened.push(policy);
      return policy;
    };
    const modelOf = async (hash: PolicyHash) => {
      const partner = Object.values(partners).find(({ model }) => model.hash === hash);
      const model =
        known.get(hash) ?? (await open(partner?.model ?? sourceIn({ path: folder, manifest }, hash)));
      known.set(hash, model);
      return model;
    };
    const asked = judge === null ? undefined : await open(judge.model);
    return {
      setting: { run, manifest, scenario: loaded.scenario, recipe, base, modelOf, judge: asked, signal },
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

/** The model that `--policy` names. Rejects with `usage` for one that reads other tokens than the base. */
export async function otherPolicy(
  { run, base }: ForkSetting & { readonly base: LlamaPolicy },
  name: string,
): Promise<LlamaPolicy> {
  const own = checkpointFolder(run.folder, name as PolicyHash);
  const folder = /^[\da-f]{16}$/.test(name) && fs.existsSync(own) ? own : await locateModel(name, '--policy');
  const opened = await openModel({ model: folder });
  const policy = opened.trains?.policy;
  if (policy?.tokenizer.hash === base.tokenizer.hash) return policy;
  opened.dispose();
  throw new OptimaError(
    'usage',
    `--policy ${name}: reads other tokens than the run's base, under which it would be scored.`,
  );
}

async function fork(
  folder: string,
  options: ForkOptions,
  output: Output,
  signal: AbortSignal,
): Promise<void> {
  const request = requestOf(options);
  const count = options.reroll ?? 1;
  const { forkTurn, keepFork, requirePlace, thresholdWords, turnAt } = await import('../run/fork.ts');
  const { setting, close } = await openForkSetting(folder, options, output, signal, (found) =>
    requirePlace(found, { ...request, count, keeps: options.keep }),
  );
  let input: readline.Interface | undefined;
  let policy: LlamaPolicy | undefined;
  const work = async () => {
    policy = options.policy === undefined ? undefined : await otherPolicy(setting, options.policy);
    if (options.interactive) {
      input = readline.createInterface({ input: process.stdin, terminal: false });
    }
    const say =
      options.say ??
      (options.edit
        ? edited(turnAt(setting, request))
        : input === undefined
          ? undefined
          : personAt(input, output));
    const forks = await forkTurn(setting, {
      ...request,
      ...(say !== undefined && { say }),
      count,
      ...(policy && { policy }),
      onMessage: (message) => output.emit({ event: 'message', message }),
    });
    sayForks(forks, output);
    for (const one of forks) {
      output.emit({ event: 'fork', ...summaryOf(one) });
      if (options.keep) sayKept(await keepFork(setting, one.fork), thresholdWords(setting.recipe), output);
    }
  };
  await cleaningUp(
    work,
    () => input?.close(),
    () => policy?.dispose(),
    close,
  );
}

/** Where the fork is; throws `usage` unless the options say one place and one thing to be said there. */
function requestOf({
  insteadOf,
  after,
  say,
  edit,
  reroll,
  interactive,
}: ForkOptions): Pick<ForkRequest, 'at' | 'node'> {
  const node = insteadOf ?? after;
  if (node === undefined || (insteadOf !== undefined && after !== undefined)) {
    throw new OptimaError('usage', 'Where? Give --instead-of <turn> or --after <turn>.', {
      hint: '`optima replay <run> --task <id>` shows the turns of a task.',
    });
  }
  const ways = [say, edit, reroll, interactive].filter((way) => way !== undefined);
  if (ways.length !== 1) {
    throw new OptimaError(
      'usage',
      'Who speaks there? Give one of --say, --edit, --reroll and --interactive.',
    );
  }
  return { at: insteadOf === undefined ? 'after' : 'instead-of', node };
}

/** What a person makes of a turn in their editor; throws `usage` where they leave it as it was. */
function edited(turn: Turn | null): string {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'optima-fork-'));
  const file = path.join(folder, 'turn.txt');
  const before = turn === null ? '' : writtenOf(turn);
  const editor = process.env.VISUAL ?? process.env.EDITOR ?? 'vi';
  try {
    fs.writeFileSync(file, `${before}\n`);
    const { status, error } = spawnSync(`${editor} "${file}"`, { shell: true, stdio: 'inherit' });
    if (error !== undefined || status !== 0) {
      throw new OptimaError('usage', `$EDITOR (${editor}) did not end well.`, {
        hint: 'Or give the text: --say "…"',
      });
    }
    const after = fs.readFileSync(file, 'utf8').replace(/\r?\n$/, '');
    if (after !== before) return after;
    throw new OptimaError('usage', 'The text was not changed: nothing was forked.');
  } finally {
    fs.rmSync(folder, { recursive: true });
  }
}

/** A person at the keyboard, who reads what their role reads and answers with a line. */
function personAt(input: readline.Interface, output: Output): NonNullable<ForkRequest['say']> {
  const lines = input[Symbol.asyncIterator]();
  let shown = 0;
  return async (view, role) => {
    for (const { role: who, content } of view.slice(shown)) {
      const name = who === 'assistant' ? `${role} (you)` : who === 'system' ? 'what you are told' : 'heard';
      output.say(`${name}: ${quoted(content)}`);
    }
    shown = view.length + 1;
    output.say(`${role} (you):`);
    const { done, value } = await lines.next();
    if (done) throw new OptimaError('model.failed', 'The input ended before the dialogue did.');
    return value;
  };
}

function sayForks(forks: readonly Fork[], output: Output): void {
  const [first] = forks;
  const { begun, beside } = first!;
  if (beside !== null) {
    output.say(
      `\n── beside ${beside.dialogue.id}\n${transcriptFrom(beside.dialogue, beside.turn)}\n${rewardWords(beside.ranked)}`,
    );
  }
  for (const { fork, dialogue, turn, ranked } of forks) {
    output.say(
      `\n── fork ${fork}, ${dialogue.id}, ${begun.at} ${begun.node}\n${transcriptFrom(dialogue, turn)}\n${rewardWords(ranked)}`,
    );
  }
  const [own, other] = [first!.value, beside?.value ?? null];
  const gap = forks.length > 1 || own === null || other === null ? null : own - other;
  if (gap === null) return;
  const more = `${Math.abs(gap).toFixed(3)} ${gap >= 0 ? 'more' : 'less'}`;
  output.say(`\nworth ${own!.toFixed(3)} to who said it, ${more} than the turn beside it`);
}

/** A dialogue from one of its turns on; what came before is the same for all. */
function transcriptFrom({ turns, outcome, failure, verdict }: Trajectory, first: Turn | null): string {
  const at = first === null ? turns.length : turns.findIndex(({ id }) => id === first.id);
  const lines = turns
    .slice(at)
    .flatMap((turn) => [
      `${turn.speaker} (${turn.tokenIds.length} tokens, ${turn.provenance === 'sampled' ? turn.policyHash : turn.provenance}): ${quoted(writtenOf(turn))}`,
      ...(turn.observed ?? []).map(({ text }) => `environment: ${quoted(text)}`),
    ]);
  const before = at === 0 ? [] : [`… ${counted(at, 'turn')} before`];
  const end =
    failure === null ? `${outcome}, answer: ${line(verdict?.answer ?? 'none')}` : `failed: ${line(failure)}`;
  return [...before, ...lines, `${end} (${messageTokens(turns)} tokens)`].join('\n');
}

function summaryOf({ fork, begun, dialogue, turn, value, ranked, beside }: Fork) {
  return {
    fork,
    dialogue: dialogue.id,
    at: begun.at,
    node: begun.node,
    turn,
    outcome: dialogue.outcome,
    failure: dialogue.failure,
    verdict: dialogue.verdict,
    policy: begun.policy,
    own: begun.own,
    value,
    reward: ranked.reward,
    terms: ranked.terms,
    beside: beside && {
      dialogue: beside.dialogue.id,
      turn: beside.turn.id,
      value: beside.value,
      reward: beside.ranked.reward,
    },
  };
}

function sayKept(kept: RunEventOf<'pair.kept'>, threshold: string, output: Output): void {
  const { type, view, ...pair } = kept;
  const gap = kept.gap.toFixed(kept.gap < 0.001 ? 6 : 3);
  output.say(
    `kept: ${kept.speaker}'s ${kept.chosen.id} over ${kept.rejected.id}, value ${kept.value.toFixed(3)}, gap ${gap}${threshold}`,
  );
  output.emit({ event: 'kept', ...pair });
}

async function pairs(
  folder: string,
  options: PairsOptions,
  output: Output,
  signal: AbortSignal,
): Promise<void> {
  if (options.keep !== undefined) {
    const { setting, close } = await openForkSetting(folder, options, output, signal);
    const number = options.keep;
    await cleaningUp(async () => {
      const { keepFork, thresholdWords } = await import('../run/fork.ts');
      sayKept(await keepFork(setting, number), thresholdWords(setting.recipe), output);
    }, close);
    return;
  }
  await withReader(
    folder,
    output,
    (run) => {
      const all = listPairs(run);
      const listed = all.filter(({ human }) => options.includeHuman || !human);
      for (const pair of listed) output.emit({ event: 'pair', ...pair });
      output.emit({ event: 'summary', pairs: listed.length });
      const rows = listed.map(({ source, chosen, rejected, value, gap, taken }) => [
        source,
        chosen,
        rejected,
        value.toFixed(3),
        gap.toFixed(3),
        taken ?? 'not yet',
      ]);
      if (rows.length === 0)
        output.say(
          `${folder}: no pairs${all.length === 0 ? '' : ' without a person’s turn (--include-human)'}.`,
        );
      else
        output.say(
          formatTable([['from', 'chosen', 'rejected', 'value', 'gap', 'trained on in'], ...rows], 'left'),
        );
    },
    signal,
  );
}

/** All pairs of a run, in the order in which they were made, those of forks last. */
function listPairs(run: RunReader) {
  const taken = new Map<string, string>();
  const trained = new Map<string, string>();
  const made = [];
  const open: string[] = [];
  for (const { name, kind, from, to } of run.phases()) {
    if (kind === 'pair') {
      open.push(name);
      for (const event of run.events(from, to ?? undefined)) {
        if (event.type !== 'pairs.made') continue;
        for (const pair of event.pairs) made.push({ source: name, fork: null, human: false, ...pair });
      }
    } else if (kind === 'train') {
      // Forks are taken before the first step.
      for (const event of run.events(from + 1, Math.min(from + 3, to ?? Number.POSITIVE_INFINITY))) {
        if (event.type === 'forks.taken') {
          for (const { chosen, rejected, from } of event.pairs)
            taken.set(pairKey(chosen, rejected, from), name);
        } else if (event.type === 'step.trained')
          for (const phase of open.splice(0)) trained.set(phase, name);
      }
    }
  }
  const kept = ForkLog.read(run.folder).kept.map(({ fork, parent, chosen, rejected, value, gap, from }) => ({
    source: from === undefined ? `fork ${fork}` : `fork ${fork} of ${from}`,
    fork,
    human: chosen.provenance === 'human' || rejected.provenance === 'human',
    ...{ parent, chosen: chosen.id, rejected: rejected.id, value, gap },
    key: pairKey(chosen.id, rejected.id, from),
  }));
  return [
    ...made.map((pair) => ({ ...pair, taken: trained.get(pair.source) ?? null })),
    ...kept.map(({ key, ...pair }) => ({ ...pair, taken: taken.get(key) ?? null })),
  ];
}
