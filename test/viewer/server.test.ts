// The viewer's server, asked by who may and by who may not.
import fs from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import path from 'node:path';
import { setImmediate as nextTick, setTimeout as pause } from 'node:timers/promises';
import { gunzipSync } from 'node:zlib';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { createRng } from '../../src/domain/rng.ts';
import type { RunReader } from '../../src/reading/index.ts';
import { compressLog } from '../../src/store/compress.ts';
import { type RunAnswer, type RunEntry, type RunList, staticFile } from '../../src/viewer/api.ts';
import { bundleClient, type ClientFiles } from '../../src/viewer/server/client-files.ts';
import { exportRuns } from '../../src/viewer/server/export.ts';
import { refusalOf } from '../../src/viewer/server/guard.ts';
import { Listing } from '../../src/viewer/server/listing.ts';
import { OpenRuns } from '../../src/viewer/server/open-runs.ts';
import { type Call, type Route, routeOf } from '../../src/viewer/server/router.ts';
import { createViewer, type Viewer } from '../../src/viewer/server/routes.ts';
import { startServer, type ViewerServer } from '../../src/viewer/server/server.ts';
import { measureTeam } from '../support/metrics.ts';
import { temporaryFolder } from '../support/run.ts';
import { began, longEvents, policy, writeRun } from './hand-made-run.ts';

const folder = temporaryFolder('viewer');
const secret = path.join(folder, 'secret.txt');
const token = 'the-token-of-this-test';
let client: ClientFiles;
let server: ViewerServer;
/** Bodies of the changes that went through. */
const changes: unknown[] = [];

test.before(async () => {
  fs.writeFileSync(secret, 'my secret');
  writeRun(path.join(folder, 'runs/one'), [began]);
  writeRun(path.join(folder, 'runs/newer'), [began]);
  const newer = path.join(folder, 'runs/newer/manifest.json');
  fs.writeFileSync(newer, fs.readFileSync(newer, 'utf8').replace(/"format": \d+/, '"format": 99'));
  writeRun(path.join(folder, 'runs/linked'), [began]);
  fs.rmSync(path.join(folder, 'runs/linked/manifest.json'));
  fs.symlinkSync(secret, path.join(folder, 'runs/linked/manifest.json'));
  writeRun(path.join(folder, 'twin/one'), [began]);
  client = await bundleClient();
  const change: Route = {
    method: 'POST',
    path: '/api/change/{name}',
    handle: ({ body }) => changes.push(body),
  };
  server = await startServer({
    routes: [...createViewer([path.join(folder, 'runs'), path.join(folder, 'twin/one')]).routes, change],
    client,
    port: 0,
    token,
  });
});
test.after(async () => {
  await server.close();
  fs.rmSync(folder, { recursive: true });
});

interface Answered {
  readonly status: number;
  readonly headers: http.IncomingHttpHeaders;
  readonly text: string;
}

/** Asks with exactly these headers; the path goes out as it is. */
function ask(
  target: string,
  headers: http.OutgoingHttpHeaders = {},
  method = 'GET',
  body = '',
): Promise<Answered> {
  return new Promise((resolve, reject) => {
    const request = http.request(
      { port: server.port, host: '127.0.0.1', path: target, method, headers, agent: false },
      (response) => {
        let text = '';
        response.setEncoding('utf8').on('data', (chunk) => {
          text += chunk;
        });
        response.on('end', () => resolve({ status: response.statusCode!, headers: response.headers, text }));
      },
    );
    request.on('error', reject);
    request.end(body);
  });
}
const own = () => ({ host: `127.0.0.1:${server.port}` });
const changing = () => ({ ...own(), 'content-type': 'application/json', 'x-optima-token': token });

test('the page and its runs are there, under a policy that lets nothing else in', async () => {
  const page = await ask('/', own());
  assert.is(page.status, 200);
  assert.match(page.text, '<script src="app.js" defer>');
  assert.match(String(page.headers['content-security-policy']), "default-src 'none'; script-src 'self'");
  assert.match(page.text, "require-trusted-types-for 'script'");
  for (const [name, value] of [
    ['x-content-type-options', 'nosniff'],
    ['referrer-policy', 'no-referrer'],
    ['cross-origin-resource-policy', 'same-origin'],
    ['x-frame-options', 'DENY'],
  ] as const) {
    assert.is(page.headers[name], value);
  }
  const { runs } = JSON.parse((await ask('/api/runs', own())).text) as RunList;
  assert.equal(runs.map(({ id, state }) => [id, state]).sort(), [
    ['linked', 'unreadable'],
    ['newer', 'unreadable'],
    ['one', 'stopped'],
    ['one-2', 'stopped'],
  ]);
});

test('a run of a newer format is named with its version, a linked file is not read', async () => {
  const { text } = await ask('/api/runs', own());
  const { runs } = JSON.parse(text) as RunList;
  const failure = (id: string) => runs.find((run) => run.id === id)!.failure!.message;
  assert.match(failure('newer'), 'run format 99; this version reads format');
  assert.match(failure('linked'), 'manifest.json is not a file of the run: a link');
  assert.not.match(text, 'my secret');
});

test('a DNS name that leads to loopback is refused, and so is a request for nobody', async () => {
  for (const host of [
    `evil.example:${server.port}`,
    '127.0.0.1',
    `127.0.0.1:${server.port + 1}`,
    'localhost.',
  ]) {
    for (const target of ['/', '/api/runs']) {
      const answer = await ask(target, { host });
      assert.is(answer.status, 421, host);
      assert.not.match(answer.text, 'two-hop-qa');
    }
  }
  for (const name of ['localhost', '127.0.0.1', '[::1]', 'LOCALHOST']) {
    assert.is((await ask('/', { host: `${name}:${server.port}` })).status, 200, name);
  }
});

test('a page of another origin gets nothing and changes nothing', async () => {
  for (const headers of [
    { origin: 'http://evil.example' },
    { origin: 'null' },
    { origin: `http://127.0.0.1:${server.port + 1}` },
    { 'sec-fetch-site': 'cross-site' },
    { 'sec-fetch-site': 'same-site' },
  ]) {
    assert.is((await ask('/api/runs', { ...own(), ...headers })).status, 403, JSON.stringify(headers));
    assert.is((await ask('/api/change/x', { ...changing(), ...headers }, 'POST', '{}')).status, 403);
  }
  // A link on another page may open this one.
  const visit = { ...own(), 'sec-fetch-site': 'cross-site', 'sec-fetch-mode': 'navigate' };
  assert.is((await ask('/', visit)).status, 200);
  assert.is((await ask('/api/change/x', { ...changing(), ...visit }, 'POST', '{}')).status, 403);
  assert.equal(changes, []);
});

test('a change needs the token, JSON, and a body of a size that a person writes', async () => {
  const withOut = (name: string, value?: string) => {
    const { [name]: _, ...headers } = changing() as Record<string, string>;
    return value === undefined ? headers : { ...headers, [name]: value };
  };
  const post = (headers: http.OutgoingHttpHeaders, body = '{"a":1}') =>
    ask('/api/change/x', headers, 'POST', body);
  assert.is((await post(withOut('x-optima-token'))).status, 403);
  assert.is((await post(withOut('x-optima-token', 'another'))).status, 403);
  assert.is((await post(withOut('content-type'))).status, 415);
  assert.is((await post(withOut('content-type', 'text/plain'))).status, 415);
  assert.is((await post(changing(), '{')).status, 400);
  assert.is((await post(changing(), JSON.stringify('x'.repeat(1.1e6)))).status, 413);
  assert.equal(changes, []);
  const answer = await post({ ...changing(), origin: `http://127.0.0.1:${server.port}` });
  assert.is(answer.status, 200, answer.text);
  assert.equal(changes, [{ a: 1 }]);
  assert.is((await ask('/api/change/x', changing())).status, 405);
});

test('what this viewer was not given it does not do, and a body that is none is refused', async () => {
  const post = (path: string, body: string) => ask(path, changing(), 'POST', body);
  assert.is((await post('/api/runs/one/forks', '{"at":"after","node":"a"}')).status, 501);
  assert.is((await post('/api/runs/one/pairs', '{"fork":0}')).status, 501);
  assert.is((await ask('/api/runs/one/nodes/a/scores', own())).status, 501);
  assert.is((await ask('/api/runs/one/events?from=-1', own())).status, 400);
  assert.is((await ask('/api/runs/none/events', own())).status, 404);
  assert.is((await ask('/api/runs/linked', own())).status, 500);
  assert.not.match((await ask('/api/runs/linked', own())).text, 'my secret');
});

test('no address leads out of what is served', async () => {
  const ways = [
    '../secret.txt',
    '..%2fsecret.txt',
    '%2e%2e%2fsecret.txt',
    '..\\secret.txt',
    `/${secret}`,
    secret,
  ];
  const starts = [
    '/',
    '/api/',
    '/api/runs/',
    '/api/runs/one/',
    '/api/runs/one/nodes/',
    '/api/runs/one/trees/',
  ];
  for (const start of starts) {
    for (const way of [...ways, 'one/../../secret.txt', '%', '%00', 'constructor', '__proto__']) {
      const { status, text } = await ask(`${start}${way}`, own());
      assert.ok(status >= 400 && status < 500, `${start}${way}: ${status}`);
      assert.not.match(text, 'my secret');
    }
  }
});

test('a request that is none does not end the server', async () => {
  const socket = net.connect(server.port, '127.0.0.1');
  socket.on('error', () => {});
  socket.resume();
  socket.end('GET /api/runs HTTP/1.1\r\n\r\n\u0000garbage');
  await new Promise((resolve) => socket.on('close', resolve));
  assert.is((await ask('//', own())).status, 400);
  assert.is((await ask('/', own())).status, 200);
});

test('a port that another program has is an error in a line', async () => {
  const options = { routes: [], client, token };
  try {
    await startServer({ ...options, port: server.port });
    assert.unreachable();
  } catch (error) {
    assert.match((error as Error).message, `--port ${server.port}: another program has this port.`);
  }
});

test('many open sockets end with the server', async () => {
  const other = await startServer({ routes: [], client, port: 0, token });
  const sockets = Array.from({ length: 60 }, () => net.connect(other.port, '127.0.0.1'));
  const closed = sockets.map((socket) => {
    socket.on('error', () => {}).resume();
    return new Promise((resolve) => socket.on('close', resolve));
  });
  await Promise.all(sockets.map((socket) => new Promise((resolve) => socket.on('connect', resolve))));
  sockets[0]!.write(`GET / HTTP/1.1\r\nHost: 127.0.0.1:${other.port}\r\n`);
  await other.close();
  await Promise.all(closed);
});

/** Asks a viewer as its server does, for the run whose id is in the path. */
function askViewer({ routes }: Viewer, method: string, pathname: string, body?: unknown): unknown {
  const { route, params } = routeOf(routes, method, pathname);
  return route.handle({ params, body, query: new URLSearchParams() } as unknown as Call);
}

test('a folder of runs that is gone has none, and takes no other with it', async () => {
  const gone = path.join(folder, 'gone');
  const viewer = createViewer([gone, path.join(folder, 'twin/one')]);
  const { runs } = (await askViewer(viewer, 'GET', '/api/runs')) as RunList;
  assert.equal(
    runs.map(({ id }) => id),
    ['one'],
  );
});

test('no run is closed while it is read, and no more than four stay open', async () => {
  const folders = Array.from({ length: 6 }, (_, index) => path.join(folder, `open/run-${index}`));
  for (const [index, run] of folders.entries()) writeRun(run, Array(index + 1).fill(began));
  const runs = new OpenRuns(folders);
  const count = async (reader: RunReader) => {
    await pause(20);
    return [...reader.events(0)].length;
  };
  const atOnce = () => Promise.all(folders.map((run) => runs.read(path.basename(run), count)));
  assert.equal(await atOnce(), [1, 2, 3, 4, 5, 6]);
  assert.equal(await atOnce(), [1, 2, 3, 4, 5, 6]);
  const readers: RunReader[] = [];
  for (const run of folders.slice(0, 5))
    readers.push(await runs.read(path.basename(run), (reader) => reader));
  assert.throws(() => readers[0]!.refresh(), /EBADF/);
  assert.not(readers[1]!.refresh());
  await runs.close();
  assert.throws(() => readers[4]!.refresh(), /EBADF/);
});

test('while a long log is read for the first time, it is told how far that is', async () => {
  const run = path.join(folder, 'long/run');
  writeRun(run, longEvents(40 << 20));
  const viewer = createViewer([run]);
  const opened = askViewer(viewer, 'GET', '/api/runs/run') as Promise<RunAnswer>;
  const { route, params } = routeOf(viewer.routes, 'GET', '/api/runs/run/opening');
  const told: string[] = [];
  const response = { on: () => {}, writeHead: () => {}, write: (text: string) => told.push(text) };
  const end = (text: string) => void told.push(text);
  await (route.handle({ params, response: { ...response, end } } as unknown as Call) as Promise<void>);
  await opened;
  const runs = new OpenRuns([run]);
  fs.rmSync(path.join(run, 'events.index'));
  const read = runs.read('run', () => {});
  const seen = new Set<number | null>();
  for (let percent: number | null = 0; percent !== null; await nextTick()) {
    percent = runs.openingOf('run');
    seen.add(percent);
  }
  await read;
  assert.ok(seen.size > 3, `${[...seen]}`);
  await runs.close();
  const percents = told.map((text) => Number(/^data: (\d+)\n\n$/.exec(text)![1]));
  assert.ok(percents[0]! < 100 && percents.length > 1, `${percents}`);
  assert.equal(
    percents,
    [...percents].sort((one, other) => one - other),
  );
  assert.is(percents.at(-1), 100);
  await viewer.close();
});

test('a log that was replaced is read anew by all who ask at once', async () => {
  const run = path.join(folder, 'replaced/run');
  writeRun(run, [began]);
  const runs = new OpenRuns([run]);
  const count = async (reader: RunReader) => {
    await pause(20);
    return [...reader.events(0)].length;
  };
  assert.is(await runs.read('run', count), 1);
  fs.rmSync(run, { recursive: true });
  writeRun(run, [began, began]);
  const asked = [1, 2, 3].map(() => runs.read('run', count));
  assert.equal(await Promise.all(asked), [2, 2, 2]);
  await runs.close();
});

test('a log that is compressed while pages look at it is read on, and listed as before', async () => {
  const run = path.join(folder, 'packed/run');
  writeRun(run, [began, began, { type: 'run.completed', policy: { alice: policy } }]);
  const viewer = createViewer([run]);
  const before = [
    await askViewer(viewer, 'GET', '/api/runs'),
    await askViewer(viewer, 'GET', '/api/runs/run'),
  ];
  assert.ok(await compressLog(run));
  assert.equal(
    [await askViewer(viewer, 'GET', '/api/runs'), await askViewer(viewer, 'GET', '/api/runs/run')],
    before,
  );
  const file = path.join(run, 'events.jsonl.gz');
  fs.renameSync(file, path.join(folder, 'elsewhere.gz'));
  fs.symlinkSync(path.join(folder, 'elsewhere.gz'), file);
  const { runs } = (await askViewer(viewer, 'GET', '/api/runs')) as RunList;
  assert.match(runs[0]!.failure!.message, 'events.jsonl.gz is not a file of the run: a link');
  await viewer.close();
});

test('the list does not wait for a long log, and has its figures when it has been read', async () => {
  const place = path.join(folder, 'long list');
  writeRun(path.join(place, 'long'), longEvents(60e6));
  writeRun(path.join(place, 'short'), [began]);
  fs.mkdirSync(path.join(place, 'begun'));
  fs.copyFileSync(path.join(place, 'short/manifest.json'), path.join(place, 'begun/manifest.json'));
  const runs = new OpenRuns([place]);
  const listing = new Listing(runs);
  const readOf = async (mostMs: number) =>
    Object.fromEntries((await listing.read(mostMs)).map(({ id, isRead, state }) => [id, isRead && state]));
  const first = await readOf(1);
  assert.is(first.long, false);
  while ((await readOf(20)).long === false);
  assert.equal(await readOf(1000), { long: 'stopped', short: 'stopped', begun: 'stopped' });
  fs.appendFileSync(path.join(place, 'short/events.jsonl'), 'no event\n');
  assert.is((await readOf(1000)).short, 'unreadable', 'what a log has gained is read');
  await runs.close();
});

test('a run with a linked file is not handed to what forks, keeps and scores', async () => {
  const linked = path.join(folder, 'twin/linked');
  writeRun(linked, [began]);
  fs.symlinkSync(secret, path.join(linked, 'forks.jsonl'));
  const never = () => assert.unreachable() as never;
  const viewer = createViewer([linked], { fork: never, keep: never, score: never });
  for (const [method, what, body] of [
    ['POST', 'forks', { at: 'after', node: 'a' }],
    ['POST', 'pairs', { fork: 0 }],
    ['GET', 'nodes/a/scores', undefined],
  ] as const) {
    try {
      await askViewer(viewer, method, `/api/runs/linked/${what}`, body);
      assert.unreachable();
    } catch (error) {
      assert.match((error as Error).message, 'forks.jsonl is not a file of the run: a link');
    }
  }
});

test('the list, a run’s page and its copy have its figures from the log, whatever metrics.jsonl says', async () => {
  const [place, target] = [path.join(folder, 'measured'), path.join(folder, 'measured copy')];
  const metrics = measureTeam([], createRng(1));
  const output = { kind: 'evaluate', policy: { alice: policy, bob: policy }, metrics } as const;
  const [phase, other] = ['base', 'trained'];
  writeRun(path.join(place, 'run'), [
    began,
    { type: 'phase.started', phase },
    { type: 'phase.completed', phase, output: { ...output, metrics: { ...metrics, taskScore: 0.25, n: 8 } } },
    { type: 'phase.started', phase: other },
    {
      type: 'phase.completed',
      phase: other,
      output: { ...output, metrics: { ...metrics, taskScore: 0.5, n: 8 } },
    },
    { type: 'phase.started', phase: 'swapped' },
    { type: 'phase.completed', phase: 'swapped', output },
  ]);
  const rows = [phase, other].map((name) => ({
    event: 'evaluation',
    phase: name,
    f1: 0.9,
    tokens: 1,
    n: 8,
    failed: 0,
  }));
  fs.writeFileSync(
    path.join(place, 'run/metrics.jsonl'),
    rows.map((row) => `${JSON.stringify(row)}\n`).join(''),
  );
  const scores = ({ base, latest }: RunEntry) => [base?.taskScore, latest?.taskScore];
  const viewer = createViewer([place]);
  const { entry, curve } = (await askViewer(viewer, 'GET', '/api/runs/run')) as RunAnswer;
  assert.equal(scores(entry), [0.25, 0.5]);
  assert.equal(
    curve.map(({ label, taskScore }) => [label, taskScore]),
    [
      ['base', 0.25],
      ['trained', 0.5],
    ],
  );
  const listed = async () => ((await askViewer(viewer, 'GET', '/api/runs')) as RunList).runs[0]!;
  assert.equal(await listed(), entry);
  // A byte of the log changes, and neither its length nor its index does.
  const log = path.join(place, 'run/events.jsonl');
  const told = fs.readFileSync(log, 'utf8');
  fs.writeFileSync(log, told.replace('"taskScore":0.5', '"taskScore":0.9'));
  fs.rmSync(path.join(place, 'run/events.index'));
  const again = createViewer([place]);
  const { runs } = (await askViewer(again, 'GET', '/api/runs')) as RunList;
  assert.equal([runs[0]!.state, runs[0]!.latest], ['unreadable', null]);
  assert.match(runs[0]!.failure!.message, 'events.jsonl:5: not an event of this log');
  await again.close();
  fs.writeFileSync(log, told);
  await viewer.close();
  await exportRuns({ folders: [place], target, client: new Map() });
  const read = (name: string) => JSON.parse(fs.readFileSync(path.join(target, name), 'utf8'));
  assert.equal(scores((read(staticFile('/api/runs', {})) as RunList).runs[0]!), [0.25, 0.5]);
  assert.equal(scores((read(staticFile('/api/runs/{run}', { run: 'run' })) as RunAnswer).entry), [0.25, 0.5]);
});

test('a copy names no place of the machine that the run was on', async () => {
  const place = path.join(folder, 'my secret place');
  const [run, target] = [path.join(place, 'runs/told'), path.join(folder, 'copy')];
  const model = { folder: '/home/secret/model', hash: policy };
  writeRun(run, [began], {
    command: ['train', 'two-hop-qa', '--model', '/home/secret/model', `--out=${run}`, '--seed', '3'],
    partners: { bob: { ...model, folder: '/home/secret/partner.ts' } },
    judge: { ...model, folder: 'C:\\secret\\judge' },
    failure: {
      code: 'io.read',
      message: `${run}/events.jsonl: EACCES, open '/home/a secret/x' (~/secret/y), in init-0/train`,
      hint: `optima train --resume ${run}`,
    },
  });
  writeRun(path.join(place, 'runs/broken'), [began]);
  fs.writeFileSync(path.join(place, 'runs/broken/manifest.json'), '{');
  await exportRuns({ folders: [path.join(place, 'runs')], target, client: new Map() });
  for (const file of fs.readdirSync(target, { recursive: true, encoding: 'utf8' })) {
    const whole = path.join(target, file);
    if (!fs.statSync(whole).isFile()) continue;
    const bytes = fs.readFileSync(whole);
    assert.not.match(String(file.endsWith('.gz') ? gunzipSync(bytes) : bytes), /secret/, file);
  }
  const read = (name: string) => JSON.parse(fs.readFileSync(path.join(target, name), 'utf8'));
  const answer: RunAnswer = read(staticFile('/api/runs/{run}', { run: 'told' }));
  assert.is(answer.command.join(' '), 'train two-hop-qa --model model --out=told --seed 3');
  assert.equal([answer.partners, answer.judge], [{ bob: 'partner.ts' }, 'judge']);
  assert.equal(answer.entry.failure, {
    code: 'io.read',
    message: `told/events.jsonl: EACCES, open 'x' (y), in init-0/train`,
    hint: 'optima train --resume told',
  });
});

test('on port 80 its names stand without it, as browsers write them', () => {
  const asked = (host: string, port: number) =>
    refusalOf({ headers: { host, origin: `http://${host}` }, method: 'GET' } as http.IncomingMessage, port);
  for (const host of ['localhost', '127.0.0.1', '[::1]', 'localhost:80']) assert.is(asked(host, 80), null);
  assert.is(asked('localhost', 8080)?.status, 421);
  assert.is(asked('evil.example', 80)?.status, 421);
});

test('the page keeps a token that the server knows, and no other that a link names', async () => {
  const kept = new Map([['token', 'the one before']]);
  const location = { hash: '' };
  Object.assign(globalThis, {
    document: { querySelector: () => null },
    location,
    history: { replaceState: (_: null, __: string, hash: string) => Object.assign(location, { hash }) },
  });
  // Node has a localStorage of its own, that cannot be assigned to.
  Object.defineProperty(globalThis, 'localStorage', {
    configurable: true,
    value: {
      getItem: (key: string) => kept.get(key),
      setItem: (key: string, value: string) => kept.set(key, value),
    },
  });
  const { fetch } = globalThis;
  globalThis.fetch = (address, options) => fetch(`http://127.0.0.1:${server.port}${address}`, options);
  try {
    const { takeToken } = await import('../../src/viewer/client/source.ts');
    for (const [hash, expected, rest] of [
      ['#/?token=foreign', 'the one before', '#/'],
      [`#/?token=${token}`, token, '#/'],
      ['#/run/one/tasks?sort=gap&token=foreign', token, '#/run/one/tasks?sort=gap'],
      ['#/run/one', token, '#/run/one'],
    ] as const) {
      location.hash = hash;
      await takeToken();
      assert.equal([kept.get('token'), location.hash], [expected, rest]);
    }
  } finally {
    globalThis.fetch = fetch;
  }
});

test.run();
