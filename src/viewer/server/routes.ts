// What the viewer answers, by address.
import { z } from 'zod';
import type { ChatMessage } from '../../domain/model.ts';
import type { Abilities, Answers, ForkAnswer, ForkRequest, KeptAnswer, ScoresAnswer } from '../api.ts';
import { phaseOf, tasksAnswer, tasksQuery } from '../tasks.ts';
import { machinesAnswer } from './charts.ts';
import { Listing } from './listing.ts';
import { sendEvents, sendOpening } from './live.ts';
import { OpenRuns } from './open-runs.ts';
import { runAnswer, taskRows } from './overview.ts';
import { type Call, HttpError, type Route } from './router.ts';
import { foundIn } from './said.ts';
import { entryOf } from './shelf.ts';
import { dialogueAnswer, nodeAnswer, type Pieces, treeAnswer, viewToScore } from './trees.ts';

/** What the command gives the viewer that it cannot have itself: it runs no model. */
export interface ViewerTools {
  /** What gives the texts of a run's tokens, by its folder; null where its tokenizer is not to be had. */
  pieces?(folder: string): Promise<Pieces>;
  /** How likely the run's frozen base finds the tokens of a view's last message. */
  score?(folder: string, view: readonly ChatMessage[]): Promise<ScoresAnswer>;
  fork?(folder: string, request: ForkRequest): Promise<ForkAnswer>;
  /** Keeps the pair of a fork and what stands beside it. */
  keep?(folder: string, fork: number): Promise<KeptAnswer>;
}

export interface Viewer {
  readonly routes: readonly Route[];
  /** Closes the runs that are open. */
  close(): Promise<void>;
}

/** Characters from which on what was said is searched: fewer stand everywhere. */
const fewestSearched = 2;

/** Longest that the list of runs waits for logs to be read, ms. */
const mostListingMs = 200;

/** The answers about the runs in these folders; runs that begin in them later are found too. */
export function createViewer(folders: readonly string[], tools: ViewerTools = {}): Viewer {
  const runs = new OpenRuns(folders);
  const listing = new Listing(runs);
  const abilities: Abilities = { fork: tools.fork !== undefined, score: tools.score !== undefined };
  const piecesOf = async (folder: string): Promise<Pieces> => (await tools.pieces?.(folder)) ?? null;
  const get = <Path extends keyof Answers>(
    path: Path,
    handle: (call: Call) => Answers[Path] | Promise<Answers[Path]>,
  ): Route => ({ method: 'GET', path, handle });
  const routes: Route[] = [
    get('/api/runs', async () => ({ runs: await listing.read(mostListingMs), abilities })),
    get('/api/runs/{run}', ({ params: { run } }) =>
      runs.read(run!, (reader) => runAnswer(reader, entryOf(run!, reader.folder))),
    ),
    get('/api/runs/{run}/tasks', ({ params: { run }, query }) =>
      runs.read(run!, async (reader) => {
        const asked = tasksQuery(Object.fromEntries(query));
        const rows = taskRows(reader);
        const phase = phaseOf(rows, asked.phase);
        const isSearched = phase !== undefined && asked.search.length >= fewestSearched;
        return tasksAnswer(rows, asked, isSearched ? await foundIn(reader, phase, asked.search) : undefined);
      }),
    ),
    get('/api/runs/{run}/trees/{tree}', ({ params: { run, tree } }) =>
      runs.read(run!, (reader) => treeAnswer(reader, tree!)),
    ),
    get('/api/runs/{run}/nodes/{node}', ({ params: { run, node } }) =>
      runs.read(run!, async (reader) => nodeAnswer(reader, node!, await piecesOf(reader.folder))),
    ),
    get('/api/runs/{run}/dialogues/{dialogue}', ({ params: { run, dialogue } }) =>
      runs.read(run!, (reader) => dialogueAnswer(reader, dialogue!)),
    ),
    get('/api/runs/{run}/nodes/{node}/scores', async ({ params: { run, node } }) => {
      if (tools.score === undefined) throw notHere('ask a model');
      const view = await runs.read(run!, (reader) => viewToScore(reader, node!));
      if (view === null) throw new HttpError(400, 'usage', 'This turn has no tokens.');
      return tools.score(runs.folderOf(run!), view);
    }),
    {
      method: 'POST',
      path: '/api/runs/{run}/forks',
      handle: ({ params: { run }, body }): Promise<ForkAnswer> => {
        if (tools.fork === undefined) throw notHere('fork');
        return tools.fork(runs.folderOf(run!), forkRequest.parse(body));
      },
    },
    {
      method: 'POST',
      path: '/api/runs/{run}/pairs',
      handle: ({ params: { run }, body }): Promise<KeptAnswer> => {
        if (tools.keep === undefined) throw notHere('keep a pair');
        return tools.keep(runs.folderOf(run!), keepRequest.parse(body).fork);
      },
    },
    // Whether a token is this session's: who has another is refused before it comes to this.
    { method: 'POST', path: '/api/token', handle: () => ({}) },
    get('/api/runs/{run}/machines', ({ params: { run } }) =>
      runs.read(run!, (reader) => machinesAnswer(reader, entryOf(run!, reader.folder))),
    ),
    {
      method: 'GET',
      path: '/api/runs/{run}/opening',
      handle: ({ params: { run }, response }) => sendOpening(response, () => runs.openingOf(run!)),
    },
    {
      method: 'GET',
      path: '/api/runs/{run}/events',
      handle: async ({ params: { run }, query, request, response }) => {
        const from = Number(query.get('from') ?? 0);
        if (!Number.isSafeInteger(from) || from < 0)
          throw new HttpError(400, 'usage', 'from is the number of an event.');
        await runs.read(run!, () => {});
        await sendEvents(request, response, from, (work) => runs.read(run!, work));
      },
    },
  ];
  return { routes, close: () => runs.close() };
}

const notHere = (what: string) => new HttpError(501, 'usage', `This viewer cannot ${what}.`);

const forkRequest = z.strictObject({
  at: z.enum(['instead-of', 'after']),
  node: z.string().min(1),
  say: z.string().optional(),
});
const keepRequest = z.strictObject({ fork: z.int().nonnegative() });
