// Bayeux by hand, for what no client library can be made to do.

import http from 'node:http';
import { until, within } from './wait.mjs';

/** Posts Bayeux messages and resolves with the array that comes back. */
export async function post(url, ...messages) {
  const response = await fetch(url, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify(messages),
    signal: AbortSignal.timeout(5_000),
  });
  const text = await response.text();
  if (response.status !== 200) throw new Error(`POST ${url}: expected 200, got ${response.status} ${text}`);
  return JSON.parse(text);
}

/** Whether the server still knows the session. An empty subscription is Faye's way to ask without side effects. */
export async function sessionExists(url, clientId) {
  const [reply] = await post(url, { channel: '/meta/subscribe', clientId, subscription: [] });
  return reply.successful;
}

/** An EventSource as small as the standard allows: it collects the events and forgets nothing. */
export class EventStream {
  events = [];
  lastEventId = undefined;
  ended = false;

  static async open(url, { lastEventId } = {}) {
    const stream = new EventStream();
    stream.lastEventId = lastEventId;

    const headers = { Accept: 'text/event-stream', 'Cache-Control': 'no-cache' };
    if (lastEventId !== undefined) headers['Last-Event-ID'] = lastEventId;

    const response = await within(
      new Promise((resolve, reject) => {
        // agent: false, because a stream that is dropped must not give its socket back to a pool.
        stream.request = http.get(url, { headers, agent: false }, resolve).on('error', reject);
      }),
      `an answer to GET ${url}`,
    );
    const type = response.headers['content-type'];
    if (response.statusCode !== 200 || !/^text\/event-stream\b/.test(type)) {
      stream.drop();
      throw new Error(`GET ${url}: expected an event stream, got ${response.statusCode} ${type}`);
    }

    response.setEncoding('utf8');
    response.on('data', (text) => stream.#parse(text));
    response.on('close', () => (stream.ended = true));
    response.on('error', () => {}); // dropping the stream resets it, on purpose
    return stream;
  }

  /** The messages of all events so far. */
  get messages() {
    return this.events.flatMap(({ data }) => JSON.parse(data));
  }

  /** Waits for a message with this data. */
  waitFor(data) {
    const expected = `${JSON.stringify(data)} from the event stream`;
    return until(expected, () => this.messages.some((m) => m.data === data), { seen: () => this.events });
  }

  /** Cuts the connection without a word, as a lost network would. */
  drop() {
    this.request.destroy();
  }

  #pending = '';
  #event = {};

  #parse(text) {
    // A CR at the end may be half of a CRLF: it stays pending until the next character is known.
    const lines = (this.#pending + text).split(/\r\n|\n|\r(?=[^\n])/);
    this.#pending = lines.pop();
    for (const line of lines) this.#line(line);
  }

  #line(line) {
    if (line === '') {
      const { data, id } = this.#event;
      this.#event = {};
      if (id !== undefined) this.lastEventId = id;
      if (data !== undefined) this.events.push({ data, id });
      return;
    }
    const [, field, value] = /^([^:]*):? ?(.*)$/.exec(line);
    if (field === 'data') {
      this.#event.data = this.#event.data === undefined ? value : `${this.#event.data}\n${value}`;
    } else if (field === 'id') {
      this.#event.id = value;
    }
  }
}
