// Long-polling by fetch: one request at a time is held by the server, and one at a time carries everything else, so that
// their order is kept. From another origin the form of a plain form post is used, which needs no preflight.

import { LinkError } from '../error';
import type { Envelope } from '../message';
import { type Hears, type Link, type Settings, isForeign } from './link';

type Exchange = (batch: Envelope[], limit: number, ended: AbortSignal) => Promise<Envelope[]>;

export async function openPolling(settings: Settings, hears: Hears): Promise<Link> {
  if (!settings.fetch) throw new LinkError('no fetch here', { blocked: true, absent: true });
  const url = settings.url('long-polling');
  return new Requests('long-polling', settings, hears, (batch, limit, ended) => post(settings, url, batch, limit, ended));
}

/** One POST. Also used by the stream, for what goes to the server. */
export async function post(
  settings: Settings,
  url: string,
  batch: Envelope[],
  limit: number,
  ended: AbortSignal,
): Promise<Envelope[]> {
  const controller = new AbortController();
  const abort = (): void => controller.abort();
  const timer = setTimeout(abort, limit);
  ended.addEventListener('abort', abort);
  const json = JSON.stringify(batch);
  const foreign = isForeign(url);
  const form = foreign && Object.keys(settings.headers).length === 0;
  try {
    const response = await settings.fetch!(url, {
      method: 'POST',
      headers: {
        'Content-Type': form ? 'application/x-www-form-urlencoded' : 'application/json',
        ...settings.headers,
      },
      body: form ? `message=${encodeURIComponent(json)}` : json,
      cache: 'no-store',
      credentials: foreign && settings.withCredentials ? 'include' : 'same-origin',
      signal: controller.signal,
    });
    if (!response.ok) throw new LinkError(`HTTP status ${response.status}`, { status: response.status });
    return await response.json();
  } catch (error) {
    if (error instanceof LinkError) throw error;
    throw new LinkError(controller.signal.aborted ? 'no answer in time' : String(error));
  } finally {
    clearTimeout(timer);
    ended.removeEventListener('abort', abort);
  }
}

/** Two lanes of requests. Callback polling has them too. */
export class Requests implements Link {
  private ended = new AbortController();
  private queue: Envelope[][] = [];
  private busy = false;

  constructor(
    readonly name: string,
    protected settings: Settings,
    protected hears: Hears,
    private exchange: Exchange,
    /** Takes from the front of the queue what fits into one request. */
    private cut: (messages: Envelope[]) => Envelope[] = (messages) => messages.splice(0),
  ) {}

  send(batch: Envelope[], hold?: number): void {
    if (hold === undefined) {
      this.queue.push(batch);
      this.next();
      return;
    }
    // What is held and overdue is a dead connection; what is to be answered at once may take a busy server longer.
    void this.ask(batch, hold > 0 ? hold + this.settings.wait : this.settings.patience, true);
  }

  probe(): void {
    // A request of its own; when it fails, the held one is dead as well.
    void this.ask([], this.settings.wait);
  }

  close(): void {
    this.ended.abort();
  }

  private async next(): Promise<void> {
    if (this.busy) return;
    this.busy = true;
    const messages = this.queue.splice(0).flat();
    while (messages.length > 0 && !this.ended.signal.aborted) {
      await this.ask(this.cut(messages), this.settings.patience);
      messages.push(...this.queue.splice(0).flat());
    }
    this.busy = false;
  }

  private async ask(batch: Envelope[], limit: number, connect = false): Promise<void> {
    const { signal } = this.ended;
    try {
      const replies = await this.exchange(batch, limit, signal);
      if (!signal.aborted) this.hears.receive(replies);
    } catch (error) {
      (error as LinkError).facts.connect = connect;
      this.fail(error as LinkError);
    }
  }

  protected fail(error: LinkError): void {
    if (this.ended.signal.aborted) return;
    this.close();
    this.hears.down(error);
  }
}
