// Clients in other languages, all through the same scenario.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { post, sessionExists } from './bayeux.mjs';
import { startCuttingProxy } from './cutting-proxy.mjs';
import { CLIENTS } from './foreign-clients.mjs';
import { startDriver } from './foreign.mjs';
import { assertSequence, numbers } from './sequence.mjs';
import { HOLD_MS, REFERENCE, configuration } from './server.mjs';
import { until, within } from './wait.mjs';

const USABLE_MS = 2_000;
const DISCONNECT_MS = 3_000;

// The reference has one mount, and what it loses is known.
const REFERENCE_CANNOT = REFERENCE && {
  repeat: 'Faye loses what it has written to a dead connection',
  lossless: 'Faye loses what it has written to a dead connection',
  none: 'Faye advises to try again after a disconnect, too',
};

/** The tests, on the server that `start(mount, arguments)` starts. */
export function testForeignClients(start) {
  let server;
  const drivers = new Map();
  const clients = REFERENCE ? CLIENTS.filter(({ mount }) => mount === '/bayeux') : CLIENTS;

  before(async () => {
    server = await start('/bayeux', configuration('foreign'));
    await all(
      clients.map(async (client) => {
        drivers.set(client, await startDriver(client));
        // What is measured below is not how long a language takes to load a library.
        for (const transport of client.transports) {
          const session = drivers.get(client).session(server.origin + client.mount, transport);
          await session.open();
          await session.subscribe('/warm/up');
        }
      }),
    );
  });
  after(async () => {
    try {
      await all([...drivers.values()].map((driver) => driver.stop()));
    } finally {
      await server?.stop();
    }
  });

  /** Waits for all, even if some fail: nothing is still under way after it. */
  async function all(promises) {
    const failures = (await Promise.allSettled(promises)).filter(({ reason }) => reason);
    if (failures.length > 0) throw failures[0].reason;
  }

  /** Publishes as somebody else does: a party without a session, which the other mount would refuse. */
  async function say(channel, ...list) {
    const replies = await post(`${server.origin}/bayeux`, ...list.map((data) => ({ channel, data })));
    for (const reply of replies) assert.equal(reply.successful, true, reply.error);
  }

  describe('clients in other languages', { concurrency: true }, () => {
    for (const client of clients) {
      for (const transport of client.transports) {
        // One test after the other: how long things take is a part of it.
        describe(`${client.name}, ${transport}`, { concurrency: false }, () => testClient(client, transport));
      }
    }
  });

  function testClient(client, transport) {
    // Clients are tested at the same time, so each has a part of the channel space for itself.
    const room = (name) => `/${client.name.replaceAll(' ', '-')}/${transport}/${name}`;

    const cannot = (ability) => {
      const reason = client.cannot[ability] ?? REFERENCE_CANNOT?.[ability];
      return reason?.[transport] ?? (typeof reason === 'string' && reason);
    };

    /**
     * One test of the scenario, skipped if the library lacks an ability that it `needs`. It gets `open()`, and
     * `proxy()` for something to open it through. Unless it `breaks` connections or sessions, none may be replaced.
     */
    function scenario(name, { needs = [], breaks = false } = {}, body) {
      const skip = needs.map(cannot).find(Boolean) ?? false;
      test(name, { skip }, async (t) => {
        const sessions = [];

        async function proxy(options) {
          const started = await startCuttingProxy(server.origin, options);
          t.after(async () => {
            started.mend();
            // A client that is left without its server would try for ever. Some have ended already.
            await Promise.allSettled(sessions.map((session) => session.disconnect()));
            await started.stop();
          });
          return started;
        }

        async function open({ through, extensions } = {}) {
          const way = through ?? (client.silent ? await proxy() : server);
          const session = drivers.get(client).session(way.origin + client.mount, transport, { extensions });
          sessions.push(session);
          const handshake = await session.open();
          if (client.silent) session.clientIds.push((await way.waitFor(/"clientId":"(\w+)"/))[1]);
          await until(`the transport ${transport}`, () => session.transport === transport, {
            seen: () => session.transport,
          });

          const subscribe = async (channel) => {
            if (client.silent) way.answers = '';
            const subscription = await session.subscribe(channel);
            if (client.silent) await way.waitFor(subscribed(channel));
            return subscription;
          };
          // In its turn, as all the clients do.
          const publish = async (channel, ...list) => {
            for (const data of list) await (cannot('publish') ? say(channel, data) : session.publish(channel, data));
          };
          return { session, handshake, subscribe, publish };
        }

        await body({ t, open, proxy });
        if (breaks) return;
        for (const { ends, clientIds } of sessions) {
          assert.deepEqual(ends, []);
          assert.equal(clientIds.length, 1, `expected one handshake, got ${clientIds.length}`);
        }
      });
    }

    /** A successful answer to a subscription, as it is on the wire. */
    function subscribed(channel) {
      return new RegExp(`"/meta/subscribe","successful":true,"subscription":\\[?"${channel.replaceAll('*', '\\*')}"`);
    }

    scenario('usable at once', {}, async ({ open }) => {
      const begin = Date.now();
      const { subscribe } = await open();
      await subscribe(room('usable'));
      const took = Date.now() - begin;
      assert.ok(took < USABLE_MS, `expected to be usable within ${USABLE_MS} ms, took ${took} ms`);
    });

    scenario('subscribe, publish, receive', {}, async ({ t, open }) => {
      const { session, subscribe, publish } = await open();
      const channel = room('basic');
      await subscribe(channel);

      const list = cannot('nested') ? [1, 2] : [1, [2, [3]]];
      if (cannot('nested')) t.diagnostic(`no list in a list: ${cannot('nested')}`);
      const messages = [{ text: 'hëllo ☃ 🧶' }, 'plain', 7, false, { list }, { deep: { er: [null] } }, {}, [1]];
      await publish(channel, ...messages);
      await until('all messages', () => session.messages.length >= messages.length, { seen: () => session.messages });
      assert.deepEqual(session.data(), messages);
      assert.ok(session.messages.every((m) => m.channel === channel));
    });

    scenario('a subscription that was given up gets nothing more', { needs: ['unsubscribe'] }, async ({ open }) => {
      const { session, subscribe, publish } = await open();
      const [left, kept] = [room('left'), room('kept')];
      const subscription = await subscribe(left);
      await subscribe(kept);
      await publish(left, 'before');
      await session.hears('before');

      await session.unsubscribe(subscription);
      await publish(left, 'after');
      await publish(kept, 'end');
      await session.hears('end');
      assert.deepEqual(session.data(), ['before', 'end']);
    });

    scenario('wildcards and overlapping subscriptions', { needs: ['wildcards'] }, async ({ open }) => {
      const { session, subscribe, publish } = await open();
      const base = room('wild');
      const exact = await subscribe(`${base}/x`);
      const star = await subscribe(`${base}/*`);
      const deep = await subscribe(`${base}/**`);
      // Covered by no other, which would hide its absence.
      const alone = await subscribe(`${base}-alone/*`);

      await publish(base, 'none');
      await publish(`${base}/x`, 'all');
      await publish(`${base}/x/y`, 'deep');
      await publish(`${base}-alone/x/y`, 'none');
      await publish(`${base}-alone/x`, 'alone');
      await publish(`${base}/end`, 'end');
      // The last callback to be called, whatever their order.
      const all = client.callbacks ? 7 : 4;
      await until('all messages', () => session.messages.length >= all, { seen: () => session.messages });

      if (client.callbacks) {
        const calls = Object.entries({ exact, star, deep, alone }).map(([name, own]) => [name, session.data(own)]);
        assert.deepEqual(Object.fromEntries(calls), {
          exact: ['all'],
          star: ['all', 'end'],
          deep: ['all', 'deep', 'end'],
          alone: ['alone'],
        });
      } else {
        assert.deepEqual(session.data(), ['all', 'deep', 'alone', 'end']);
      }
      assert.equal(session.messages.length, all);
    });

    scenario('a batch', { needs: ['batch'] }, async ({ open }) => {
      const { session, subscribe, publish } = await open();
      const channel = room('batch');
      await subscribe(channel);
      // What exceeds 2 KiB, Faye's client sends in several requests at once, which have no order.
      await session.batch(channel, numbers(10));
      await publish(channel, 'end');
      await session.hears('end');
      assertSequence(session.data(), [...numbers(10), 'end'], 'messages of the batch');
    });

    scenario('a burst of 500 messages arrives once each and in order', {}, async ({ open }) => {
      const { session, subscribe } = await open();
      const channel = room('burst');
      await subscribe(channel);
      for (const part of numbers(5)) await say(channel, ...numbers(100, 100 * part));
      await say(channel, 'end');
      await session.hears('end');
      assertSequence(session.data(), [...numbers(500), 'end'], 'messages of the burst');
    });

    scenario('an idle client outlives the hold time of a connect', {}, async ({ open }) => {
      const { session, subscribe, publish } = await open();
      const channel = room('idle');
      await subscribe(channel);
      // Nothing is to happen meanwhile, so there is nothing to wait for.
      await setTimeout(1.2 * HOLD_MS);
      await publish(channel, 'still here');
      await session.hears('still here');
      assert.deepEqual(session.data(), ['still here']);
    });

    for (const acknowledged of [false, true]) {
      const needs = acknowledged ? ['repeat', 'ack'] : ['repeat'];
      const name = acknowledged ? 'the same with acknowledged messages' : 'what a lost reply carried comes again';
      scenario(name, { needs, breaks: true }, async ({ t, open, proxy }) => {
        const through = await proxy();
        const extensions = acknowledged ? ['ack'] : [];
        const { session, handshake, subscribe, publish } = await open({ through, extensions });
        if (acknowledged) assert.ok(handshake.ext?.ack, `expected ack, got ${JSON.stringify(handshake)}`);
        const channel = room(acknowledged ? 'acknowledged' : 'lost');
        await subscribe(channel);
        await publish(channel, 'before');
        await session.hears('before');
        if (acknowledged) await through.waitFor(/"ext":\{[^}]*"ack":\d/);

        const swallowed = through.swallow('lost 2');
        const lost = numbers(5).map((n) => `lost ${n}`);
        await say(channel, ...lost);
        await within(swallowed, 'a reply to be swallowed');
        await say(channel, 'end');
        await session.hears('end');

        assertOnceEach(t, session, ['before', ...lost, 'end']);
        assert.equal(new Set(session.clientIds).size, 1, 'the session has lived on');
      });
    }

    scenario(
      'a lost connection loses nothing',
      { needs: ['reconnect', 'lossless'], breaks: true },
      async ({ t, open, proxy }) => {
        const through = await proxy();
        const { session, subscribe, publish } = await open({ through });
        const channel = room('cut');
        await subscribe(channel);
        await publish(channel, 'before');
        await session.hears('before');

        // One that repeats a connect under a new id confirms what was written to a connection of whose end the server did
        // not know yet.
        await (cannot('repeat') ? through.hangUp() : through.cut());
        await say(channel, ...numbers(20));
        through.mend();
        await say(channel, 'end');
        await session.hears('end');

        assertOnceEach(t, session, ['before', ...numbers(20), 'end']);
        assert.equal(new Set(session.clientIds).size, 1, 'the session has lived on');
      },
    );

    /** At least once: no more is promised after a failure. */
    function assertOnceEach(t, session, expected) {
      const heard = session.data();
      const distinct = [...new Set(heard)];
      if (heard.length > distinct.length) t.diagnostic(`repeated: ${heard.length - distinct.length}`);
      assertSequence(distinct, expected, 'messages without repetitions');
    }

    /** Ends a session as somebody else can who knows its id. */
    async function endSession({ clientIds }) {
      const clientId = clientIds.at(-1);
      const [reply] = await post(server.origin + client.mount, { channel: '/meta/disconnect', clientId });
      assert.equal(reply.successful, true, reply.error);
    }

    async function hearsAgain(through, { session, subscribe }, channel) {
      const first = session.clientIds[0];
      // Its first connect is answered at once. Until then, some would still subscribe under the old name.
      const connected = new RegExp(`"clientId":"(?!${first})(\\w+)","channel":"/meta/connect","successful":true`);
      const [, clientId] = await through.waitFor(connected);
      if (client.resubscribes) await through.waitFor(subscribed(channel));
      else await subscribe(channel);
      await say(channel, 'again');
      await session.hears('again');
      assert.deepEqual(session.data(), ['before', 'again']);
      if (!client.silent) assert.deepEqual(session.clientIds, [first, clientId]);
      assert.equal(await sessionExists(server.origin + client.mount, clientId), true);
    }

    scenario(
      'a session that was lost during a cut is replaced',
      { needs: ['reconnect', 'rehandshake'], breaks: true },
      async ({ open, proxy }) => {
        const through = await proxy();
        const opened = await open({ through });
        const channel = room('replaced');
        await opened.subscribe(channel);
        await opened.publish(channel, 'before');
        await opened.session.hears('before');

        through.cut();
        await endSession(opened.session);
        through.answers = '';
        through.mend();
        await hearsAgain(through, opened, channel);
      },
    );

    scenario(
      'a session that somebody else ended',
      { needs: ['rehandshake', 'none'], breaks: true },
      async ({ open, proxy }) => {
        const through = await proxy();
        const opened = await open({ through });
        const channel = room('ended');
        await opened.subscribe(channel);
        await opened.publish(channel, 'before');
        await opened.session.hears('before');

        through.answers = '';
        await endSession(opened.session);
        // A connect that was held says "none"; one that comes a moment too late is told to handshake.
        const [, advice] = await through.waitFor(/"reconnect":"(none|handshake)"/);
        if (advice === 'handshake' || !client.obeysNone) return hearsAgain(through, opened, channel);

        // It is up to its user to make another client.
        await until('the client to give up', () => opened.session.ends.length > 0);
        const { session, subscribe, publish } = await open({ through });
        await subscribe(channel);
        await publish(channel, 'again');
        await session.hears('again');
        assert.deepEqual(session.data(), ['again']);
        assert.deepEqual(opened.session.data(), ['before']);
      },
    );

    scenario('the time of the server', { needs: ['timesync'] }, async ({ open, proxy }) => {
      const delayMs = 50;
      const through = await proxy({ delayMs });
      const { session, handshake } = await open({ through, extensions: ['timesync'] });
      assert.ok(handshake.ext?.timesync, `expected timesync, got ${JSON.stringify(handshake)}`);
      const { lag, offset } = await session.timesync();
      // On the way to the server and back the delay is the same, and the clock is the same.
      assert.ok(lag > delayMs / 2 && lag < 10 * delayMs, `expected a lag of about ${delayMs} ms, got ${lag} ms`);
      assert.ok(Math.abs(offset) <= lag, `expected an offset of about 0 ms, got ${offset} ms`);
    });

    scenario('a remote call', { needs: ['call'] }, async ({ open }) => {
      const { session } = await open();
      const data = { text: 'hëllo', list: [1, 2] };
      assert.deepEqual(await session.call('echo', data), data);
    });

    scenario('a publish to a service is acknowledged', { needs: ['publish'] }, async ({ open }) => {
      const { session } = await open();
      await session.publish('/service/echo', { text: 'hëllo' });
    });

    scenario('disconnect ends the session', { breaks: true }, async ({ t, open }) => {
      const { session, subscribe } = await open();
      await subscribe(room('bye'));
      const [clientId] = session.clientIds;
      assert.equal(await sessionExists(server.origin + client.mount, clientId), true);

      const begin = Date.now();
      await session.disconnect();
      const took = Date.now() - begin;
      const most = DISCONNECT_MS + (cannot('promptDisconnect') ? HOLD_MS : 0);
      if (cannot('promptDisconnect')) t.diagnostic(`${took} ms: ${cannot('promptDisconnect')}`);
      assert.ok(took < most, `expected to be disconnected within ${most} ms, took ${took} ms`);
      assert.equal(await sessionExists(server.origin + client.mount, clientId), false);
    });
  }
}
