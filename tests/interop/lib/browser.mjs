// A real Chromium, pages on the origin a test asks for, and notes of the pages' network traffic.

import { existsSync } from 'node:fs';
import { readFile, readdir } from 'node:fs/promises';
import { once } from 'node:events';
import { createRequire } from 'node:module';
import http from 'node:http';
import { delimiter, dirname, join } from 'node:path';
import { chromium } from 'playwright-core';

const require = createRequire(import.meta.url);

function chromiumPath() {
  const onPath = (process.env.PATH ?? '').split(delimiter).map((folder) => join(folder, 'chromium'));
  const candidates = process.env.CHROMIUM ? [process.env.CHROMIUM] : ['/usr/bin/chromium', ...onPath];
  const found = candidates.find((path) => existsSync(path));
  if (!found) throw new Error(`no Chromium at ${candidates[0]}: install Debian's chromium, or set CHROMIUM`);
  return found;
}

export function launchBrowser() {
  return chromium.launch({
    executablePath: chromiumPath(),
    timeout: 20_000,
    args: [
      '--headless',
      '--no-sandbox', // test machines and containers run it as root
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
    ],
  });
}

/** A page of these elements. */
const html = (elements) => ({
  contentType: 'text/html; charset=utf-8',
  body: `<!doctype html><meta charset="utf-8"><title>interop</title><link rel="icon" href="data:,">${elements}`,
});

const script = async (path) => ({ contentType: 'text/javascript', body: await readFile(path, 'utf8') });

/** The files of the test pages, by path. */
async function pageFiles() {
  const own = (name) => script(new URL(name, import.meta.url));
  const files = {
    '/__test/page.html': html('<script src="faye-browser.js"></script><script src="page.js"></script>'),
    '/__test/page.js': await own('page.js'),
    '/__test/faye-browser.js': await script(require.resolve('faye/client/faye-browser.js')),
    // Weft's client comes from the server under test, whose URL the page is told.
    '/__test/client.html': html('<script src="client-page.js"></script>'),
    '/__test/client-page.js': await own('client-page.js'),
    '/__test/client-worker.js': await own('client-worker.js'),
    // Written for Faye, with nothing but the address of the script changed.
    '/__test/application.html': html(
      '<ul id="messages"></ul><script src="/bayeux/client.js"></script><script src="application.js"></script>',
    ),
    '/__test/application.js': await own('application.js'),
    // The extension comes from the server under test.
    '/__test/resume.html': html(
      '<script src="faye-browser.js"></script><script src="/bayeux/resume.js"></script><script src="resume-page.js"></script>',
    ),
    '/__test/resume-page.js': await own('resume-page.js'),
    '/__test/reload-page.js': await own('reload-page.js'),
    // Before version 8 the client is a script that defines a global, and its extension adds to that.
    '/__test/reload-7.html': html(
      ['cometd7/cometd.js', 'cometd7/ReloadExtension.js', 'reload-page.js'].map((name) => `<script src="${name}"></script>`).join('') +
        '<script>start(org.cometd)</script>',
    ),
  };
  for (const [version, name] of [[7, 'cometd7'], [8, 'cometd8'], [9, 'cometd']]) {
    const folder = dirname(require.resolve(`${name}/package.json`));
    const names = (await readdir(folder)).filter((file) => file.endsWith('.js'));
    for (const file of names) files[`/__test/cometd${version}/${file}`] = await script(join(folder, file));
    files[`/__test/reload-${version}.html`] ??= html(
      '<script src="reload-page.js"></script>' +
        `<script type="module">import * as library from './cometd${version}/cometd.js'; start(library)</script>`,
    );
  }
  return files;
}

/** Serves the test page from an origin of its own. */
export async function startPageServer() {
  const files = await pageFiles();
  const server = http.createServer((request, response) => {
    const file = files[request.url];
    if (!file) return response.writeHead(404).end();
    response.writeHead(200, { 'Content-Type': file.contentType }).end(file.body);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    origin: `http://127.0.0.1:${server.address().port}`,
    async stop() {
      server.close();
      server.closeAllConnections();
      await once(server, 'close');
    },
  };
}

/** The list of what goes wrong in the page: it grows as things happen. */
export function noteProblems(page) {
  const problems = [];
  page.on('pageerror', (error) => problems.push(`page error: ${error.message}`));
  page.on('crash', () => problems.push('the page crashed'));
  page.on('console', (line) => {
    if (['error', 'warning'].includes(line.type())) problems.push(`console ${line.type()}: ${line.text()}`);
  });
  return problems;
}

/**
 * Opens the test page on `origin`. With `intercept`, the files come from here although the origin is
 * that of the server under test, which knows nothing of them: so the page is same-origin with it. `name` is that of
 * the page. Resolves with the page, its problems, and `route()`, which is needed before the page may load again.
 */
export async function openPage(t, browser, origin, { intercept, name = 'page.html' }) {
  // Chromium does not count a page that was fulfilled by interception as local, and asks the user before
  // such a page may talk to a local server.
  const context = await browser.newContext({ permissions: intercept ? ['local-network-access'] : [] });
  t.after(() => context.close());
  const page = await context.newPage();

  const problems = noteProblems(page);

  const pattern = `${origin}/__test/**`;
  const route = async () => {
    const files = await pageFiles();
    await page.route(pattern, (request) => request.fulfill(files[new URL(request.request().url()).pathname]));
  };
  if (intercept) await route();
  await page.goto(`${origin}/__test/${name}`);
  // From here on the browser talks to the server without anything in between.
  if (intercept) await page.unroute(pattern);

  return { page, problems, route };
}

/** Notes what the page exchanges with `url`: requests, WebSocket frames and EventSource events. */
export async function watchTraffic(page, url) {
  const traffic = { requests: [], failures: [], sockets: [], sent: [], pushed: [] };
  const ours = (request) => request.url().startsWith(url);

  page.on('request', (request) => {
    if (!ours(request)) return;
    traffic.requests.push({
      kind: `${request.resourceType()} ${request.method()}`,
      path: new URL(request.url()).pathname,
      contentType: request.headers()['content-type'],
      body: request.postData(),
    });
  });
  page.on('requestfailed', (request) => {
    if (ours(request)) traffic.failures.push(`${request.method()} ${request.url()}: ${request.failure()?.errorText}`);
  });
  page.on('response', (response) => {
    if (response.status() !== 200 && ours(response.request())) {
      traffic.failures.push(`${response.status()} ${response.url()}`);
    }
  });
  page.on('websocket', (socket) => {
    traffic.sockets.push(socket.url());
    socket.on('framesent', ({ payload }) => traffic.sent.push(...JSON.parse(payload)));
    socket.on('framereceived', ({ payload }) => traffic.pushed.push(...JSON.parse(payload)));
  });
  // Playwright has no event for these, the browser's own protocol does.
  const cdp = await page.context().newCDPSession(page);
  cdp.on('Network.eventSourceMessageReceived', ({ data }) => traffic.pushed.push(...JSON.parse(data)));
  await cdp.send('Network.enable');

  return traffic;
}
