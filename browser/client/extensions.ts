// What users put between the client and the wire: Faye's contract, `incoming(message, callback)` and `outgoing`. Used by the
// client for every message.

import type { Envelope } from './message';

export interface Extension {
  incoming?(message: any, callback: (message: any) => void): void;
  outgoing?(message: any, callback: (message: any) => void): void;
  added?(host: unknown): void;
  removed?(host: unknown): void;
}

export class Extensions {
  private list: Extension[] = [];

  add(extension: Extension, host: unknown): void {
    this.list.push(extension);
    extension.added?.(host);
  }

  remove(extension: Extension, host: unknown): void {
    const at = this.list.indexOf(extension);
    if (at < 0) return;
    this.list.splice(at, 1);
    extension.removed?.(host);
  }

  /** Passes a message by all of them, in the order in which they were added; `done(null)` when one drops it. */
  pass(stage: 'incoming' | 'outgoing', message: Envelope, done: (message: Envelope | null) => void): void {
    const rest = [...this.list];
    const step = (current: Envelope | null): void => {
      const extension = rest.shift();
      if (!current || !extension) return done(current || null);
      const handler = extension[stage];
      if (!handler) return step(current);
      // Who declares three parameters expects a request in between, which a client has none of.
      if (handler.length > 2) (handler as any).call(extension, current, null, step);
      else handler.call(extension, current, step);
    };
    step(message);
  }
}
