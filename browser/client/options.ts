// What a client can be told, and what it is told when nobody says anything. Used by the client alone.

import { Scheduler } from './scheduler';

export interface ClientOptions {
  /** Seconds that a connect may be held until the server says otherwise (60). */
  timeout?: number;
  /** Seconds between connects until the server says otherwise (0). */
  interval?: number;
  /** Seconds: the longest pause between attempts. Faye's clients pause 5 s each time. */
  retry?: number;
  /** Other addresses for some transports. */
  endpoints?: Record<string, string>;
  /** A subclass of `Scheduler`. */
  scheduler?: typeof Scheduler;
  /** Each message exactly once, where the server can (true). */
  resume?: boolean;
  /** Publishes that are sent again are stored once, where the server can (true). */
  idempotent?: boolean;
  /** Pauses after failures, in ms (250, 30000, twice as long each time, half of it left to chance). */
  backoff?: { first?: number; max?: number; factor?: number; jitter?: number };
  /** A link that is silent for `idle` ms is probed, and dead after `wait` more (5000, 3000). */
  liveness?: { idle?: number; wait?: number };
  /** What may wait to be published (1000 messages, 1 MiB); beyond, `publish` fails with `queue-full`. */
  queue?: { messages?: number; bytes?: number };
  /** How long to stay on a fall-back before the better transport is tried again, in ms (60000; longer each time). */
  upgradeAfter?: number;
  /** Headers of all requests that can have some. */
  headers?: Record<string, string>;
  /** Whether cookies go to other origins (true). */
  withCredentials?: boolean;
  /** Used instead of the global ones. */
  fetch?: typeof fetch;
  WebSocket?: typeof WebSocket;
  /** Which transports, and in which order. */
  transports?: string[];
  /** Accepted for Faye's sake. */
  proxy?: unknown;
  websocketExtensions?: unknown;
  tls?: unknown;
  ca?: unknown;
}

export const TRANSPORTS = ['websocket', 'eventsource', 'long-polling', 'callback-polling'];

const DEFAULTS = {
  timeout: 60,
  interval: 0,
  endpoints: {} as Record<string, string>,
  scheduler: Scheduler,
  resume: true,
  idempotent: true,
  upgradeAfter: 60e3,
  headers: {} as Record<string, string>,
  withCredentials: true,
  transports: TRANSPORTS,
};
const OTHERS = 'retry backoff liveness queue fetch WebSocket proxy websocketExtensions tls ca'.split(' ');

export function resolve(options: ClientOptions) {
  const known = [...Object.keys(DEFAULTS), ...OTHERS];
  for (const name in options) {
    if (!known.includes(name)) throw new TypeError(`Unrecognized option: ${name}; known are ${known.join(', ')}`);
  }
  // What is there but undefined is not there.
  options = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
  const all = { ...DEFAULTS, ...options };
  const { retry } = options;
  return {
    ...all,
    backoff: { first: 250, max: retry ? retry * 1000 : 30e3, factor: 2, jitter: 0.5, ...options.backoff },
    liveness: { idle: 5000, wait: 3000, ...options.liveness },
    queue: { messages: 1000, bytes: 1 << 20, ...options.queue },
    fetch: options.fetch || (globalThis.fetch && globalThis.fetch.bind(globalThis)),
    WebSocket: options.WebSocket || globalThis.WebSocket,
    // Faye's two names for one thing.
    transports: all.transports.map((name) => (name === 'cross-origin-long-polling' ? 'long-polling' : name)),
  };
}

export type Resolved = ReturnType<typeof resolve>;
