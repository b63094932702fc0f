// Where answers come from: the server, or in a static export the files beside the page.
import { signal } from '@preact/signals';
import { useEffect, useState } from 'preact/hooks';
import { type Answers, type Failure, type LiveEvent, staticFile, type TaskRow } from '../api.ts';
import { tasksAnswer, tasksQuery } from '../tasks.ts';

/** Whether the page is a copy without a server. */
export const isStatic = document.querySelector<HTMLMetaElement>('meta[name=optima]')?.content === 'static';

/** An answer that was asked for: `value` may be an older one while `state` says that a newer is coming. */
export interface Answer<Value> {
  readonly state: 'loading' | 'there' | 'failed';
  readonly value: Value | null;
  readonly failure: Failure | null;
}

/** A failure that the server told, or that kept it from telling anything. */
export class AnswerError extends Error {
  readonly failure: Failure;

  constructor(failure: Failure) {
    super(failure.message);
    this.failure = failure;
  }
}

/** How many answers are kept to be shown at once when one goes back. */
const keptAnswers = 60;
const kept = new Map<string, unknown>();
/** Raised to ask again for what may have changed. */
export const revision = signal(0);

const lost: Failure = {
  code: 'lost',
  message: 'The server does not answer.',
  hint: 'Start it again with `optima view`; what is shown here was read before.',
};
const noFiles: Failure = {
  code: 'static',
  message: 'The files beside this page cannot be read.',
  hint: 'Browsers let a page read files only from a server: run `python3 -m http.server` in this folder, and open the address that it prints.',
};

/** Asks for one answer. Rejects with AnswerError. */
export async function ask<Path extends keyof Answers>(
  path: Path,
  params: Readonly<Record<string, string>> = {},
  query: Readonly<Record<string, string | undefined>> = {},
): Promise<Answers[Path]> {
  const address = isStatic ? staticFile(path, params) : addressOf(path, params, query);
  let response: Response;
  try {
    response = await fetch(address);
  } catch {
    throw new AnswerError(isStatic ? noFiles : lost);
  }
  if (isStatic && response.status === 404) {
    throw new AnswerError({ code: 'run.missing', message: 'This is not in the exported copy.' });
  }
  const answer = await readAnswer(response, address.endsWith('.gz'));
  return (isStatic ? partOf(path, params, query, answer) : answer) as Answers[Path];
}

/** What is asked for, of a file that says more. */
function partOf(
  path: keyof Answers,
  { node, dialogue }: Readonly<Record<string, string>>,
  query: Readonly<Record<string, string | undefined>>,
  answer: unknown,
): unknown {
  if (path === '/api/runs/{run}/tasks') return tasksAnswer(answer as TaskRow[], tasksQuery(query));
  const key =
    path === '/api/runs/{run}/nodes/{node}'
      ? node
      : path === '/api/runs/{run}/dialogues/{dialogue}'
        ? dialogue
        : null;
  if (key == null) return answer;
  const part = (answer as Readonly<Record<string, unknown>>)[key];
  if (part !== undefined) return part;
  throw new AnswerError({ code: 'run.missing', message: 'This is not in the exported copy.' });
}

/** Sends a change. Rejects with AnswerError. */
export async function send<Value>(
  path: string,
  params: Readonly<Record<string, string>>,
  body: unknown,
): Promise<Value> {
  return (await post(fill(path, params), localStorage.getItem('token') ?? '', body)) as Value;
}

async function post(address: string, token: string, body: unknown): Promise<unknown> {
  try {
    const response = await fetch(address, {
      method: 'POST',
      headers: { 'content-type': 'application/json', 'x-optima-token': token },
      body: JSON.stringify(body),
    });
    return await readAnswer(response, false);
  } catch (error) {
    throw error instanceof AnswerError ? error : new AnswerError(lost);
  }
}

async function readAnswer(response: Response, isCompressed: boolean): Promise<unknown> {
  const body = isCompressed ? response.body!.pipeThrough(new DecompressionStream('gzip')) : response.body;
  const value = (await new Response(body).json()) as { error?: Failure };
  if (!response.ok) throw new AnswerError(value.error ?? lost);
  return value;
}

const fill = (path: string, params: Readonly<Record<string, string>>): string =>
  path.replaceAll(/\{(\w+)\}/g, (_, name: string) => encodeURIComponent(params[name] ?? ''));

function addressOf(
  path: string,
  params: Readonly<Record<string, string>>,
  query: Readonly<Record<string, string | undefined>>,
): string {
  const set = Object.entries(query).flatMap(([key, value]): [string, string][] =>
    value ? [[key, value]] : [],
  );
  return `${fill(path, params)}${set.length > 0 ? `?${new URLSearchParams(set)}` : ''}`;
}

/** The answer to a question, asked again when it changes or `revision` is raised. Null asks nothing. */
export function useAnswer<Path extends keyof Answers>(
  path: Path,
  params: Readonly<Record<string, string>> | null,
  query: Readonly<Record<string, string | undefined>> = {},
): Answer<Answers[Path]> {
  const address = params === null ? null : addressOf(path, params, query);
  const [answer, setAnswer] = useState<{ address: string | null; failure: Failure | null }>({
    address: null,
    failure: null,
  });
  const current = revision.value;
  useEffect(() => {
    if (address === null) return;
    let isWanted = true;
    ask(path, params!, query).then(
      (value) => {
        keep(address, value);
        if (isWanted) setAnswer({ address, failure: null });
      },
      (error: unknown) => {
        const failure =
          error instanceof AnswerError ? error.failure : { code: 'internal', message: String(error) };
        if (isWanted) setAnswer({ address, failure });
      },
    );
    return () => {
      isWanted = false;
    };
  }, [address, current]);
  const value = address === null ? null : ((kept.get(address) ?? null) as Answers[Path] | null);
  const isAnswered = answer.address === address;
  const failure = isAnswered ? answer.failure : null;
  return {
    value,
    failure,
    state: failure !== null ? 'failed' : value === null || !isAnswered ? 'loading' : 'there',
  };
}

function keep(address: string, value: unknown): void {
  kept.delete(address);
  kept.set(address, value);
  for (const oldest of kept.keys()) {
    if (kept.size <= keptAnswers) break;
    kept.delete(oldest);
  }
}

/**
 * Follows a run's log while the page is to be seen: `hear` gets what comes, from event `from` on. Gives what ends it. A browser
 * has few connections to one server, so a page in the background has none.
 */
export function follow(run: string, from: number, hear: (events: readonly LiveEvent[]) => void): () => void {
  let source: EventSource | null = null;
  let next = from;
  const open = () => {
    source = new EventSource(`${fill('/api/runs/{run}/events', { run })}?from=${next}`);
    source.onmessage = ({ data }: MessageEvent<string>) => {
      const events = JSON.parse(data) as LiveEvent[];
      next = (events.at(-1)?.seq ?? next - 1) + 1;
      hear(events);
    };
  };
  const close = () => {
    source?.close();
    source = null;
  };
  const onVisibility = () => {
    if (document.visibilityState === 'hidden') close();
    else if (source === null) open();
  };
  if (document.visibilityState !== 'hidden') open();
  document.addEventListener('visibilitychange', onVisibility);
  return () => {
    document.removeEventListener('visibilitychange', onVisibility);
    close();
  };
}

/** How long an answer is waited for before it is asked what it waits for. */
const patienceMs = 500;

/**
 * Tells how much of a run's log has been read while the server opens it for the first time, in percent; null: it is open. Gives what
 * ends it.
 */
export function watchOpening(run: string, hear: (percent: number | null) => void): () => void {
  let source: EventSource | null = null;
  const timer = setTimeout(() => {
    source = new EventSource(fill('/api/runs/{run}/opening', { run }));
    source.onmessage = ({ data }: MessageEvent<string>) => {
      const percent = Number(data);
      if (percent >= 100) source?.close();
      hear(percent >= 100 ? null : percent);
    };
    // It is no news that the server does not answer: the question itself tells.
    source.onerror = () => source?.close();
  }, patienceMs);
  return () => {
    clearTimeout(timer);
    source?.close();
  };
}

/**
 * Takes this session's token out of the address, where `optima view` printed it, and keeps it for this server's pages if the server
 * knows it: a link from elsewhere may name any.
 */
export async function takeToken(): Promise<void> {
  const inAddress = /[?&]token=([\w-]+)/;
  const token = inAddress.exec(location.hash)?.[1];
  if (token === undefined || isStatic) return;
  try {
    await post('/api/token', token, {});
    localStorage.setItem('token', token);
  } catch {
    // The one that is kept stays.
  }
  history.replaceState(null, '', location.hash.replace(inAddress, '').replace(/^#\/?$/, '#/'));
}
