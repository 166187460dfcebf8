// Weft's JavaScript client in Chromium, as the server serves it: on each transport, from another origin, in a worker, while
// the network goes, the machine sleeps and nodes are killed; and a page that was written for Faye.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { sessionExists } from './lib/bayeux.mjs';
import { launchBrowser, openPage, startPageServer, watchTraffic } from './lib/browser.mjs';
import { NO_CLUSTER, startCluster } from './lib/cluster.mjs';
import { assertSequence, numbers } from './lib/sequence.mjs';
import { REFERENCE, startServer } from './lib/server.mjs';
import { until, within } from './lib/wait.mjs';
import { startFreezer } from './lib/switch-proxy.mjs';
import { open } from './lib/weft-client.mjs';

const skip = REFERENCE ? "Faye's server does not serve this client" : false;
const BACKOFF = { first: 50, max: 500 };

let server;
let pages;
let browser;
before(async () => {
  if (skip) return;
  server = await startServer('/bayeux');
  pages = await startPageServer();
  browser = await launchBrowser();
});
after(async () => {
  await browser?.close();
  await pages?.stop();
  await server?.stop();
});

/** A page with a client that listens to `channel`, and what to ask it. */
async function openClient(t, { from = server, foreign = false, transports, channel, ...options }) {
  const origin = foreign ? pages.origin : from.origin;
  const { page, problems } = await openPage(t, browser, origin, { intercept: !foreign, name: 'client.html' });
  const traffic = await watchTraffic(page, from.url);
  const clientId = await within(
    page.evaluate(([url, more, name]) => interop.open(url, more, name), [from.url, { transports, ...options }, channel]),
    'a subscription in the page',
  );
  const ask = (what, argument) => page.evaluate(what, argument);
  const data = () => ask((name) => interop.data[name], channel);
  const shows = (expected, what) =>
    until(expected, () => ask(what), { seen: () => problems });
  const told = (name) => until(`the event ${name}`, () => ask((one) => interop.told.find((event) => event.name === one), name));
  const holds = async (count) => {
    let last;
    await until(`${count} messages`, async () => (last = await data()).length >= count, { seen: () => last });
    return last;
  };
  return { page, problems, traffic, clientId, ask, data, shows, told, holds };
}

describe("Weft's client in Chromium", { skip, concurrency: 2 }, () => {
  const kinds = {
    websocket: ['script GET'],
    eventsource: ['fetch GET', 'fetch POST', 'script GET'],
    'long-polling': ['fetch POST', 'script GET'],
    'callback-polling': ['script GET'],
  };
  for (const foreign of [false, true]) {
    for (const [transport, expected] of Object.entries(kinds)) {
      test(`${transport}, ${foreign ? 'from another origin' : 'same origin'}`, async (t) => {
        const channel = `/js/${transport}/${foreign}`;
        const { page, problems, traffic, clientId, ask, holds } = await openClient(t, { foreign, transports: [transport], channel });
        const node = open(t, server.url, 'websocket').client;
        await within(
          Promise.all([
            ask(async (name) => {
              for (let n = 0; n < 20; n++) await interop.client.publish(name, `page ${n}`);
            }, channel),
            ...numbers(20).map((n) => node.publish(channel, `node ${n}`)),
          ]),
          'acknowledgements',
        );
        const got = await holds(40);
        for (const who of ['page', 'node']) {
          assertSequence(got.filter((data) => data.startsWith(who)), numbers(20).map((n) => `${who} ${n}`), who);
        }
        assert.equal(await ask(() => interop.client.transport), transport);
        const used = [...new Set(traffic.requests.map(({ kind }) => kind))].sort();
        assert.deepEqual(used, expected);
        assert.equal(traffic.sockets.length, transport === 'websocket' ? 1 : 0);
        // No request had to be asked for first.
        assert.ok(!used.some((kind) => kind.includes('OPTIONS')));
        assert.deepEqual(traffic.failures, []);
        await within(ask(() => interop.client.disconnect()), 'the end');
        assert.equal(await sessionExists(server.url, clientId), false);
        assert.deepEqual(problems, []);
        await page.close();
      });
    }
  }

  test('a page from another origin sends its cookies', async (t) => {
    const { page, traffic } = await openClient(t, { foreign: true, transports: ['long-polling'], channel: '/js/cookies' });
    const { hostname } = new URL(server.origin);
    await page.context().addCookies([{ name: 'who', value: 'me', domain: hostname, path: '/' }]);
    // One that was answered: of others the browser does not tell everything.
    const finished = page.waitForEvent('requestfinished', (one) => (one.postData() ?? '').includes('cookies'));
    await page.evaluate(() => interop.client.publish('/js/cookies', 1));
    const headers = await (await finished).allHeaders();
    assert.match(headers.cookie ?? '', /who=me/);
    assert.deepEqual(traffic.failures, []);
  });

  for (const transport of ['websocket', 'eventsource', 'long-polling']) {
    test(`the network goes and comes back, ${transport}`, async (t) => {
      const channel = `/js/offline/${transport}`;
      const { page, ask, told, holds, clientId } = await openClient(t, { transports: [transport], channel, backoff: BACKOFF });
      const node = open(t, server.url, 'websocket').client;
      await within(node.publish(channel, 'before'), 'an acknowledgement');
      await holds(1);
      // What is open stays open in this emulation, as it does when a radio link goes: silence, for a socket.
      await page.context().setOffline(true);
      await within(node.publish(channel, 'meanwhile'), 'an acknowledgement');
      const pending = ask(([name]) => void (interop.late = interop.client.publish(name, 'from the page')), [channel]);
      await pending;
      await page.context().setOffline(false);
      await within(ask(() => interop.late), 'the publish of the page');
      await within(node.publish(channel, 'after'), 'an acknowledgement');
      const got = await holds(4);
      assert.deepEqual([...got].sort(), ['after', 'before', 'from the page', 'meanwhile']);
      assert.equal(await ask(() => interop.client.clientId), clientId);
      assert.ok(!(await ask(() => interop.names())).includes('gap'));
      await told('connected');
    });
  }

  test('a machine that slept: the link is probed at once', async (t) => {
    const channel = '/js/sleep';
    const { page, ask, holds } = await openClient(t, { transports: ['websocket'], channel });
    const cdp = await page.context().newCDPSession(page);
    const node = open(t, server.url, 'websocket').client;
    const clientId = await ask(() => interop.client.clientId);
    await cdp.send('Page.setWebLifecycleState', { state: 'frozen' });
    // Longer than a poll may be held, shorter than a session lives: the server gives the silent socket up or keeps it.
    for (const n of numbers(3)) await within(node.publish(channel, n), 'an acknowledgement');
    await new Promise((resolve) => setTimeout(resolve, 6000));
    await cdp.send('Page.setWebLifecycleState', { state: 'active' });
    await within(node.publish(channel, 3), 'an acknowledgement');
    assertSequence(await holds(4), numbers(4), 'messages');
    assert.equal(await ask(() => interop.client.clientId), clientId);
    assert.ok(!(await ask(() => interop.names())).includes('gap'));
  });

  for (const sign of ['online', 'pageshow']) {
    test(`a dead link is noticed at once when the browser says ${sign}`, async (t) => {
      const proxy = await startFreezer(server.origin);
      t.after(() => proxy.stop());
      const from = { origin: proxy.origin, url: `${proxy.origin}/bayeux` };
      const { ask, told } = await openClient(t, { from, transports: ['websocket'], channel: `/js/${sign}`, liveness: { idle: 600_000, wait: 500 } });
      await told('connected');
      proxy.freeze();
      await ask((name) => void dispatchEvent(new Event(name)), sign);
      await told('resumed');
    });
  }

  test('in a worker, as a module', async (t) => {
    const { page, problems } = await openPage(t, browser, server.origin, { intercept: true, name: 'client.html' });
    const files = `${server.origin}/__test/client-worker.js`;
    const source = (await import('node:fs')).readFileSync(new URL('lib/client-worker.js', import.meta.url), 'utf8');
    await page.route(files, (route) => route.fulfill({ contentType: 'text/javascript', body: source }));
    const answer = page.evaluate(
      ([url, script]) =>
        new Promise((resolve, reject) => {
          const worker = new Worker(script, { type: 'module' });
          worker.onmessage = ({ data }) => resolve(data);
          worker.onerror = (event) => reject(new Error(event.message));
          worker.postMessage({ url, channel: '/js/worker' });
        }),
      [server.url, files],
    );
    assert.deepEqual(await within(answer, 'a message in the worker'), { got: 'from a worker', transport: 'websocket' });
    assert.deepEqual(problems, []);
  });

  test('a page that goes says goodbye', async (t) => {
    const { page, clientId } = await openClient(t, { channel: '/js/leave' });
    assert.equal(await sessionExists(server.url, clientId), true);
    await page.goto('about:blank');
    // Long before it would expire.
    await until('the end of its session', async () => !(await sessionExists(server.url, clientId)), { ms: 3_000 });
  });

  test('an application written for Faye, with its URL changed', async (t) => {
    const { page, problems } = await openPage(t, browser, server.origin, { intercept: true, name: 'application.html' });
    const node = open(t, server.url, 'websocket').client;
    await page.locator('body[data-published=yes]').waitFor();
    await within(node.publish('/application/room/2', { user: 'other', text: 'so am I' }), 'an acknowledgement');
    await page.locator('li', { hasText: 'other: so am I' }).waitFor();
    assert.deepEqual(await page.locator('li').allTextContents(), ['me: I am here', 'other: so am I']);
    assert.equal(await page.title(), '/application/** true');
    assert.equal(await page.evaluate(() => document.body.className), 'online');
    assert.deepEqual(problems, []);
  });
});

describe("Weft's client in Chromium, on a cluster", { skip: skip || NO_CLUSTER }, () => {
  for (const transport of ['websocket', 'eventsource', 'long-polling']) {
    test(`nodes are killed one after the other, ${transport}`, async (t) => {
      const cluster = await startCluster('/bayeux');
      t.after(() => cluster.stop());
      const channel = `/js/killed/${transport}`;
      const { ask, holds, clientId } = await openClient(t, { from: cluster, transports: [transport], channel, backoff: BACKOFF });
      let n = 0;
      const say = async () => {
        await within(ask(([name, what]) => interop.client.publish(name, what), [channel, n]), 'an acknowledgement');
        n += 1;
      };
      for (const node of ['1', '2', '3']) {
        await say();
        await cluster.command('stop-node', node, '--signal', 'KILL');
        await say();
        await cluster.command('start-node', node);
        await say();
      }
      assertSequence(await holds(n), numbers(n), 'messages');
      assert.equal(await ask(() => interop.client.clientId), clientId);
      assert.ok(!(await ask(() => interop.names())).includes('gap'));
    });
  }
});
