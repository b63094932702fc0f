// A small router: routes are lists of path segments, of which those in braces are parameters.
import type http from 'node:http';

/** A request as a handler gets it. Parameters are decoded, and mean nothing but what a handler looks them up as. */
export interface Call {
  readonly params: Readonly<Record<string, string>>;
  readonly query: URLSearchParams;
  /** The body of a POST, parsed. */
  readonly body: unknown;
  readonly request: http.IncomingMessage;
  readonly response: http.ServerResponse;
}

/** Gives what is answered as JSON; undefined where it has answered itself. */
export type Handler = (call: Call) => unknown;

export interface Route {
  readonly method: 'GET' | 'POST';
  /** For example `/api/runs/{run}/nodes/{node}`. */
  readonly path: string;
  readonly handle: Handler;
}

/** A refusal that a handler throws. */
export class HttpError extends Error {
  readonly status: number;
  readonly code: string;

  constructor(status: number, code: string, message: string) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/** The route of a request and its parameters. Throws HttpError 400, 404 or 405. */
export function routeOf(
  routes: readonly Route[],
  method: string,
  pathname: string,
): { readonly route: Route; readonly params: Readonly<Record<string, string>> } {
  const segments = segmentsOf(pathname);
  const matching = routes.flatMap((route) => {
    const params = match(route.path.split('/'), segments);
    return params === null ? [] : [{ route, params }];
  });
  const found = matching.find(({ route }) => route.method === method);
  if (found !== undefined) return found;
  if (matching.length > 0) throw new HttpError(405, 'usage', `${method} is not what ${pathname} takes.`);
  throw new HttpError(404, 'usage', 'There is nothing at this address.');
}

function segmentsOf(pathname: string): string[] {
  try {
    return pathname.split('/').map(decodeURIComponent);
  } catch {
    throw new HttpError(400, 'usage', 'The address is not encoded as an address is.');
  }
}

function match(pattern: readonly string[], segments: readonly string[]): Record<string, string> | null {
  if (pattern.length !== segments.length) return null;
  const params: Record<string, string> = {};
  for (const [index, part] of pattern.entries()) {
    const segment = segments[index]!;
    if (part.startsWith('{')) params[part.slice(1, -1)] = segment;
    else if (part !== segment) return null;
  }
  return params;
}
