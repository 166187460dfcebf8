// When a publish is given up: Faye's hooks, for whoever has written some. One object accompanies one publish.

import type { Envelope } from './message';

export interface PublishOptions {
  /** How often it may be sent. */
  attempts?: number;
  /** Seconds after which it is given up. */
  deadline?: number;
  /** Takes it back, unless it was sent. */
  signal?: AbortSignal;
  /** By which the server knows a repetition; made up if there is none. */
  key?: string;
}

export class Scheduler {
  attempts = 0;
  private began = Date.now();

  constructor(
    readonly message: Envelope,
    readonly options: PublishOptions & { timeout?: number; interval?: number },
  ) {}

  /** Seconds until an answer is overdue. */
  getTimeout(): number | undefined {
    return this.options.timeout;
  }

  /** Seconds before it is sent again. */
  getInterval(): number | undefined {
    return this.options.interval;
  }

  /** Whether it may be sent, for the first time or again. */
  isDeliverable(): boolean {
    const { attempts, deadline } = this.options;
    if (attempts !== undefined && this.attempts >= attempts) return false;
    return deadline === undefined || Date.now() < this.began + deadline * 1000;
  }

  /** It is sent. */
  send(): void {
    this.attempts += 1;
  }

  /** The server has stored it. */
  succeed(): void {}

  /** The link broke, or nothing came. */
  fail(): void {}

  /** It is given up. */
  abort(): void {}
}
