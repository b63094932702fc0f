// The events of a growing log, sent to pages as they come: server-sent events, each a list of those since the one before.
import type http from 'node:http';
import { setTimeout as pause } from 'node:timers/promises';
import type { RunEvent } from '../../domain/events.ts';
import type { RunReader } from '../../reading/index.ts';
import type { LiveEvent } from '../api.ts';
import { headers } from './guard.ts';

/** How often the log is looked at. */
const intervalMs = 400;
/** A line that says nothing, so that whoever is between does not close what looks dead. */
const heartbeatMs = 15_000;
/** Most events that are sent at once. */
const mostAtOnce = 500;
/** Characters of what was said. */
const saidCharacters = 160;

/** Sends the events from number `from` on until the page goes, or `read` rejects as the run cannot be read. */
export async function sendEvents(
  request: http.IncomingMessage,
  response: http.ServerResponse,
  from: number,
  read: (work: (reader: RunReader) => News) => Promise<News>,
): Promise<void> {
  const gone = new AbortController();
  response.on('close', () => gone.abort());
  response.writeHead(200, { ...headers, 'content-type': 'text/event-stream; charset=utf-8' });
  request.socket.setTimeout(0);
  // A page that has been away asks for what comes after the last that it has.
  const last = Number(request.headers['last-event-id']);
  let next = Number.isSafeInteger(last) && last >= from ? last + 1 : from;
  let quietMs = heartbeatMs;
  while (!gone.signal.aborted) {
    const { end, events } = await read((reader) => newsOf(reader, next));
    if (events.length > 0) {
      next += events.length;
      quietMs = 0;
      const text = `id: ${next - 1}\ndata: ${JSON.stringify(events)}\n\n`;
      if (!response.write(text)) await drained(response, gone.signal);
      if (end > next) continue;
    } else if (quietMs >= heartbeatMs) {
      quietMs = 0;
      response.write(': the log is as it was\n\n');
    }
    quietMs += intervalMs;
    await pause(intervalMs, undefined, { signal: gone.signal }).catch(() => {});
  }
  response.end();
}

/** Sends how much of a run's log has been read, in percent, each time that it is looked at until there is nothing more to tell: then 100. */
export async function sendOpening(
  response: http.ServerResponse,
  percentOf: () => number | null,
): Promise<void> {
  const gone = new AbortController();
  response.on('close', () => gone.abort());
  response.writeHead(200, { ...headers, 'content-type': 'text/event-stream; charset=utf-8' });
  for (let percent = percentOf(); percent !== null && !gone.signal.aborted; percent = percentOf()) {
    response.write(`data: ${percent}\n\n`);
    await pause(intervalMs, undefined, { signal: gone.signal }).catch(() => {});
  }
  response.end('data: 100\n\n');
}

/** Waits until a page has read what was sent, or is gone. */
const drained = (response: http.ServerResponse, signal: AbortSignal) =>
  new Promise<void>((resolve) => {
    response.once('drain', resolve);
    signal.addEventListener('abort', () => resolve(), { once: true });
  });

/** Events from one on, as many as are sent at once, and where the log ends. */
interface News {
  readonly end: number;
  readonly events: readonly LiveEvent[];
}

function newsOf(reader: RunReader, from: number): News {
  const { events: end } = reader.size;
  if (end <= from) return { end, events: [] };
  const events = [...reader.events(from, Math.min(end, from + mostAtOnce))];
  return { end, events: events.map((event, index) => liveEvent(event, from + index)) };
}

/** An event in a few words. */
export function liveEvent(event: RunEvent, seq: number): LiveEvent {
  const { type } = event;
  const phase = 'phase' in event ? event.phase : null;
  const of = 'dialogueId' in event ? event.dialogueId : 'nodeId' in event ? event.nodeId : null;
  const node = type === 'turn.taken' ? event.turn.id : of;
  const speaker = type === 'turn.taken' ? event.turn.speaker : 'speaker' in event ? event.speaker : null;
  return { seq, type, phase, of: node, speaker, text: textOf(event).slice(0, saidCharacters) };
}

function textOf(event: RunEvent): string {
  switch (event.type) {
    case 'turn.taken':
      return event.turn.text;
    case 'turn.merged':
      return event.text;
    case 'turn.failed':
    case 'verdict.failed':
      return event.reason;
    case 'dialogue.closed':
      return event.failure ?? event.outcome;
    case 'verdict.given':
      return `score ${event.taskScore.toFixed(2)}`;
    case 'trajectory.ranked':
      return event.reward === null ? (event.failure ?? '') : `reward ${event.reward.toFixed(3)}`;
    case 'step.trained':
      return `step ${event.step + 1} of ${event.steps}: loss ${event.loss.toFixed(4)}`;
    case 'selection.made':
      return `${event.kept.length} dialogues`;
    case 'pairs.made':
      return `${event.pairs.length} pairs of ${event.taskId}`;
    case 'judge.asked':
      return event.reply;
    default:
      return '';
  }
}
