// One publish, as the user holds it: settles once the server has answered, or the client has given up. The client keeps
// it until then.

import type { Envelope } from './message';
import { Deferred } from './deferred';
import type { Scheduler } from './scheduler';

export class Publication extends Deferred<void> {
  /** Sent over the link in use, under this id. */
  sent = false;
  /** When an answer is overdue, and before when it is not sent again. */
  until = Infinity;
  after = 0;
  /** How often a link that lived brought no answer. */
  unanswered = 0;
  private began = Date.now();

  constructor(
    readonly message: Envelope,
    readonly size: number,
    readonly key: string,
    readonly scheduler: Scheduler,
  ) {
    super();
  }

  /** The server has it, maybe. */
  get wasSent(): boolean {
    return this.message.id !== undefined;
  }

  /** It goes out under the id that it keeps, by which a server knows it again. */
  send(id: string, patience: number): void {
    const { scheduler } = this;
    this.message.id = id;
    this.sent = true;
    scheduler.send();
    const { deadline } = scheduler.options;
    const timeout = Date.now() + (scheduler.getTimeout() ?? patience / 1000) * 1000;
    this.until = Math.min(timeout, deadline === undefined ? Infinity : this.began + deadline * 1000);
  }

  /** It was not answered: again, after its pause. */
  again(): void {
    if (!this.sent) return;
    this.sent = false;
    this.until = Infinity;
    this.scheduler.fail();
    this.after = Date.now() + (this.scheduler.getInterval() ?? 0) * 1000;
  }
}

/** Nobody else makes the same one. */
export function key(): string {
  const { crypto } = globalThis as any;
  if (crypto?.randomUUID) return crypto.randomUUID();
  const random = (): string => Math.random().toString(36).slice(2);
  return `${Date.now().toString(36)}-${random()}${random()}`;
}
