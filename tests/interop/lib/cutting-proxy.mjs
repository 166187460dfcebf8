// A TCP proxy between a client and its server that breaks what passes through it, on demand.

import { once } from 'node:events';
import net from 'node:net';
import { until, within } from './wait.mjs';

/**
 * Starts a proxy in front of `target` (`http://host:port`) and resolves with
 *  - `origin`: its `http://host:port`
 *  - `cut()`: closes all connections, and each new one as it comes, until `mend()`
 *  - `hangUp()`: the same; resolves when the server has noticed, and closed its side of them
 *  - `swallow(marker)`: the next bytes from the server that contain `marker` go nowhere, and their connection is
 *    closed; resolves when that has happened
 *  - `answers`: all that the server has sent, for what a client does not tell
 *  - `waitFor(pattern)`: waits for something in the answers, and resolves with the match
 *  - `stop()`
 *
 * With `delayMs` all that passes takes that long, in both directions.
 */
export async function startCuttingProxy(target, { delayMs = 0 } = {}) {
  const { hostname, port } = new URL(target);
  const connections = new Set();
  let isCut = false;
  let swallowing = null;

  const listener = net.createServer((client) => {
    if (isCut) return client.destroy();
    const server = net.connect({ host: hostname, port });
    const breakOff = () => {
      client.destroy();
      server.destroy();
    };
    const hangUp = async () => {
      client.destroy();
      if (server.destroyed) return;
      server.end();
      await once(server, 'close');
    };
    const connection = { breakOff, hangUp };
    connections.add(connection);
    server.once('close', () => connections.delete(connection));
    // Breaking connections is what this is for: the ends tell each other, and nobody else.
    for (const socket of [client, server]) socket.setNoDelay(true).on('error', breakOff);

    pass(client, server, () => true);
    let last = '';
    pass(server, client, (bytes) => {
      const text = bytes.toString('latin1');
      proxy.answers += text;
      // The marker may have begun in the bytes before. Those have passed, but are only a part of a reply.
      const found = swallowing && (last + text).includes(swallowing.marker);
      last = text;
      if (!found) return true;
      const { swallowed } = swallowing;
      swallowing = null;
      breakOff();
      swallowed();
      return false;
    });
  });

  /** Hands on what comes, and its end, each after the delay and so in order. */
  function pass(from, to, mayPass) {
    const later = (act) => (delayMs > 0 ? setTimeout(act, delayMs) : act());
    from.on('data', (bytes) => {
      if (mayPass(bytes)) later(() => to.destroyed || to.write(bytes));
    });
    from.on('close', () => later(() => to.end()));
  }

  listener.listen(0, '127.0.0.1');
  await once(listener, 'listening');

  const proxy = {
    origin: `http://127.0.0.1:${listener.address().port}`,
    answers: '',
    cut() {
      isCut = true;
      for (const { breakOff } of connections) breakOff();
    },
    async hangUp() {
      isCut = true;
      await within(Promise.all([...connections].map(({ hangUp }) => hangUp())), 'the server to notice');
    },
    mend() {
      isCut = false;
    },
    swallow: (marker) => new Promise((swallowed) => (swallowing = { marker, swallowed })),
    waitFor: (pattern) =>
      until(`${pattern} from the server`, () => pattern.exec(proxy.answers), { seen: () => proxy.answers }),
    async stop() {
      proxy.cut();
      listener.close();
      await once(listener, 'close');
    },
  };
  return proxy;
}
