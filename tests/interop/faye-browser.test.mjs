// Faye's official browser client in Chromium, forced onto each of its transports in turn.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { sessionExists } from './lib/bayeux.mjs';
import { launchBrowser, openPage, startPageServer, watchTraffic } from './lib/browser.mjs';
import { openFayeClient } from './lib/faye-client.mjs';
import { assertSequence, longestGap, numbers } from './lib/sequence.mjs';
import { HOLD_MS, startServer } from './lib/server.mjs';
import { until, within } from './lib/wait.mjs';

/**
 * For each transport: where the page lives, what to disable so that the client has no better choice,
 * which kinds of requests may then be seen, what tells that the client has arrived on its transport
 * and, by the times of its connects, that it has sat one out, and what else is true of its traffic.
 *
 * The client shakes hands with what every server must offer, long-polling or, across origins,
 * callback-polling. `moved` is the number of requests it had made when it had left that behind.
 */
const TRANSPORTS = {
  websocket: {
    disabled: [],
    kinds: ['xhr POST'],
    arrived: ({ sent }) => sent.some((m) => m.channel === '/meta/connect'),
    check({ requests, sockets, pushed }, { messages, moved }) {
      assert.deepEqual(sockets, [server.url.replace('http:', 'ws:')]);
      assert.deepEqual(requests.slice(moved), [], 'nothing goes over HTTP any more');
      assert.equal(pushed.filter((m) => m.data !== undefined).length, messages);
    },
  },
  eventsource: {
    disabled: ['websocket'],
    kinds: ['eventsource GET', 'xhr POST'],
    // Its connects are not held. They are heartbeats, and every publish between two adds one.
    idled: (replies) => replies.at(-1) - replies[0] > HOLD_MS,
    check({ requests, pushed }, { messages, clientId }) {
      const streams = requests.filter((r) => r.kind === 'eventsource GET').map((r) => r.path);
      assert.deepEqual(streams, [`/bayeux/${clientId}`]);
      assert.equal(pushed.filter((m) => m.data !== undefined).length, messages);
    },
  },
  'long-polling': {
    disabled: ['websocket', 'eventsource'],
    kinds: ['xhr POST'],
    check({ requests }) {
      for (const { contentType, body } of requests) {
        assert.equal(contentType, 'application/json');
        assert.ok(Array.isArray(JSON.parse(body)));
      }
    },
  },
  'cross-origin-long-polling': {
    crossOrigin: true,
    disabled: ['websocket'],
    kinds: ['script GET', 'xhr POST'],
    arrived: ({ requests }) => requests.some((r) => r.kind === 'xhr POST'),
    check({ requests }, { moved }) {
      const scripts = requests.slice(moved).filter((r) => r.kind !== 'xhr POST');
      assert.deepEqual(scripts, [], 'scripts are over');
      for (const { kind, body } of requests) if (kind === 'xhr POST') assert.match(body, /^message=%5B/);
    },
  },
  'callback-polling': {
    crossOrigin: true,
    disabled: ['websocket', 'cross-origin-long-polling'],
    kinds: ['script GET'],
    check() {},
  },
};

const held = (replies) => longestGap(replies) > 0.8 * HOLD_MS;

let server;
let pages;
let browser;
before(async () => {
  // One by one, so that `after` knows what there is to stop if one of them fails to start.
  server = await startServer('/bayeux');
  pages = await startPageServer();
  browser = await launchBrowser();
});
after(async () => {
  await browser?.close();
  await pages?.stop();
  await server?.stop();
});

describe('faye client in Chromium', { concurrency: true }, () => {
  for (const [transport, facts] of Object.entries(TRANSPORTS)) {
    const { crossOrigin, disabled, kinds, arrived = () => true, idled = held, check } = facts;

    test(transport, async (t) => {
      const origin = crossOrigin ? pages.origin : server.origin;
      const { page, problems } = await openPage(t, browser, origin, { intercept: !crossOrigin });
      const traffic = await watchTraffic(page, server.url);
      const node = await openFayeClient(t, server.url, 'websocket');

      const base = `/browser/${transport}`;
      const [exact, wildcard, fence] = [`${base}/room/exact`, `${base}/room/*`, `${base}/fence`];
      const inPage = (expected, act, argument) => within(page.evaluate(act, argument), `${expected} (${transport})`);
      const pageUntil = async (expected, condition, argument) => {
        const state = () => page.evaluate(() => ({ calls: interop.calls, wire: interop.wire.slice(-10) }));
        let last;
        await until(
          `${expected} (${transport})`,
          async () => (await page.evaluate(condition, argument)) || ((last = await state()), false),
          { seen: () => ({ last, problems, failures: traffic.failures }) },
        );
      };

      const clientId = await inPage('subscriptions in the page', (options) => interop.open(options), {
        url: server.url,
        disabled,
        exact,
        wildcard,
        fence,
      });
      // The client finds out whether its best transport works while it already uses a lesser one.
      await pageUntil(`the client to use ${transport}`, (name) => interop.transport() === name, transport);
      await until('the traffic of the transport', () => arrived(traffic), { seen: () => traffic.requests });
      const moved = traffic.requests.length;

      // Both sides at once: whatever the interleaving, each side's messages keep their order.
      const fromPage = numbers(50).map((n) => `page ${n}`);
      const fromNode = numbers(50).map((n) => `node ${n}`);
      await Promise.all([
        inPage('acknowledgements in the page', ([channel, list]) => interop.publish(channel, list), [exact, fromPage]),
        within(Promise.all(fromNode.map((data) => node.client.publish(exact, data))), 'acknowledgements in Node'),
      ]);
      await within(node.client.publish(`${base}/room/other`, 'end'), 'an acknowledgement');
      await pageUntil('the message after the burst', () => interop.calls.wildcard.includes('end'));

      const calls = await page.evaluate(() => interop.calls);
      assertSequence(calls.exact.filter((data) => data.startsWith('page')), fromPage, 'messages of the page');
      assertSequence(calls.exact.filter((data) => data.startsWith('node')), fromNode, 'messages of the node client');
      assert.equal(calls.exact.length, 100);
      assertSequence(calls.wildcard, [...calls.exact, 'end'], 'messages of the wildcard subscription');
      const copies = await page.evaluate((channel) => interop.data(channel), exact);
      assertSequence(copies, calls.exact, 'copies on the wire');

      // The connection outlives the hold time of a connect.
      let replies;
      await until(
        `a reply to a connect that the server had held (${transport})`,
        async () => idled((replies = await page.evaluate(() => interop.connectReplies))),
        { ms: 3 * HOLD_MS, seen: () => replies },
      );
      await within(node.client.publish(exact, 'later'), 'an acknowledgement');
      await pageUntil('the later message', () => interop.calls.exact.includes('later'));

      assert.deepEqual(await inPage('both unsubscriptions', () => interop.unsubscribe()), [true, true]);
      await within(node.client.publish(exact, 'unheard'), 'an acknowledgement');
      await within(node.client.publish(fence, 'end'), 'an acknowledgement');
      await pageUntil('the last message', (channel) => interop.data(channel).includes('end'), fence);
      const after = await page.evaluate((channel) => interop.data(channel), exact);
      assertSequence(after, [...calls.exact, 'later'], 'copies on the wire in the end');

      assert.equal(await page.evaluate(() => interop.transport()), transport, 'it still uses the same transport');
      assert.equal(await page.evaluate(() => interop.downs), 0, 'lost connections');
      assert.deepEqual([...new Set(traffic.requests.map((r) => r.kind))].sort(), kinds);
      assert.equal(traffic.sockets.length, transport === 'websocket' ? 1 : 0, 'WebSockets');
      check(traffic, { clientId, moved, messages: 103 }); // 100, two ends, one later
      assert.deepEqual(traffic.failures, []);

      await inPage('the acknowledgement of the disconnect', () => interop.disconnect());
      assert.equal(await sessionExists(server.url, clientId), false);
      assert.deepEqual(problems, []);
    });
  }
});
