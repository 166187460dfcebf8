// The page at `/`, as a person uses it: in two tabs, in light and dark, on a phone, and behind a
// proxy that blocks WebSockets.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { launchBrowser, noteProblems } from './lib/browser.mjs';
import { REFERENCE, configuration, startServer } from './lib/server.mjs';
import { NO_CLUSTER, startCluster } from './lib/cluster.mjs';
import { startSwitch } from './lib/switch-proxy.mjs';
import { DEADLINE_MS, until } from './lib/wait.mjs';

const DESKTOP = { viewport: { width: 1280, height: 900 } };
const PHONE = { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true };

const CASES = {
  light: { options: { ...DESKTOP, colorScheme: 'light' }, link: 'WebSocket' },
  dark: { options: { ...DESKTOP, colorScheme: 'dark' }, link: 'WebSocket' },
  phone: { options: { ...PHONE, colorScheme: 'light' }, link: 'WebSocket' },
  'WebSocket blocked': { options: DESKTOP, link: 'event stream', prepare: blockWebSockets },
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
async function openTab(context, link, origin = server.origin) {
  const page = await context.newPage();
  page.setDefaultTimeout(DEADLINE_MS);
  const problems = noteProblems(page);
  await page.goto(origin);
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

/** Nothing was lost, nothing came twice. */
async function nothingWrong(page) {
  assert.deepEqual(await page.locator('#gaps, #twice').allTextContents(), ['0', '0'], 'gaps, twice');
}

/** Chooses a transport as a person does. */
async function force(page, value, name) {
  await page.bringToFront();
  await page.getByLabel('Transport').selectOption(value);
  await shows(page, '#state', `Connected by ${name}`);
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

      // The chat, and who wrote what.
      await a.page.bringToFront();
      await a.page.getByLabel('Your name').fill('Ada');
      await a.page.getByLabel('Say something').fill('<i>good</i> evening');
      await a.page.getByRole('button', { name: 'Send' }).click();
      await shows(b.page, '#said li:not(.mine)', 'Ada<i>good</i> evening');
      await shows(a.page, '#said li.mine', '<i>good</i> evening');

      // The live view.
      await shows(a.page, '#serving', status.node);
      await shows(a.page, '#transport', link);
      await shows(a.page, '#p50', ' ms');
      await shows(a.page, '#timeline li', `Connected by ${link}`);
      for (const { page } of [a, b]) await nothingWrong(page);

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

  test('each transport can be chosen, and what was subscribed to stays so', async (t) => {
    const context = await browser.newContext(DESKTOP);
    t.after(() => context.close());
    const { page, problems } = await openTab(context, 'WebSocket');
    await subscribe(page, '/page/force/*');
    const choices = { 'long-polling': 'long-polling', eventsource: 'event stream', 'callback-polling': 'JSONP', '': 'WebSocket' };
    for (const [value, name] of Object.entries(choices)) {
      await force(page, value, name);
      await shows(page, '#subscriptions li:not(.pending)', '/page/force/*');
      await publish(page, '/page/force/x', `by ${name}`);
      await shows(page, '#list li', `by ${name}`);
    }
    await nothingWrong(page);
    assert.deepEqual(problems, []);
  });

  test('a session that ends, a server that knows nothing, a refusal: each is told', async (t) => {
    const [short, other] = await Promise.all([
      startServer('/bayeux', configuration('resume'), { holdMs: 500 }),
      startServer('/bayeux', configuration('resume')),
    ]);
    t.after(() => Promise.all([short.stop(), other.stop()]));
    let target = short.origin;
    let open = true;
    const front = await startSwitch(() => target, () => !open);
    t.after(() => front.stop());
    const sessions = async () => (await (await fetch(`${short.origin}/status.json`)).json()).sessions;
    const none = await until("the node's own session", sessions);
    const context = await browser.newContext(DESKTOP);
    t.after(() => context.close());
    const { page } = await openTab(context, 'WebSocket', front.origin);
    await subscribe(page, '/page/told/*');

    // The page is away for so long that its session ends: a new one goes on where that ended.
    open = false;
    front.cut();
    await until('the session to end', async () => (await sessions()) === none);
    open = true;
    await shows(page, '#timeline li .busy', 'The server made a new session');
    await shows(page, '#timeline li .good', 'A new session goes on where the last one ended');
    await publish(page, '/page/told/x', 'after the end');
    await shows(page, '#list li', 'after the end');
    await nothingWrong(page);

    // Another server, which has none of the messages.
    target = other.origin;
    front.cut();
    await shows(page, '#timeline li .busy', 'Connection lost');
    await shows(page, '#timeline li .bad', 'Messages may be missing');
    await shows(page, '#gaps.bad', '1');
    await publish(page, '/page/told/x', 'from the other');
    await shows(page, '#list li', 'from the other');

    // A server that wants no clients.
    const refusal = { channel: '/meta/handshake', successful: false, error: '403::Closed today', advice: { reconnect: 'none' } };
    await page.route('**/bayeux', (route) => {
      const [{ id }] = [route.request().postDataJSON()].flat();
      return route.fulfill({ json: [{ ...refusal, id }] });
    });
    await page.getByLabel('Transport').selectOption('long-polling');
    await shows(page, '#state', 'Refused: ');
    await shows(page, '#timeline li .bad', 'Stopped: ');
  });

  test('what is shown is bounded', async (t) => {
    const context = await browser.newContext(DESKTOP);
    t.after(() => context.close());
    const { page, problems } = await openTab(context, 'WebSocket');
    await subscribe(page, '/page/flood/*');
    const say = async (messages) => {
      const response = await fetch(server.url, {
        method: 'POST',
        headers: { 'Content-Type': 'application/json' },
        body: JSON.stringify(messages),
      });
      assert.ok((await response.json()).every(({ successful }) => successful));
    };
    const many = (count, message) => Array.from({ length: count }, (_, number) => message(number));
    await say(many(450, (n) => ({ channel: `/page/flood/${n}`, data: n === 449 ? 'long '.repeat(2_000) : n })));
    await shows(page, '#count', '450 received, last 200 shown');
    assert.equal(await page.locator('#list li').count(), 200);
    const newest = await page.locator('#list li').first().textContent();
    assert.ok(newest.includes('/page/flood/449') && newest.includes('(10,000 characters)') && newest.length < 4_200, newest.slice(0, 80));
    await say(many(130, (n) => ({ channel: '/chat/lobby', data: { name: 'a very long name '.repeat(9), text: `line ${n}` } })));
    await shows(page, '#said li', 'line 129');
    assert.equal(await page.locator('#said li').count(), 100);
    assert.ok((await page.locator('#said li').first().textContent()).length < 50);
    // What happened is told by the page itself.
    await page.evaluate(() => {
      for (let number = 0; number < 80; number++) note(`entry ${number}`, 'good');
    });
    assert.equal(await page.locator('#timeline li').count(), 50);
    await shows(page, '#timeline li', 'entry 79');
    await nothingWrong(page);
    assert.deepEqual(problems, []);
  });

  test('a node is killed while a person watches', { skip: NO_CLUSTER }, async (t) => {
    const cluster = await startCluster('/bayeux');
    t.after(() => cluster.stop());
    const context = await browser.newContext(DESKTOP);
    t.after(() => context.close());
    const { page } = await openTab(context, 'WebSocket', cluster.origin);
    const serving = () => page.locator('#serving').textContent();
    await until('the node to be named', async () => (await serving()) !== '–');
    const before = await serving();
    // Which of the three it is, their own pages tell.
    const { nodes } = await cluster.state();
    const names = await Promise.all(
      nodes.map(async ({ internal }) => (await (await fetch(`http://${internal}/status.json`)).json()).node),
    );
    const which = names.indexOf(before) + 1;
    assert.ok(which > 0, `${before} among ${names}`);
    const say = async (text) => {
      const response = await fetch(cluster.url, {
        method: 'POST',
        headers: { 'Content-Type': 'application/json' },
        body: JSON.stringify({ channel: '/chat/lobby', data: { name: 'Ada', text } }),
      });
      assert.equal((await response.json())[0].successful, true);
    };
    await say('before');
    await cluster.command('stop-node', String(which), '--signal', 'KILL');
    await say('meanwhile');
    await shows(page, '#timeline li', 'the same session');
    await until('another node', async () => ![before, '–'].includes(await serving()), { seen: serving });
    await say('after');
    await shows(page, '#said li', 'after');
    assert.deepEqual(await page.locator('#said li').allTextContents(), ['Adabefore', 'Adameanwhile', 'Adaafter']);
    assert.notEqual(await page.locator('#reconnects').textContent(), '0');
    await nothingWrong(page);
  });
});
