// A loaded cluster is restarted node by node, as an upgrade does it: stock Faye clients and Weft's own
// lose nothing and hear nothing twice, and each node sends its clients away evenly.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { NO_CLUSTER, startCluster } from './lib/cluster.mjs';
import { openRing } from './lib/ring.mjs';
import { assertSequence, numbers } from './lib/sequence.mjs';
import { configuration } from './lib/server.mjs';
import { until, within } from './lib/wait.mjs';
import { TRANSPORTS, collect, open } from './lib/weft-client.mjs';

const FAYE_CLIENTS = 60;
const OWN_CLIENTS = 105;
const DRAIN_MS = 4_000;
const SLICES = 8;
const SETTLED_MS = 30_000;

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

describe('a rolling restart', { skip: NO_CLUSTER }, () => {
  let cluster;
  before(async () => {
    const drain = ['--drain-timeout', `${DRAIN_MS}ms`];
    cluster = await startCluster('/bayeux', [...configuration('cluster'), ...drain], { holdMs: 20_000 });
  });
  after(() => cluster?.stop());

  test('costs nobody a message, and no node a storm', async (t) => {
    const ring = await openRing(t, cluster.url, '/rolling/faye', FAYE_CLIENTS, { steady: false });
    const own = await Promise.all(
      numbers(OWN_CLIENTS).map(async (i) => {
        const transport = TRANSPORTS[i % TRANSPORTS.length];
        const { client, told } = open(t, cluster.url, transport);
        return { client, told, transport, list: await collect(client, '/rolling/own') };
      }),
    );
    let over = false;
    const enough = () => over;
    const numbered = publishNumbers(own[0].client, '/rolling/own', enough);
    const load = Promise.all([ring.publish(500, enough), numbered]);
    load.catch(() => {}); // told below

    await ring.hears(2);
    const drains = [];
    for (const node of ['1', '2', '3']) {
      const { internal } = (await cluster.state()).nodes[node - 1];
      const watch = watchDrain(internal);
      await cluster.command('stop-node', node);
      drains.push(await watch.stop());
      await cluster.command('start-node', node);
      await ring.hears(1);
    }
    over = true;
    await load;

    const repeated = await ring.assertServed();
    assert.equal(repeated, 0, 'messages that came more than once to Faye clients');
    ring.assertSessionsLived();
    const expected = numbers(await numbered);
    for (const { transport, list, told } of own) {
      await until('all messages', () => list.length >= expected.length, { ms: SETTLED_MS }).catch(() => {});
      assertSequence(list, expected, `messages for an own client by ${transport}`);
      const bad = ({ name, previous }) => name === 'gap' || name === 'stopped' || (name === 'session:new' && previous !== null);
      const lost = told.filter(bad);
      assert.deepEqual(lost, [], `by ${transport}`);
    }

    for (const [i, { sockets, streams, steady, all, spread }] of drains.entries()) {
      t.diagnostic(`node ${i + 1} had ${all} clients, ${steady} of them for good; sent away, by ${DRAIN_MS / SLICES} ms:`);
      for (const [slice, count] of spread.entries()) {
        t.diagnostic(`  ${String((slice * DRAIN_MS) / SLICES).padStart(5)} ms ${String(count).padStart(3)} ${'#'.repeat(count)}`);
      }
      assert.ok(all >= 20, `node ${i + 1} had ${all} clients`);
      assert.ok(sockets > 0 && streams > 0, `node ${i + 1} had ${sockets} sockets and ${streams} streams`);
      // Who polls leaves with its next message; who does not has to be told.
      const sum = spread.reduce((sum, count) => sum + count, 0);
      assert.ok(sum >= steady, `node ${i + 1} sent away all ${steady} that do not poll: ${spread}`);
      // Even: no half of a second sees more than twice its share, or eight where that is more. The last ones may leave early.
      assert.ok(Math.max(...spread) <= Math.max((2 * all) / SLICES, 8), `node ${i + 1} sent ${all} away evenly: ${spread}`);
    }
  });
});

/** Publishes 0, 1, 2, ... one after the other; gives how many. */
async function publishNumbers(client, channel, enough) {
  for (let number = 0; ; number += 1) {
    if (enough()) return number;
    await within(client.publish(channel, number), `an acknowledgement of ${number}`, SETTLED_MS);
    await pause(20);
  }
}

/**
 * Watches how many clients a node has sent away, until it is gone. Gives the clients that it had, `all` and the `steady`
 * ones on WebSocket or EventSource, and how many were sent away in each slice of its drain.
 */
function watchDrain(internal) {
  let watching = true;
  const samples = [];
  const watched = (async () => {
    while (watching) {
      const text = await fetch(`http://${internal}/metrics`).then((answer) => answer.text(), () => undefined);
      if (text === undefined) break;
      const figure = (name) => Number(text.split('\n').find((line) => line.startsWith(`${name} `))?.split(' ').at(-1) ?? 0);
      if (figure('weft_draining') === 1) {
        const held = (transport) => figure(`weft_attachments{transport="${transport}"}`);
        const [sockets, streams, polls] = ['websocket', 'eventsource', 'long-polling'].map(held);
        const moved = figure('weft_attachments_moved_total{reason="drain"}');
        samples.push({ at: Date.now(), sockets, streams, all: sockets + streams + polls, moved });
      }
      await pause(25);
    }
  })();
  return {
    async stop() {
      watching = false;
      await watched;
      const [first] = samples;
      assert.ok(first, 'the drain lasted long enough to be seen');
      const spread = new Array(SLICES).fill(0);
      let before = 0;
      for (const { at, moved } of samples) {
        const slice = Math.min(Math.floor(((at - first.at) / DRAIN_MS) * SLICES), SLICES - 1);
        spread[slice] += moved - before;
        before = moved;
      }
      // The first ones may be gone when it is looked at first: they are not held any more.
      const { sockets, streams } = first;
      return { sockets, streams, steady: sockets + streams, all: first.all + first.moved, spread };
    },
  };
}
