// What is published and not answered: in its order, bounded, each until it settles. No I/O; used by the client.

import { BayeuxError } from './error';
import type { Publication } from './publication';

/** How often a publish may go unanswered over links that live. */
const TIMES_UNANSWERED = 2;

export class Outbox {
  private list: Publication[] = [];
  private bytes = 0;
  /** A batch was refused as such: one at a time, to find out what is to blame. */
  private careful = false;

  constructor(private limits: { messages: number; bytes: number }) {}

  get isEmpty(): boolean {
    return this.list.length === 0;
  }

  /** Whether one of this size may be added; alone, one of any size. */
  hasRoom(size: number): boolean {
    const { messages, bytes } = this.limits;
    return this.list.length < messages && (this.bytes + size <= bytes || this.isEmpty);
  }

  add(publication: Publication): void {
    this.list.push(publication);
    this.bytes += publication.size;
  }

  /** Looks at the clock: what has gone unanswered for too long, and what is given up. */
  sweep(now: number): void {
    for (const publication of [...this.list]) {
      if (publication.until <= now) {
        publication.unanswered += 1;
        publication.again();
      }
      if (publication.sent) continue;
      if (!publication.scheduler.isDeliverable()) {
        this.giveUp(publication, 'gave-up', 'given up after its attempts or deadline');
      } else if (publication.unanswered >= TIMES_UNANSWERED) {
        this.giveUp(publication, 'unanswered', 'the server does not answer');
      }
    }
  }

  /** When to look again. */
  times(now: number): number[] {
    const times = this.list.flatMap(({ until, after }) => [until, after]);
    // Deadlines of publishes are in somebody else's hands: often enough to be punctual.
    if (this.list.some(({ scheduler }) => scheduler.options.deadline !== undefined)) times.push(now + 250);
    return times;
  }

  /** What may be sent now, each to be sent before the next is asked for. `busy`: something else is sent beside it. */
  *due(now: number, busy: boolean): Iterable<Publication> {
    let held = this.careful && (busy || this.list.some(({ sent }) => sent));
    for (const publication of [...this.list]) {
      if (held) return;
      if (publication.sent || publication.after > now || !publication.scheduler.isDeliverable()) continue;
      yield publication;
      held = this.careful;
    }
  }

  /** The link is gone: what it has not answered goes out again. */
  again(): void {
    for (const publication of this.list) publication.again();
  }

  /** What was sent under this id, and is not answered. */
  sentAs(id: string | undefined): Publication | undefined {
    return this.list.find((one) => one.sent && one.message.id === id);
  }

  /** HTTP, or a close, refused a batch as such: true when a publish in it is or may be to blame. */
  refused(status: number, why: string): boolean {
    const sent = this.list.filter((publication) => publication.sent);
    if (sent.length === 0) return false;
    this.careful = true;
    if (sent.length === 1) {
      this.remove(sent[0]);
      sent[0].fail(new BayeuxError(status, why, [sent[0].message.channel]));
    }
    return true;
  }

  remove(publication: Publication): void {
    const at = this.list.indexOf(publication);
    if (at < 0) return;
    this.list.splice(at, 1);
    this.bytes -= publication.size;
    if (this.isEmpty) this.careful = false;
  }

  giveUp(publication: Publication, code: string, why: string): void {
    this.remove(publication);
    publication.scheduler.abort();
    publication.fail(new BayeuxError(code, why, [publication.message.channel]));
  }

  /** Nothing is sent any more. */
  end(reason: BayeuxError): void {
    for (const publication of this.list.splice(0)) publication.fail(reason);
    this.bytes = 0;
  }
}
