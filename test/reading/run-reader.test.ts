// Reading a run through its index: what is read is what the log says, whatever became of the index, and whoever writes meanwhile.
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { systemClock } from '../../src/domain/clock.ts';
import type { OptimaError } from '../../src/domain/errors.ts';
import type { NodeId, PolicyHash, TaskId } from '../../src/domain/ids.ts';
import { messageTokens } from '../../src/domain/transcript.ts';
import { RunReader, type TreeSummary } from '../../src/reading/index.ts';
import { indexParts, readIndex } from '../../src/reading/index-file.ts';
import { indexPath } from '../../src/reading/indexed-log.ts';
import type { IndexData } from '../../src/reading/run-index.ts';
import { EventLog } from '../../src/store/event-log.ts';
import { RunFolder } from '../../src/store/run-folder.ts';
import {
  changeManifest,
  eventsIn,
  optimaHere,
  smallHybridRun,
  temporaryFolder,
  writeRandomCheckpoint,
} from '../support/run.ts';

const folder = temporaryFolder('reading');
test.after(() => fs.rmSync(folder, { recursive: true }));
const source = path.join(folder, 'run');
const at = (run: string, name = 'events.jsonl') => path.join(run, name);
const linesOf = (run: string) => fs.readFileSync(at(run), 'utf8').split('\n');

test.before(async () => {
  const model = path.join(folder, 'model');
  await writeRandomCheckpoint(model);
  const settings = [
    'search.expansions=4',
    'search.mergeBelow=0.7',
    'maxMessageTokens=4',
    'pairs.keepShare=0.5',
  ];
  const sets = [...settings, 'pairs.values=per-role'].flatMap((one) => ['--set', one]);
  const args = ['train', 'two-hop-qa', '--model', model, ...smallHybridRun, ...sets, '--workers', '0'];
  const { code, stdout } = await optimaHere([...args, '--json', '--out', source]);
  assert.is(code, 0, stdout);
});

let copies = 0;
/** A copy of the run, of whose log there are so many lines, the last of them whole. */
function copyOf(lines?: number): string {
  const run = path.join(folder, `copy-${copies++}`);
  fs.cpSync(source, run, { recursive: true });
  if (lines === undefined) return run;
  fs.writeFileSync(at(run), `${linesOf(source).slice(0, lines).join('\n')}\n`);
  changeManifest(run, ({ log }) => ({ log: { ...log, events: 1, sum: JSON.parse(linesOf(run)[0]!).sum } }));
  return run;
}

/** All that a reader has to say. */
function allOf(reader: RunReader) {
  const trees = [...reader.trees()];
  return JSON.stringify([
    ...[reader.phases(), [...reader.dialogues()], trees, reader.policy, reader.size.events],
    trees.filter((_, place) => place % 5 === 0).map(({ root }) => reader.tree(root)),
  ]);
}
const readAll = (run: string) => {
  const reader = RunReader.open(run);
  try {
    return allOf(reader);
  } finally {
    reader.close();
  }
};

test('dialogues, trees and turns are those of the log', () => {
  const run = RunFolder.read(source);
  const reader = RunReader.open(source);
  let [dialogues, merged] = [0, 0];
  for (const { name, from, to, output, kind } of reader.phases()) {
    assert.equal(run.phases.get(name), { from, to, output }, name);
    assert.is(kind, output!.kind);
    assert.equal(reader.outputOf({ name, kind: output!.kind }), output);
    const other = { name, kind: kind === 'train' ? 'rank' : 'train' } as const;
    assert.throws(() => reader.outputOf(other), `phase ${name} is of kind ${kind}, not ${other.kind}`);
    if (kind !== 'generate' && kind !== 'search' && kind !== 'evaluate') continue;
    for (const expected of run.dialoguesOf(name)) {
      dialogues++;
      const { summary, ranked, questions, ...own } = reader.dialogue(expected.id)!;
      assert.equal(own, expected);
      assert.is(summary.tokens, messageTokens(expected.turns));
      assert.is(summary.turns, expected.turns.length);
      assert.is(summary.taskScore, expected.verdict?.taskScore ?? null);
      assert.is(summary.outcome, expected.outcome);
      assert.is(summary.reward, ranked?.reward ?? null);
      assert.equal(questions, []);
    }
    const held = [...run.eventsOf(name)].filter(({ type }) => !type.startsWith('phase.'));
    const cohorts = reader.cohorts(name);
    assert.equal(
      cohorts.map(({ cohort }) => cohort),
      [...cohorts.keys()],
    );
    assert.equal(
      cohorts.flatMap(({ from, to }) => [...reader.lines(from, to!)].map(({ body }) => JSON.parse(body))),
      held,
    );
    for (const { conversation, events, dealOf } of run.treesOf(name)) {
      const told = reader.conversation(conversation.root)!;
      assert.equal([told.conversation, told.events, told.deal], [conversation, events, dealOf()]);
      assert.equal(
        told.dialogues,
        told.dialogues.map(({ id }) => reader.dialogue(id)),
      );
      const { root } = conversation;
      const own = cohorts.filter(({ from, to }) =>
        [...run.log.events(from, to!)].some(
          (event) => event.type === 'dialogue.opened' && event.tree === root,
        ),
      );
      assert.equal(
        reader.cohorts(name, (tree) => tree.root === root),
        own,
      );
      const tree = reader.tree(conversation.root)!;
      assert.equal(Object.fromEntries(tree.turns.map(({ id, parent, text }) => [id, [parent, text]])), {
        ...Object.fromEntries(
          Object.values(conversation.turns).map(({ id, parent, text }) => [id, [parent, text]]),
        ),
      });
      const count = tree.turns.reduce((sum, turn) => sum + turn.merged.length, 0);
      assert.is(count, events.filter(({ type }) => type === 'turn.merged').length);
      merged += count;
    }
  }
  assert.is(dialogues, [...reader.dialogues()].length);
  assert.ok(dialogues > 40 && merged > 0);
  assert.equal(reader.policy, run.policy);
  const dealt = eventsIn(source).filter(({ type }) => type.endsWith('.dealt'));
  assert.ok(dealt.length > 3);
  for (const event of dealt) assert.equal(reader.dealtBefore(event), event);
  const other = { type: 'task.dealt' as const, taskId: 'train-99999' as TaskId, views: {} };
  assert.is(reader.dealtBefore(other), undefined);
  assert.is(reader.dealtBefore(eventsIn(source)[0]!), undefined);
  assert.is(reader.outputOf({ name: 'idpo-9/search', kind: 'search' }), null);
  assert.equal(reader.cohorts('idpo-9/search'), []);
  reader.check();
  assert.equal([...reader.events(300, 310)], [...run.log.events(300, 310)]);
  assert.is(reader.dialogue('base/test-99999.0'), null);
  assert.is(reader.tree('../../etc/passwd'), null);
  assert.is(reader.node('base/test-00000.0.0.0.0.7'), null);
  const selected = [...reader.dialogues({ phase: 'isft-1/generate' })].filter(({ kept }) => kept);
  assert.is(selected.length, run.outputOf({ name: 'isft-1/select', kind: 'select' })!.kept);
  reader.close();
  run.close();
});

/** What is found, by a search through every event. */
function saidBefore(text: string, phase?: string) {
  let now = '';
  const found: [node: string, speaker: string | null, text: string][] = [];
  const has = (said: string) => said.toLowerCase().includes(text.toLowerCase());
  for (const event of eventsIn(source)) {
    if (event.type === 'phase.started') now = event.phase;
    if (phase !== undefined && now !== phase) continue;
    if (event.type === 'turn.taken') {
      const { id, speaker, text, written = text } = event.turn;
      if (has(written)) found.push([id, speaker, written]);
    } else if (event.type === 'turn.merged' && has(event.text))
      found.push([event.into, event.speaker, event.text]);
  }
  return found;
}

test('what was said is searched as every event would be, in a phase or the whole run', async () => {
  const reader = RunReader.open(source);
  const texts = reader.dialogue('base/test-00000.0')!.turns.map(({ text }) => text);
  const part = texts.find((text) => text.length > 3)!.slice(0, 3);
  let found = 0;
  for (const text of [
    part,
    part.toUpperCase(),
    texts[0]!,
    'a',
    '"',
    '\\',
    '.*',
    'turn.taken',
    '\n',
    'ö',
    'seq',
  ]) {
    for (const phase of [undefined, 'idpo-2/search', 'nowhere']) {
      const said = [];
      for await (const one of reader.said(text, { phase })) {
        assert.is(one.tree, one.node.split('.')[0]);
        assert.is(`${one.phase}/${one.taskId}`, one.tree);
        said.push([one.node, one.speaker, one.text]);
      }
      assert.equal(said, saidBefore(text, phase), `${text} in ${phase}`);
      found += said.length;
    }
  }
  assert.ok(found > 20, `${found}`);
  const stopped = reader.said('a', { signal: AbortSignal.abort() });
  assert.is(await stopped.next().catch(({ code }) => code), 'interrupted');
  reader.close();
});

test('a message that was changed since the index was made is not found but told of', async () => {
  const run = copyOf();
  RunReader.open(run).close();
  const text = linesOf(run);
  const at0 = text.findIndex((line) => line.includes('"turn.taken"') && /"text":"\w/.test(line));
  text[at0] = text[at0]!.replace(/"text":"\w/, '"text":"\u0051');
  fs.writeFileSync(at(run), text.join('\n'));
  const reader = RunReader.open(run);
  const search = async () => {
    for await (const _ of reader.said('q'));
  };
  await search().then(
    () => assert.unreachable('the changed message was taken'),
    (error: OptimaError) => {
      assert.is(error.code, 'run.corrupt');
      assert.match(error.message, new RegExp(`events.jsonl:${at0 + 1}: .*sum`));
    },
  );
  reader.close();
});

test('of every two siblings it is told whether they are a pair and why not, as often as the log counts', () => {
  const reader = RunReader.open(source);
  let kept = 0;
  const reasons = new Set<unknown>();
  for (const { root } of reader.trees({ phase: 'idpo-2/search' })) {
    const { pairs, worth, dialogues } = reader.tree(root)!;
    const { compared, dropped, untold } = pairs!;
    assert.equal(untold, []);
    const counts: Record<string, number> = {
      sameText: 0,
      notEligible: 0,
      belowFilter: 0,
      gapTooSmall: 0,
      worse: 0,
    };
    for (const { reason, better, worse, value, gap } of compared) {
      reasons.add(reason);
      if (reason !== null) counts[reason]!++;
      const logged = pairs!.kept!.find(({ chosen, rejected }) => chosen === better && rejected === worse);
      assert.is(logged !== undefined, reason === null);
      if (logged === undefined) continue;
      kept++;
      assert.ok(Math.abs(logged.value - value!) < 1e-9 && Math.abs(logged.gap - gap!) < 1e-9);
    }
    assert.equal(counts, dropped);
    assert.is(worth!.visits, dialogues.length);
  }
  assert.is(
    kept,
    [...reader.trees({ phase: 'idpo-2/search' })].reduce((sum, tree) => sum + tree.kept!, 0),
  );
  assert.ok(reasons.has(null) && reasons.has('worse') && reasons.has('gapTooSmall'));
  reader.close();
});

test('a turn is shown with what its speaker read, its format prompt too, and what came of it', () => {
  const reader = RunReader.open(source);
  const { id } = [...reader.dialogues({ phase: 'init-0/generate' })].find(
    ({ turns, format }) => turns > 1 && format,
  )!;
  const { turns, summary, ranked } = reader.dialogue(id)!;
  const { turn, path: before, views, loss, dialogues, format } = reader.node(turns[1]!.id)!;
  assert.is(turn.text, turns[1]!.text);
  assert.equal(
    before.map((one) => one.id),
    [turns[0]!.id],
  );
  assert.equal(dialogues, [summary]);
  assert.is(loss, ranked!.turnLosses[1]);
  assert.is(format, summary.format);
  const { formats } = reader.tree(summary.tree)!;
  const told = formats.find((one) => one.format === format)!;
  for (const [role, [system]] of Object.entries(views))
    assert.is(system!.content.endsWith(told.prompt), told.roles.includes(role));
  assert.is(views[turn.speaker]!.at(-1)!.content, turns[0]!.text);
  reader.close();
});

test('a log that grows is read on, from wherever it was, and its index goes on with it', () => {
  const lines = linesOf(source);
  const whole = readAll(source);
  {
    const step = 197;
    const run = copyOf(1);
    const reader = RunReader.open(run);
    for (let next = 1; next < lines.length - 1; next += step) {
      const part = lines.slice(next, Math.min(next + step, lines.length - 1));
      // The last line lacks its end for a while.
      fs.appendFileSync(at(run), part.join('\n'));
      reader.refresh();
      assert.is(reader.size.events, next + part.length - 1);
      fs.appendFileSync(at(run), '\n');
      assert.ok(reader.refresh());
      if (next < 600) {
        for (const { root } of reader.trees()) assert.ok(reader.tree(root)!.dialogues.length > 0);
        for (const { id } of reader.dialogues({ outcome: null }))
          assert.is(reader.dialogue(id)!.outcome, null);
        fs.rmSync(at(run, 'events.index'), { force: true });
        RunReader.open(run).close();
      }
    }
    assert.not.ok(reader.refresh());
    assert.is(allOf(reader), whole);
    reader.close();
    const again = RunReader.open(run);
    assert.is(again.indexProblem, null);
    assert.is(allOf(again), whole);
    again.close();
  }
});

test('an index that is damaged, of another log or made up is not believed', () => {
  const whole = readAll(source);
  const run = copyOf();
  const file = at(run, 'events.index');
  const bytes = fs.readFileSync(file);
  for (let flip = 0; flip < 8; flip++) {
    const damaged = Buffer.from(bytes);
    damaged[Math.floor((flip / 8) * bytes.length)]! ^= 1 << flip;
    fs.writeFileSync(file, damaged);
    const reader = RunReader.open(run);
    assert.ok(reader.indexProblem !== null, `${flip}`);
    assert.is(allOf(reader), whole);
    reader.close();
    assert.equal(fs.readFileSync(file), bytes, 'it is made anew');
  }
  for (const text of ['', '{}', '{"index":99}\n', 'x'.repeat(1000)]) {
    fs.writeFileSync(file, text);
    assert.is(readAll(run), whole);
  }
  // A shorter log, whose index the longer one's is not.
  const shorter = copyOf(linesOf(source).length - 200);
  const other = RunReader.open(shorter);
  assert.is(other.indexProblem, 'it is of another log');
  assert.is(other.size.events, linesOf(source).length - 200);
  other.close();
});

test('where the index cannot be written a run is read all the same, and a link in its place is not followed', () => {
  const whole = readAll(source);
  const run = copyOf();
  fs.rmSync(at(run, 'events.index'));
  fs.mkdirSync(at(run, 'events.index'));
  assert.is(readAll(run), whole);
  assert.equal(
    fs.readdirSync(run).filter((name) => name.includes('partial')),
    [],
  );
  fs.rmdirSync(at(run, 'events.index'));
  const secret = path.join(folder, 'secret');
  fs.writeFileSync(secret, 'secret');
  fs.symlinkSync(secret, at(run, 'events.index'));
  assert.is(readAll(run), whole);
  assert.is(fs.readFileSync(secret, 'utf8'), 'secret');
  assert.not.ok(fs.lstatSync(at(run, 'events.index')).isSymbolicLink());
});

const refused = (run: string, code: string, message: RegExp) =>
  assert.throws(
    () => RunReader.open(run),
    (error: OptimaError) => {
      assert.is(error.code, code);
      assert.match(error.message, message);
      assert.not.match(error.message, /\n|root:/);
      return true;
    },
  );

test('what is no run, of another format, damaged, or leads elsewhere is refused in a line', () => {
  refused(path.join(folder, 'nowhere'), 'run.missing', /nowhere is not a run folder/);
  const newer = copyOf();
  const manifest = JSON.parse(fs.readFileSync(at(newer, 'manifest.json'), 'utf8'));
  fs.writeFileSync(at(newer, 'manifest.json'), JSON.stringify({ ...manifest, format: 7 }));
  refused(newer, 'run.version', /format 7/);
  const damaged = copyOf();
  fs.rmSync(at(damaged, 'events.index'));
  const text = linesOf(damaged);
  text[700] = text[700]!.replace(/"type":"/, '"type":"x');
  fs.writeFileSync(at(damaged), text.join('\n'));
  refused(damaged, 'run.corrupt', /events\.jsonl:701: not an event of this log: it does not have its sum/);
  const cut = copyOf();
  fs.rmSync(at(cut, 'events.index'));
  fs.writeFileSync(at(cut), `${linesOf(source).slice(0, 500).join('\n')}\n`);
  refused(cut, 'run.corrupt', /first \d+ events are not those that the manifest knows/);
  const longer = copyOf();
  fs.rmSync(at(longer, 'events.index'));
  const log = new EventLog(at(longer), systemClock);
  log.skipTo(log.end.events);
  log.append({ type: 'phase.started', phase: 'more' });
  log.close();
  refused(longer, 'run.corrupt', /events follow the run's end/);
  const pipe = copyOf();
  fs.rmSync(at(pipe));
  execFileSync('mkfifo', [at(pipe)]);
  refused(pipe, 'run.corrupt', /neither a file nor a folder/);
  for (const name of ['events.jsonl', 'manifest.json']) {
    const linked = copyOf();
    fs.rmSync(at(linked, name));
    fs.symlinkSync('/etc/passwd', at(linked, name));
    refused(linked, 'run.corrupt', /link that leads out/);
  }
});

test('a byte that changes after the index was made is found where it is read', () => {
  const run = copyOf();
  RunReader.open(run).close();
  const lines = linesOf(run);
  const place = lines.findIndex((line) => line.includes('"turn.taken"') && line.includes('isft-1/generate'));
  const { dialogueId } = JSON.parse(lines[place]!);
  const bytes = fs.readFileSync(at(run));
  const offset = bytes.indexOf(lines[place]!) + lines[place]!.indexOf('"text":"') + 8;
  bytes[offset]! ^= 1;
  fs.writeFileSync(at(run), bytes);
  const reader = RunReader.open(run);
  assert.throws(() => reader.dialogue(dialogueId), new RegExp(`events.jsonl:${place + 1}: .*sum`));
  assert.ok(reader.dialogue('base/test-00000.0'));
  reader.close();
});

test('a run is read in parts as at once, while a process has it open, and a log without a manifest too', async () => {
  const run = copyOf();
  fs.rmSync(at(run, 'events.index'));
  const writer = RunFolder.open(run, systemClock);
  const reader = await RunReader.openInParts(run);
  assert.is(allOf(reader), readAll(source));
  reader.close();
  writer.close();
  const alone = path.join(folder, 'alone');
  fs.mkdirSync(alone);
  fs.copyFileSync(at(source), at(alone));
  const log = RunReader.open(alone);
  assert.is(log.manifest, null);
  assert.is([...log.trees()].length, [...RunReader.open(source).trees()].length);
  const [{ root }] = [...log.trees({ phase: 'idpo-2/search' })] as [TreeSummary];
  assert.is(log.tree(root)!.pairs, null, 'what a search is worth says its recipe');
  log.close();
});

test('a dialogue that goes on from what an earlier cohort said has the tokens and turns of the whole way', () => {
  const run = path.join(folder, 'continued');
  fs.mkdirSync(run);
  const log = new EventLog(at(run), { now: () => 0 });
  const root = 'one/t' as NodeId;
  const taskId = 't' as TaskId;
  const say = (id: string, parent: string, dialogueId: string, tokens: number) => {
    const ids = { id: id as NodeId, parent: parent as NodeId };
    const said = {
      speaker: 'a',
      text: id,
      tokenIds: Array(tokens).fill(1),
      logprobs: Array(tokens).fill(-1),
    };
    const rest = {
      finish: 'stop',
      policyHash: 'p' as PolicyHash,
      seed: 1,
      provenance: 'sampled',
      promptTokens: 1,
    } as const;
    log.append({ type: 'turn.taken', dialogueId: dialogueId as NodeId, turn: { ...ids, ...said, ...rest } });
  };
  const open = (id: string, parent: string | null) =>
    log.append({
      ...{ type: 'dialogue.opened', dialogueId: id as NodeId, taskId, tree: root },
      ...{ parent: parent as NodeId | null, format: null },
    });
  log.append({ type: 'phase.started', phase: 'one' });
  log.append({ type: 'task.dealt', taskId, views: { a: 'A' } });
  open('one/t.0', null);
  say('one/t.0', 'one/t', 'one/t.0', 3);
  say('one/t.0.0', 'one/t.0', 'one/t.0', 5);
  log.append({ type: 'cohort.completed', phase: 'one', cohort: 0 });
  open('one/t.0.1', 'one/t.0');
  say('one/t.0.1', 'one/t.0', 'one/t.0.1', 7);
  const reader = RunReader.open(run);
  // Made again, it is the same, and the file is not touched.
  const written = indexPath(run);
  const { mtimeMs } = fs.statSync(written);
  const head = (index: unknown) => String(indexParts(index as IndexData)[0]);
  assert.is(head(RunReader.indexAnew(run, reader.size.bytes)), head(readIndex(written)));
  assert.is(fs.statSync(written).mtimeMs, mtimeMs);
  fs.rmSync(written);
  assert.is(RunReader.indexAnew(run, 1).end.events, 1);
  assert.not(fs.existsSync(written));
  assert.equal(
    [...reader.dialogues()].map(({ id, tokens, turns, outcome }) => [id, tokens, turns, outcome]),
    [
      ['one/t.0', 8, 2, null],
      ['one/t.0.1', 10, 2, null],
    ],
  );
  assert.equal(
    reader.dialogue('one/t.0.1')!.turns.map(({ text }) => text),
    ['one/t.0', 'one/t.0.1'],
  );
  log.close();
  fs.rmSync(run, { recursive: true });
  assert.throws(() => reader.refresh(), /cut or replaced|not a run folder/);
  reader.close();
});

test('which forks trainings took is read once, however often turns ask, and a training that begins later is seen', () => {
  const run = path.join(folder, 'forked');
  fs.mkdirSync(run);
  const log = new EventLog(at(run), { now: () => 0 });
  const take = (phase: string, fork: number) => {
    log.append({ type: 'phase.started', phase });
    const pair = { fork, chosen: `t.f${fork}` as NodeId, rejected: 't.0' as NodeId };
    log.append({ type: 'forks.taken', phase, pairs: [pair], log: { events: 1, sum: 'abcdef' } });
  };
  take('idpo-2/train', 0);
  log.append({ type: 'phase.started', phase: 'idpo-4/train' });
  const reader = RunReader.open(run);
  const taken = () => reader.forksTaken().map(({ phase, pairs }) => [phase, pairs[0]!.fork]);
  assert.equal(taken(), [['idpo-2/train', 0]]);
  take('idpo-6/train', 1);
  reader.refresh();
  const first = taken();
  assert.equal(first, [
    ['idpo-2/train', 0],
    ['idpo-6/train', 1],
  ]);
  log.close();
  const { readSync } = fs;
  fs.readSync = () => {
    throw new Error('read again');
  };
  try {
    assert.equal(taken(), first);
  } finally {
    fs.readSync = readSync;
  }
  reader.close();
});

test.run();
