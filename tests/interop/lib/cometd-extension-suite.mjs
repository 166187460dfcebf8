// The extensions that come with CometD's JavaScript client, registered as its manual says, and what its clients do when
// the connection or the session ends.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { post } from './bayeux.mjs';
import { nodesThatSent } from './cluster.mjs';
import { openCometdClient, reply } from './cometd-client.mjs';
import { startCuttingProxy } from './cutting-proxy.mjs';
import { startLossyProxy } from './lossy-proxy.mjs';
import { assertSequence, numbers } from './sequence.mjs';
import { configuration } from './server.mjs';
import { until, within } from './wait.mjs';

/** Its default is to wait a second longer after each failure. */
const IMPATIENT = { backoffIncrement: 100, maxBackoff: 300 };
/** Short, for tests wait until a connect was held. */
const HOLD_MS = 1_500;
const BURST = 500;
/** More than enough for a burst on a busy machine. */
const BURST_MS = 20_000;
/** Redeliveries until one must have come from another node than the first delivery. */
const MOST_ROUNDS = 20;

/**
 * The tests of the last three major versions of the client, on the server that `start(mount, more, options)` starts.
 * With `cluster` the older versions are only asked what concerns sessions, and redeliveries come from other nodes.
 */
export function testCometdExtensions(start, { cluster = false } = {}) {
  let server;
  const proxies = [];
  before(async () => (server = await start('/cometd', configuration('extensions'), { holdMs: HOLD_MS })));
  after(async () => {
    await Promise.all(proxies.map((proxy) => proxy.stop()));
    await server?.stop();
  });

  for (const [version, transport] of [7, 8, 9].flatMap((v) => [[v, 'websocket'], [v, 'long-polling']])) {
    describe(`cometd client ${version}, ${transport}`, { concurrency: true }, () => {
      // Tests run at the same time, so each has a part of the channel space for itself.
      const room = (name) => `/${version}/${transport}/${name}`;
      // Not run at all, and so not a skipped test, where it would prove nothing new.
      const long = cluster && version < 9 ? () => {} : test;

      async function handshaken(t, extensions = [], startProxy) {
        const proxy = await startProxy?.(server.origin);
        if (proxy) proxies.push(proxy);
        const url = proxy ? `${proxy.origin}/cometd` : server.url;
        const client = openCometdClient(t, url, transport, { version, extensions, configuration: IMPATIENT });
        const answer = await within(reply((done) => client.cometd.handshake(done)), 'a handshake');
        assert.equal(answer.successful, true, JSON.stringify(answer));
        return { ...client, proxy, answer };
      }

      async function subscribed(cometd, channel) {
        const heard = [];
        const answer = await within(
          reply((done) => cometd.subscribe(channel, ({ data }) => heard.push(data), done)),
          `a subscription to ${channel}`,
        );
        assert.equal(answer.successful, true, JSON.stringify(answer));
        return heard;
      }

      /** Publishes past the client and its proxy. */
      async function publish(channel, list) {
        const replies = await post(`${server.origin}/bayeux`, ...list.map((data) => ({ channel, data })));
        assert.deepEqual(replies.filter((m) => !m.successful), []);
      }

      const hears = (heard, last, ms) =>
        until(`the message ${JSON.stringify(last)}`, () => heard.includes(last), { ms, seen: () => heard.slice(-20) });

      const distinct = (list) => [...new Set(list)];

      /** The client went on in the session that it had. */
      function assertSameSession({ cometd, seen, answer }) {
        assert.equal(seen.handshakes.length, 1, 'handshakes');
        assert.equal(cometd.getClientId(), answer.clientId);
      }

      test(`ack: a burst of ${BURST} arrives once and in order`, async (t) => {
        const { cometd, seen, answer } = await handshaken(t, ['ack']);
        assert.equal(answer.ext.ack, true);
        const channel = room('ack/burst');
        const heard = await subscribed(cometd, channel);

        for (const n of numbers(BURST / 50)) await publish(channel, numbers(50, 50 * n));
        await publish(channel, ['end']);
        await hears(heard, 'end', BURST_MS);

        assertSequence(heard, [...numbers(BURST), 'end'], 'messages');
        assert.equal(seen.messages.length, BURST + 1, 'copies on the wire');
        // The client says what the reply before has told it, from 0 on.
        const acks = seen.connects.map((m) => m.ext.ack);
        assert.ok(acks.every((ack) => Number.isSafeInteger(ack)), `numbers of the replies: ${acks}`);
        assert.deepEqual(acks, acks.toSorted((a, b) => a - b), 'they never fall');
        const confirmed = seen.sent.filter((m) => m.channel === '/meta/connect').map((m) => m.ext.ack);
        assert.deepEqual(confirmed.slice(0, acks.length + 1), [0, ...acks].slice(0, confirmed.length));
        assert.ok(confirmed.length > 2, 'the client has acknowledged something');
      });

      test('ack: what a lost reply carried is delivered again', async (t) => {
        const client = await handshaken(t, ['ack'], startCuttingProxy);
        const { cometd, proxy, seen } = client;
        const channel = room('ack/lost');
        const heard = await subscribed(cometd, channel);
        await publish(channel, ['first']);
        await hears(heard, 'first');

        const expected = ['first'];
        let moved = false;
        for (let round = 0; round < (cluster ? MOST_ROUNDS : 3) && !moved; round += 1) {
          const list = numbers(10).map((n) => `round ${round}, message ${n}`);
          expected.push(...list);
          // On a socket those before may have arrived, by HTTP the whole reply is gone.
          const swallowed = proxy.swallow(`"${list[5]}"`);
          await publish(channel, list);
          await within(swallowed, 'the reply to be lost');
          await hears(heard, list.at(-1));
          moved = cluster && nodesThatSent(`"${list[5]}"`, proxy.answers).size > 1;
        }
        if (cluster) assert.ok(moved, `no redelivery came from another node in ${MOST_ROUNDS} rounds`);
        await publish(channel, ['end']);
        await hears(heard, 'end');

        assertSequence(distinct(heard), [...expected, 'end'], 'messages without copies');
        t.diagnostic(`${heard.length - expected.length - 1} messages came more than once`);
        assert.ok(seen.unsuccessful.length > 0, 'the client has noticed');
        assertSameSession(client);
      });

      long('ack: messages that came without the number of their reply come again', async (t) => {
        const client = await handshaken(t, ['ack'], startLossyProxy);
        const { cometd, proxy, seen } = client;
        const channel = room('ack/number');
        const heard = await subscribed(cometd, channel);
        await until('the first connect to be answered', () => seen.connects.length > 0);

        const lost = proxy.lose(/"ack":/);
        await publish(channel, numbers(5));
        await within(lost, 'the number to be lost');
        await publish(channel, numbers(5, 5));
        await hears(heard, 9);

        assertSequence(distinct(heard), numbers(10), 'messages without copies');
        if (transport === 'websocket') assert.ok(heard.length > 10, 'messages came before their number, and again');
        assert.ok(seen.unsuccessful.length > 0, 'the client has noticed');
        assertSameSession(client);
      });

      long('timesync: the client learns the lag and the offset of its clock', async (t) => {
        // What the client knows already is not told again, and how long a connect was held would not show.
        const forget = {
          outgoing(message) {
            if (message.channel === '/meta/connect') Object.assign(message.ext.timesync, { l: 0, o: 0 });
            return message;
          },
        };
        const { cometd, seen, answer, extensions } = await handshaken(t, [{ forget }, 'timesync']);
        const { tc, ts, p, a } = answer.ext.timesync;
        for (const number of [tc, ts, p, a]) assert.equal(typeof number, 'number', JSON.stringify(answer.ext));
        assert.equal(a, tc - ts, 'what the client did not know yet: it said that lag and offset are 0');

        // Time in which the server held a connect is no lag.
        const held = ({ ext }) => ext?.timesync?.p > 0.8 * HOLD_MS;
        await until('replies to two held connects', () => seen.connects.filter(held).length > 1, {
          seen: () => seen.connects,
        });
        await subscribed(cometd, room('timesync'));
        const [lag, offset] = [extensions.timesync.getNetworkLag(), extensions.timesync.getTimeOffset()];
        assert.ok(lag >= 0 && lag < HOLD_MS / 8, `a lag of ${lag} ms`);
        // Both clocks are one.
        assert.ok(Math.abs(offset) < HOLD_MS / 8, `an offset of ${offset} ms`);
        const told = seen.sent.filter((m) => m.channel === '/meta/subscribe')[0].ext.timesync;
        assert.equal(typeof told.tc, 'number');
      });

      long('timestamp: what carries one is answered with one', async (t) => {
        const { cometd, seen, answer } = await handshaken(t, ['timestamp']);
        const channel = room('timestamp');
        const heard = await subscribed(cometd, channel);
        await within(reply((done) => cometd.publish(channel, 'a', done)), 'an acknowledgement');
        await hears(heard, 'a');

        assert.ok(seen.sent.every((m) => m.timestamp));
        const channels = [answer, ...seen.replies].map((m) => m.channel);
        for (const name of ['/meta/handshake', '/meta/subscribe', '/meta/connect', channel]) {
          assert.ok(channels.includes(name), `a reply on ${name} among ${channels}`);
        }
        for (const { channel: name, timestamp } of seen.replies) {
          assert.match(timestamp ?? '', /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d/, `the timestamp of a reply on ${name}`);
          assert.ok(Math.abs(Date.now() - Date.parse(timestamp)) < 30_000, timestamp);
        }
      });

      long('binary: bytes arrive as they were', async (t) => {
        const sender = await handshaken(t, ['binary']);
        const receiver = await handshaken(t, ['binary']);
        const channel = room('binary');
        const heard = await subscribed(receiver.cometd, channel);

        // All bytes, and lengths that are no multiple of four.
        const bytesOf = (length) => Uint8Array.from(numbers(length), (n) => 255 - (n % 256));
        const chunks = [256, 257, 258, 259, 0].map(bytesOf);
        for (const [i, chunk] of chunks.entries()) {
          const answer = await within(
            reply((done) => sender.cometd.publishBinary(channel, chunk, i === 4, { chunk: i }, done)),
            'an acknowledgement',
          );
          assert.equal(answer.successful, true, JSON.stringify(answer));
        }
        await until('all chunks', () => heard.length >= chunks.length, { seen: () => receiver.seen.messages });

        const bytes = heard.map(({ data }) => [...new Uint8Array(data)]);
        assert.deepEqual(bytes, chunks.map((chunk) => [...chunk]));
        assert.deepEqual(heard.map(({ meta, last }) => [meta.chunk, last]), numbers(5).map((i) => [i, i === 4]));
      });

      test('remote call: each gets its own answer', async (t) => {
        const { cometd, seen } = await handshaken(t);
        const call = (target, data) =>
          within(reply((done) => cometd.remoteCall(target, data, 5_000, done)), 'an answer');

        const answers = await Promise.all(numbers(50).map((n) => call(n % 2 ? 'echo' : '/echo', { number: n })));
        assert.deepEqual(answers.map((m) => m.data), numbers(50).map((number) => ({ number })));
        assert.ok(answers.every((m) => m.channel === '/service/echo'));
        assert.equal(seen.messages.length, 50, 'answers on the wire');
        assert.deepEqual(seen.unsuccessful, []);
      });

      long('remote call: to a service that nobody offers it times out', async (t) => {
        const { cometd } = await handshaken(t);
        const start = Date.now();
        const answer = await within(reply((done) => cometd.remoteCall('nobody', 'there', 300, done)), 'an answer');
        assert.equal(answer.successful, false);
        assert.equal(answer.error, '406::timeout');
        assert.ok(Date.now() - start >= 290, 'the client has waited');
      });

      test('a connection that breaks costs neither a message nor the session', async (t) => {
        const client = await handshaken(t, [], startCuttingProxy);
        const { cometd, proxy, seen } = client;
        const channel = room('cut');
        const heard = await subscribed(cometd, channel);
        await publish(channel, ['before']);
        await hears(heard, 'before');

        proxy.cut();
        await publish(channel, numbers(20));
        await until('the client to notice', () => seen.unsuccessful.length > 0);
        proxy.mend();
        await hears(heard, 19);
        await publish(channel, ['end']);
        await hears(heard, 'end');

        assertSequence(distinct(heard), ['before', ...numbers(20), 'end'], 'messages without copies');
        assertSameSession(client);
      });

      test('a session that ended elsewhere: the client shakes hands again', async (t) => {
        const { cometd, proxy, seen, answer } = await handshaken(t, [], startCuttingProxy);
        const channel = room('again');
        const heard = [];
        const subscriptions = [];
        // As the manual says: an application subscribes in its listener for handshakes. This one is past.
        const subscribe = () => cometd.subscribe(channel, ({ data }) => heard.push(data), (m) => subscriptions.push(m));
        cometd.addListener('/meta/handshake', ({ successful }) => successful && subscribe());
        subscribe();
        await until('the subscription', () => subscriptions.length === 1);

        // A connect that waits would be told that the session was ended in order, and the client would stop.
        proxy.cut();
        await post(server.url, { channel: '/meta/disconnect', clientId: answer.clientId });
        proxy.mend();
        await until('the next subscription', () => subscriptions.length === 2, { seen: () => seen.replies.slice(-5) });

        assert.deepEqual(seen.unsuccessful.filter((m) => m.error).map((m) => m.error), ['402::session_unknown']);
        assert.equal(seen.handshakes.length, 2);
        assert.notEqual(cometd.getClientId(), answer.clientId);
        assert.ok(subscriptions.every((m) => m.successful), JSON.stringify(subscriptions));
        await publish(channel, ['again']);
        await hears(heard, 'again');
      });

      test('disconnect is prompt, also while a connect is held', async (t) => {
        const { cometd, seen } = await handshaken(t, ['ack']);
        await subscribed(cometd, room('bye'));
        await until('a connect to be held', () => cometd.getStatus() === 'connected');
        const start = Date.now();
        const answer = await within(reply((done) => cometd.disconnect(done)), 'an answer to the disconnect', 1_000);
        assert.equal(answer.successful, true, JSON.stringify(answer));
        await until('the state "disconnected"', () => cometd.getStatus() === 'disconnected', { ms: 1_000 });
        assert.ok(Date.now() - start < 0.8 * HOLD_MS, 'earlier than the held connect would end');
        assert.deepEqual(seen.unsuccessful, []);
      });
    });
  }
}
