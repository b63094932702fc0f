// Who may ask: pages of this server alone. A page of another origin, and a DNS name that leads to loopback, are refused.
import type http from 'node:http';
import { hash16 } from '../../domain/hash.ts';

/** Why a request is refused: the status and one line. */
export interface Refusal {
  readonly status: number;
  readonly message: string;
}

/** Nothing runs, loads or is sent but what this server has; texts cannot become HTML even by a mistake of the page. */
export const contentSecurityPolicy = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self'",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "require-trusted-types-for 'script'",
  "trusted-types 'none'",
].join('; ');

/** Headers of every answer. */
export const headers: Readonly<Record<string, string>> = {
  // A page's own meta element cannot say who may frame it.
  'content-security-policy': `${contentSecurityPolicy}; frame-ancestors 'none'`,
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
  'permissions-policy': 'camera=(), geolocation=(), microphone=()',
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'DENY',
  'cache-control': 'no-store',
};

/** How a page of this server may be addressed: a DNS name that resolves to loopback would let a foreign page in. */
function ownHosts(port: number): string[] {
  const names = ['127.0.0.1', 'localhost', '[::1]'];
  const withPort = names.map((name) => `${name}:${port}`);
  // Browsers leave out the port that is usual.
  return port === 80 ? [...names, ...withPort] : withPort;
}

/** Whether a request is refused for where it comes from; null: it is not. */
export function refusalOf({ headers, method = '' }: http.IncomingMessage, port: number): Refusal | null {
  const { host = '', origin } = headers;
  if (!ownHosts(port).includes(host.toLowerCase())) {
    return {
      status: 421,
      message: `This server answers on 127.0.0.1:${port} alone, not as ${host || 'nobody'}.`,
    };
  }
  const site = headers['sec-fetch-site'] ?? 'same-origin';
  const isForeign = origin !== undefined && origin.toLowerCase() !== `http://${host.toLowerCase()}`;
  // A link from elsewhere may open the page; nothing else of another origin gets an answer.
  const isVisit = headers['sec-fetch-mode'] === 'navigate' && method === 'GET';
  if (isForeign || !(['same-origin', 'none'].includes(String(site)) || isVisit)) {
    return { status: 403, message: 'A page of another origin asks: it gets nothing.' };
  }
  return null;
}

/** Whether a request may change something: with the token, as JSON. `refusalOf` has let it through. */
export function changeRefusalOf({ headers }: http.IncomingMessage, token: string): Refusal | null {
  const [type] = (headers['content-type'] ?? '').split(';');
  if (type!.trim().toLowerCase() !== 'application/json') {
    return { status: 415, message: 'The body must be application/json.' };
  }
  const given = headers['x-optima-token'];
  // Hashes are compared: how long that takes says nothing of the token.
  if (typeof given !== 'string' || hash16(given) !== hash16(token)) {
    return {
      status: 403,
      message:
        'Without this session’s token nothing is changed: open the address that `optima view` printed.',
    };
  }
  return null;
}
