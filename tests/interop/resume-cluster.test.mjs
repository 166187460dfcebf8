// browser/extensions/resume.js with the stock clients in Node, through the balancer of a cluster.

import { describe } from 'node:test';
import { NO_CLUSTER, startCluster } from './lib/cluster.mjs';
import { testResume } from './lib/resume-suite.mjs';

describe('resume, through the balancer', { skip: NO_CLUSTER }, () => testResume(startCluster, { cluster: true }));
