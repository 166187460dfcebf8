// Weft's JavaScript client in Node: what Faye's own client does, and what its users asked for. The same tests run
// against a real Faye server (INTEROP_REFERENCE=faye), where only what needs Weft is skipped.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, before, describe, test } from 'node:test';
import http from 'node:http';
import faye from 'faye';
import { post, sessionExists } from './lib/bayeux.mjs';
import { assertSequence, numbers } from './lib/sequence.mjs';
import { REFERENCE, configuration, startServer } from './lib/server.mjs';
import { until, within } from './lib/wait.mjs';
import { TRANSPORTS, Weft, collect, event, full, open } from './lib/weft-client.mjs';

const onlyWeft = { skip: REFERENCE ? "Faye's server cannot do it" : false };
const outcome = (promise) => within(Promise.resolve(promise).then(() => 'done', (error) => error), 'an outcome');

let server;
before(async () => (server = await startServer('/bayeux', REFERENCE ? [] : configuration('replay'))));
after(() => server?.stop());

for (const transport of TRANSPORTS) {
  describe(`over ${transport}`, { concurrency: true }, () => {
    const room = (name) => `/${transport}/${name}`;

    test('subscribe, publish, receive; patterns; several listeners', async (t) => {
      const { client, told } = open(t, server.url, transport);
      const sent = [];
      client.addExtension({ outgoing: (message, callback) => (sent.push({ ...message }), callback(message)) });
      const [exact, one, deep, contexts] = [[], [], [], []];
      const context = {};
      await within(
        Promise.all([
          client.subscribe(room('a/b'), (data) => exact.push(data)),
          client.subscribe(room('a/b'), function () {
            contexts.push(this);
          }, context),
          client.subscribe(room('a/*')).withChannel((channel, data) => one.push([channel, data])),
          ...client.subscribe([room('a/**'), room('other')], (data) => deep.push(data)),
        ]),
        'five subscriptions',
      );
      const subscribes = sent.filter((message) => message.channel === '/meta/subscribe');
      assert.equal(subscribes.length, 4, 'the second listener of a channel sends nothing');
      const messages = [{ text: 'hëllo ☃ 🧶' }, 'plain', 0, false, null, [], { nested: { list: [1, 2] } }];
      for (const data of messages) await within(client.publish(room('a/b'), data), 'an acknowledgement');
      await within(client.publish(room('a'), 'nobody'), 'an acknowledgement');
      await within(client.publish(room('a/b/c'), 'deep'), 'an acknowledgement');
      await full(deep, messages.length + 1);
      assert.deepEqual(exact, messages);
      assert.deepEqual(one, messages.map((data) => [room('a/b'), data]));
      assert.deepEqual(deep, [...messages, 'deep']);
      assert.ok(contexts.length === messages.length && contexts.every((one) => one === context));
      await event(told, 'connected');
      assert.deepEqual(told.map(({ name }) => name), ['session:new', 'transport:up', 'transport', 'connected']);
      assert.equal(client.transport, transport);
      assert.equal(client.state, 'CONNECTED');
    });

    test('a burst arrives once each and in order', async (t) => {
      const { client } = open(t, server.url, transport);
      const speaker = open(t, server.url, transport).client;
      const list = await collect(client, room('burst'));
      for (const first of [0, 500]) {
        const acknowledged = numbers(500, first).map((n) => speaker.publish(room('burst'), n));
        await within(Promise.all(acknowledged), 'acknowledgements');
      }
      await full(list, 1000);
      assertSequence(list, numbers(1000), 'messages');
    });

    test('cancel: the last listener unsubscribes, and nothing more comes', async (t) => {
      const { client } = open(t, server.url, transport);
      const received = [];
      client.addExtension({ incoming: (message, callback) => (received.push(message), callback(message)) });
      const [first, second] = [[], []];
      const one = client.subscribe(room('cancel'), (data) => first.push(data));
      const two = client.subscribe(room('cancel'), (data) => second.push(data));
      const fence = await collect(client, room('fence'));
      await within(Promise.all([one, two]), 'both');
      await within(client.subscribe(room('fence'), () => {}), 'one more of what there is');
      one.cancel();
      await within(client.publish(room('cancel'), 1), 'an acknowledgement');
      await full(second, 1);
      client.unsubscribe(room('cancel'), two);
      await until('the answer', () => received.some((message) => message.channel === '/meta/unsubscribe'));
      await within(client.publish(room('cancel'), 2), 'an acknowledgement');
      await within(client.publish(room('fence'), 'end'), 'an acknowledgement');
      await full(fence, 1);
      assert.deepEqual([first, second], [[], [1]]);
      const early = client.subscribe(room('never'), () => {});
      early.cancel();
      assert.equal((await outcome(early)).code, 'cancelled');
    });

    test('refusals', async (t) => {
      const { client } = open(t, server.url, transport);
      const bad = room('bad/*/channel');
      for (const refused of [client.subscribe(bad, () => {}), client.publish(bad, 1)]) {
        const { code, params, message } = await outcome(refused);
        assert.deepEqual({ code, params, message }, { code: 405, params: [bad], message: 'Invalid channel' });
      }
      const forbidden = await outcome(client.subscribe('/meta/connect', () => {}));
      assert.ok(forbidden instanceof Weft.BayeuxError && forbidden.code === 403, String(forbidden));
      assert.equal((await outcome(client.publish(room('bad'), undefined))).code, 402);
      assert.throws(() => client.publish(room('bad'), 1, { nonsense: 1 }), /nonsense/);
      await collect(client, room('good'));
    });

    test('disconnect ends the session, and settles everything', async (t) => {
      const { client, told } = open(t, server.url, transport);
      const list = await collect(client, room('bye'));
      const { clientId } = await event(told, 'session:new');
      const loop = (async () => {
        for await (const message of client.subscribe(room('bye'))) return message;
        return 'ended';
      })();
      await within(client.disconnect(), 'the end');
      assert.equal(await sessionExists(server.url, clientId), false);
      assert.equal(await within(loop, 'the loop'), 'ended');
      assert.equal((await outcome(client.publish(room('bye'), 1))).code, 'disconnected');
      assert.equal((await outcome(client.subscribe(room('bye')))).code, 'disconnected');
      assert.deepEqual(list, []);
      await within(client.disconnect(), 'the end, again');
      assert.equal(told.filter(({ name }) => name === 'stopped').length, 1);
    });

    test('async iteration, abort, and a loop that does not keep up', async (t) => {
      const { client } = open(t, server.url, transport);
      const abort = new AbortController();
      const subscription = client.subscribe(room('loop'), { signal: abort.signal });
      const slow = client.subscribe(room('loop'), { buffer: 2 });
      const [fast, lazy] = [subscription, slow].map((one) => one[Symbol.asyncIterator]());
      await within(Promise.all([subscription, slow]), 'both');
      for (const n of numbers(4)) await within(client.publish(room('loop'), n), 'an acknowledgement');
      for (const n of numbers(4)) assert.equal((await within(fast.next(), 'a message')).value.data, n);
      const waiting = fast.next();
      abort.abort();
      assert.deepEqual(await within(waiting, 'the end'), { value: undefined, done: true });
      assert.deepEqual([(await lazy.next()).value.data, (await lazy.next()).value.data], [0, 1]);
      assert.equal((await outcome(lazy.next())).code, 'slow-reader');
      assert.equal((await outcome(client.publish(room('loop'), 1, { signal: abort.signal }))).code, 'cancelled');
    });

    test('extensions see and change everything, in their order, and may drop it', async (t) => {
      const { client } = open(t, server.url, transport);
      const order = [];
      const host = [];
      const first = {
        added: (who) => host.push(['added', who]),
        removed: (who) => host.push(['removed', who]),
        outgoing(message, callback) {
          order.push(`1 ${message.channel}`);
          if (message.channel === room('ext')) message.data = { ...message.data, signed: true };
          setTimeout(() => callback(message), 1);
        },
        incoming(message, request, callback) {
          assert.equal(request, null);
          if (message.data !== undefined && message.data.hidden) return callback(null);
          callback(message);
        },
      };
      client.addExtension(first);
      client.addExtension({
        outgoing(message, callback) {
          order.push(`2 ${message.channel}`);
          callback(message.channel === room('dropped') ? null : message);
        },
      });
      const list = await collect(client, room('ext'));
      const acknowledged = [client.publish(room('ext'), { hidden: true }), client.publish(room('ext'), { n: 1 })];
      await within(Promise.all(acknowledged), 'acknowledgements');
      await full(list, 1);
      assert.deepEqual(list, [{ n: 1, signed: true }]);
      assert.ok(order.indexOf('1 /meta/handshake') < order.indexOf('2 /meta/handshake'));
      assert.equal((await outcome(client.publish(room('dropped'), 1))).code, 'dropped');
      assert.equal((await outcome(client.subscribe('/meta/x', () => {}))).code, 403);
      client.removeExtension(first);
      assert.deepEqual(host, [['added', client], ['removed', client]]);
    });

    test('a kept channel is replayed, once', onlyWeft, async (t) => {
      const { client } = open(t, server.url, transport);
      const channel = `/kept/${transport}`;
      for (const n of numbers(5)) await within(client.publish(channel, n), 'an acknowledgement');
      const list = await collect(client, channel, { replay: -2 });
      await within(client.publish(channel, 5), 'an acknowledgement');
      await full(list, 6);
      assertSequence(list, numbers(6), 'messages');
    });
  });
}

test("Faye's interface", async (t) => {
  assert.ok(Weft.VERSION && Weft.Client && Weft.Scheduler && Weft.Subscription && Weft.Publication);
  assert.throws(() => new Weft.Client(server.url, { nonsense: 1 }), /Unrecognized option: nonsense/);
  const logged = [];
  Weft.logger = (line) => logged.push(line);
  t.after(() => (Weft.logger = null));
  const { client } = open(t, server.url, null);
  assert.equal(client.state, 'UNCONNECTED');
  client.disable('eventsource');
  await within(new Promise((resolve) => client.connect(resolve)), 'the client to connect');
  await within(new Promise((resolve) => client.handshake(resolve)), 'the callback of one that is connected');
  assert.ok(logged.length > 0);
  const settled = [];
  const publication = client.publish('/api', 1);
  publication.callback(function () {
    settled.push(['stored', this]);
  }, settled);
  client.publish('/*', 1).errback((error) => settled.push([error.code]));
  await until('both', () => settled.length === 2, { seen: () => settled });
  assert.deepEqual(settled.map(([what]) => what).sort(), [405, 'stored']);
  await within(client.subscribe('/api', () => {}), 'the subscription');
  const away = open(t, 'http://127.0.0.1:1/', null).client;
  const never = away.publish('/a', 1);
  never.timeout(0.05, 'too late');
  assert.equal((await outcome(never)).message, 'too late');
  // Listeners that throw hurt nobody.
  const thrown = [];
  const listeners = process.listeners('uncaughtException');
  process.removeAllListeners('uncaughtException').on('uncaughtException', (error) => thrown.push(error.message));
  t.after(() => {
    process.removeAllListeners('uncaughtException');
    for (const listener of listeners) process.on('uncaughtException', listener);
  });
  const list = [];
  client.subscribe('/throws', () => {
    throw new Error('from a listener');
  });
  await within(client.subscribe('/throws', (data) => list.push(data)), 'a subscription');
  await within(client.publish('/throws', 1), 'an acknowledgement');
  await until('the error', () => thrown.length === 1);
  assert.deepEqual([list, thrown], [[1], ['from a listener']]);
});

test('a scheduler of the application accompanies each publish', async (t) => {
  const calls = [];
  class Mine extends Weft.Scheduler {
    isDeliverable() {
      return !this.message.channel.endsWith('/stale') && super.isDeliverable();
    }
  }
  for (const name of ['send', 'succeed', 'abort']) {
    Mine.prototype[name] = function () {
      calls.push(`${name} ${this.message.channel}`);
      Weft.Scheduler.prototype[name].call(this);
    };
  }
  const { client } = open(t, server.url, 'websocket', { scheduler: Mine });
  await within(client.publish('/fresh', 1), 'an acknowledgement');
  assert.equal((await outcome(client.publish('/stale', 1))).code, 'gave-up');
  assert.deepEqual(calls, ['send /fresh', 'succeed /fresh', 'abort /stale']);
});

test("Faye's clients and this one understand each other", async (t) => {
  const theirs = new faye.Client(server.url);
  t.after(() => theirs.disconnect());
  const { client } = open(t, server.url, 'websocket');
  const mine = await collect(client, '/both/*');
  const others = [];
  await within(theirs.subscribe('/both/*', (data) => others.push(data)), 'a subscription');
  await within(Promise.all([theirs.publish('/both/a', 'theirs'), client.publish('/both/b', 'mine')]), 'both');
  await Promise.all([full(mine, 2), full(others, 2)]);
  assert.deepEqual([mine.sort(), others.sort()], [['mine', 'theirs'], ['mine', 'theirs']]);
});

test('headers go with every request, and batches hold what was asked for in one turn', async (t) => {
  const seen = [];
  const target = new URL(server.origin);
  const proxy = http.createServer((request, response) => {
    const chunks = [];
    request.on('data', (chunk) => chunks.push(chunk));
    request.on('end', () => {
      const body = Buffer.concat(chunks);
      seen.push({ header: request.headers['x-who'], batch: JSON.parse(body.toString() || '[]') });
      const options = { port: target.port, host: target.hostname, method: request.method, path: request.url };
      const onward = http.request({ ...options, headers: request.headers }, (answer) => {
        response.writeHead(answer.statusCode, answer.headers);
        answer.pipe(response);
      });
      onward.on('error', () => response.destroy());
      onward.end(body);
    });
  });
  proxy.listen(0, '127.0.0.1');
  await once(proxy, 'listening');
  t.after(() => (proxy.close(), proxy.closeAllConnections()));
  const { client } = open(t, `http://127.0.0.1:${proxy.address().port}/bayeux`, 'long-polling', { headers: { 'X-Who': 'me' } });
  await collect(client, '/batches');
  const before = seen.length;
  await within(Promise.all(numbers(5).map((n) => client.publish('/batches', n))), 'acknowledgements');
  const batches = seen.slice(before).map(({ batch }) => batch.filter((m) => m.channel === '/batches').length);
  assert.deepEqual(batches.filter(Boolean), [5]);
  assert.ok(seen.every(({ header }) => header === 'me'));
  const connects = seen.filter(({ batch }) => batch.some((message) => message.channel === '/meta/connect'));
  assert.ok(connects.every(({ batch }) => batch.length === 1), 'a connect has a request for itself');
});

test('one who was told to stop stops, and says why', onlyWeft, async (t) => {
  const { client, told } = open(t, server.url, 'websocket');
  client.addExtension({
    incoming(message, callback) {
      // As a server that does not want this client.
      if (message.channel === '/meta/handshake') {
        return callback({ ...message, successful: false, error: '403::Members only', advice: { reconnect: 'none' } });
      }
      callback(message);
    },
  });
  const refused = await outcome(client.subscribe('/a', () => {}));
  assert.equal(refused.code, 'stopped');
  assert.match(refused.message, /Members only/);
  assert.match((await event(told, 'stopped')).reason, /Members only/);
  await post(server.url, { channel: '/still/there', data: 1 });
});
