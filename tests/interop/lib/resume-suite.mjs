// browser/extensions/resume.js with the stock clients: whatever breaks, the application is given each message once and
// in order.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { post, sessionExists } from './bayeux.mjs';
import { startCuttingProxy } from './cutting-proxy.mjs';
import { startLossyProxy } from './lossy-proxy.mjs';
import { KINDS, openResumingClient } from './resuming-client.mjs';
import { assertSequence, numbers } from './sequence.mjs';
import { configuration } from './server.mjs';
import { until } from './wait.mjs';

/** Short: a session ends when it was not heard of for two of these. Not so short that a busy machine ends it. */
const HOLD_MS = 2_000;
/** Longer than a session lives without its client, and than it takes to notice. */
const EXPIRED_MS = 2.5 * HOLD_MS;
const SETTLED_MS = 20_000;
/** As in config/short-logs.toml. */
const KEPT = 10;

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** The server that `start` starts, and what a test does there: each client has a proxy of its own. */
function useServer(start, configName) {
  const proxies = [];
  const used = {
    server: null,

    /** One client of each kind, subscribed to the channel. */
    openClients: (t, channel, startProxy = startCuttingProxy) =>
      Promise.all(
        KINDS.map(async (kind) => {
          const proxy = await startProxy(used.server.origin);
          proxies.push(proxy);
          return Object.assign(await openResumingClient(t, proxy.origin, kind, [channel]), { proxy });
        }),
      ),

    /** Publishes past the proxies, in one request. */
    async publishAtOnce(channel, list) {
      const replies = await post(`${used.server.origin}/bayeux`, ...list.map((data) => ({ channel, data })));
      assert.deepEqual(replies.filter((m) => !m.successful), []);
    },

    /** Publishes past the proxies, one by one, again if nobody answers, and once for all that. */
    async publish(channel, list, pauseMs = 0) {
      for (const data of list) {
        const message = { channel, data, ext: { idempotencyKey: JSON.stringify(data) } };
        await until(`an acknowledgement for ${JSON.stringify(data)}`, async () => {
          const [reply] = await post(`${used.server.origin}/bayeux`, message).catch(() => [{}]);
          return reply.successful;
        });
        if (pauseMs) await pause(pauseMs);
      }
    },
  };
  before(async () => (used.server = await start('/bayeux', configuration(configName), { holdMs: HOLD_MS })));
  after(async () => {
    await Promise.all(proxies.map((proxy) => proxy.stop()));
    await used.server?.stop();
  });
  return used;
}

/** Waits until each client has heard this on the channel. */
const hear = (clients, channel, last) =>
  Promise.all(
    clients.map(({ name, heard }) =>
      until(`${name} to hear ${JSON.stringify(last)} on ${channel}`, () => heard[channel].includes(last), {
        ms: SETTLED_MS,
        seen: () => heard[channel].slice(-20),
      }),
    ),
  );

/** Each client was given exactly this, and nothing was ever said to be missing. */
function assertOnce(clients, channel, expected) {
  for (const { name, heard, gaps } of clients) {
    assertSequence(heard[channel], expected, `what the application of ${name} was given`);
    assert.deepEqual(gaps, [], `gaps told to ${name}`);
  }
}

function assertBroken(clients) {
  for (const { name, failures } of clients) assert.ok(failures() > 0, `${name} lost nothing: this proved nothing`);
}

/** Each client has had so many sessions, or more if a busy machine has ended one, and each goes on where the last ended. */
function assertSessions(clients, least) {
  for (const { name, clientIds, resumed } of clients) {
    assert.ok(clientIds.length >= least, `sessions of ${name}: ${clientIds}`);
    assert.equal(resumed, clientIds.length - 1, `sessions that ${name} was told to go on`);
  }
}

/** The tests, on the server that `start(mount, more, options)` starts. */
export function testResume(start, { cluster = false } = {}) {
  const used = useServer(start, 'resume');
  const { openClients, publish } = used;

  describe('each message once and in order', { concurrency: true }, () => {
    test('while nothing breaks', async (t) => {
      const channel = '/resume/steady';
      const clients = await openClients(t, channel);
      await publish(channel, numbers(100));
      await hear(clients, channel, 99);
      await pause(1.2 * HOLD_MS); // a connect without a message
      await publish(channel, [...numbers(100, 100), 'end']);
      await hear(clients, channel, 'end');
      assertOnce(clients, channel, [...numbers(200), 'end']);
      for (const { name, clientIds } of clients) assert.equal(clientIds.length, 1, `sessions of ${name}`);
    });

    test('while connections break all the time', async (t) => {
      const channel = '/resume/cuts';
      const clients = await openClients(t, channel);
      const timer = setInterval(() => {
        for (const { proxy } of clients) {
          proxy.cut();
          proxy.mend();
        }
      }, 300);
      await publish(channel, numbers(300), 10).finally(() => clearInterval(timer));
      await hear(clients, channel, 299);
      await publish(channel, ['end']);
      await hear(clients, channel, 'end');
      assertOnce(clients, channel, [...numbers(300), 'end']);
      assertBroken(clients);
    });

    test('although replies are lost', async (t) => {
      const channel = '/resume/lost';
      const clients = await openClients(t, channel);
      for (const round of numbers(5)) {
        const list = numbers(10).map((n) => `round ${round}, message ${n}`);
        const swallowed = Promise.all(clients.map(({ proxy }) => proxy.swallow(`"${list[5]}"`)));
        await publish(channel, list);
        await hear(clients, channel, list[9]);
        await swallowed;
      }
      await publish(channel, ['end']);
      await hear(clients, channel, 'end');
      const all = numbers(5).flatMap((round) => numbers(10).map((n) => `round ${round}, message ${n}`));
      assertOnce(clients, channel, [...all, 'end']);
      assertBroken(clients);
      assertSessions(clients, 1);
    });

    const cut = ({ proxy }) => proxy.cut();
    const mend = ({ proxy }) => proxy.mend();
    const freeze = ({ proxy }) => proxy.freeze();
    const thaw = ({ proxy }) => proxy.thaw();
    for (const { name, busy, startProxy, breaks, heals } of [
      { name: 'on a channel that others hear too', busy: true, breaks: cut, heals: mend },
      { name: 'on a channel that nobody else hears', busy: false, breaks: cut, heals: mend },
      { name: 'while nothing got through', busy: false, startProxy: startLossyProxy, breaks: freeze, heals: thaw },
    ]) {
      test(`although the session ended, ${name}`, async (t) => {
        const channel = `/resume/expired/${name.replaceAll(' ', '-')}`;
        const clients = await openClients(t, channel, startProxy);
        const other = busy && (await openResumingClient(t, used.server.origin, 'faye websocket', [channel]));
        await publish(channel, ['before']);
        await hear(clients, channel, 'before');

        clients.forEach(breaks);
        const list = numbers(30);
        await publish(channel, list, EXPIRED_MS / list.length);
        for (const { name: kind, clientIds } of clients) {
          assert.equal(await sessionExists(used.server.url, clientIds[0]), false, `the session of ${kind} has ended`);
        }
        clients.forEach(heals);
        await hear(clients, channel, 29);
        await publish(channel, ['end']);
        await hear(clients, channel, 'end');

        assertOnce(clients, channel, ['before', ...list, 'end']);
        if (breaks === cut) assertBroken(clients);
        assertSessions(clients, 2);
        if (other) assertSequence(other.heard[channel], ['before', ...list, 'end'], 'what the other one was given');
      });
    }
  });

  // On its own, for it breaks everybody's connections.
  if (cluster) {
    test('although one node after the other is killed', async (t) => {
      const channel = '/resume/killed';
      const clients = await openClients(t, channel);
      let over = false;
      let published = 0;
      const publishing = (async () => {
        while (!over) {
          await publish(channel, [published], 10);
          published += 1;
        }
      })();
      for (const node of ['1', '2', '3']) {
        await used.server.command('stop-node', node, '--signal', 'KILL');
        await hear(clients, channel, published + 10);
        await used.server.command('start-node', node);
        await hear(clients, channel, published + 10);
      }
      over = true;
      await publishing;
      await publish(channel, ['end']);
      await hear(clients, channel, 'end');
      assertOnce(clients, channel, [...numbers(published), 'end']);
      // A poll may have been elsewhere each time.
      assertBroken(clients.filter(({ name }) => name.endsWith('websocket')));
    });
  }
}

/** What happens where the server cannot keep what a client has missed. */
export function testGaps(start) {
  const { openClients, publish, publishAtOnce } = useServer(start, 'short-logs');

  describe('a log that no longer reaches back', { concurrency: true }, () => {
    for (const [name, ended] of [['the session lives', false], ['the session has ended', true]]) {
      test(`is told once, and later messages come once: ${name}`, async (t) => {
        const channel = `/gap/${ended ? 'ended' : 'alive'}`;
        const clients = await openClients(t, channel);
        await publish(channel, ['before']);
        await hear(clients, channel, 'before');

        for (const { proxy } of clients) proxy.cut();
        await publishAtOnce(channel, numbers(50));
        if (ended) await pause(EXPIRED_MS);
        for (const { proxy } of clients) proxy.mend();
        await until('everybody to be told', () => clients.every(({ gaps }) => gaps.length > 0), {
          seen: () => clients.map(({ name: kind, gaps, heard }) => [kind, gaps, heard[channel].slice(-3)]),
        });
        // Nothing is told twice, not by the connects that follow either.
        for (const n of numbers(5)) {
          await publish(channel, [`later ${n}`]);
          await hear(clients, channel, `later ${n}`);
        }

        for (const { name: kind, gaps, heard, clientIds } of clients) {
          assert.equal(gaps.length, 1, `gaps told to ${kind}: ${JSON.stringify(gaps)}`);
          const expected = ['before', ...numbers(KEPT, 50 - KEPT), ...numbers(5).map((n) => `later ${n}`)];
          assertSequence(heard[channel], expected, `what the application of ${kind} was given`);
          if (ended) assert.ok(clientIds.length > 1, `sessions of ${kind}`);
          else assert.equal(clientIds.length, 1, `sessions of ${kind}`);
        }
      });
    }
  });
}
