// The server under test: the program named by WEFT_BIN, or, with INTEROP_REFERENCE=faye, Faye's own
// server in this process. The reference exists to prove the tests: what Faye's server does with
// Faye's client is by definition right.

import { once } from 'node:events';
import http from 'node:http';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import faye from 'faye';
import { startProgram } from './program.mjs';
import { until, within } from './wait.mjs';

/** How long the server holds an idle connect. Short, so that tests can sit one out. */
export const HOLD_MS = 5_000;

const STARTUP_MS = 10_000;
const SHUTDOWN_MS = 15_000;

export const REFERENCE = process.env.INTEROP_REFERENCE;

// Faye's Node client obeys these even towards loopback; a proxy has no place in these tests.
for (const name of ['http_proxy', 'HTTP_PROXY', 'https_proxy', 'HTTPS_PROXY']) {
  delete process.env[name];
}

/**
 * Starts the server, Weft with `more` arguments, and resolves with (`holdMs`: how long it holds an idle connect)
 *  - `origin`: its `http://host:port`
 *  - `url`: `origin` and the mount
 *  - `noticedDisconnect(clientId)`: see the reference; Weft must not need it
 *  - `stop()`: ends it, and fails if it did not end well
 */
export function startServer(mount, more = [], { holdMs = HOLD_MS } = {}) {
  if (REFERENCE === 'faye') return startFaye(mount, holdMs);
  if (REFERENCE) throw new Error(`INTEROP_REFERENCE=${REFERENCE}: only "faye" is known`);
  return startWeft(mount, weftProgram(), more, holdMs);
}

/** The arguments that give the server the file `config/<name>.toml`. */
export const configuration = (name) => [
  '--config',
  fileURLToPath(new URL(`../config/${name}.toml`, import.meta.url)),
];

/** The program under test. */
export function weftProgram() {
  if (process.env.WEFT_BIN) return process.env.WEFT_BIN;
  throw new Error('set WEFT_BIN to the weft binary, or INTEROP_REFERENCE=faye to test the tests');
}

async function startWeft(mount, program, more, holdMs) {
  const weft = await startProgram(
    program,
    (scratch) => [
      'serve',
      ...['--listen', '127.0.0.1:0'],
      ...['--internal-listen', '127.0.0.1:0'],
      ...['--timeout', `${holdMs}ms`],
      ...['--ready-file', join(scratch, 'ready.json')],
      ...more,
    ],
    'ready.json',
    STARTUP_MS,
  );
  const origin = `http://${weft.ready.listen}`;
  return {
    origin,
    url: origin + mount,
    noticedDisconnect: async () => {},
    stop: () => weft.stop(SHUTDOWN_MS),
  };
}

async function startFaye(mount, holdMs) {
  const bayeux = new faye.NodeAdapter({ mount, timeout: holdMs / 1000 });
  const server = http.createServer((_request, response) => response.writeHead(404).end());
  bayeux.attach(server);

  // http.Server forgets sockets once they are upgraded, so it cannot close them.
  const sockets = new Set();
  server.on('connection', (socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
  });
  const disconnected = new Set();
  bayeux.on('connection:close', (clientId) => disconnected.add(clientId));

  server.listen(0, '127.0.0.1');
  await once(server, 'listening');

  const origin = `http://127.0.0.1:${server.address().port}`;
  return {
    origin,
    url: origin + mount,
    // Faye writes into a dead connection until it learns of its end, and what it wrote is lost.
    noticedDisconnect: (clientId) =>
      until(`Faye to notice that ${clientId} went away`, () => disconnected.has(clientId)),
    async stop() {
      bayeux.close();
      for (const socket of sockets) socket.destroy();
      server.close();
      await within(once(server, 'close'), 'the reference server to close', SHUTDOWN_MS);
    },
  };
}
