// Clients in other languages, on one node.

import { testForeignClients } from './lib/foreign-suite.mjs';
import { startServer } from './lib/server.mjs';

testForeignClients(startServer);
