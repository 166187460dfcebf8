// The page at `/`, as a person uses it: in two tabs, in light and dark, on a phone, and behind a
// proxy that blocks WebSockets.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { launchBrowser, noteProblems } from './lib/browser.mjs';
import { REFERENCE, startServer } from './lib/server.mjs';
import { DEADLINE_MS } from './lib/wait.mjs';

const DESKTOP = { viewport: { width: 1280, height: 900 } };
const PHONE = { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true };

const CASES = {
  light: { options: { ...DESKTOP, colorScheme: 'light' }, link: 'WebSocket' },
  dark: { options: { ...DESKTOP, colorScheme: 'dark' }, link: 'WebSocket' },
  phone: { options: { ...PHONE, colorScheme: 'light' }, link: 'WebSocket' },
  'WebSocket blocked': { options: DESKTOP, link: 'long-polling', prepare: blockWebSockets },
};

/** A socket that never opens, without the console error that a refused real one leaves. */
function blockWebSockets(context) {
  return context.addInitScript(() => {
    window.WebSocket = class {
      constructor() {
        queueMicrotask(() => this.onclose?.(new CloseEvent('close', { code: 1006 })));
      }
      close() {}
    };
  });
}

/** Opens the page in a tab and waits until it is connected. */
async function openTab(context, link) {
  const page = await context.newPage();
  page.setDefaultTimeout(DEADLINE_MS);
  const problems = noteProblems(page);
  await page.goto(server.origin);
  await shows(page, '#state', `Connected by ${link}`);
  return { page, problems };
}

/** Looks at the tab until an element of this kind contains the text. A tab in the background is drawn once a second. */
async function shows(page, selector, text) {
  await page.bringToFront();
  await page.locator(selector, { hasText: text }).first().waitFor();
}

async function subscribe(page, pattern) {
  await page.bringToFront();
  await page.getByLabel('Channel or pattern').fill(pattern);
  await page.getByRole('button', { name: 'Subscribe', exact: true }).click();
  await shows(page, '#subscribed', `Subscribed to ${pattern}.`);
}

async function publish(page, channel, text) {
  await page.bringToFront();
  await page.getByLabel('Channel', { exact: true }).fill(channel);
  await page.getByLabel('Message, JSON or plain text').fill(text);
  await page.getByRole('button', { name: 'Publish' }).click();
}

let server;
let browser;
// Faye has no page: with the reference there is nothing to test.
const skip = REFERENCE && "the page is Weft's own";
before(async () => {
  if (!skip) [server, browser] = await Promise.all([startServer('/bayeux'), launchBrowser()]);
});
after(async () => {
  await browser?.close();
  await server?.stop();
});

describe('the page at /', { skip }, () => {
  for (const [name, { options, link, prepare }] of Object.entries(CASES)) {
    test(name, async (t) => {
      const context = await browser.newContext(options);
      t.after(() => context.close());
      await prepare?.(context);
      const a = await openTab(context, link);
      const b = await openTab(context, link);
      const base = `/page/${name.replaceAll(' ', '-')}`;

      // What is running.
      const status = await (await fetch(`${server.origin}/status.json`)).json();
      await shows(a.page, '#version', status.version);
      await shows(a.page, '#node', status.node);
      await shows(a.page, '#engine', status.engine);
      await shows(a.page, '#mounts', '/bayeux (faye)');
      await shows(a.page, '#curl', server.url);
      await shows(a.page, '#faye', server.url);

      // Two tabs talk to each other; what is received is text, never markup.
      await subscribe(a.page, `${base}/*`);
      await subscribe(b.page, `${base}/*`);
      await publish(a.page, `${base}/one`, '{"text": "<b>to</b> the other tab"}');
      await shows(b.page, '#list li', '<b>to</b> the other tab');
      await shows(a.page, '#list li', '<b>to</b> the other tab');
      await publish(b.page, `${base}/two`, 'and plain text back');
      await shows(a.page, '#list li', 'and plain text back');
      const channels = await a.page.locator('#list code').allTextContents();
      assert.deepEqual(channels, [`${base}/two`, `${base}/one`], 'newest first');

      // The server's refusals are shown.
      await publish(a.page, '/no such channel', 'x');
      await shows(a.page, '#published', 'Invalid channel');
      await a.page.getByLabel('Channel or pattern').fill('/meta/connect');
      await a.page.getByLabel('Channel or pattern').press('Enter');
      await shows(a.page, '#subscribed', 'Forbidden channel');

      // What b still hears is the fence: when it came, the message before it would have come too.
      await b.page.bringToFront();
      await b.page.getByRole('button', { name: `Unsubscribe from ${base}/*` }).click();
      await subscribe(b.page, `${base}/fence/*`);
      await publish(a.page, `${base}/one`, 'unheard');
      await shows(a.page, '#published', `Published to ${base}/one`);
      await publish(a.page, `${base}/fence/x`, 'the fence');
      await shows(b.page, '#list li', 'the fence');
      assert.equal(await b.page.locator('#list li', { hasText: 'unheard' }).count(), 0);

      for (const { page, problems } of [a, b]) {
        const [content, window] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
        assert.ok(content <= window, `the page is ${content} px wide in a window of ${window} px`);
        assert.deepEqual(problems, []);
      }
    });
  }
});
