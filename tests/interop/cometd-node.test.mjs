// CometD's official JavaScript client in Node, in its newest major version, on one node.

import { testCometdClient } from './lib/cometd-suite.mjs';
import { startServer } from './lib/server.mjs';

testCometdClient(startServer);
