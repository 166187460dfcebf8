// Weft's JavaScript client with servers, proxies and programs that behave oddly: everything settles, nothing spins, nothing is
// lost on the way through the client.

import assert from 'node:assert/strict';
import { getEventListeners, once } from 'node:events';
import net from 'node:net';
import { after, before, describe, test } from 'node:test';
import { WebSocketServer } from 'ws';
import { post } from './lib/bayeux.mjs';
import { startCuttingProxy } from './lib/cutting-proxy.mjs';
import { startOddServer, usual } from './lib/odd-server.mjs';
import { assertSequence, numbers } from './lib/sequence.mjs';
import { REFERENCE, configuration, startServer } from './lib/server.mjs';
import { startSwitch } from './lib/switch-proxy.mjs';
import { until, within } from './lib/wait.mjs';
import { TRANSPORTS, collect, event, full, open } from './lib/weft-client.mjs';

const skip = REFERENCE ? 'the servers here are odd ones' : false;
const outcome = (promise) => within(Promise.resolve(promise).then(() => 'done', (error) => error.code), 'an outcome');

let server;
before(async () => {
  if (!skip) server = await startServer('/bayeux', configuration('replay'));
});
after(() => server?.stop());

for (const transport of TRANSPORTS) {
  describe(`over ${transport}`, { skip, concurrency: true }, () => {
    test('separators of lines and paragraphs are text', async (t) => {
      const { client } = open(t, server.url, transport);
      const list = await collect(client, `/odd/${transport}/separators`);
      const texts = ['one\u2028two', 'three\u2029four', 'five\nsix\r\nseven\reight', 'nine'];
      // As their JSON has them: unescaped.
      await post(server.url, ...texts.map((data) => ({ channel: `/odd/${transport}/separators`, data })));
      await full(list, texts.length);
      assertSequence(list, texts, 'texts');
    });

    test('left and wanted again while the session is lost', async (t) => {
      const front = await startCuttingProxy(server.origin);
      t.after(() => front.stop());
      const { client, told } = open(t, server.url.replace(server.origin, front.origin), transport);
      const [first, list] = [[], []];
      const old = client.subscribe(`/odd/${transport}/again`, (data) => first.push(data));
      await within(old, 'a subscription');
      await event(told, 'connected');
      const from = told.length;
      let anew;
      const lost = new Promise((done) => {
        client.on('retry', ({ reason }) => {
          if (anew || !/Unknown client/.test(reason)) return;
          // The server knows it no more, and is not asked for a new session yet.
          old.cancel();
          anew = client.subscribe(`/odd/${transport}/again`, (data) => list.push(data));
          done();
        });
      });
      front.cut();
      await post(server.url, { channel: '/meta/disconnect', clientId: client.clientId });
      front.mend();
      await within(lost, 'the loss of the session');
      await within(anew, 'the new subscription');
      await event(told, 'connected', from);
      await until('the server knows it', async () => {
        await post(server.url, { channel: `/odd/${transport}/again`, data: 'x' });
        return list.length > 0;
      });
      assert.ok(anew.active && first.length === 0);
    });

    test('a loop that begins after the yes has what came before it', async (t) => {
      const { client } = open(t, server.url, transport);
      const channel = `/kept/odd/${transport}`;
      await post(server.url, ...numbers(20).map((data) => ({ channel, data })));
      const subscription = client.subscribe(channel, { replay: -2 });
      await within(subscription, 'the yes');
      await client.publish(channel, 20);
      const list = [];
      for await (const { data } of subscription) {
        list.push(data);
        if (list.length === 21) break;
      }
      assertSequence(list, numbers(21), 'messages');
      assert.ok(!subscription.active, 'a loop that is left unsubscribes');
    });

    test('what is published before the first link is stored before the goodbye', async (t) => {
      const list = await collect(open(t, server.url, 'websocket').client, `/odd/${transport}/goodbye`);
      const { client } = open(t, server.url, transport);
      const publication = client.publish(`/odd/${transport}/goodbye`, 1);
      await within(client.disconnect(), 'the end');
      assert.equal(await outcome(publication), 'done');
      await full(list, 1);
    });
  });
}

describe('odd servers', { skip, concurrency: true }, () => {
  test('an extension that takes its time loses nothing', async (t) => {
    const { client } = open(t, server.url, 'long-polling');
    client.addExtension({
      incoming: (message, callback) => (message.data === 'slow' ? setTimeout(() => callback(message), 50) : callback(message)),
    });
    const list = await collect(client, '/odd/slow');
    await post(server.url, ...['slow', 'fast', 'slow', 'last'].map((data) => ({ channel: '/odd/slow', data })));
    await full(list, 4);
    assert.deepEqual(list.toSorted(), ['fast', 'last', 'slow', 'slow']);
  });

  test('a publish that nobody answers is given up', async (t) => {
    const odd = await startOddServer(t, (message) => (message.channel === '/quiet' ? null : usual(message)));
    const { client } = open(t, odd.url, 'long-polling');
    const quiet = client.publish('/quiet', 1, { deadline: 1, attempts: 1 });
    assert.equal(await outcome(client.publish('/loud', 1)), 'done');
    assert.equal(await outcome(quiet), 'gave-up');
  });

  test('a server that answers and breaks off is not asked in a loop', async (t) => {
    let connects = 0;
    const odd = await startOddServer(t, (message) => {
      if (message.channel !== '/meta/connect') return usual(message);
      connects += 1;
      return message.advice?.timeout === 0 ? usual(message) : 503;
    });
    const { client, told } = open(t, odd.url, 'long-polling', { backoff: { first: 250 } });
    const began = Date.now();
    client.connect();
    await until('four attempts', () => told.some(({ name, attempt }) => name === 'retry' && attempt >= 4));
    // After one without a pause: 250 ms, 500, 1,000, at least the half of each.
    assert.ok(Date.now() - began > 850, `${Date.now() - began} ms`);
    assert.ok(connects < 20, `${connects} connects`);
  });

  test('a gap that is told twice is one, and that of a replay does not say where', async (t) => {
    const upto = (number, position) => ({ lost: { 0: number }, position: { 0: position } });
    const gaps = [upto(18, 20), upto(18, 20), { position: {} }, { position: {} }, upto(17, 19), upto(19, 20), upto(29, 30)];
    const odd = await startOddServer(t, (message) => {
      if (message.channel === '/meta/handshake') return { ...usual(message), ext: { resume: true, position: { 0: 10 } } };
      if (message.channel !== '/meta/connect' || message.advice?.timeout === 0 || !gaps.length) return usual(message);
      return { ...usual({ ...message, advice: { timeout: 0 } }), ext: { gap: true, ...gaps.shift() } };
    });
    const { client, told } = open(t, odd.url, 'long-polling');
    client.connect();
    await until('its last connect', () => odd.seen.at(-1)?.ext?.position?.[0] === 30, { seen: () => odd.seen });
    assert.equal(told.filter(({ name }) => name === 'gap').length, 5);
  });

  test('statuses of a gate are nobody\'s fault', async (t) => {
    let closed = false;
    const stored = [];
    const odd = await startOddServer(t, (message) => {
      if (closed) return 404;
      if (message.data !== undefined) stored.push(message.data);
      return usual(message);
    });
    const { client, told } = open(t, odd.url, 'long-polling');
    await collect(client, '/a');
    closed = true;
    const publications = numbers(50).map((n) => client.publish('/a', n));
    await until('some refusals', () => told.filter(({ name }) => name === 'retry').length > 3);
    closed = false;
    await within(Promise.all(publications), 'all are stored');
    assert.deepEqual(stored, numbers(50));
  });

  test('a subscription that is refused later is told of', async (t) => {
    let refuse = false;
    const odd = await startOddServer(t, (message) => {
      const { channel, id } = message;
      if (!refuse) return usual(message);
      if (channel === '/meta/subscribe') return { channel, id, successful: false, error: '403:/a:No more' };
      if (channel === '/meta/handshake') return usual(message);
      if (message.clientId !== 'odd' || channel !== '/meta/connect' || refuse === 'done') return usual(message);
      refuse = 'done';
      return { channel, id, successful: false, error: '401::Unknown client', advice: { reconnect: 'handshake' } };
    });
    const { client } = open(t, odd.url, 'long-polling');
    const told = new Promise((done) => client.on('unsubscribed', done));
    const subscription = client.subscribe('/a', () => {});
    await within(subscription, 'a subscription');
    refuse = true;
    odd.server.closeAllConnections();
    const { channel, error } = await within(told, 'the news');
    assert.deepEqual([channel, error.code, subscription.active], ['/a', 403, false]);
  });

  test('a socket that never opens, of an implementation that throws when it is closed', async (t) => {
    const silent = net.createServer(() => {}).listen(0, '127.0.0.1');
    await once(silent, 'listening');
    t.after(() => silent.close());
    let target = `http://127.0.0.1:${silent.address().port}`;
    const front = await startSwitch(() => target);
    t.after(() => front.stop());
    const { client } = open(t, `${front.origin}/bayeux`, null, { transports: ['websocket', 'long-polling'] });
    client.connect();
    // Nothing thrown ends this process, which is the test.
    const given = new Promise((done) => client.on('retry', ({ reason }) => /not opened in time/.test(reason) && done(reason)));
    await within(given, 'the time-out');
    target = server.origin;
    await within(client.publish('/odd/late', 1), 'a publish by other means');
  });

  test('a socket that lets nothing through does not replace what works', async (t) => {
    const sockets = new WebSocketServer({ noServer: true });
    let opened = 0;
    // Sockets open here, and go nowhere.
    const dumb = await startOddServer(t, () => null);
    dumb.server.on('upgrade', (request, socket, head) => {
      opened += 1;
      sockets.handleUpgrade(request, socket, head, () => {});
    });
    const options = { transports: ['websocket', 'long-polling'], upgradeAfter: 100, liveness: { idle: 500, wait: 300 } };
    const endpoints = { websocket: dumb.url };
    const { client, told } = open(t, server.url, null, { ...options, endpoints });
    const list = await collect(client, '/odd/dumb');
    await until('it is on polling', () => client.transport === 'long-polling' && opened > 0);
    const from = told.length;
    await until('two attempts', ((before) => () => opened >= before + 2)(opened));
    await within(client.publish('/odd/dumb', 1), 'an acknowledgement');
    await full(list, 1);
    assert.ok(!told.slice(from).some(({ name }) => name === 'transport:down'), JSON.stringify(told.slice(from)));
  });

  test('nothing is left behind on a signal', async (t) => {
    const { client } = open(t, server.url, 'websocket');
    const { signal } = new AbortController();
    for (let n = 0; n < 20; n++) await within(client.publish('/odd/signal', n, { signal }), 'an acknowledgement');
    const subscription = client.subscribe('/odd/signal', { signal }, () => {});
    await within(subscription, 'a subscription');
    subscription.cancel();
    assert.equal(getEventListeners(signal, 'abort').length, 0);
  });
});
