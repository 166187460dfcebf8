// Faye's official client in Node, through the balancer of a cluster: to it, that is a server like
// any other.

import { describe } from 'node:test';
import { NO_CLUSTER, startCluster } from './lib/cluster.mjs';
import { testFayeClient } from './lib/faye-suite.mjs';

describe('faye client, through the balancer', { skip: NO_CLUSTER }, () => testFayeClient(startCluster));
