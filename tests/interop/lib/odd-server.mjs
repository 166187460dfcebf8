// A Bayeux server of a few lines, whose answers a test decides: for what no real server does on purpose.

import { once } from 'node:events';
import http from 'node:http';

const ADVICE = { reconnect: 'retry', interval: 0, timeout: 45_000 };

/** What a server says that finds nothing wrong. A held connect is not answered. */
export function usual({ channel, id, clientId, advice, subscription }) {
  const reply = { channel, id, clientId, successful: true };
  if (channel === '/meta/handshake') {
    return { ...reply, version: '1.0', clientId: 'odd', supportedConnectionTypes: ['long-polling'], advice: ADVICE };
  }
  if (channel === '/meta/connect') return advice?.timeout === 0 ? { ...reply, advice: ADVICE } : null;
  return { ...reply, subscription };
}

/**
 * Serves `url`; `answer(message)` gives a reply, a list of messages, an HTTP status as a number, or null for no reply. A
 * request in which nothing is replied to is held. `seen`: all messages, as they came.
 */
export async function startOddServer(t, answer) {
  const seen = [];
  const server = http.createServer(async (request, response) => {
    let body = '';
    for await (const piece of request) body += piece;
    const replies = [];
    for (const message of [JSON.parse(body)].flat()) {
      seen.push(message);
      const reply = answer(message);
      if (typeof reply === 'number') {
        response.writeHead(reply);
        return response.end();
      }
      replies.push(...[reply ?? []].flat());
    }
    const silent = replies.length === 0 && body !== '[]';
    if (silent && body.includes('/meta/connect')) return;
    response.writeHead(200, { 'Content-Type': 'application/json' });
    response.end(JSON.stringify(replies));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => (server.close(), server.closeAllConnections()));
  return { url: `http://127.0.0.1:${server.address().port}/bayeux`, seen, server };
}
