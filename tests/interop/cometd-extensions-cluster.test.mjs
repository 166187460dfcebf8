// The extensions of CometD's JavaScript client in Node, through the balancer of a cluster.

import { describe } from 'node:test';
import { NO_CLUSTER, startCluster } from './lib/cluster.mjs';
import { testCometdExtensions } from './lib/cometd-extension-suite.mjs';

describe('extensions of CometD, through the balancer', { skip: NO_CLUSTER, concurrency: true }, () =>
  testCometdExtensions(startCluster, { cluster: true }),
);
