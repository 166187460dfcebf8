// The WebSocket. A page cannot see pings, so silence is broken by an empty batch, which Bayeux servers answer.

import { LinkError } from '../error';
import type { Envelope } from '../message';
import type { Hears, Link, Settings } from './link';

/** Characters of one frame, roughly. */
const FRAME = 65536;

export function openWebSocket(settings: Settings, hears: Hears): Promise<Link> {
  return new Promise((resolve, reject) => {
    const Socket = settings.WebSocket;
    if (!Socket) return reject(new LinkError('no WebSocket here', { blocked: true, absent: true }));
    const url = settings.url('websocket').replace(/^http/, 'ws');
    const late = setTimeout(() => fail('not opened in time'), settings.open);
    let socket: WebSocket;
    const fail = (why: string): void => {
      clearTimeout(late);
      if (socket) {
        // Not `onerror`: some implementations report being closed before they are open, and throw what nobody hears.
        socket.onclose = socket.onopen = null;
        socket.close();
      }
      // A page is not told why: the server may be away, too.
      reject(new LinkError(`WebSocket: ${why}`, { blocked: true }));
    };
    try {
      const headers = Object.keys(settings.headers).length > 0 && !('document' in globalThis);
      // Implementations for Node take headers; browsers do not.
      socket = headers ? new (Socket as any)(url, [], { headers: settings.headers }) : new Socket(url);
    } catch (error) {
      clearTimeout(late);
      return reject(new LinkError(`WebSocket: ${error}`, { blocked: true }));
    }
    socket.onerror = () => {};
    socket.onclose = (event) => fail(`closed (${event.code})`);
    socket.onopen = () => {
      clearTimeout(late);
      resolve(new SocketLink(socket, settings, hears));
    };
  });
}

class SocketLink implements Link {
  readonly name = 'websocket';
  private alarm: ReturnType<typeof setTimeout> | undefined;
  private probed = false;
  private open = true;
  private waiting: ((answered: boolean) => void)[] = [];

  constructor(
    private socket: WebSocket,
    private settings: Settings,
    private hears: Hears,
  ) {
    socket.onmessage = ({ data }) => {
      this.alive();
      let messages: unknown;
      try {
        messages = JSON.parse(typeof data === 'string' ? data : String(data));
      } catch {
        return this.down(new LinkError('not JSON'));
      }
      hears.receive(([] as Envelope[]).concat(messages as Envelope[]));
    };
    socket.onclose = ({ code }) => this.down(new LinkError(`closed (${code})`, { status: code === 1009 ? 413 : 0 }));
    this.alive();
  }

  send(batch: Envelope[]): void {
    let parts: string[] = [];
    let size = 0;
    const flush = (): void => {
      if (parts.length > 0) this.socket.send(`[${parts.join()}]`);
      parts = [];
      size = 0;
    };
    for (const message of batch) {
      const part = JSON.stringify(message);
      if (size + part.length > FRAME) flush();
      parts.push(part);
      size += part.length;
    }
    flush();
  }

  probe(): void {
    if (!this.open || this.probed) return;
    this.probed = true;
    this.socket.send('[]');
    this.watch(this.settings.wait, () => this.down(new LinkError('silent', { silent: true })));
  }

  answers(): Promise<boolean> {
    return new Promise((told) => {
      if (!this.open) return told(false);
      this.waiting.push(told);
      this.probe();
    });
  }

  close(): void {
    this.open = false;
    this.tell(false);
    clearTimeout(this.alarm);
    this.socket.onmessage = this.socket.onclose = null;
    this.socket.close();
  }

  private alive(): void {
    this.probed = false;
    this.tell(true);
    this.watch(this.settings.idle, () => this.probe());
  }

  private tell(answered: boolean): void {
    for (const told of this.waiting.splice(0)) told(answered);
  }

  private watch(after: number, then: () => void): void {
    clearTimeout(this.alarm);
    if (this.open) this.alarm = setTimeout(then, after);
  }

  private down(error: LinkError): void {
    if (!this.open) return;
    this.close();
    this.hears.down(error);
  }
}
