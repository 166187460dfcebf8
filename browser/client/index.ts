// What the ES module exports. `classic.ts` puts the same into globals.

import { logging } from './events';

export { Client } from './client';
export { Subscription, type SubscribeOptions } from './subscription';
export { Publication } from './publication';
export { Scheduler, type PublishOptions } from './scheduler';
export { BayeuxError, BayeuxError as Error } from './error';
export type { ClientOptions } from './options';
export type { Extension } from './extensions';
export type { Message } from './message';
export const VERSION = '0.1.0';
export { logging };

/** Where the client's logs go: a function, or an object with `debug`, `info`, `warn` and `error`. */
export function setLogger(logger: unknown): void {
  logging.logger = logger;
}
