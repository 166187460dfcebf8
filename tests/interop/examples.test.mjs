// The examples, run as their README says: the programs in processes of their own, the chat in Chromium.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { cp, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath, pathToFileURL } from 'node:url';
import faye from 'faye';
import { launchBrowser, noteProblems } from './lib/browser.mjs';
import { REFERENCE, startServer } from './lib/server.mjs';
import { DEADLINE_MS, until, within } from './lib/wait.mjs';

const example = (name) => fileURLToPath(new URL(`../../examples/${name}`, import.meta.url));

let scratch;
let server; // keeps what is said in rooms below /chat, and nothing else
let browser;
// The chat needs Weft's client, and the channels here need its rules.
const skip = REFERENCE && "the examples are Weft's own";
before(async () => {
  if (skip) return;
  scratch = await mkdtemp(join(tmpdir(), 'weft-examples-'));
  const config = join(scratch, 'weft.toml');
  await writeFile(config, '[[retention]]\nchannels = "/chat/*"\nlength = 100\n');
  [server, browser] = await Promise.all([startServer('/bayeux', ['--config', config]), launchBrowser()]);
});
after(async () => {
  await browser?.close();
  await server?.stop();
  if (scratch) await rm(scratch, { recursive: true, force: true });
});

/** Runs a program, with what it printed so far, its end, and a place to type. It is ended with the test. */
function run(t, command, words, url = server.url) {
  // A group of its own, so that what a script started ends with it.
  const child = spawn(command, words, { env: { ...process.env, BAYEUX_URL: url }, detached: true });
  const program = { output: '', errors: '', input: child.stdin };
  child.stdout.setEncoding('utf8').on('data', (text) => (program.output += text));
  child.stderr.setEncoding('utf8').on('data', (text) => (program.errors += text));
  let running = true;
  const closed = once(child, 'close').finally(() => (running = false));
  program.ended = async () => (await within(closed, `${command} to end`))[0];
  t.after(async () => {
    if (running) process.kill(-child.pid, 'SIGKILL');
    await within(closed, `${command} to be gone`);
  });
  return program;
}

/** What comes on a channel, from now on. */
async function listen(t, channel) {
  const client = new faye.Client(server.url);
  t.after(() => client.disconnect());
  const heard = [];
  await within(client.subscribe(channel, (data) => heard.push(data)), `a subscription to ${channel}`);
  return heard;
}

async function publish(channel, data, url = server.url) {
  const response = await fetch(url, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ channel, data }),
  });
  assert.equal((await response.json())[0].successful, true);
}

describe('curl', { skip }, () => {
  test('publish.sh publishes an argument, or each line of its input', async (t) => {
    const heard = await listen(t, '/curl/publish');
    const one = run(t, example('curl/publish.sh'), ['/curl/publish', '{"text": "it\'s \\"one\\""}']);
    assert.equal(await one.ended(), 0, one.errors);
    const lines = run(t, example('curl/publish.sh'), ['/curl/publish']);
    lines.input.end('1\n\n"two"\n[3]'); // neither an empty line nor a missing end of line matters
    assert.equal(await lines.ended(), 0, lines.errors);
    await until('four messages', () => heard.length === 4, { seen: () => heard });
    assert.deepEqual(heard, [{ text: 'it\'s "one"' }, 1, 'two', [3]]);
  });

  test('publish.sh fails when the server refuses or is not there', async (t) => {
    const refused = run(t, example('curl/publish.sh'), ['/meta/no', '1']);
    assert.equal(await refused.ended(), 1);
    assert.match(refused.errors, /Forbidden channel/);
    const nobody = run(t, example('curl/publish.sh'), ['/curl/publish', '1'], 'http://127.0.0.1:9/bayeux');
    assert.equal(await nobody.ended(), 1);
  });

  test('subscribe.sh prints each message as a line of JSON', async (t) => {
    const subscriber = run(t, example('curl/subscribe.sh'), ['/curl/sub/*']);
    await until('the subscription', () => subscriber.errors.includes('subscribed'), { seen: () => subscriber });
    const sent = [{ brackets: '[{"]},\\', list: [[1], { a: [2] }] }, 'two', 3, null, [], {}];
    for (const data of sent) await publish('/curl/sub/x', data);
    const lines = () => subscriber.output.split('\n').filter(Boolean);
    await until('all of them', () => lines().length === sent.length, { seen: () => subscriber });
    assert.deepEqual(lines().map(JSON.parse), sent.map((data) => ({ channel: '/curl/sub/x', data })));
  });

  test('subscribe.sh fails when the server refuses', async (t) => {
    const refused = run(t, example('curl/subscribe.sh'), ['/meta/connect']);
    assert.equal(await refused.ended(), 1);
    assert.match(refused.errors, /refused: .*Forbidden channel/);
  });
});

describe('node-publisher', { skip }, () => {
  let publisher;
  before(async () => {
    // With the client that is installed here, which is the one that it asks for.
    const folder = join(scratch, 'node-publisher');
    await cp(example('node-publisher'), folder, { recursive: true, filter: (path) => !path.includes('node_modules') });
    await symlink(fileURLToPath(new URL('node_modules', import.meta.url)), join(folder, 'node_modules'));
    publisher = join(folder, 'publisher.mjs');
  });

  test('asks for the client that is tested here', async () => {
    const read = async (path) => JSON.parse(await readFile(path, 'utf8'));
    const { dependencies } = await read(example('node-publisher/package.json'));
    const { devDependencies } = await read(fileURLToPath(new URL('package.json', import.meta.url)));
    assert.deepEqual(dependencies, { faye: devDependencies.faye });
  });

  test('publishes each line of its input', async (t) => {
    const heard = await listen(t, '/publisher/lines');
    const program = run(t, process.execPath, [publisher, '--url', server.url, '--channel', '/publisher/lines']);
    program.input.end('plain text\n{"a": 1}\n\n3\n');
    assert.equal(await program.ended(), 0, program.errors);
    assert.match(program.output, /published 3 to \/publisher\/lines/);
    await until('three messages', () => heard.length === 3, { seen: () => heard });
    assert.deepEqual(heard, ['plain text', { a: 1 }, 3]);
  });

  test('ticks', async (t) => {
    const heard = await listen(t, '/publisher/ticks');
    run(t, process.execPath, [publisher, '--url', server.url, '--channel', '/publisher/ticks', '--tick']);
    await until('two ticks', () => heard.length >= 2, { seen: () => heard });
    assert.deepEqual(heard.slice(0, 2).map(({ text }) => text), ['tick 1', 'tick 2']);
  });

  test('fails when the server refuses', async (t) => {
    const program = run(t, process.execPath, [publisher, '--url', server.url, '--channel', '/meta/no']);
    program.input.end('1\n');
    assert.equal(await program.ended(), 1);
    assert.match(program.errors, /not published: .*Forbidden channel/);
  });
});

describe('browser-chat', { skip }, () => {
  /** Opens the file as a person does, by a double click. */
  async function open(t, url) {
    const context = await browser.newContext({ viewport: { width: 390, height: 700 } });
    t.after(() => context.close());
    const page = await context.newPage();
    page.setDefaultTimeout(DEADLINE_MS);
    const problems = noteProblems(page);
    await page.goto(`${pathToFileURL(example('browser-chat/index.html'))}?server=${encodeURIComponent(url)}`);
    await page.locator('#state', { hasText: 'Connected' }).waitFor();
    return { page, problems };
  }

  async function say(page, name, text) {
    await page.getByLabel('Your name').fill(name);
    await page.getByLabel('Message', { exact: true }).fill(text);
    await page.getByRole('button', { name: 'Send' }).click();
  }

  const said = (page) => page.locator('#said li').allTextContents();

  test('two people talk, and who comes later sees what was said', async (t) => {
    await publish('/chat/lobby', { name: 'Ada', text: 'said before' });
    const a = await open(t, server.url);
    await a.page.locator('#said li', { hasText: 'said before' }).waitFor();
    await say(a.page, 'Bo', '<b>text</b>, never markup');
    await a.page.locator('#said li', { hasText: 'never markup' }).waitFor();
    const b = await open(t, server.url);
    await b.page.locator('#said li', { hasText: 'never markup' }).waitFor();
    await say(b.page, 'Cy', 'and back');
    for (const { page } of [a, b]) {
      await page.locator('#said li', { hasText: 'and back' }).waitFor();
      assert.deepEqual(await said(page), ['Adasaid before', 'Bo<b>text</b>, never markup', 'Cyand back']);
    }
    for (const { page, problems } of [a, b]) {
      const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      assert.ok(wide <= 0, `${wide} px too wide`);
      assert.deepEqual(problems, []);
    }
  });

  test('a server that keeps nothing will do', async (t) => {
    const plain = await startServer('/bayeux');
    t.after(() => plain.stop());
    const { page, problems } = await open(t, plain.url);
    // The server says no to the history first, and nothing tells the page when its second subscription stands: so talk until it hears.
    await until('an answer', async () => {
      await publish('/chat/lobby', { name: 'Ada', text: 'anybody?' }, plain.url);
      return (await said(page)).includes('Adaanybody?');
    });
    assert.deepEqual(problems, []);
  });
});
