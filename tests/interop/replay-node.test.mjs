// Publishes that Faye's client sends again, and replays, on one node.

import { describe } from 'node:test';
import { testReplay } from './lib/replay-suite.mjs';
import { REFERENCE, startServer } from './lib/server.mjs';

const skip = REFERENCE && "Faye's server keeps nothing, and takes a copy for another message";

describe('replay and repetition', { skip, concurrency: true }, () => testReplay(startServer));
