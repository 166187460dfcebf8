// Publishes that Faye's client sends again, and messages from before a subscription.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { post } from './bayeux.mjs';
import { nodesThatSent } from './cluster.mjs';
import { startCuttingProxy } from './cutting-proxy.mjs';
import { openFayeClient } from './faye-client.mjs';
import { openResumingClient } from './resuming-client.mjs';
import { assertSequence, numbers } from './sequence.mjs';
import { configuration } from './server.mjs';
import { until, within } from './wait.mjs';

const HOLD_MS = 2_000;
const KEPT = 100;

/**
 * The tests, on the server that `start(mount, more, options)` starts. With `cluster` second copies must have reached
 * other nodes.
 */
export function testReplay(start, { cluster = false } = {}) {
  let server;
  const proxies = [];
  before(async () => (server = await start('/bayeux', configuration('replay'), { holdMs: HOLD_MS })));
  after(async () => {
    await Promise.all(proxies.map((proxy) => proxy.stop()));
    await server?.stop();
  });

  async function openProxy() {
    const proxy = await startCuttingProxy(server.origin);
    proxies.push(proxy);
    return proxy;
  }

  async function publish(channel, list) {
    const replies = await post(server.url, ...list.map((data) => ({ channel, data })));
    assert.deepEqual(replies.filter((m) => !m.successful), []);
  }

  /** A session by hand. */
  async function handshake(ext) {
    const [reply] = await post(server.url, {
      channel: '/meta/handshake',
      version: '1.0',
      supportedConnectionTypes: ['long-polling'],
      ext,
    });
    assert.equal(reply.successful, true, reply.error);
    const { clientId } = reply;
    let id = 0;
    return {
      async subscribe(subscription, subscribeExt) {
        return (await post(server.url, { channel: '/meta/subscribe', clientId, subscription, ext: subscribeExt }))[0];
      },
      /** Polls until `enough(messages)`, and gives all messages that came. */
      async poll(enough) {
        const messages = [];
        await until(
          'enough messages',
          async () => {
            id += 1;
            const connect = { channel: '/meta/connect', clientId, connectionType: 'long-polling', id: String(id) };
            messages.push(...(await post(server.url, connect)).filter((m) => m.data !== undefined));
            return enough(messages);
          },
          { seen: () => messages.slice(-10) },
        );
        return messages;
      },
    };
  }

  const data = (messages) => messages.map((m) => m.data);

  for (const transport of ['websocket', 'long-polling']) {
    describe(`faye client, ${transport}`, { concurrency: true }, () => {
      test('a publish that is sent again is one message', async (t) => {
        const channel = `/again/${transport}`;
        const proxy = await openProxy();
        const listener = await openFayeClient(t, server.url, 'websocket');
        await within(listener.client.subscribe(channel, () => {}), 'a subscription');
        const sender = await openFayeClient(t, `${proxy.origin}/bayeux`, transport, { steady: false, retry: 0.1 });

        let moved = false;
        for (const n of numbers(10)) {
          const from = proxy.answers.length;
          // The channel stands in the answer to the publish alone: the sender has not subscribed.
          const swallowed = proxy.swallow(`"${channel}"`);
          await within(sender.client.publish(channel, n), 'an acknowledgement');
          await within(swallowed, 'the answer to the first copy to be lost');
          moved ||= nodesThatSent(`"${channel}"`, proxy.answers.slice(from)).size > 1;
        }
        // Of two sockets, one after the other, the second brought the copy.
        if (transport === 'websocket') moved = nodesThatSent(`"${channel}"`, proxy.answers).size > 1;
        if (cluster) assert.ok(moved, 'a second copy has reached another node');
        await publish(channel, ['end']);
        await until('the last message', () => listener.wire.data(channel).includes('end'));
        assertSequence(listener.wire.data(channel), [...numbers(10), 'end'], 'messages');
        assert.ok(sender.wire.downs >= 10, `the client noticed ${sender.wire.downs} of 10 losses`);
      });

      test('the same content in another publish is another message', async (t) => {
        const channel = `/same/${transport}`;
        const { client, wire } = await openFayeClient(t, server.url, transport);
        await within(client.subscribe(channel, () => {}), 'a subscription');
        for (const n of numbers(3)) await within(client.publish(channel, 'same'), `acknowledgement ${n}`);
        await within(client.publish(channel, 'end'), 'an acknowledgement');
        await until('the last message', () => wire.data(channel).includes('end'));
        assert.deepEqual(wire.data(channel), ['same', 'same', 'same', 'end']);
      });

      test('what was kept comes to a late subscriber, then what is new', async (t) => {
        const channel = `/kept/${transport}/late`;
        await publish(channel, numbers(KEPT + 20)); // the oldest are not kept
        const extension = {
          outgoing(message, callback) {
            if (message.channel === '/meta/subscribe') message.ext = { replay: { [channel]: -2 } };
            callback(message);
          },
        };
        const { client, wire } = await openFayeClient(t, server.url, transport, { extension });
        const heard = [];
        const subscription = client.subscribe(channel, (message) => heard.push(message));
        // While the replay is under way.
        await publish(channel, ['new', 'newer']);
        await within(subscription, 'the subscription');
        await publish(channel, ['end']);
        await until('the last message', () => heard.includes('end'), { seen: () => heard.slice(-10) });

        const reply = await wire.reply('/meta/subscribe');
        assert.ok(reply.ext.replay[channel] > 0, JSON.stringify(reply));
        // It depends on who was first, the subscription or the newer messages, which of the old ones are still kept.
        const all = [...numbers(KEPT + 20), 'new', 'newer', 'end'];
        const from = all.indexOf(heard[0]);
        assert.ok(from >= 20 && from <= 22, `it begins with ${heard[0]}`);
        assertSequence(heard, all.slice(from), 'messages');
        assertSequence(wire.data(channel), heard, 'copies on the wire');
      });

      test('a replay that breaks, with resume: each message once', async (t) => {
        const channel = `/kept/${transport}/broken`;
        const total = 100;
        // More than one chunk: a reply has 1 MiB at most, a chunk 256 KiB.
        const padding = 'x'.repeat(20_000);
        for (const n of numbers(total)) await publish(channel, [{ n, padding }]);
        const proxy = await openProxy();
        const extension = {
          outgoing(message, callback) {
            if (message.channel === '/meta/subscribe') {
              message.ext = { ...message.ext, replay: { [channel]: -2 } };
            }
            callback(message);
          },
        };
        const swallowed = [proxy.swallow('"n":30')];
        const app = await openResumingClient(t, proxy.origin, `faye ${transport}`, [channel], { extension });
        const heard = app.heard[channel];
        await within(swallowed[0], 'a reply to be lost');
        await publish(channel, [{ n: total }]);
        await until('the last message', () => heard.some(({ n }) => n === total), { seen: () => heard.length });
        await publish(channel, [{ n: total + 1 }]);
        await until('the end', () => heard.some(({ n }) => n === total + 1), { seen: () => heard.length });
        // The newest hundred are kept, also while the replay runs.
        const first = heard[0].n;
        assert.ok(first <= 2, `it begins with ${first}`);
        assertSequence(heard.map(({ n }) => n), numbers(total + 2 - first, first), 'what the application was given');
        assert.deepEqual(app.gaps, []);
      });
    });
  }

  describe('replay by hand', { concurrency: true }, () => {
    test('all that is kept', async () => {
      const channel = '/kept/hand/all';
      await publish(channel, numbers(KEPT + 20));
      const session = await handshake({ replay: true });
      const reply = await session.subscribe(channel, { replay: { [channel]: -2 } });
      assert.equal(reply.successful, true, reply.error);
      assert.equal(typeof reply.ext.replay[channel], 'number', JSON.stringify(reply));
      const old = await session.poll((messages) => messages.length >= KEPT);
      assertSequence(data(old), numbers(KEPT, 20), 'kept messages');
      assert.ok(old.every((m) => m.ext.replay === true));
      const positions = old.map((m) => m.ext.position[0]);
      assert.ok(positions[0] > reply.ext.replay[channel], 'they lie past the position in the reply');
      assert.ok(positions.every((position, i) => i === 0 || position > positions[i - 1]), 'positions rise');

      await publish(channel, ['new']);
      const [message, ...more] = await session.poll((messages) => messages.length > 0);
      assert.deepEqual([message.data, more], ['new', []]);
      assert.equal(message.ext.replay, undefined);
      assert.ok(message.ext.position[0] > positions.at(-1));
    });

    test('from a position on', async () => {
      const channel = '/kept/hand/position';
      await publish(channel, numbers(50));
      const first = await handshake({ replay: true });
      await first.subscribe(channel, { replay: { [channel]: -2 } });
      const all = await first.poll((messages) => messages.length >= 50);

      const second = await handshake({ replay: true });
      const position = all[29].ext.position[0];
      const reply = await second.subscribe(channel, { replay: { [channel]: position } });
      assert.deepEqual(reply.ext, { replay: { [channel]: position } });
      await publish(channel, ['new']);
      const later = await second.poll((messages) => messages.some((m) => m.data === 'new'));
      assertSequence(data(later), [...numbers(20, 30), 'new'], 'messages after the position');
    });

    test('from a position that is no longer kept: the rest, and a gap', async () => {
      const channel = '/kept/hand/gap';
      await publish(channel, ['gone']);
      const first = await handshake({ replay: true });
      await first.subscribe(channel, { replay: { [channel]: -2 } });
      const [{ ext }] = await first.poll((messages) => messages.length >= 1);
      await publish(channel, numbers(KEPT + 50));

      const second = await handshake({ replay: true });
      const reply = await second.subscribe(channel, { replay: { [channel]: ext.position[0] } });
      assert.equal(reply.ext.gap, true, JSON.stringify(reply));
      const rest = await second.poll((messages) => messages.length >= KEPT);
      assertSequence(data(rest), numbers(KEPT, 50), 'the rest');
    });

    test('new messages only', async () => {
      const channel = '/kept/hand/new';
      await publish(channel, numbers(10));
      const session = await handshake();
      const reply = await session.subscribe(channel, { replay: { [channel]: -1 } });
      assert.equal(reply.successful, true, reply.error);
      await publish(channel, ['new']);
      const [message] = await session.poll((messages) => messages.length > 0);
      assert.equal(message.data, 'new');
      assert.equal(message.ext, undefined, 'who did not ask for positions gets none');
    });

    for (const channel of ['/unkept/x', '/closed/x']) {
      test(`refused on ${channel}`, async () => {
        const session = await handshake({ replay: true });
        const reply = await session.subscribe(channel, { replay: { [channel]: -2 } });
        assert.equal(reply.successful, false);
        assert.equal(reply.error, `403:${channel}:Replay not allowed`);
        const plain = await session.subscribe(channel);
        assert.equal(plain.successful, true, plain.error);
      });
    }
  });
}
