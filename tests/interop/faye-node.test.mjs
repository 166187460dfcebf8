// Faye's official client in Node, on one node.

import { testFayeClient } from './lib/faye-suite.mjs';
import { startServer } from './lib/server.mjs';

testFayeClient(startServer);
