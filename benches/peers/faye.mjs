// Faye's server: node faye.mjs [--port N] [--engine memory|redis] [--redis-port N]
// As its documentation sets it up; the time-out is the one it uses in its examples, and Weft's default.

import http from 'node:http';
import faye from 'faye';
import redis from 'faye-redis';
import { needRedis, oneOf, readArguments, serve } from './lib/serve.mjs';

const { port, redisPort, engine } = readArguments({ engine: { type: 'string', default: 'memory' } });

const engines = {
  memory: () => undefined,
  redis: () => ({ type: redis, host: '127.0.0.1', port: needRedis(redisPort) }),
};
oneOf('engine', engine, Object.keys(engines));

const server = http.createServer();
const bayeux = new faye.NodeAdapter({ mount: '/bayeux', timeout: 45, engine: engines[engine]() });
bayeux.attach(server);
await serve(server, port, '/bayeux');
