// Three nodes on one Redis behind a balancer that knows no stickiness: each request goes to another node.

import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { startProgram } from './program.mjs';
import { HOLD_MS, REFERENCE, weftProgram } from './server.mjs';

const LOCAL_CLUSTER = fileURLToPath(new URL('../../../deploy/local-cluster', import.meta.url));
const STARTUP_MS = 60_000;
const SHUTDOWN_MS = 30_000;
const COMMAND_MS = 40_000;

/** Why there is no cluster to test; false if there is one. */
export const NO_CLUSTER = REFERENCE ? "Faye's server keeps its sessions in one process: it has no cluster" : false;

/**
 * Starts a cluster, its nodes with `more` arguments, and resolves with what `startServer` gives, where `origin` and `url`
 * are those of the balancer, and
 *  - `command(...)`: runs a command of the cluster, such as `stop-node 2`, to its end
 *  - `state()`: addresses, process ids and ends of its processes, as they are now
 */
export async function startCluster(mount, more = [], { holdMs = HOLD_MS } = {}) {
  const program = weftProgram();
  const cluster = await startProgram(
    LOCAL_CLUSTER,
    (scratch) => [
      'up',
      ...['--listen', '127.0.0.1:0'],
      ...['--directory', scratch],
      ...['--weft', program],
      '--',
      ...['--timeout', `${holdMs}ms`],
      ...more,
    ],
    'cluster.json',
    STARTUP_MS,
  );
  const origin = cluster.ready.balancer;
  const { scratch } = cluster;
  return {
    origin,
    url: origin + mount,
    noticedDisconnect: async () => {},
    async command(...words) {
      await promisify(execFile)(LOCAL_CLUSTER, [...words, '--directory', scratch], { timeout: COMMAND_MS });
    },
    state: async () => JSON.parse(await readFile(join(scratch, 'cluster.json'), 'utf8')),
    stop: () => cluster.stop(SHUTDOWN_MS),
  };
}

/**
 * The nodes whose answers, or sockets, carried this text, by all that a client got. The balancer tells in the head of each
 * answer which node it came from.
 */
export function nodesThatSent(text, answers) {
  const parts = answers.split(/(?=HTTP\/1\.1 \d{3} )/).filter((part) => part.includes(text));
  return new Set(parts.map((part) => /^served-by: (\S+)/im.exec(part)?.[1].split('/')[1]));
}
