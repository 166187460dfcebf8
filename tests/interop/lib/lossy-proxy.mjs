// A TCP proxy for faults that are finer than a cut: a reply that ends in its middle, a socket that breaks between two
// frames, a network that lets nothing through and tells nobody.

import { once } from 'node:events';
import net from 'node:net';

/**
 * Starts a proxy in front of `target` (`http://host:port`) and resolves with
 *  - `origin`: its `http://host:port`
 *  - `lose(pattern)`: what the server sends from the next match of `pattern` on is lost, with its connection; all
 *    before gets through. Resolves when that has happened
 *  - `freeze()`, `thaw()`: between them nothing gets through, and no connection ends
 *  - `stop()`
 */
export async function startLossyProxy(target) {
  const { hostname, port } = new URL(target);
  const sockets = new Set();
  let losing = null;
  let frozen = false;

  const listener = net.createServer((client) => {
    const server = net.connect({ host: hostname, port });
    const end = () => {
      // What was written before still goes out.
      client.end();
      server.destroy();
    };
    for (const socket of [client, server]) {
      sockets.add(socket);
      if (frozen) socket.pause();
      socket.setNoDelay(true).on('error', end);
      socket.on('close', () => {
        sockets.delete(socket);
        end();
      });
    }
    client.on('data', (bytes) => server.write(bytes));
    client.on('end', () => server.end());
    server.on('data', (bytes) => {
      const found = losing?.pattern.exec(bytes.toString('latin1'));
      if (!found) return client.write(bytes);
      client.write(bytes.subarray(0, found.index));
      losing.lost();
      losing = null;
      end();
    });
  });
  listener.listen(0, '127.0.0.1');
  await once(listener, 'listening');

  return {
    origin: `http://127.0.0.1:${listener.address().port}`,
    lose: (pattern) => new Promise((lost) => (losing = { pattern, lost })),
    freeze() {
      frozen = true;
      for (const socket of sockets) socket.pause();
    },
    thaw() {
      frozen = false;
      for (const socket of sockets) socket.resume();
    },
    async stop() {
      for (const socket of sockets) socket.destroy();
      listener.close();
      await once(listener, 'close');
    },
  };
}
