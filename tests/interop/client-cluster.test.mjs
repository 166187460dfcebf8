// Weft's own client on a cluster whose balancer sends each request to another node: what a client says
// last reaches a node that does not hold its session.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { NO_CLUSTER, startCluster } from './lib/cluster.mjs';
import { numbers } from './lib/sequence.mjs';
import { configuration } from './lib/server.mjs';
import { within } from './lib/wait.mjs';
import { TRANSPORTS, collect, event, full, open } from './lib/weft-client.mjs';

/** A goodbye that is not understood takes 3 s. */
const GOODBYE_MS = 1_500;
const ROUNDS = 12;

describe('Weft\'s client on a cluster', { skip: NO_CLUSTER }, () => {
  let cluster;
  before(async () => (cluster = await startCluster('/bayeux', configuration('cluster'))));
  after(() => cluster?.stop());

  for (const transport of TRANSPORTS) {
    test(`by ${transport} it leaves at once, after what it has published`, async (t) => {
      const watcher = open(t, cluster.url, 'websocket').client;
      const heard = await collect(watcher, `/leaving/${transport}`);
      for (const round of numbers(ROUNDS)) {
        const { client, told } = open(t, cluster.url, transport);
        await collect(client, '/leaving/other');
        await event(told, 'connected');
        const from = told.length;
        const publishes = numbers(3).map((n) => client.publish(`/leaving/${transport}`, 3 * round + n));
        const start = Date.now();
        await within(client.disconnect(), 'the end', 2 * GOODBYE_MS);
        assert.ok(Date.now() - start < GOODBYE_MS, `round ${round} took ${Date.now() - start} ms`);
        await within(Promise.all(publishes), 'what was published to be stored');
        const names = told.slice(from).map(({ name }) => name);
        assert.deepEqual(names, ['transport:down', 'stopped'], `round ${round}`);
        assert.equal(told.at(-1).reason, 'disconnected');
        assert.equal(client.clientId, null);
        await assert.rejects(client.publish('/leaving/other', 1), { code: 'disconnected' });
      }
      await full(heard, 3 * ROUNDS);
      assert.deepEqual(new Set(heard), new Set(numbers(3 * ROUNDS)));
    });
  }
});
