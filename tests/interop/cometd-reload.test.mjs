// CometD's JavaScript client in Chromium, whose page is loaded again: with its reload extension it keeps its session.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { post } from './lib/bayeux.mjs';
import { launchBrowser, openPage } from './lib/browser.mjs';
import { startCuttingProxy } from './lib/cutting-proxy.mjs';
import { assertSequence, numbers } from './lib/sequence.mjs';
import { REFERENCE, startServer } from './lib/server.mjs';
import { until, within } from './lib/wait.mjs';

/** So much later the server learns that the old page is gone: what it sends meanwhile reaches nobody. */
const LATE_MS = 100;

const skip = REFERENCE && 'what Faye has written to a page that is gone is lost';

let server;
let proxy;
let browser;
before(async () => {
  if (skip) return;
  server = await startServer('/cometd');
  proxy = await startCuttingProxy(server.origin, { delayMs: LATE_MS });
  browser = await launchBrowser();
});
after(async () => {
  await browser?.close();
  await proxy?.stop();
  await server?.stop();
});

const publish = async (channel, list) => {
  const replies = await post(`${server.origin}/bayeux`, ...list.map((data) => ({ channel, data })));
  assert.deepEqual(replies.filter((m) => !m.successful), []);
};

describe('reload of a page', { skip, concurrency: true }, () => {
  for (const version of [7, 8, 9]) {
    for (const transport of ['websocket', 'long-polling']) {
      test(`cometd client ${version}, ${transport}`, async (t) => {
        const channel = `/reload/${version}/${transport}`;
        const name = `reload-${version}.html?transport=${transport}&channel=${channel}`;
        const { page, problems, route } = await openPage(t, browser, proxy.origin, { intercept: true, name });
        const pageUntil = async (expected, condition, argument) => {
          let last;
          await until(
            `${expected} in the page`,
            async () => {
              last = await page.evaluate(() => ({ ...interop, cometd: undefined }));
              return page.evaluate(condition, argument);
            },
            { seen: () => ({ last, problems }) },
          );
        };

        await pageUntil('the subscription', () => interop.subscribed === 1);
        await publish(channel, ['before']);
        await pageUntil('the message before', () => interop.heard.includes('before'));
        const clientId = await page.evaluate(() => interop.cometd.getClientId());

        // The old page has gone when the new one is asked for, and does not come before the messages are published.
        const missed = numbers(20);
        let published;
        await route();
        await page.route(/reload-\d\.html/, async (request) => {
          published ??= publish(channel, missed);
          await published;
          await request.fallback();
        });
        await within(page.reload(), 'the page to load again');
        assert.ok(published, 'messages were published between the pages');
        await pageUntil('the last message', () => interop.heard.includes(19));
        await publish(channel, ['after']);
        await pageUntil('the message after', () => interop.heard.includes('after'));

        assert.equal(await page.evaluate(() => interop.cometd.getClientId()), clientId);
        const state = await page.evaluate(() => ({ ...interop, cometd: undefined }));
        assert.deepEqual(state.handshakes.map((m) => m.ext), [{ reload: true }], 'no handshake with the server');
        // What the old page had may come again: it had no time to confirm it.
        const news = new Set(state.heard.filter((data) => data !== 'before'));
        assertSequence([...news], [...missed, 'after'], 'messages without copies');
        assert.deepEqual(state.connects.filter((m) => !m.successful), []);
        assert.deepEqual(problems, []);
      });
    }
  }
});
