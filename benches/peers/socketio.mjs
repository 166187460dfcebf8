// Socket.IO's server: node socketio.mjs [--port N] [--adapter memory|redis] [--redis-port N]
// A channel is a room. `subscribe(channel, ack)` joins it; `publish(channel, data, ack)` emits `message(channel, data)` to
// all in it, on this node and on the others, and acknowledges.

import http from 'node:http';
import { createAdapter } from '@socket.io/redis-adapter';
import { createClient } from 'redis';
import { Server } from 'socket.io';
import { needRedis, oneOf, readArguments, serve } from './lib/serve.mjs';

const { port, redisPort, adapter } = readArguments({ adapter: { type: 'string', default: 'memory' } });

async function overRedis() {
  const publisher = createClient({ socket: { host: '127.0.0.1', port: needRedis(redisPort) } });
  const subscriber = publisher.duplicate();
  // A Redis that is gone ends the run.
  for (const client of [publisher, subscriber]) client.on('error', fail);
  await Promise.all([publisher.connect(), subscriber.connect()]);
  return createAdapter(publisher, subscriber);
}

function fail(error) {
  console.error(error);
  process.exit(1);
}

const adapters = { memory: async () => undefined, redis: overRedis };
oneOf('adapter', adapter, Object.keys(adapters));

const server = http.createServer();
const io = new Server(server, {
  transports: ['websocket'],
  adapter: await adapters[adapter](),
  // Nobody but the bench is there to serve pages to.
  serveClient: false,
});

io.on('connection', (socket) => {
  socket.on('subscribe', async (channel, ack) => {
    await socket.join(channel);
    ack();
  });
  socket.on('publish', (channel, data, ack) => {
    io.to(channel).emit('message', channel, data);
    ack();
  });
});
await serve(server, port, '/socket.io/');
