// What a transport is to the client: a way to send batches and to hear the server, until it breaks. Transports know no
// sessions; each is in a file of its own beside this one.

import type { Envelope } from '../message';
import type { LinkError } from '../error';

export interface Link {
  readonly name: string;
  /** Sends a batch. `hold`: for how long the server may hold the answer, in ms, of a connect; undefined for all else. */
  send(batch: Envelope[], hold?: number): void;
  /** The session stands: a transport that listens elsewhere begins to. */
  attach?(clientId: string): void;
  /** Looks at once whether the other side is there. */
  probe(): void;
  /** Whether the other side says anything, within the time of a probe. */
  answers?(): Promise<boolean>;
  close(): void;
}

export interface Hears {
  receive(messages: Envelope[]): void;
  /** Called once, and never after `close`. */
  down(error: LinkError): void;
}

/** What links go by. Times in ms. */
export interface Settings {
  url(transport: string): string;
  headers: Record<string, string>;
  withCredentials: boolean;
  /** Silence after which a link is probed, and how long it then may stay silent. */
  idle: number;
  wait: number;
  /** How long an answer may take that is not held. */
  patience: number;
  /** How long a link may take to open. */
  open: number;
  /** How long a stream may be silent: servers send a comment now and then. */
  streamSilence(): number;
  /** The last event that a stream brought; the next one says so. */
  lastEventId: string;
  fetch: typeof fetch | undefined;
  WebSocket: typeof WebSocket | undefined;
}

export type Open = (settings: Settings, hears: Hears) => Promise<Link>;

/** Whether a URL is of another origin than the page; without a page nothing is. */
export function isForeign(url: string): boolean {
  const page = (globalThis as any).location;
  return !!page && !!page.origin && page.origin !== 'null' && new URL(url).origin !== page.origin;
}
