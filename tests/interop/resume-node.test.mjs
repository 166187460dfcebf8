// browser/extensions/resume.js with the stock clients in Node, on one node.

import { describe } from 'node:test';
import { testGaps, testResume } from './lib/resume-suite.mjs';
import { REFERENCE, startServer } from './lib/server.mjs';

const skip = REFERENCE && "Faye's server has no resume";

describe('resume', { skip, concurrency: true }, () => {
  describe('with room for all', () => testResume(startServer));
  describe('with short logs', () => testGaps(startServer));
});
