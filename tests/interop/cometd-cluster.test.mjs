// CometD's official JavaScript client in Node, in its last three major versions, through the balancer of a cluster: to
// it, that is a server like any other.

import { after, before, describe } from 'node:test';
import { NO_CLUSTER, startCluster } from './lib/cluster.mjs';
import { testCometdClient } from './lib/cometd-suite.mjs';

describe('cometd client, through the balancer', { skip: NO_CLUSTER }, () => {
  let cluster;
  before(async () => (cluster = await startCluster('/cometd')));
  after(() => cluster?.stop());
  const shared = async () => ({ ...cluster, stop: async () => {} });

  for (const version of [9, 8, 7]) {
    describe(`version ${version}`, () => testCometdClient(shared, version, { brief: version < 9 }));
  }
});
