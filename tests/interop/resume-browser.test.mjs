// The server's own resume.js with Faye's browser client in Chromium, while the network breaks, blocks and comes back.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { post, sessionExists } from './lib/bayeux.mjs';
import { launchBrowser, openPage } from './lib/browser.mjs';
import { startCuttingProxy } from './lib/cutting-proxy.mjs';
import { assertSequence, numbers } from './lib/sequence.mjs';
import { REFERENCE, configuration, startServer } from './lib/server.mjs';
import { until, within } from './lib/wait.mjs';

/** Short: a session ends when it was not heard of for two of these. */
const HOLD_MS = 2_000;
const EXPIRED_MS = 2.5 * HOLD_MS;
/** A browser opens a broken event stream again after the 5 s that the server asks for. */
const SETTLED_MS = 20_000;
/** As in config/short-logs.toml. */
const KEPT = 10;

const TRANSPORTS = {
  websocket: [],
  eventsource: ['websocket'],
  'long-polling': ['websocket', 'eventsource'],
};

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const skip = REFERENCE && "Faye's server has no resume";

const servers = {};
const proxies = [];
let browser;
before(async () => {
  if (skip) return;
  for (const name of ['resume', 'short-logs']) {
    servers[name] = await startServer('/bayeux', configuration(name), { holdMs: HOLD_MS });
  }
  browser = await launchBrowser();
});
after(async () => {
  await browser?.close();
  await Promise.all([...proxies, ...Object.values(servers)].map((running) => running.stop()));
});

/** The page, behind a proxy of its own, subscribed to `channel` by this transport. */
async function openApplication(t, server, transport, channel) {
  const proxy = await startCuttingProxy(server.origin);
  proxies.push(proxy);
  const { page } = await openPage(t, browser, proxy.origin, { intercept: true, name: 'resume.html' });
  const state = () => page.evaluate(() => ({ ...interop, client: undefined }));
  const pageUntil = async (expected, condition, argument) => {
    let last;
    await until(
      `${expected} (${transport})`,
      async () => (last = await state()) && page.evaluate(condition, argument),
      { ms: SETTLED_MS, seen: () => ({ ...last, heard: last.heard.slice(-20) }) },
    );
  };
  const options = { url: `${proxy.origin}/bayeux`, disabled: TRANSPORTS[transport], channel };
  await within(page.evaluate((given) => interop.open(given), options), 'the subscription in the page');
  await pageUntil('the client to use its transport', (name) => interop.transport() === name, transport);
  return {
    proxy,
    state,
    hears: (data) => pageUntil(`the message ${data}`, (wanted) => interop.heard.includes(wanted), data),
    told: () => pageUntil('a gap to be told', () => interop.gaps.length > 0),
    async publish(list, pauseMs = 0) {
      for (const data of list) {
        const [reply] = await post(server.url, { channel, data });
        assert.equal(reply.successful, true, reply.error);
        if (pauseMs) await pause(pauseMs);
      }
    },
  };
}

describe('resume in Chromium', { skip, concurrency: true }, () => {
  for (const transport of Object.keys(TRANSPORTS)) {
    test(`each message once and in order, ${transport}`, async (t) => {
      const channel = `/once/${transport}`;
      const { proxy, state, hears, publish } = await openApplication(t, servers.resume, transport, channel);
      await publish(numbers(20));
      await hears(19);

      // Connections break all the time. What a kept connection breaks under, the browser itself sends again.
      const timer = setInterval(() => {
        proxy.cut();
        proxy.mend();
      }, 300);
      await publish(numbers(100, 20), 20).finally(() => clearInterval(timer));
      await hears(119);
      const broken = await state();

      // The network is away for longer than the session lives.
      proxy.cut();
      const missed = numbers(20, 120);
      await publish(missed, EXPIRED_MS / missed.length);
      assert.equal(await sessionExists(servers.resume.url, broken.sessions.at(-1)), false, 'the session has ended');
      proxy.mend();
      await hears(139);
      await publish(['end']);
      await hears('end');

      const { heard, gaps, sessions, resumed, downs } = await state();
      assertSequence(heard, [...numbers(140), 'end'], 'what the application was given');
      assert.deepEqual(gaps, []);
      assert.ok(downs > 0, 'the client lost nothing: this proved nothing');
      assert.ok(sessions.length > broken.sessions.length, 'a new session');
      assert.equal(resumed, sessions.length - 1, 'sessions that the client was told to go on');
    });

    test(`a gap is told once, ${transport}`, async (t) => {
      const server = servers['short-logs'];
      const { proxy, state, hears, told, publish } = await openApplication(t, server, transport, `/gap/${transport}`);
      await publish(['before']);
      await hears('before');
      proxy.cut();
      await publish(numbers(50));
      proxy.mend();
      await told();
      for (const n of numbers(5)) {
        await publish([`later ${n}`]);
        await hears(`later ${n}`);
      }

      const { heard, gaps } = await state();
      assert.equal(gaps.length, 1, JSON.stringify(gaps));
      const expected = ['before', ...numbers(KEPT, 50 - KEPT), ...numbers(5).map((n) => `later ${n}`)];
      assertSequence(heard, expected, 'what the application was given');
    });
  }
});
