// The stock clients with browser/extensions/resume.js, and what their application is given.

import { createRequire } from 'node:module';
import { openCometdClient } from './cometd-client.mjs';
import { openFayeClient } from './faye-client.mjs';
import { until, within } from './wait.mjs';

const WeftResume = createRequire(import.meta.url)('../../../browser/extensions/resume.js');

export const KINDS = ['faye websocket', 'faye long-polling', 'cometd websocket', 'cometd long-polling'];

/**
 * Opens a client of this kind and subscribes to the channels as an application does. Resolves with
 *  - `heard`: what its callbacks were given on each channel
 *  - `gaps`, `resumed`: what the extension has told
 *  - `clientIds`: its sessions, in order
 *  - `failures()`: how often it has lost its connection, or a request
 *
 * `extension` is one more, of Faye's client.
 */
export async function openResumingClient(t, origin, kind, channels, { extension } = {}) {
  const [library, transport] = kind.split(' ');
  const app = { name: kind, heard: Object.fromEntries(channels.map((channel) => [channel, []])), gaps: [], resumed: 0 };
  const resume = new WeftResume({ gap: (info) => app.gaps.push(info), resumed: () => (app.resumed += 1) });
  await { faye: openFaye, cometd: openCometd }[library](t, origin, transport, app, [resume, extension], channels);
  return app;
}

async function openFaye(t, origin, transport, app, [resume, extension], channels) {
  const options = { steady: false, retry: 0.2, extension: resume };
  const { client, wire } = await openFayeClient(t, `${origin}/bayeux`, transport, options);
  if (extension) client.addExtension(extension);
  Object.defineProperty(app, 'clientIds', {
    get: () => wire.received.filter((m) => m.channel === '/meta/handshake' && m.successful).map((m) => m.clientId),
  });
  app.failures = () => wire.downs;
  const subscriptions = channels.map((channel) => client.subscribe(channel, (data) => app.heard[channel].push(data)));
  await within(Promise.all(subscriptions), 'the subscriptions');
}

async function openCometd(t, origin, transport, app, [resume], channels) {
  const { cometd, seen } = openCometdClient(t, `${origin}/cometd`, transport, {
    extensions: [{ resume }],
    logLevel: 'error',
    configuration: { backoffIncrement: 100, maxBackoff: 300 },
  });
  Object.defineProperty(app, 'clientIds', {
    get: () => seen.handshakes.filter((m) => m.successful).map((m) => m.clientId),
  });
  // A socket that breaks between two connects fails none; but the next asks to be answered at once, which otherwise only the
  // first of a session does.
  const atOnce = ({ channel, advice }) => channel === '/meta/connect' && advice?.timeout === 0;
  const sessions = () => seen.handshakes.filter(({ successful }) => successful).length;
  app.failures = () => seen.unsuccessful.length + Math.max(0, seen.sent.filter(atOnce).length - sessions());
  let subscribed = 0;
  const subscribe = (channel, clientId) => {
    const listener = ({ data }) => app.heard[channel].push(data);
    cometd.subscribe(channel, listener, ({ successful }) => {
      if (successful) subscribed += 1;
      // The answer was lost, and with it the client has dropped the listener. In a newer session there is a newer one.
      else if (cometd.getClientId() === clientId) subscribe(channel, clientId);
    });
  };
  // Called for each handshake: to this client subscriptions end with their session.
  cometd.handshake(({ successful, clientId }) => {
    if (successful) for (const channel of channels) subscribe(channel, clientId);
  });
  await until('the subscriptions', () => subscribed >= channels.length, { seen: () => seen });
}
