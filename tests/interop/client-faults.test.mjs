// Weft's JavaScript client in Node while things break: noticed in time, nothing lost, nothing twice, and everything that was
// promised settles.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import WebSocket from 'ws';
import { post } from './lib/bayeux.mjs';
import { startCuttingProxy } from './lib/cutting-proxy.mjs';
import { startFreezer, startSwitch } from './lib/switch-proxy.mjs';
import { startLossyProxy } from './lib/lossy-proxy.mjs';
import { assertSequence, numbers } from './lib/sequence.mjs';
import { REFERENCE, configuration, startServer } from './lib/server.mjs';
import { until, within } from './lib/wait.mjs';
import { TRANSPORTS, collect, event, full, open } from './lib/weft-client.mjs';

const skip = REFERENCE ? "Faye's server loses messages where this is about losing none" : false;
const outcome = (promise) => within(Promise.resolve(promise).then(() => 'done', (error) => error), 'an outcome');

let server;
before(async () => {
  if (!skip) server = await startServer('/bayeux');
});
after(() => server?.stop());

const mount = (proxy) => `${proxy.origin}/bayeux`;

async function behind(t, start) {
  const proxy = await start(server.origin);
  t.after(() => proxy.stop());
  return proxy;
}

for (const transport of TRANSPORTS) {
  describe(`over ${transport}`, { concurrency: true, skip }, () => {
    const channel = `/faults/${transport}`;

    test('connections that are cut', async (t) => {
      const proxy = await behind(t, startCuttingProxy);
      const { client, told } = open(t, mount(proxy), transport);
      const speaker = open(t, server.url, 'websocket').client;
      const list = await collect(client, `${channel}/cut`);
      const { clientId } = client;
      for (const n of numbers(30)) {
        await within(speaker.publish(`${channel}/cut`, n), 'an acknowledgement');
        if (n % 6 === 0) {
          proxy.cut();
          proxy.mend();
        }
      }
      await full(list, 30);
      assertSequence(list, numbers(30), 'messages');
      await event(told, 'resumed');
      assert.equal(client.clientId, clientId);
      assert.ok(!told.some(({ name }) => name === 'gap' || name === 'recovered'));
    });

    test('replies that are lost', async (t) => {
      const proxy = await behind(t, startLossyProxy);
      const { client } = open(t, mount(proxy), transport);
      const list = await collect(client, `${channel}/lost`);
      const expected = [];
      for (const n of numbers(10)) {
        // The acknowledgement, and then the message itself.
        const lost = proxy.lose(n % 2 === 0 ? /successful/ : /"data"/);
        await within(client.publish(`${channel}/lost`, n), 'an acknowledgement');
        await full(list, n + 1);
        await within(lost, 'the loss');
        expected.push(n);
      }
      await within(client.publish(`${channel}/lost`, 'end'), 'an acknowledgement');
      await full(list, 11);
      assertSequence(list, [...expected, 'end'], 'messages');
    });

    test('a half-open connection, with the settings that everybody has', async (t) => {
      const proxy = await behind(t, startFreezer);
      const { client } = open(t, mount(proxy), transport, { backoff: undefined });
      const speaker = open(t, server.url, 'websocket').client;
      const list = await collect(client, `${channel}/frozen`);
      proxy.freeze();
      const frozen = Date.now();
      await within(speaker.publish(`${channel}/frozen`, 1), 'an acknowledgement');
      await within(client.publish(`${channel}/frozen`, 2), 'a publish over the dead connection');
      await until('both', () => list.length === 2, { seen: () => list });
      t.diagnostic(`noticed and mended within ${Date.now() - frozen} ms`);
      assert.deepEqual(list, [1, 2]);
      assert.ok(Date.now() - frozen < 10_000, `${Date.now() - frozen} ms`);
    });

    test('a session that ended while its client was away', async (t) => {
      const short = await startServer('/bayeux', configuration('resume'), { holdMs: 500 });
      t.after(() => short.stop());
      const proxy = await startCuttingProxy(short.origin);
      t.after(() => proxy.stop());
      const sessions = async () => (await (await fetch(`${short.origin}/status.json`)).json()).sessions;
      const none = await until("the node's own session", sessions);
      const { client, told } = open(t, mount(proxy), transport);
      const list = await collect(client, `${channel}/ended`);
      const say = (n) => post(short.url, { channel: `${channel}/ended`, data: n });
      await say(1);
      await full(list, 1);
      const previous = client.clientId;
      const from = told.length;
      proxy.cut();
      for (const n of [2, 3]) await say(n);
      await until('the session to end', async () => (await sessions()) === none);
      await say(4);
      proxy.mend();
      // A stream says later, if at all, that nothing is missing.
      if (transport !== 'eventsource') await event(told, 'recovered', from);
      assert.equal((await event(told, 'session:new', from)).previous, previous);
      await say(5);
      await full(list, 5);
      assertSequence(list, numbers(5, 1), 'messages');
      assert.ok(!told.some(({ name }) => name === 'gap'));
    });

    test('a session that the server forgot', async (t) => {
      const first = await startServer('/bayeux');
      let target = first;
      const proxy = await startSwitch(() => target.origin);
      t.after(() => proxy.stop());
      const { client, told } = open(t, mount(proxy), transport);
      const list = await collect(client, `${channel}/forgot`);
      await within(client.publish(`${channel}/forgot`, 1), 'an acknowledgement');
      await full(list, 1);
      const previous = client.clientId;
      target = await startServer('/bayeux');
      t.after(() => target.stop());
      const from = told.length;
      await first.stop();
      assert.equal((await event(told, 'session:new', from)).previous, previous);
      await event(told, 'gap', from);
      await within(client.publish(`${channel}/forgot`, 2), 'an acknowledgement');
      await full(list, 2);
      assert.deepEqual(list, [1, 2]);
    });

    test('a server that never comes back', async (t) => {
      const proxy = await behind(t, startCuttingProxy);
      const queue = { messages: 10 };
      const { client, told } = open(t, mount(proxy), transport, { queue });
      await collect(client, `${channel}/away`);
      proxy.cut();
      const began = Date.now();
      await until('a fifth attempt', () => told.some(({ name, attempt }) => name === 'retry' && attempt >= 5));
      // 20 ms, 40, 80, 160: at least the half of each.
      assert.ok(Date.now() - began >= 140, `${Date.now() - began} ms`);
      const limited = [
        client.publish(`${channel}/away`, 1, { deadline: 0.2 }),
        client.publish(`${channel}/away`, 1, { attempts: 0 }),
      ];
      for (const publication of limited) assert.equal((await outcome(publication)).code, 'gave-up');
      const waiting = numbers(10).map((n) => client.publish(`${channel}/away`, n));
      assert.equal((await outcome(client.publish(`${channel}/away`, 11))).code, 'queue-full');
      const subscription = client.subscribe(`${channel}/away/too`);
      await within(client.disconnect(), 'the end');
      for (const pending of [...waiting, subscription]) assert.equal((await outcome(pending)).code, 'disconnected');
    });

    test('a publish that is too large fails alone', async (t) => {
      const small = await startServer('/bayeux', configuration('small'));
      t.after(() => small.stop());
      const { client } = open(t, small.url, transport);
      const list = await collect(client, `${channel}/large`);
      const [before, large, after] = [1, 'x'.repeat(5000), 2].map((data) => outcome(client.publish(`${channel}/large`, data)));
      assert.equal(await before, 'done');
      assert.equal((await large).code, 413);
      assert.equal(await after, 'done');
      await full(list, 2);
      assert.deepEqual(list, [1, 2]);
    });
  });
}

describe('transports', { skip }, () => {
  test('what comes twice is heard once', async (t) => {
    /** As a link that overlaps with the one before it. */
    class Twice extends WebSocket {
      set onmessage(listener) {
        super.onmessage = (event) => {
          for (let copy = 0; copy < 2; copy += 1) if (listener) listener(event);
        };
      }
    }
    const { client } = open(t, server.url, 'websocket', { WebSocket: Twice });
    const list = await collect(client, '/faults/twice');
    for (const n of numbers(5)) await within(client.publish('/faults/twice', n), 'an acknowledgement');
    await full(list, 5);
    assertSequence(list, numbers(5), 'messages');
  });

  test('where WebSockets are blocked something else is used, and they are tried again', async (t) => {
    let blocked = true;
    const proxy = await startSwitch(() => server.origin, (head) => blocked && /upgrade: websocket/i.test(head));
    t.after(() => proxy.stop());
    const { client, told } = open(t, mount(proxy), null, { upgradeAfter: 300 });
    const speaker = open(t, server.url, 'websocket').client;
    const list = await collect(client, '/faults/blocked');
    await event(told, 'connected');
    assert.equal(client.transport, 'eventsource');
    blocked = false;
    let n = 0;
    await until('the upgrade', async () => {
      await within(speaker.publish('/faults/blocked', n++), 'an acknowledgement');
      return client.transport === 'websocket';
    });
    await within(speaker.publish('/faults/blocked', n++), 'an acknowledgement');
    await full(list, n);
    assertSequence(list, numbers(n), 'messages');
    assert.deepEqual(told.filter(({ name }) => name === 'transport').map(({ to }) => to), ['eventsource', 'websocket']);
  });
});
