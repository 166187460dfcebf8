// Clients in other languages, on a cluster: each of their requests may reach another node.

import { describe } from 'node:test';
import { NO_CLUSTER, startCluster } from './lib/cluster.mjs';
import { testForeignClients } from './lib/foreign-suite.mjs';

describe('on a cluster', { skip: NO_CLUSTER }, () => testForeignClients(startCluster));
