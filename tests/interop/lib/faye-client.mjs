// Faye's official Node client, watched from the outside.

import assert from 'node:assert/strict';
import faye from 'faye';
import { longestGap } from './sequence.mjs';
import { HOLD_MS } from './server.mjs';
import { until, within } from './wait.mjs';

/**
 * A client on `url` that uses `transport`, and its `wire`: an extension that notes every message
 * that leaves or arrives, before the client fans it out to callbacks. A duplicate that the client
 * would hide (it looks a channel's listeners up, it does not count copies) shows there.
 *
 * The client has connected when this resolves: it shakes hands over HTTP and moves to its WebSocket
 * a moment later, and of what it is given before, it sends the first message last. With
 * `connect: false` all that is left to the test.
 *
 * With `steady: false` the test may break connections. `retry` is how many seconds the client waits after a failure.
 * `extension` is one of the application.
 */
export async function openFayeClient(t, url, transport, options = {}) {
  const { connect = true, steady = true, retry, extension } = options;
  const client = new faye.Client(url, { retry });
  if (transport === 'long-polling') client.disable('websocket');
  const wire = watch(client);
  if (extension) client.addExtension(extension);
  retireAfter(t, { client, wire, transport, steady });

  if (connect) {
    await within(new Promise((resolve) => client.connect(resolve)), 'the client to connect');
    await until(`the client to use ${transport}`, () => transportOf(client) === transport, {
      seen: () => transportOf(client),
    });
  }
  return { client, wire };
}

// One hook for all clients of a test: a hook that fails keeps the later ones from running, and a
// client that nobody retires would keep this process alive.
const openClients = new WeakMap();

function retireAfter(t, entry) {
  if (openClients.has(t)) return openClients.get(t).push(entry);
  const entries = [entry];
  openClients.set(t, entries);
  t.after(async () => {
    const used = entries.map(({ client }) => transportOf(client));
    await Promise.all(entries.map(({ client }) => retire(client)));
    for (const [i, { wire, transport, steady }] of entries.entries()) {
      if (steady) assert.equal(wire.downs, 0, 'times that a client lost its connection during the test');
      // Not defined: the test itself disconnected the client.
      if (used[i] !== undefined) assert.equal(used[i], transport, 'the transport in use at the end of the test');
    }
  });
}

function watch(client) {
  const wire = {
    sent: [],
    received: [],
    downs: 0,
    ups: 0,

    /** The data that arrived on `channel`, copy by copy. */
    data(channel) {
      return wire.received.filter((m) => m.channel === channel && m.data !== undefined).map((m) => m.data);
    },

    /** Waits for the n-th reply on a meta channel. */
    reply(channel, n = 1) {
      const replies = () => wire.received.filter((m) => m.channel === channel && m.successful !== undefined);
      return until(`reply number ${n} on ${channel}`, () => replies()[n - 1], { seen: () => wire.received });
    },

    /** The replies to connects. */
    get connects() {
      return wire.received.filter((m) => m.channel === '/meta/connect');
    },

    /** Waits for a reply to a connect that the server held to the end: it may answer the first of a session at once. */
    sitOut() {
      const start = Date.now();
      const times = () => wire.connects.map((m) => m.receivedAt).filter((time) => time > start);
      return until(
        'a reply to a connect that the server had held',
        () => longestGap([start, ...times()]) > 0.8 * HOLD_MS,
        { ms: 3 * HOLD_MS, seen: () => wire.connects },
      );
    },
  };
  client.addExtension({
    outgoing(message, callback) {
      wire.sent.push({ ...message });
      callback(message);
    },
    incoming(message, callback) {
      // A copy of the top level: the client adds to the messages that it is given.
      wire.received.push({ ...message, receivedAt: Date.now() });
      callback(message);
    },
  });
  client.on('transport:up', () => (wire.ups += 1));
  client.on('transport:down', () => {
    // To a client on a WebSocket, the end of its session looks like a lost connection.
    if (client._state !== client.DISCONNECTED) wire.downs += 1;
  });
  return wire;
}

/** Which transport the client really uses. Not part of its API, but there is no public way to ask. */
export function transportOf(client) {
  return client._dispatcher._transport?.connectionType;
}

/** Notes the requests that the client makes from now on, each as the array of messages it carries. */
export function batchesOf(client) {
  const transport = client._dispatcher._transport;
  const { request } = transport;
  const batches = [];
  transport.request = function (messages) {
    batches.push([...messages]);
    return request.call(this, messages);
  };
  return batches;
}

/** Disconnects if possible, and then makes sure that the client has no reason left to keep Node alive. */
async function retire(client) {
  const { _dispatcher: dispatcher } = client;
  // Whether a disconnect works is for a test of its own to say.
  await within(client.disconnect() ?? Promise.resolve(), 'the end of a client', 2_000).catch(() => {});

  // A client whose disconnect went unanswered would try again for ever, and one that used a
  // WebSocket waits for the reply to its last connect, which Faye's server never sends.
  dispatcher.removeAllListeners('message');
  client._advice.reconnect = client.NONE;
  dispatcher.close();
  for (const { timer } of dispatcher._envelopes.values()) clearTimeout(timer);
  dispatcher._envelopes.clear(); // or the end of a WebSocket would set new timers
}
