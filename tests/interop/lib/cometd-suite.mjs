// CometD's official JavaScript client in Node, over both of its transports.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { post } from './bayeux.mjs';
import { openCometdClient, reply, transportOf, watchRequests } from './cometd-client.mjs';
import { assertSequence, longestGap, numbers } from './sequence.mjs';
import { HOLD_MS, REFERENCE } from './server.mjs';
import { until, within } from './wait.mjs';

/** A client that had to wait for its held connect would take longer. */
const PROMPT_MS = 2_000;

// The requests of this process are CometD's only: the test itself makes none, and tests run in turn.
const requests = watchRequests();

/**
 * The tests of this major version of the client, on the server that `start(mount)` starts. With `brief` none of them
 * waits for a time-out.
 */
export function testCometdClient(start, version = 9, { brief = false } = {}) {
  let server;
  before(async () => (server = await start('/cometd')));
  after(() => server?.stop());

  for (const transport of ['websocket', 'long-polling']) {
    describe(`cometd client ${version}, ${transport}`, () => {
      const room = (name) => `/${transport}/${name}`;

      async function handshaken(t) {
        requests.length = 0;
        const { cometd, seen } = openCometdClient(t, server.url, transport, { version });
        const answer = await within(reply((done) => cometd.handshake(done)), 'a handshake');
        assert.equal(answer.successful, true, JSON.stringify(answer));
        return { cometd, seen, answer };
      }

      async function subscribed(cometd, channel, callback) {
        let handle;
        const answer = await within(
          reply((done) => (handle = cometd.subscribe(channel, callback, done))),
          `a subscription to ${channel}`,
        );
        assert.equal(answer.successful, true, JSON.stringify(answer));
        return handle;
      }

      async function published(cometd, channel, data) {
        const answer = await within(reply((done) => cometd.publish(channel, data, done)), 'an acknowledgement');
        assert.equal(answer.successful, true, JSON.stringify(answer));
      }

      function assertTransport(cometd) {
        assert.equal(transportOf(cometd), transport);
        if (transport === 'websocket') {
          assert.deepEqual(requests, ['GET /cometd (upgrade: websocket)']);
        } else {
          assert.equal(requests[0], 'POST /cometd/handshake');
          assert.ok(requests.includes('POST /cometd/connect'), `expected connects among ${requests}`);
          assert.deepEqual(requests.filter((r) => !/^POST \/cometd(\/|\/handshake|\/connect|\/disconnect)$/.test(r)), []);
        }
      }

      test('handshake, subscribe, publish, receive, unsubscribe', async (t) => {
        const { cometd, seen, answer } = await handshaken(t);
        assert.ok(answer.supportedConnectionTypes.includes(transport));
        await until('a connect to succeed', () => seen.connects.length > 0, { seen: () => seen });
        assert.equal(seen.connects[0].successful, true);
        await until('the next connect to be sent', () => cometd.getStatus() === 'connected', {
          seen: () => cometd.getStatus(),
        });

        const [left, kept] = [room('left'), room('kept')];
        const received = [];
        const handle = await subscribed(cometd, left, (m) => received.push(m.data));
        await subscribed(cometd, kept, (m) => received.push(m.data));
        const messages = [{ text: 'hëllo ☃ 🧶' }, 'plain', 7, [1, [2]], { deep: { er: null } }];
        for (const data of messages) await published(cometd, left, data);
        await until('all messages', () => received.length >= messages.length, { seen: () => received });
        assert.deepEqual(received, messages);

        const gone = await within(reply((done) => cometd.unsubscribe(handle, done)), 'an unsubscription');
        assert.equal(gone.successful, true, JSON.stringify(gone));
        await published(cometd, left, 'unheard');
        await published(cometd, kept, 'end');
        await until('the last message', () => received.includes('end'), { seen: () => received });
        assert.deepEqual(seen.messages.map((m) => m.data), [...messages, 'end'], 'messages on the wire');

        assert.deepEqual(seen.unsuccessful, []);
        assertTransport(cometd);
      });

      test('wildcards, and one copy for overlapping subscriptions', async (t) => {
        const { cometd, seen } = await handshaken(t);
        const base = room('wild');
        const calls = { exact: [], star: [], deep: [] };
        await subscribed(cometd, `${base}/x`, (m) => calls.exact.push(m.data));
        await subscribed(cometd, `${base}/*`, (m) => calls.star.push(m.data));
        await subscribed(cometd, `${base}/**`, (m) => calls.deep.push(m.data));

        await published(cometd, base, 'none');
        await published(cometd, `${base}/x`, 'all');
        await published(cometd, `${base}/x/y`, 'deep');
        await published(cometd, `${base}/end`, 'end');
        await until('the last message', () => calls.deep.includes('end'), { seen: () => seen.messages });

        assert.deepEqual(calls, { exact: ['all'], star: ['all', 'end'], deep: ['all', 'deep', 'end'] });
        assert.deepEqual(seen.messages.map((m) => m.data), ['all', 'deep', 'end'], 'copies on the wire');
        assertTransport(cometd);
      });

      test('a batch arrives as a whole and in order', async (t) => {
        const { cometd } = await handshaken(t);
        const channel = room('batch');
        const received = [];
        await subscribed(cometd, channel, (m) => received.push(m.data));

        // Connects go elsewhere, to /cometd/connect.
        const posts = () => requests.filter((r) => r === 'POST /cometd/').length;
        const postsBefore = posts();
        const answers = [];
        cometd.batch(() => {
          for (const n of numbers(20)) cometd.publish(channel, n, (answer) => answers.push(answer));
        });
        await until('20 acknowledgements', () => answers.length >= 20, { seen: () => answers });
        await until('20 messages', () => received.length >= 20, { seen: () => received });

        assertSequence(received, numbers(20), 'messages of the batch');
        assert.deepEqual(answers.filter((m) => !m.successful), []);
        assert.equal(posts() - postsBefore, transport === 'websocket' ? 0 : 1, 'requests for the batch');
        assertTransport(cometd);
      });

      test('a refused publish is reported to its callback', async (t) => {
        const { cometd, seen } = await handshaken(t);
        const bad = room('bad/**');
        const answer = await within(reply((done) => cometd.publish(bad, 1, done)), 'an answer');
        assert.equal(answer.successful, false);
        assert.equal(answer.error, `405:${bad}:Invalid channel`);
        await published(cometd, room('good'), 1);
        assert.deepEqual(seen.unsuccessful.map((m) => m.channel), [bad]);
      });

      test(
        'subscribing to a service channel is accepted',
        { skip: REFERENCE && 'Faye refuses it: 403 Forbidden channel' },
        async (t) => {
          const { cometd, seen } = await handshaken(t);
          const channel = `/service${room('echo')}`;
          const handle = await subscribed(cometd, channel, () => {});
          await published(cometd, channel, 'for the server alone');
          await within(reply((done) => cometd.unsubscribe(handle, done)), 'an unsubscription');
          assert.deepEqual(seen.messages, []);
          assert.deepEqual(seen.unsuccessful, []);
        },
      );

      // Not run at all, and so not a skipped test, where it would prove nothing new.
      const long = brief ? () => {} : test;
      long('the end of a held connect is no failure, and disconnect is prompt', async (t) => {
        const { cometd, seen } = await handshaken(t);
        const channel = room('idle');
        const received = [];
        await subscribed(cometd, channel, (m) => received.push(m.data));

        const start = Date.now();
        await until(
          'a reply to a connect that the server had held',
          () => longestGap([start, ...seen.connects.map((m) => m.receivedAt)]) > 0.8 * HOLD_MS,
          { ms: 3 * HOLD_MS, seen: () => seen },
        );
        assert.deepEqual(seen.connects.filter((m) => !m.successful), []);
        assert.deepEqual(seen.unsuccessful, []);
        assertTransport(cometd);

        await published(cometd, channel, 'still here');
        await until('the message', () => received.length > 0, { seen: () => seen });
        assert.deepEqual(received, ['still here']);

        const clientId = cometd.getClientId();
        const disconnecting = Date.now();
        const answer = await within(reply((done) => cometd.disconnect(done)), 'an answer to the disconnect', PROMPT_MS);
        assert.equal(answer.successful, true, JSON.stringify(answer));
        await until('the state "disconnected"', () => cometd.getStatus() === 'disconnected', {
          ms: PROMPT_MS - (Date.now() - disconnecting),
          seen: () => cometd.getStatus(),
        });
        assert.deepEqual(seen.unsuccessful, []);

        const [late] = await post(server.url, {
          channel: '/meta/connect',
          clientId,
          connectionType: 'long-polling',
          advice: { timeout: 0 },
        });
        assert.equal(late.successful, false, 'the session has ended');
        assert.match(late.error, /^40[12]:/);
      });
    });
  }
}
