// Publishes that Faye's client sends again, and replays, through the balancer of a cluster: the second copy reaches
// another node, and so does each poll of a replay.

import { describe } from 'node:test';
import { NO_CLUSTER, startCluster } from './lib/cluster.mjs';
import { testReplay } from './lib/replay-suite.mjs';

describe('replay and repetition, through the balancer', { skip: NO_CLUSTER, concurrency: true }, () =>
  testReplay(startCluster, { cluster: true }),
);
