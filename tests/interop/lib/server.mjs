// The server under test: the program named by WEFT_BIN, or, with INTEROP_REFERENCE=faye, Faye's own
// server in this process. The reference exists to prove the tests: what Faye's server does with
// Faye's client is by definition right.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import http from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import faye from 'faye';
import { until, within } from './wait.mjs';

/** How long the server holds an idle connect. Short, so that tests can sit one out. */
export const HOLD_MS = 5_000;

const STARTUP_MS = 10_000;
const SHUTDOWN_MS = 15_000;
const LOG_TAIL = 20_000;

export const REFERENCE = process.env.INTEROP_REFERENCE;

// Faye's Node client obeys these even towards loopback; a proxy has no place in these tests.
for (const name of ['http_proxy', 'HTTP_PROXY', 'https_proxy', 'HTTPS_PROXY']) {
  delete process.env[name];
}

/**
 * Starts the server and resolves with
 *  - `origin`: its `http://host:port`
 *  - `url`: `origin` and the mount
 *  - `noticedDisconnect(clientId)`: see the reference; Weft must not need it
 *  - `stop()`: ends it, and fails if it did not end well
 */
export function startServer(mount) {
  if (REFERENCE === 'faye') return startFaye(mount);
  if (REFERENCE) throw new Error(`INTEROP_REFERENCE=${REFERENCE}: only "faye" is known`);
  if (process.env.WEFT_BIN) return startWeft(mount, process.env.WEFT_BIN);
  throw new Error('set WEFT_BIN to the weft binary, or INTEROP_REFERENCE=faye to test the tests');
}

async function startWeft(mount, program) {
  const scratch = await mkdtemp(join(tmpdir(), 'weft-interop-'));
  const readyFile = join(scratch, 'ready.json');
  // Weft reads its configuration from WEFT_* too, and a test decides all of it by arguments.
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('WEFT_')));
  const child = spawn(
    program,
    [
      'serve',
      ...['--listen', '127.0.0.1:0'],
      ...['--internal-listen', '127.0.0.1:0'],
      ...['--timeout', `${HOLD_MS / 1000}s`],
      ...['--ready-file', readyFile],
    ],
    { env, stdio: ['ignore', 'pipe', 'pipe'] },
  );

  let log = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text) => (log += text));
  }
  // Settles even if the program cannot be started at all.
  const ended = new Promise((resolve) => {
    child.once('error', (error) => resolve(`could not be started: ${error.message}`));
    child.once('close', (code, signal) => resolve(signal ? `killed by ${signal}` : `exit code ${code}`));
  });
  let end = null;
  ended.then((how) => (end = how));

  // Nothing may outlive this process, not even if it is told to end early. And a failing test seldom
  // tells what the server thought of it.
  for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => process.exit(1));
  process.once('exit', (code) => {
    if (end === null) child.kill('SIGKILL');
    if (code !== 0) console.error(`--- log of ${program}:\n${log.slice(-LOG_TAIL) || '(nothing)'}\n---`);
  });

  const ready = await until(
    'the ready file of the server',
    async () => {
      if (end !== null) throw new Error(`the server ended before it was ready (${end}):\n${log}`);
      // Missing or half written: look again.
      return readFile(readyFile, 'utf8').then(JSON.parse).catch(() => null);
    },
    { ms: STARTUP_MS, seen: () => log },
  ).catch(async (error) => {
    child.kill('SIGKILL');
    await rm(scratch, { recursive: true, force: true });
    throw error;
  });

  const origin = `http://${ready.listen}`;
  return {
    origin,
    url: origin + mount,
    noticedDisconnect: async () => {},
    async stop() {
      child.kill('SIGTERM');
      const how = await within(ended, 'the server to stop after SIGTERM', SHUTDOWN_MS).finally(() =>
        rm(scratch, { recursive: true, force: true }),
      );
      if (how !== 'exit code 0') throw new Error(`expected the server to stop with exit code 0, got ${how}:\n${log}`);
    },
  };
}

async function startFaye(mount) {
  const bayeux = new faye.NodeAdapter({ mount, timeout: HOLD_MS / 1000 });
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
