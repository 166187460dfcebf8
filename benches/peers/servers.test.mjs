// Whether the servers serve: node --test (after npm ci). Each is started, a message goes through it, and it ends.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import faye from 'faye';
import { createClient } from 'redis';
import { io } from 'socket.io-client';

const DEADLINE = 10_000;

const undone = new WeakMap();

/** Does this after the test. The last comes first: clients go before their server, and servers before their Redis. */
function undo(t, what) {
  if (!undone.has(t)) {
    undone.set(t, []);
    t.after(async () => {
      for (const next of undone.get(t).reverse()) await next();
    });
  }
  undone.get(t).push(what);
}

/** Starts a server of this folder, and gives what it said. It ends with the test, by SIGTERM and with code 0. */
async function start(t, script, ...args) {
  const child = spawn(process.execPath, [new URL(script, import.meta.url).pathname, ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  undo(t, async () => {
    const ended = once(child, 'exit');
    child.kill('SIGTERM');
    assert.deepEqual(await ended, [0, null]);
  });
  const [line] = await once(createInterface(child.stdout), 'line', { signal: AbortSignal.timeout(DEADLINE) });
  const ready = JSON.parse(line);
  assert.equal(ready.pid, child.pid);
  return ready.url;
}

/** A Redis of the test's own, on a port that was free a moment ago. */
async function startRedis(t) {
  const probe = createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const { port } = probe.address();
  probe.close();
  await once(probe, 'close');
  const folder = await mkdtemp(join(tmpdir(), 'weft-peers-'));
  const args = ['--port', port, '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', '--dir', folder];
  const child = spawn('redis-server', args.map(String), { stdio: 'ignore' });
  undo(t, async () => {
    const ended = once(child, 'exit');
    child.kill('SIGKILL');
    await ended;
    await rm(folder, { recursive: true });
  });
  const client = createClient({ socket: { host: '127.0.0.1', port, reconnectStrategy: 20 } });
  client.on('error', () => {}); // it is just starting
  await client.connect();
  await client.close();
  return String(port);
}

const within = (promise, what) =>
  Promise.race([promise, pause(DEADLINE, null, { ref: false }).then(() => assert.fail(`no ${what}`))]);

/** A message through Faye's own client; from one node to another where there are two. */
async function throughFaye(t, from, to) {
  const [publisher, subscriber] = [from, to].map((url) => new faye.Client(url));
  undo(t, () => Promise.all([publisher, subscriber].map((client) => client.disconnect())));
  const { promise, resolve } = deferred();
  await within(subscriber.subscribe('/room', resolve), 'subscription');
  await within(publisher.publish('/room', 'weft:1'), 'acknowledgement');
  assert.equal(await within(promise, 'message'), 'weft:1');
}

async function throughSocketIo(t, from, to) {
  const [publisher, subscriber] = [from, to].map((url) => {
    const socket = io(new URL('/', url).href, { transports: ['websocket'], forceNew: true });
    undo(t, () => socket.disconnect());
    return socket;
  });
  const { promise, resolve } = deferred();
  subscriber.on('message', (...args) => resolve(args));
  await subscriber.timeout(DEADLINE).emitWithAck('subscribe', '/room');
  await publisher.timeout(DEADLINE).emitWithAck('publish', '/room', 'weft:1');
  assert.deepEqual(await within(promise, 'message'), ['/room', 'weft:1']);
}

function deferred() {
  let resolve;
  const promise = new Promise((yes) => (resolve = yes));
  return { promise, resolve };
}

for (const [script, through, option] of [
  ['faye.mjs', throughFaye, '--engine'],
  ['socketio.mjs', throughSocketIo, '--adapter'],
]) {
  test(`${script} in memory`, async (t) => {
    const url = await start(t, script);
    await through(t, url, url);
  });

  test(`${script} on Redis: two nodes`, async (t) => {
    const port = await startRedis(t);
    const args = [option, 'redis', '--redis-port', port];
    await through(t, await start(t, script, ...args), await start(t, script, ...args));
  });
}
