// Weft's own JavaScript client in Node, as it is built.

import { createRequire } from 'node:module';
import WebSocket from 'ws';
import { until, within } from './wait.mjs';

const require = createRequire(import.meta.url);
/** The classic script, as `require` gives it. */
export const Weft = require('../../../browser/dist/weft.js');
export const TRANSPORTS = ['websocket', 'eventsource', 'long-polling'];

/** A client that uses `transport` alone, and what it tells: `told`, names and facts of its events. */
export function open(t, url, transport, options = {}) {
  const transports = transport ? [transport] : undefined;
  const client = new Weft.Client(url, { transports, WebSocket, backoff: { first: 20, max: 200 }, ...options });
  const told = [];
  const names = 'connected resumed recovered gap session:new stopped transport transport:up transport:down retry';
  for (const name of names.split(' ')) client.on(name, (facts) => told.push({ ...facts, name, to: facts?.name }));
  // Always settles.
  t.after(() => within(client.disconnect(), 'the end of a client'));
  return { client, told };
}

/** Waits for an event. */
export const event = (told, name, from = 0) =>
  until(`the event ${name}`, () => told.slice(from).find((one) => one.name === name), { seen: () => told });

/** Subscribes, and gives the list that fills with the data. */
export async function collect(client, channel, options = {}) {
  const list = [];
  await within(client.subscribe(channel, options, (data) => list.push(data)), `a subscription to ${channel}`);
  return list;
}

/** Waits until a list is as long as this. */
export const full = (list, count) => until(`${count} messages`, () => list.length >= count, { seen: () => list });
