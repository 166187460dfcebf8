// A proxy that can be pointed elsewhere, refuse, and stand still without a word.

import { once } from 'node:events';
import net from 'node:net';

/** A proxy whose connections can be made to stand still, both ways and for good; new ones are fine. */
export function startFreezer(target) {
  return startSwitch(() => target);
}

/** A proxy to the server that `target()` names, which can cut its connections, and refuses connections whose first bytes it is told to. */
export async function startSwitch(target, refuses = () => false) {
  const all = new Set();
  const listener = net.createServer((client) => {
    const pair = { frozen: false, sockets: [client] };
    all.add(pair);
    client.setNoDelay(true).on('error', () => client.destroy());
    client.once('data', (first) => {
      if (refuses(first.toString('latin1'))) return client.destroy();
      const { hostname, port } = new URL(target());
      const onward = net.connect({ host: hostname, port });
      pair.sockets.push(onward);
      onward.setNoDelay(true).on('error', () => onward.destroy());
      onward.write(first);
      for (const [from, to] of [[client, onward], [onward, client]]) {
        from.on('data', (bytes) => pair.frozen || to.write(bytes));
        from.on('close', () => pair.frozen || to.destroy());
      }
    });
  });
  listener.listen(0, '127.0.0.1');
  await once(listener, 'listening');
  const cut = () => {
    for (const { sockets } of all) for (const socket of sockets) socket.destroy();
  };
  return {
    origin: `http://127.0.0.1:${listener.address().port}`,
    freeze() {
      for (const pair of all) pair.frozen = true;
    },
    cut,
    async stop() {
      cut();
      listener.close();
      await once(listener, 'close');
    },
  };
}
