// What the servers here share: their arguments, where they listen, how they say so, and how they end.

import { once } from 'node:events';
import { parseArgs } from 'node:util';

/** The arguments that all servers take, and those that `more` adds. */
export function readArguments(more) {
  const options = {
    port: { type: 'string', default: '0' },
    'redis-port': { type: 'string' },
    ...more,
  };
  const { values } = parseArgs({ options });
  return { ...values, port: Number(values.port), redisPort: values['redis-port'] && Number(values['redis-port']) };
}

/** One of these words, or the end of the process. */
export function oneOf(name, word, words) {
  if (words.includes(word)) return word;
  console.error(`--${name} must be one of ${words.join(', ')}, not ${word}`);
  process.exit(2);
}

/** The Redis that an engine needs. */
export function needRedis(port) {
  if (port > 0) return port;
  console.error('--redis-port is missing');
  process.exit(2);
}

/**
 * Serves on the loopback address, prints one line of JSON (url, pid) when it does, and ends at SIGTERM.
 * A thousand clients come at once: the queue of those that were not yet accepted must be long enough for them.
 */
export async function serve(http, port, path) {
  http.listen({ host: '127.0.0.1', port, backlog: 4096 });
  await once(http, 'listening');
  process.once('SIGTERM', () => process.exit(0));
  const url = `http://127.0.0.1:${http.address().port}${path}`;
  console.log(JSON.stringify({ url, pid: process.pid }));
}
