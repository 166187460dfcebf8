// What only a cluster can be asked: sessions that live on all nodes at once, a node that dies, and a
// Redis that dies and comes back empty. Official clients, through the balancer.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { post } from './lib/bayeux.mjs';
import { NO_CLUSTER, startCluster } from './lib/cluster.mjs';
import { openCometdClient, reply } from './lib/cometd-client.mjs';
import { openFayeClient } from './lib/faye-client.mjs';
import { openRing } from './lib/ring.mjs';
import { numbers } from './lib/sequence.mjs';
import { configuration } from './lib/server.mjs';
import { until, within } from './lib/wait.mjs';

const TRANSPORTS = ['websocket', 'long-polling'];

/** So soon a publish fails while Redis is away. */
const OUTAGE_ANSWER_MS = 6_000;
/** So soon everybody receives again when Redis is back. Faye's client alone waits 5 s before it tries again. */
const RECOVERY_MS = 10_000;

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

describe('a cluster', { skip: NO_CLUSTER }, () => {
  let cluster;
  before(async () => (cluster = await startCluster('/bayeux', configuration('cluster'))));
  after(() => cluster?.stop());

  test('no session is unknown while it lives, and every message comes once and in order', async (t) => {
    const ring = await openRing(t, cluster.url, '/calm', 20);
    await ring.publish(40, ({ published }) => published === 50);
    await ring.sitOut();
    await ring.publish(40, ({ published }) => published === 100);

    const repeated = await ring.assertServed();
    assert.equal(repeated, 0, 'messages that came more than once');
    ring.assertSessionsLived();
  });

  test('a node that is killed costs nobody a message or the session', async (t) => {
    const ring = await openRing(t, cluster.url, '/killed', 20, { steady: false });
    let over = false;
    const publishing = ring.publish(100, () => over);

    await ring.hears(5);
    await cluster.command('stop-node', '2', '--signal', 'KILL');
    await ring.hears(5);
    await cluster.command('start-node', '2');
    await ring.hears(5);
    over = true;
    await publishing;

    const repeated = await ring.assertServed();
    t.diagnostic(`${repeated} messages came more than once`);
    ring.assertSessionsLived();
    const downs = ring.members.reduce((sum, { wire }) => sum + wire.downs, 0);
    assert.ok(downs > 0, 'no client lost a connection: the kill proved nothing');
  });

  test('when Redis dies and comes back empty, every client finds back by itself', async (t) => {
    const channel = '/outage/news';
    const listeners = await Promise.all(
      TRANSPORTS.flatMap((transport) => [
        ...numbers(4).map((i) => listenWithFaye(t, cluster, transport, channel, i)),
        ...numbers(2).map((i) => listenWithCometd(t, cluster, transport, channel, i)),
      ]),
    );
    const heard = () => listeners.map((listener) => [listener.name, listener.heard.slice(-5)]);
    await post(cluster.url, { channel, data: 'before' });
    await until('the message before', () => listeners.every((l) => l.heard.includes('before')), { seen: heard });
    const { nodes } = await cluster.state();

    // At first the balancer takes the nodes for ready. Then it knows that none is, and asks them all the same.
    await cluster.command('stop-redis', '--signal', 'KILL');
    const publishes = listeners.map((listener) => publish(listener, channel, `at once, by ${listener.name}`));
    const ready = async () => {
      const answer = await fetch(`${cluster.origin}/readyz`);
      return `${answer.status} ${answer.headers.get('served-by')}`;
    };
    await until('no node to be ready', async () => /^503 waiting\//.test(await ready()));
    publishes.push(...listeners.map((listener) => publish(listener, channel, `later, by ${listener.name}`)));
    await until('an end of each publish', () => publishes.every((p) => p.outcome !== undefined), {
      ms: OUTAGE_ANSWER_MS,
      seen: () => publishes.map(({ data, outcome }) => [data, outcome]),
    });
    assert.deepEqual(publishes.filter((p) => !/^503\b/.test(p.outcome)).map((p) => [p.data, p.outcome]), []);
    assert.deepEqual(publishes.filter((p) => p.ms > OUTAGE_ANSWER_MS).map((p) => [p.data, p.ms]), []);

    await cluster.command('start-redis');
    const back = Date.now();
    const reached = new Map();
    await until(
      'everybody to hear new messages',
      async () => {
        await post(cluster.url, { channel, data: 'again' }).catch(() => {}); // no node is ready yet
        await pause(50);
        for (const { name, heard } of listeners) {
          if (heard.includes('again') && !reached.has(name)) reached.set(name, Date.now() - back);
        }
        return reached.size === listeners.length;
      },
      { ms: RECOVERY_MS, seen: () => [...reached] },
    );
    t.diagnostic(`new messages came after ${[...reached].map(([name, ms]) => `${ms} ms (${name})`).join(', ')}`);

    const after = await Promise.all(listeners.map((l) => publish(l, channel, `after, by ${l.name}`).settled));
    assert.deepEqual(after.filter((p) => p.outcome !== ACKNOWLEDGED).map((p) => [p.data, p.outcome]), []);
    await until('everything', () => listeners.every((l) => after.every(({ data }) => l.heard.includes(data))), {
      seen: heard,
    });

    const running = (await cluster.state()).nodes.map(({ name, pid, exit }) => ({ name, pid, exit }));
    assert.deepEqual(running, nodes.map(({ name, pid }) => ({ name, pid, exit: null })), 'the processes of the nodes');
  });
});

const ACKNOWLEDGED = 'acknowledged';

/** Publishes as an application does, and notes the outcome: acknowledged or an error, and after how long. */
function publish(listener, channel, data) {
  const start = Date.now();
  const noted = { listener, data, outcome: undefined, ms: undefined };
  const note = (outcome) => Object.assign(noted, { outcome, ms: Date.now() - start });
  noted.settled = listener.publish(channel, data).then(
    () => note(ACKNOWLEDGED),
    ({ code, message }) => note(code ? `${code}: ${message}` : message),
  );
  return noted;
}

async function listenWithFaye(t, cluster, transport, channel, number) {
  const { client } = await openFayeClient(t, cluster.url, transport, { steady: false });
  const heard = [];
  await within(client.subscribe(channel, (data) => heard.push(data)), 'a subscription');
  return {
    name: `Faye's client ${number} by ${transport}`,
    heard,
    publish: (...message) => client.publish(...message),
  };
}

async function listenWithCometd(t, cluster, transport, channel, number) {
  const { cometd } = openCometdClient(t, `${cluster.origin}/cometd`, transport, { logLevel: 'error' });
  const heard = [];
  const subscribed = new Promise((resolve) => {
    // The client calls this after each of its handshakes, for applications to subscribe again.
    cometd.handshake(({ successful }) => {
      if (successful) cometd.subscribe(channel, ({ data }) => heard.push(data), resolve);
    });
  });
  await within(subscribed, 'a subscription');
  return {
    name: `CometD's client ${number} by ${transport}`,
    heard,
    async publish(...message) {
      const { successful, error, failure } = await reply((done) => cometd.publish(...message, done));
      if (!successful) throw new Error(error ?? `${failure.httpCode} ${failure.reason}`);
    },
  };
}
