// The viewer's server: on loopback alone, for pages of its own alone. What it knows of runs it asks `routes.ts`.
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import path from 'node:path';
import { z } from 'zod';
import { OptimaError } from '../../domain/errors.ts';
import { type ClientFiles, mediaTypes } from './client-files.ts';
import { changeRefusalOf, headers, type Refusal, refusalOf } from './guard.ts';
import { HttpError, type Route, routeOf } from './router.ts';
import { failureOf } from './shelf.ts';

export interface ViewerOptions {
  readonly routes: readonly Route[];
  readonly client: ClientFiles;
  /** 0: any that is free. */
  readonly port: number;
  /** Who has it may change something. */
  readonly token: string;
}

export interface ViewerServer {
  readonly port: number;
  /** Ends it and every connection. */
  close(): Promise<void>;
}

/** What addresses are relative to; who is asked is settled before one is read. */
const base = 'http://127.0.0.1';
/** Most bytes of a request's body: a turn that a person wrote, with room. */
const bodyLimit = 1 << 20;

/** Begins to listen on 127.0.0.1; throws `usage` where the port is taken. */
export async function startServer({ routes, client, port, token }: ViewerOptions): Promise<ViewerServer> {
  const server = http.createServer((request, response) => {
    const { port: own } = server.address() as AddressInfo;
    answer(request, response, own).catch((error) => {
      if (!response.headersSent) sendError(response, error);
      else response.destroy();
    });
  });
  // A page that reads slowly has time; a request that never ends has not.
  server.requestTimeout = 30_000;
  server.maxConnections = 512;

  async function answer(request: http.IncomingMessage, response: http.ServerResponse, own: number) {
    const { method = '', url = '/' } = request;
    const refusal = refusalOf(request, own);
    if (refusal !== null) return sendRefusal(response, refusal);
    if (!URL.canParse(url, base)) throw new HttpError(400, 'usage', 'This is no address.');
    const { pathname, searchParams: query } = new URL(url, base);
    if (!pathname.startsWith('/api/')) return sendFile(response, client, method, pathname);
    const { route, params } = routeOf(routes, method, pathname);
    const changing = method === 'POST' ? changeRefusalOf(request, token) : null;
    if (changing !== null) return sendRefusal(response, changing);
    const body = method === 'POST' ? await bodyOf(request) : undefined;
    const result = await route.handle({ params, query, body, request, response });
    if (result !== undefined) sendJson(response, 200, result);
  }

  await listen(server, port);
  return {
    port: (server.address() as AddressInfo).port,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

function listen(server: http.Server, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      const isTaken = error.code === 'EADDRINUSE' || error.code === 'EACCES';
      const refused = new OptimaError('usage', `--port ${port}: another program has this port.`, {
        hint: 'Name another, or 0 for any that is free.',
      });
      reject(isTaken ? refused : error);
    });
    server.listen(port, '127.0.0.1', resolve);
  });
}

/** The body of a request as JSON. Throws HttpError 400 or 413. */
async function bodyOf(request: http.IncomingMessage): Promise<unknown> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > bodyLimit) throw new HttpError(413, 'usage', `The body is longer than ${bodyLimit} bytes.`);
    chunks.push(chunk);
  }
  try {
    return JSON.parse(Buffer.concat(chunks).toString('utf8'));
  } catch {
    throw new HttpError(400, 'usage', 'The body is not JSON.');
  }
}

function sendFile(
  response: http.ServerResponse,
  client: ClientFiles,
  method: string,
  pathname: string,
): void {
  const name = pathname === '/' ? 'index.html' : pathname.slice(1);
  const content = client.get(name);
  if (content === undefined) throw new HttpError(404, 'usage', 'There is nothing at this address.');
  if (method !== 'GET' && method !== 'HEAD') throw new HttpError(405, 'usage', 'A file is only read.');
  response.writeHead(200, {
    ...headers,
    'content-type': mediaTypes[path.extname(name)]!,
    'content-length': content.length,
  });
  response.end(method === 'HEAD' ? undefined : content);
}

function sendJson(response: http.ServerResponse, status: number, value: unknown): void {
  const body = Buffer.from(JSON.stringify(value));
  response.writeHead(status, {
    ...headers,
    'content-type': 'application/json; charset=utf-8',
    'content-length': body.length,
  });
  response.end(body);
}

function sendRefusal(response: http.ServerResponse, { status, message }: Refusal): void {
  // What else the request would send is not waited for.
  response.shouldKeepAlive = false;
  sendJson(response, status, { error: { code: 'usage', message } });
}

/** What a run's reading may fail with, as a status. */
const statuses: Readonly<Record<string, number>> = { 'run.missing': 404, usage: 400, 'run.exists': 409 };

function sendError(response: http.ServerResponse, thrown: unknown): void {
  const error =
    thrown instanceof z.ZodError
      ? new HttpError(400, 'usage', `The body is not what is asked for: ${z.prettifyError(thrown)}`)
      : thrown;
  if (error instanceof HttpError) {
    sendRefusal(response, error);
    return;
  }
  const failure = failureOf(error);
  sendJson(response, statuses[failure.code] ?? 500, { error: failure });
}
