// CometD's official JavaScript client, watched from the outside.

import { subscribe } from 'node:diagnostics_channel';
import { CometD } from 'cometd';
import { adapt } from 'cometd-nodejs-client';
import { until } from './wait.mjs';

// The client is written for browsers; its project's own adapter gives it XMLHttpRequest and WebSocket.
adapt();

const TRANSPORTS = ['websocket', 'long-polling', 'callback-polling'];

/** A client on `url` with one transport only, and notes of what happened to it. Below `logLevel` it keeps quiet. */
export function openCometdClient(t, url, transport, { logLevel = 'warn' } = {}) {
  const cometd = new CometD();
  cometd.configure({ url, logLevel });
  for (const other of TRANSPORTS) if (other !== transport) cometd.unregisterTransport(other);

  const seen = { connects: [], unsuccessful: [], messages: [] };
  cometd.addListener('/meta/connect', (reply) => seen.connects.push({ ...reply, receivedAt: Date.now() }));
  cometd.addListener('/meta/unsuccessful', (reply) => seen.unsuccessful.push(reply));
  cometd.registerExtension('watch', {
    incoming(message) {
      if (message.data !== undefined) seen.messages.push(message);
      return message;
    },
  });

  t.after(async () => {
    if (cometd.isDisconnected()) return;
    cometd.disconnect();
    await until('the client to disconnect', () => cometd.getStatus() === 'disconnected', {
      ms: 2_000,
      seen: () => cometd.getStatus(),
    });
  });
  return { cometd, seen };
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
