// An event stream, read by fetch: that sees the comments which keep it alive, takes headers, and works across origins and
// without a browser. What goes to the server goes by POST.

import { LinkError } from '../error';
import { type Hears, type Link, type Settings, isForeign } from './link';
import { Requests, post } from './polling';

export async function openEventSource(settings: Settings, hears: Hears): Promise<Link> {
  if (!settings.fetch || typeof ReadableStream === 'undefined') throw new LinkError('no streams here', { blocked: true, absent: true });
  return new StreamLink(settings, hears);
}

class StreamLink extends Requests {
  private controller = new AbortController();
  private alarm: ReturnType<typeof setTimeout> | undefined;
  private attached = false;

  constructor(settings: Settings, hears: Hears) {
    const url = settings.url('eventsource');
    super('eventsource', settings, hears, (batch, limit, ended) => post(settings, url, batch, limit, ended));
  }

  attach(clientId: string): void {
    if (this.attached) return;
    this.attached = true;
    void this.listen(clientId);
  }

  close(): void {
    super.close();
    clearTimeout(this.alarm);
    this.controller.abort();
  }

  private async listen(clientId: string): Promise<void> {
    const { settings } = this;
    const url = `${settings.url('eventsource').replace(/\/$/, '')}/${clientId}`;
    // The server begins with a line: a proxy that holds it back would hold back everything.
    this.watch(settings.open, true);
    const foreign = isForeign(url);
    const headers: Record<string, string> = { Accept: 'text/event-stream', ...settings.headers };
    // Another origin would have to be asked first.
    if (settings.lastEventId && !foreign) headers['Last-Event-ID'] = settings.lastEventId;
    try {
      const response = await settings.fetch!(url, {
        headers,
        cache: 'no-store',
        credentials: foreign && settings.withCredentials ? 'include' : 'same-origin',
        signal: this.controller.signal,
      });
      if (!response.ok || !response.body) throw new LinkError(`HTTP status ${response.status}`, { blocked: response.status < 500 });
      const reader = response.body.getReader();
      const decoder = new TextDecoder();
      let text = '';
      for (;;) {
        const { done, value } = await reader.read();
        if (done) throw new LinkError('the stream ended');
        this.watch(settings.streamSilence(), false);
        text += decoder.decode(value, { stream: true });
        const events = text.split(/\r?\n\r?\n/);
        text = events.pop() as string;
        events.forEach((event) => this.event(event));
      }
    } catch (error) {
      this.fail(error instanceof LinkError ? error : new LinkError(String(error)));
    }
  }

  private event(text: string): void {
    const data = [];
    for (const line of text.split(/\r?\n/)) {
      const [, field, value] = /^(\w*): ?([^]*)$/.exec(line) || [];
      if (field === 'data') data.push(value);
      else if (field === 'id') this.settings.lastEventId = value;
    }
    if (data.length > 0) this.hears.receive(JSON.parse(data.join('\n')));
  }

  private watch(after: number, opening: boolean): void {
    clearTimeout(this.alarm);
    const error = new LinkError(opening ? 'the stream does not begin' : 'the stream is silent', { blocked: opening });
    this.alarm = setTimeout(() => this.fail(error), after);
  }
}
