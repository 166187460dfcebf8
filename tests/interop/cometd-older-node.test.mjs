// Older major versions of CometD's JavaScript client in Node, on one node.

import { describe } from 'node:test';
import { testCometdClient } from './lib/cometd-suite.mjs';
import { startServer } from './lib/server.mjs';

for (const version of [7, 8]) describe(`version ${version}`, () => testCometdClient(startServer, version));
