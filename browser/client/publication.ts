// One publish, as the user holds it: settles once the server has answered, or the client has given up. The client keeps
// it until then.

import type { Envelope } from './message';
import { Deferred } from './deferred';
import type { Scheduler } from './scheduler';

export class Publication extends Deferred<void> {
  /** Sent over the link in use, under this id. */
  sent = false;

  constructor(
    readonly message: Envelope,
    readonly size: number,
    readonly key: string,
    readonly scheduler: Scheduler,
  ) {
    super();
  }
}
