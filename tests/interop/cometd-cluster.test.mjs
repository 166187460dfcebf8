// CometD's official JavaScript client in Node, through the balancer of a cluster: to it, that is a
// server like any other.

import { describe } from 'node:test';
import { NO_CLUSTER, startCluster } from './lib/cluster.mjs';
import { testCometdClient } from './lib/cometd-suite.mjs';

describe('cometd client, through the balancer', { skip: NO_CLUSTER }, () => testCometdClient(startCluster));
