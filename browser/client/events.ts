// Listeners, under the names that Faye gives the methods. The client is one.

interface Listener {
  event: string;
  call: (...args: any[]) => void;
  context: unknown;
  once: boolean;
}

/** Logs of the client go here: a function, or an object with `debug`, `info`, `warn`, `error`; as `Faye.logger`. */
export const logging: { logger: any } = { logger: null };

export function log(level: 'debug' | 'info' | 'warn' | 'error', message: string): void {
  const { logger } = logging;
  if (typeof logger === 'function') logger(message);
  else if (logger && typeof logger[level] === 'function') logger[level](message);
}

/** Calls what a user has given. What it throws is the user's to see, and nothing to us. */
export function call(what: (...args: any[]) => unknown, context: unknown, args: unknown[]): void {
  try {
    what.apply(context, args);
  } catch (error) {
    setTimeout(() => {
      throw error;
    });
  }
}

export class Emitter {
  private listeners: Listener[] = [];

  on(event: string, listener: (...args: any[]) => void, context?: unknown): this {
    this.listeners.push({ event, call: listener, context, once: false });
    return this;
  }

  once(event: string, listener: (...args: any[]) => void, context?: unknown): this {
    this.listeners.push({ event, call: listener, context, once: true });
    return this;
  }

  off(event: string, listener?: (...args: any[]) => void): this {
    this.listeners = this.listeners.filter((one) => one.event !== event || (listener && one.call !== listener));
    return this;
  }

  trigger(event: string, ...args: unknown[]): void {
    for (const one of [...this.listeners]) {
      if (one.event !== event) continue;
      // A listener before it may have removed it.
      const at = this.listeners.indexOf(one);
      if (at < 0) continue;
      if (one.once) this.listeners.splice(at, 1);
      call(one.call, one.context, args);
    }
  }

  countListeners(event: string): number {
    return this.listeners.filter((one) => one.event === event).length;
  }

  bind = this.on;
  unbind = this.off;
  addListener = this.on;
  removeListener = this.off;
  emit = this.trigger;

  removeAllListeners(event?: string): this {
    this.listeners = event === undefined ? [] : this.listeners.filter((one) => one.event !== event);
    return this;
  }
}
