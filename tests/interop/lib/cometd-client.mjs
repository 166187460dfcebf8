// CometD's official JavaScript client, watched from the outside.

import { subscribe } from 'node:diagnostics_channel';
import * as cometd9 from 'cometd';
import cometd7 from 'cometd7';
import AckExtension from 'cometd7/AckExtension.js';
import BinaryExtension from 'cometd7/BinaryExtension.js';
import TimeStampExtension from 'cometd7/TimeStampExtension.js';
import TimeSyncExtension from 'cometd7/TimeSyncExtension.js';
import * as cometd8 from 'cometd8';
import { adapt } from 'cometd-nodejs-client';
import { until } from './wait.mjs';

// The client is written for browsers; its project's own adapter gives it XMLHttpRequest and WebSocket.
adapt();

const TRANSPORTS = ['websocket', 'long-polling', 'callback-polling'];

/** By major version. The oldest has its extensions in files of their own. */
const LIBRARIES = {
  7: { CometD: cometd7.CometD, AckExtension, BinaryExtension, TimeStampExtension, TimeSyncExtension },
  8: cometd8,
  9: cometd9,
};

const EXTENSIONS = {
  ack: 'AckExtension',
  binary: 'BinaryExtension',
  timestamp: 'TimeStampExtension',
  timesync: 'TimeSyncExtension',
};

/**
 * A client on `url` with one transport only, and notes of what happened to it. `extensions` are names of its own, or
 * objects by name. Below `logLevel` it keeps quiet.
 */
export function openCometdClient(t, url, transport, options = {}) {
  const { version = 9, extensions = [], logLevel = 'warn', configuration = {} } = options;
  const library = LIBRARIES[version];
  const cometd = new library.CometD();
  cometd.configure({ url, logLevel, ...configuration });
  for (const other of TRANSPORTS) if (other !== transport) cometd.unregisterTransport(other);

  const seen = { sent: [], replies: [], connects: [], handshakes: [], unsuccessful: [], messages: [] };
  cometd.addListener('/meta/handshake', (reply) => seen.handshakes.push(reply));
  cometd.addListener('/meta/connect', (reply) => seen.connects.push({ ...reply, receivedAt: Date.now() }));
  cometd.addListener('/meta/unsuccessful', (reply) => seen.unsuccessful.push(reply));
  // The first extension is the nearest to the wire.
  cometd.registerExtension('watch', {
    incoming(message) {
      (message.data === undefined ? seen.replies : seen.messages).push(structuredClone(message));
      return message;
    },
    outgoing(message) {
      seen.sent.push(structuredClone(message));
      return message;
    },
  });
  const registered = {};
  for (const extension of extensions) {
    const [name, object] = typeof extension === 'string' ? [extension] : Object.entries(extension)[0];
    registered[name] = object ?? new library[EXTENSIONS[name]]();
    cometd.registerExtension(name, registered[name]);
  }

  t.after(async () => {
    if (cometd.isDisconnected()) return;
    cometd.disconnect();
    await until('the client to disconnect', () => cometd.getStatus() === 'disconnected', {
      ms: 2_000,
      seen: () => cometd.getStatus(),
    });
  });
  return { cometd, seen, extensions: registered };
}

/** The type of the transport that the client uses. */
export function transportOf(cometd) {
  const transport = cometd.getTransport();
  return transport.type ?? transport.getType(); // before version 8 it is not a property
}

/** Turns the callback of `act` into a promise: `await reply((done) => cometd.publish(channel, data, done))`. */
export const reply = (act) => new Promise((resolve) => act(resolve));

/** Notes the HTTP requests that this process makes, WebSocket handshakes included. */
export function watchRequests() {
  const requests = [];
  subscribe('http.client.request.start', ({ request }) => {
    const upgrade = request.getHeader('upgrade');
    requests.push(`${request.method} ${request.path}${upgrade ? ` (upgrade: ${upgrade})` : ''}`);
  });
  return requests;
}
