// The scenarios of docs/scenario-authoring.md whose verdicts say more: seats, a judge model, a frozen partner. Checked, played
// through real actors, trained in tiny runs, killed and resumed.
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { loadPolicy } from '../../src/models/llama/index.ts';
import {
  cutRun,
  optimaHere,
  smallHybridRun,
  smallRun,
  temporaryFolder,
  writeRandomCheckpoint,
} from '../support/run.ts';

const folder = temporaryFolder('verdicts');
test.after(() => fs.rmSync(folder, { recursive: true }));
const inFolder = (name: string) => path.join(folder, name);
const guide = fs.readFileSync(new URL('../../docs/scenario-authoring.md', import.meta.url), 'utf8');

/** Writes the example of that name to a file of its own. */
function writeExample(name: string): string {
  const blocks = [...guide.matchAll(/```ts\n([\s\S]*?)```/g)].map(([, code]) => code!);
  const code = blocks.find((block) => block.includes(`name: '${name}'`))!;
  assert.ok(code.trimEnd().split('\n').length <= 60, name);
  // A random model says as little in long messages, and takes long about it.
  fs.writeFileSync(inFolder(`${name}.mts`), code.replace(`name: '${name}',`, '$& maxMessageTokens: 12,'));
  return inFolder(`${name}.mts`);
}

/** Writes a model of one function; each of its replies is a line in a file beside it. */
function writeScript(name: string, reply: string): { readonly file: string; replies(): number } {
  const file = inFolder(`${name}.mjs`);
  const counted = inFolder(`${name}.count`);
  fs.writeFileSync(
    file,
    `import fs from 'node:fs';
const reply = ${reply};
export default (request) => {
  fs.appendFileSync(${JSON.stringify(counted)}, '.');
  return reply(request);
};
`,
  );
  return { file, replies: () => (fs.existsSync(counted) ? fs.readFileSync(counted, 'utf8').length : 0) };
}

// biome-ignore lint/suspicious/noExplicitAny: lines of a log, or of --json.
type Line = any;
const linesOf = (text: string): Line[] =>
  text
    .trim()
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line));
const logOf = (run: string) => path.join(run, 'events.jsonl');
const eventsOf = (run: string): Line[] => linesOf(fs.readFileSync(logOf(run), 'utf8'));
const withoutTimes = (run: string) =>
  fs.readFileSync(logOf(run), 'utf8').replaceAll(/"at":"[^"]*"/g, '"at":""');

const model = inFolder('model');
const haggle = writeExample('haggle');
const debate = writeExample('judged-debate');
// Who is convinced depends on what was said: on the length of the question alone, as a random model says little else.
const judge = writeScript('judge', "({ messages }) => (messages[0].content.length % 2 ? 'pro' : 'con')");
const seller = writeScript('seller', "() => '<A>52</A>'");
// Says other things in each branch, so that its turns could be pairs.
const talker = writeScript('talker', "({ seed }) => 'I say ' + seed");
const buyer = writeScript('buyer', '({ messages }) => messages.at(-1).content.slice(-9)');

test.before(async () => {
  await writeRandomCheckpoint(model);
});

test('check finds nothing wrong with them, and says what it could not look at', async () => {
  const check = (...args: string[]) => optimaHere(['check', ...args, '--model', model]);
  const plain = await check(haggle);
  assert.is(plain.code, 0, plain.stdout + plain.stderr);
  // A random model was shown nothing like it.
  assert.equal(plain.stdout.match(/^warning: \w+/gm), ['warning: model']);
  assert.match(plain.stdout, 'haggle: no errors, 1 warning.');
  const unjudged = await check(debate);
  assert.is(unjudged.code, 0, unjudged.stdout + unjudged.stderr);
  assert.match(unjudged.stdout, /warning: metric: asks a judge model: .*--judge <folder>/);
  const before = judge.replies();
  const judged = await check(debate, '--judge', judge.file);
  assert.match(judged.stdout, /^judged-debate: no errors/m);
  assert.ok(judge.replies() - before >= 10);
});

test('a run without the judge that its scenario asks for, or with one too much, ends in one line', async () => {
  const judgeless = ['usage', 'Scenario "judged-debate" asks a judge model, and none is given.'];
  const cases = [
    [['train', debate, '--model', model], judgeless],
    [['eval', debate, '--model', model], judgeless],
    [
      ['eval', haggle, '--judge', judge.file],
      ['usage', `--judge ${judge.file}: "haggle" asks no judge model.`],
    ],
    [
      ['eval', haggle, '--policy', 'byer=x'],
      ['usage', '--policy byer=x: "haggle" has the roles seller, buyer.'],
    ],
    [
      ['eval', haggle, '--policy', 'buyer'],
      ['usage', '--policy buyer: must be <role>=<model>.'],
    ],
    [
      ['eval', haggle, '--policy', 'buyer=x', '--policy', 'buyer=y'],
      ['usage', '--policy buyer=y: buyer has one already.'],
    ],
    [
      [
        'train',
        haggle,
        '--model',
        model,
        '--policy',
        `buyer=${buyer.file}`,
        '--policy',
        `seller=${seller.file}`,
      ],
      ['usage', 'Scenario "haggle": no role is left to be trained.'],
    ],
  ] as const;
  for (const [args, [code, message]] of cases) {
    const ended = await optimaHere([...args, '--workers', '0', '--json'], { folder });
    const error = linesOf(ended.stdout).at(-1);
    assert.equal([ended.code === 0, error.code, error.message], [false, code, message]);
  }
});

test('each seat has its score in the verdict and in the figures', async () => {
  const both = ['--policy', `seller=${seller.file}`, '--policy', `buyer=${buyer.file}`];
  const args = ['eval', haggle, '--model', model, ...both, '--tasks', '12', '--workers', '0'];
  const { stdout, code, stderr } = await optimaHere([...args, '--json']);
  assert.is(code, 0, stderr);
  const summary = linesOf(stdout).at(-1);
  // 52 lies between cost and worth in some of the tasks: what is left of the one is the other's.
  const { f1: deals, seats, partners } = summary;
  assert.ok(deals > 0 && deals < 1, stdout);
  assert.ok(Math.abs(seats.seller + seats.buyer - deals) < 1e-12);
  assert.ok(seats.seller > 0 && seats.buyer > 0);
  assert.match(partners.seller, /^script-[0-9a-f]{16}$/);
  const shown = await optimaHere(args);
  assert.match(shown.stdout, new RegExp(`score of seller +${seats.seller.toFixed(3)}\\n`));
  assert.match(shown.stdout, /agreed, score 1\.00 \(seller 0\.\d\d, buyer 0\.\d\d\)/);
});

test('chat shows whose answer is the team’s, with partners and a judge', async () => {
  const file = inFolder('solve.mts');
  const text = fs.readFileSync(haggle, 'utf8');
  fs.writeFileSync(
    file,
    text
      .replace('agreement, ', 'unchangedAnswer, ')
      .replace('agreement()', "unchangedAnswer('seller')")
      .replace('maxTurns: 6', 'maxTurns: 2'),
  );
  const args = ['chat', file, '--role', 'buyer', '--model', model, '--policy', `seller=${seller.file}`];
  const { stdout, code, stderr } = await optimaHere(args, { folder, input: 'No, <A>7</A>!\n' });
  assert.is(code, 0, stdout + stderr);
  assert.match(stdout, /seller: <A>52<\/A>\n[\s\S]*answer: 52\nscore: \d\.\d\d \(seller /);
  const own = await optimaHere([...args, '--policy', `buyer=${buyer.file}`], { folder });
  assert.match(own.stderr, 'you speak for buyer yourself');
  const judged = ['chat', debate, '--role', 'con', '--model', model, '--judge', judge.file];
  const argued = await optimaHere(judged, { folder, input: 'No.\nNo, no.\n' });
  assert.match(
    argued.stdout,
    /agreed after 4 turns\.\nanswer: none\nscore: 0\.50 \((pro 1\.00, con 0|pro 0\.00, con 1)/,
  );
});

test('a debate judged by a model is trained by seat; killed between verdicts, it asks only what is not in the log', async () => {
  const [whole, cut] = [inFolder('whole'), inFolder('cut')];
  const train = ['train', debate, '--model', model, '--anyway', '--judge', judge.file, ...smallHybridRun];
  const ended = await optimaHere([...train, '--workers', '0', '--json', '--out', whole]);
  assert.is(ended.code, 0, ended.stdout + ended.stderr);
  const events = eventsOf(whole);
  const asked = events.filter(({ type }) => type === 'judge.asked');
  assert.is(asked.length, events.filter(({ type }) => type === 'dialogue.closed').length);
  for (const [index, { type, dialogueId }] of events.entries()) {
    if (type !== 'judge.asked') continue;
    const { type: next, dialogueId: of, seats } = events[index + 1];
    assert.equal([next, of, seats.pro + seats.con], ['verdict.given', dialogueId, 1]);
  }
  const { judge: hash } = events[0];
  assert.match(hash, /^script-/);
  assert.ok(asked.every(({ policyHash }) => policyHash === hash));

  // Who is best for the one is not for the other, and each is trained on its own.
  const kept = events.find(({ type, phase }) => type === 'selection.made' && phase === 'init-0/select').kept;
  const ofRole = (role: string) =>
    kept.filter((one: Line) => one.role === role).map((one: Line) => one.dialogueId);
  assert.ok(ofRole('pro').length > 0 && ofRole('con').length > 0);
  assert.is(ofRole('pro').length + ofRole('con').length, kept.length);
  const rewards = new Map(
    events.flatMap((event) => (event.type === 'trajectory.ranked' ? [[event.dialogueId, event]] : [])),
  );
  for (const { dialogueId, role, reward, taskId } of kept) {
    const rivals = [...rewards.values()].filter(
      (one) => one.taskId === taskId && one.dialogueId.startsWith('init-0'),
    );
    assert.is(reward, rewards.get(dialogueId).seats[role]);
    assert.is(reward, Math.max(...rivals.map(({ seats }) => seats[role])));
  }
  const summary = linesOf(ended.stdout).at(-1);
  assert.ok(Math.abs(summary.trained.seats.pro + summary.trained.seats.con - 1) < 1e-9);
  assert.is(summary.judge, hash);

  // The first questions of the phase are in the log when the process is killed, the others are not.
  for (const phase of ['init-0/generate', 'idpo-2/search']) {
    const from = events.findIndex((event) => event.type === 'phase.started' && event.phase === phase);
    const first = events.findIndex(({ type }, index) => index > from && type === 'judge.asked');
    cutRun(whole, cut, { phase, lines: first - from + 1 });
    const known = eventsOf(cut).length;
    assert.is(eventsOf(cut).at(-1).type, 'judge.asked');
    const before = judge.replies();
    const rest = await optimaHere(['train', '--resume', cut, '--json', '--workers', '0']);
    assert.is(rest.code, 0, rest.stdout + rest.stderr);
    assert.is(withoutTimes(cut), withoutTimes(whole), phase);
    const left = events.slice(known).filter(({ type }) => type === 'judge.asked').length;
    assert.is(judge.replies() - before, left, phase);
    fs.rmSync(cut, { recursive: true });
  }
});

test('a partner that is not trained plays as it was given, is not scored, and is the same when the run goes on', async () => {
  const [run, cut] = [inFolder('partnered'), inFolder('partnered-cut')];
  const partner = inFolder('partner');
  fs.cpSync(model, partner, { recursive: true });
  for (const play of [seller.file, partner]) {
    const train = ['train', haggle, '--model', model, '--anyway', '--policy', `seller=${play}`, ...smallRun];
    const ended = await optimaHere([...train, '--policies', 'per-role', '--workers', '0', '--out', run]);
    assert.is(ended.code, 0, ended.stdout + ended.stderr);
    assert.match(ended.stdout, `seller is not trained: it plays with ${play}\n`);
    const events = eventsOf(run);
    const { partners, base } = events[0];
    const turns = events.flatMap(({ type, turn }) => (type === 'turn.taken' ? [turn] : []));
    const saidBy = (role: string) =>
      new Set(turns.filter(({ speaker }) => speaker === role).map(({ policyHash }) => policyHash));
    assert.equal([...saidBy('seller')], [partners.seller]);
    assert.ok(saidBy('buyer').size > 1);
    for (const { turnLosses } of events.filter(({ type }) => type === 'trajectory.ranked')) {
      for (const [index, loss] of turnLosses.entries()) assert.is(loss > 0, index % 2 === 1);
    }
    const { kept } = events.find(({ type }) => type === 'selection.made');
    assert.ok(kept.every(({ role }: Line) => role === 'buyer'));
    const steps = events.filter(({ type }) => type === 'step.trained');
    assert.ok(steps.length > 0 && steps.every(({ role }) => role === 'buyer'));
    const { policy } = events.at(-1);
    assert.equal(policy.seller, partners.seller);
    assert.not([base, partners.seller].includes(policy.buyer));
    // One role alone cannot exchange its weights.
    assert.not.ok(events.some(({ phase }) => phase === 'swapped'));
    const manifest = JSON.parse(fs.readFileSync(path.join(run, 'manifest.json'), 'utf8'));
    assert.equal(manifest.partners, { seller: { folder: play, hash: partners.seller } });

    cutRun(run, cut, { phase: 'isft-1/generate', lines: 10 });
    const resumed = await optimaHere(['train', '--resume', cut, '--json', '--workers', '0']);
    assert.is(resumed.code, 0, resumed.stdout + resumed.stderr);
    assert.is(withoutTimes(cut), withoutTimes(run));
    if (play === partner) continue;
    fs.appendFileSync(seller.file, '// another one\n');
    const other = await optimaHere(['train', '--resume', cut, '--json', '--workers', '0']);
    const error = linesOf(other.stdout).at(-1);
    assert.equal([error.code, error.message], ['run.diverged', `${play} was changed since the run began.`]);
    fs.rmSync(run, { recursive: true });
    fs.rmSync(cut, { recursive: true });
  }
});

test('without seats, too, a frozen partner is neither fine-tuned on, nor in pairs, nor compared with the base', async () => {
  const [file, run] = [inFolder('deal.mts'), inFolder('shared')];
  const metric = /metric: [\s\S]*?\n {2}},\n/;
  const text = fs
    .readFileSync(haggle, 'utf8')
    .replace(metric, "metric: ({ outcome }) => Number(outcome === 'agreed'),\n");
  fs.writeFileSync(file, text);
  const train = [
    'train',
    file,
    '--model',
    model,
    '--anyway',
    '--policy',
    `seller=${talker.file}`,
    ...smallHybridRun,
  ];
  const ended = await optimaHere([...train, '--workers', '0', '--out', run]);
  assert.is(ended.code, 0, ended.stdout + ended.stderr);
  const events = eventsOf(run);
  assert.ok(events.every(({ seats }) => seats === undefined));
  const outputs = events.flatMap(({ type, output }) => (type === 'phase.completed' ? [output] : []));
  // The first sequences are as many as the dialogues that were kept, one of the buyer each: as a batch has two, and two epochs.
  const [select, train0] = [
    outputs.find(({ kind }) => kind === 'select'),
    outputs.find(({ kind }) => kind === 'train'),
  ];
  assert.is(train0.steps, 2 * Math.ceil(select.kept / 2));
  const speakerOf = new Map(
    events.flatMap(({ type, turn }) => (type === 'turn.taken' ? [[turn.id, turn.speaker]] : [])),
  );
  const pairs = events.flatMap(({ type, pairs }) => (type === 'pairs.made' ? pairs : []));
  assert.ok(pairs.length > 0);
  assert.ok(pairs.every(({ chosen }) => speakerOf.get(chosen) === 'buyer'));
  // Under the script every token of the seller is worth -1 nat; the buyer's own are the base's but for little training.
  const { klToBase } = outputs.find(({ kind }) => kind === 'search');
  assert.ok(Math.abs(klToBase) < 0.05, String(klToBase));
  const { policy } = events.at(-1);
  const trained = await loadPolicy(path.join(run, 'checkpoints', policy.buyer));
  assert.is(trained.hash, policy.buyer);
  trained.dispose();
  assert.match(policy.seller, /^script-/);
});

test.run();
