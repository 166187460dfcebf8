// The extensions of CometD's JavaScript client in Node, on one node.

import { describe } from 'node:test';
import { testCometdExtensions } from './lib/cometd-extension-suite.mjs';
import { REFERENCE, startServer } from './lib/server.mjs';

const skip = REFERENCE && "Faye's server has none of them";

describe('extensions of CometD', { skip, concurrency: true }, () => testCometdExtensions(startServer));
