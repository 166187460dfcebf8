// The client: Faye's interface, and the driver behind it. It keeps one link, one session and one connect under way, sends
// what the user asks for, hands out what comes, and begins anew whenever any of the three breaks.
//
//   link     none --open--> up --a connect is answered--> standing --breaks--> none
//   session  none --handshake--> known --401, `handshake` advice--> none
//   connect  due --sent--> asked --answered--> due, after `interval`

import type { Envelope, Message } from './message';
import { isChannel, isPattern, matches } from './channel';
import { BayeuxError, LinkError } from './error';
import { Emitter, call, log } from './events';
import { type Extension, Extensions } from './extensions';
import { type ClientOptions, type Resolved, TRANSPORTS, resolve } from './options';
import { Outbox } from './outbox';
import { watch } from './page';
import { Publication, key } from './publication';
import type { PublishOptions } from './scheduler';
import { Session } from './session';
import { type SubscribeOptions, Subscription } from './subscription';
import { openCallback } from './transports/callback';
import { openEventSource } from './transports/eventsource';
import type { Link, Open, Settings } from './transports/link';
import { openPolling } from './transports/polling';
import { openWebSocket } from './transports/websocket';

const OPEN: Record<string, Open> = {
  websocket: openWebSocket,
  eventsource: openEventSource,
  'long-polling': openPolling,
  'callback-polling': openCallback,
};
/** How long a held request may be held, so that a dead connection is noticed soon, in ms. */
const HOLD = 5000;
/** How long an answer may take that is not held, in ms. */
const PATIENCE = 8000;
/** How long a publish may go unanswered over a link that lives, in ms. */
const UNANSWERED = 24e3;
/** A link that stood for so long worked: its end is no failure. In ms. */
const LASTING = 5000;
/** After an outage a better transport is tried so soon, in ms. */
const SOON = 5000;
/** How long a link may take to open, in ms. */
const OPENING = 3000;
/** How long saying goodbye may take, in ms. */
const GOODBYE = 3000;
/** Links of one kind that fail in a row before the next kind is tried. */
const FAILURES = 3;

type Timer = ReturnType<typeof setTimeout>;
type Listener = (...args: any[]) => void;

/** Something was sent, under this id, and has to be answered until then. */
interface Asked {
  id: string;
  until: number;
}

/** What is subscribed to, by whom, and what of it the server knows. */
interface Interest {
  state: 'new' | 'asked' | 'active';
  asked: Asked | null;
  /** The server has accepted it before. */
  proven: boolean;
  subscriptions: Subscription<any>[];
}

export class Client extends Emitter {
  readonly endpoint: URL | string;
  state: 'UNCONNECTED' | 'CONNECTING' | 'CONNECTED' | 'DISCONNECTED' = 'UNCONNECTED';

  private options: Resolved;
  private settings: Settings;
  private extensions = new Extensions();
  private session: Session;
  private interests = new Map<string, Interest>();
  /** Unsubscribes that the server must be told of. */
  private leaving = new Map<string, Asked | null>();
  private outbox: Outbox;
  private lastId = 0;

  private started = false;
  private link: Link | null = null;
  private opening = false;
  /** Counts links: what an older one says is not heard. */
  private generation = 0;
  private openAt = 0;
  private failures = 0;
  /** Sessions that were lost in a row, none of which had lasted. */
  private losses = 0;
  private linkFailures: Record<string, number> = {};
  private disabled = new Set<string>();
  private autodisconnect = true;
  private upgradeAt = Infinity;
  private upgradePause: number;
  private upgrading = false;

  private handshakeAt = 0;
  private shaking: Asked | null = null;
  private connectAt = 0;
  private connecting: Asked | null = null;
  /** The connect that was not answered: sent again under its id, which says that nothing of it arrived. */
  private retryId: string | null = null;
  /** A connect was answered over the link in use. */
  private stands = false;
  private stoodAt = 0;
  private recovered = false;
  private lastStood = '';
  private up: boolean | null = null;
  private lastTransport: string | null = null;

  private timer: Timer | undefined;
  private dueAt = Infinity;
  private flushing = false;
  private stop: (() => void) | null = null;
  private goodbye: Promise<void> | null = null;
  /** The goodbye is sent: nothing else is. */
  private said = false;
  private unwatch: () => void = () => {};

  constructor(url: string | URL = '/bayeux', options: ClientOptions = {}) {
    super();
    this.options = resolve(options);
    this.outbox = new Outbox(this.options.queue);
    const base = (globalThis as any).location?.href;
    this.endpoint = base ? new URL(String(url), base) : new URL(String(url));
    const { endpoints, liveness } = this.options;
    this.settings = {
      url: (name) => String(endpoints[name] ? new URL(endpoints[name], this.endpoint) : this.endpoint),
      headers: { ...this.options.headers },
      withCredentials: this.options.withCredentials,
      idle: liveness.idle,
      wait: liveness.wait,
      patience: PATIENCE,
      open: OPENING,
      streamSilence: () => (this.session.resumes ? liveness.idle + liveness.wait : 15e3),
      lastEventId: '',
      fetch: this.options.fetch,
      WebSocket: this.options.WebSocket,
    };
    this.session = new Session(this.options.resume, this.options.timeout * 1000, this.options.interval * 1000);
    this.upgradePause = this.options.upgradeAfter;
  }

  get clientId(): string | null {
    return this.session.id;
  }

  /** The transport in use. */
  get transport(): string | null {
    return this.stands && this.link ? this.link.name : null;
  }

  // ---- what users call

  handshake(callback?: Listener, context?: unknown): void {
    this.connect(callback, context);
  }

  /** Connects; publishing and subscribing do that by themselves. */
  connect(callback?: Listener, context?: unknown): void {
    if (callback) {
      if (this.stands) call(callback, context, []);
      else this.once('transport:stands', callback, context);
    }
    this.start();
  }

  subscribe<T = any>(channel: string, options: SubscribeOptions, callback?: (data: T, message: Message<T>) => void): Subscription<T>;
  subscribe<T = any>(channel: string, callback?: (data: T, message: Message<T>) => void, context?: unknown): Subscription<T>;
  subscribe(channels: string[], callback?: Listener, context?: unknown): Subscription<any>[];
  subscribe(channel: string | string[], second?: Listener | SubscribeOptions, third?: unknown): any {
    if (Array.isArray(channel)) return channel.map((one) => this.subscribe(one, second as Listener, third));
    const bare = typeof second === 'function' || !second;
    const listener = (bare ? second : third) as Listener | undefined;
    const options = bare ? {} : (second as SubscribeOptions);
    const subscription = new Subscription<any>(channel, listener, bare ? third : undefined, options, (gone) =>
      this.leave(gone),
    );
    if (!subscription.active) return subscription;
    if (!isPattern(channel)) {
      subscription.end();
      subscription.fail(new BayeuxError(405, 'Invalid channel', [String(channel)]));
      return subscription;
    }
    if (this.state === 'DISCONNECTED' || this.goodbye) {
      subscription.end();
      subscription.fail(this.ended());
      return subscription;
    }
    let interest = this.interests.get(channel);
    if (!interest) {
      interest = { state: 'new', asked: null, proven: false, subscriptions: [] };
      this.interests.set(channel, interest);
    }
    interest.subscriptions.push(subscription);
    if (interest.state === 'active') subscription.succeed(undefined);
    this.start();
    return subscription;
  }

  unsubscribe(channel: string | string[], subscription?: Subscription<any>): void {
    if (Array.isArray(channel)) return channel.forEach((one) => this.unsubscribe(one, subscription));
    const all = this.interests.get(channel)?.subscriptions || [];
    for (const one of subscription ? [subscription] : [...all]) one.cancel();
  }

  publish(channel: string, data: unknown, options: PublishOptions = {}): Publication {
    for (const name in options) {
      if (!['attempts', 'deadline', 'signal', 'key'].includes(name)) throw new TypeError(`Unrecognized option: ${name}`);
    }
    const message: Envelope = { channel, data };
    const text = JSON.stringify(data);
    const size = (text || '').length;
    const scheduler = new this.options.scheduler(message, { ...options, timeout: UNANSWERED / 1000 });
    const publication = new Publication(message, size, options.key || key(), scheduler);
    const refuse = (code: number | string, why: string): Publication => {
      publication.fail(new BayeuxError(code, why, [String(channel)]));
      return publication;
    };
    if (!isChannel(channel)) return refuse(405, 'Invalid channel');
    if (text === undefined) return refuse(402, 'Missing required parameter: data');
    if (this.state === 'DISCONNECTED' || this.goodbye) {
      publication.fail(this.ended());
      return publication;
    }
    if (!this.outbox.hasRoom(size)) return refuse('queue-full', 'too much waits to be published');
    if (options.signal?.aborted) return refuse('cancelled', 'the publish was cancelled');
    const { signal } = options;
    if (signal) {
      const abort = (): void => {
        if (!publication.wasSent) this.outbox.giveUp(publication, 'cancelled', 'the publish was cancelled');
      };
      signal.addEventListener('abort', abort);
      publication.finally(() => signal.removeEventListener('abort', abort)).catch(() => {});
    }
    this.outbox.add(publication);
    this.start();
    return publication;
  }

  /** Ends the session, once what was published is stored, and the client with it. Settles within seconds, whether or not the server can be reached. */
  disconnect(): Promise<void> {
    if (this.goodbye) return this.goodbye;
    if (this.state === 'DISCONNECTED') return Promise.resolve();
    return (this.goodbye = new Promise<void>((done) => {
      const timer = setTimeout(() => finish(), GOODBYE);
      const finish = (): void => {
        clearTimeout(timer);
        this.stop = null;
        this.end(new BayeuxError('disconnected', 'the client is disconnected'));
        done();
      };
      if (this.outbox.isEmpty && (!this.link || !this.session.id)) return finish();
      this.stop = finish;
      this.flush();
    }));
  }

  addExtension(extension: Extension): void {
    this.extensions.add(extension, this);
  }

  removeExtension(extension: Extension): void {
    this.extensions.remove(extension, this);
  }

  /** Does without a transport, or without saying goodbye when the page is left (`autodisconnect`). */
  disable(feature: string): void {
    if (feature === 'autodisconnect') this.autodisconnect = false;
    else this.disabled.add(feature === 'cross-origin-long-polling' ? 'long-polling' : feature);
  }

  setHeader(name: string, value: string): void {
    this.settings.headers[name] = value;
  }

  /** As Faye's, which needs something installed for it: there is nothing to do here. */
  addWebsocketExtension(): void {}

  // ---- the driver

  private start(): void {
    if (this.state === 'DISCONNECTED') return;
    if (!this.started) {
      this.started = true;
      this.state = 'CONNECTING';
      this.unwatch = watch(this);
    }
    this.flushSoon();
  }

  /** What is asked for in one turn goes out together. */
  private flushSoon(): void {
    if (this.flushing) return;
    this.flushing = true;
    setTimeout(() => {
      this.flushing = false;
      this.tick();
    });
  }

  /** Looks at the clock: what is due, what is overdue, and when to look again. */
  private tick(): void {
    if (this.state === 'DISCONNECTED') return;
    const now = Date.now();
    // A machine that slept, or a page that was frozen, wakes up late.
    if (this.link && now - this.dueAt > this.settings.idle) this.link.probe();
    this.outbox.sweep(now);
    const asked = [this.shaking, this.connecting, ...this.leaving.values()];
    for (const { asked: one } of this.interests.values()) asked.push(one);
    const overdue = asked.some((one) => one && one.until <= now);
    if (overdue) this.linkLost(new LinkError('no answer in time'));
    if (!this.link && !this.opening && this.openAt <= now) this.open();
    if (!this.upgrading && this.upgradeAt <= now) this.upgrade();
    this.flush();
    const times = [this.link || this.opening ? Infinity : this.openAt, this.upgradeAt];
    if (this.link) times.push(this.session.id ? (this.connecting ? Infinity : this.connectAt) : this.shaking ? Infinity : this.handshakeAt);
    for (const one of asked) if (one && this.link) times.push(one.until);
    times.push(...this.outbox.times(now));
    // At the latest when a sleep would have to be noticed.
    this.wakeAt(Math.min(now + 10e3, ...times.filter((time) => time > now)));
  }

  private wakeAt(at: number): void {
    clearTimeout(this.timer);
    this.dueAt = at;
    this.timer = setTimeout(() => this.tick(), Math.max(0, at - Date.now()));
  }

  private usable(): string[] {
    return this.options.transports.filter((name) => OPEN[name] && !this.disabled.has(name));
  }

  private async open(name?: string): Promise<void> {
    const usable = this.usable();
    name = name || usable.find((one) => (this.linkFailures[one] || 0) < FAILURES);
    if (!name) {
      if (usable.length === 0) {
        return this.end(new BayeuxError('no-transport', 'Could not find a usable connection type'), true);
      }
      // None works: from the first again.
      this.linkFailures = {};
      name = usable[0];
    }
    this.opening = true;
    try {
      const link = await this.openLink(name);
      this.opening = false;
      this.begin(link);
    } catch (error) {
      this.opening = false;
      this.failed(name, error as LinkError);
    }
    this.tick();
  }

  private async openLink(name: string): Promise<{ link: Link; use: () => void }> {
    const generation = ++this.generation;
    const current = (): boolean => this.generation === generation || this.used === generation;
    const link = await OPEN[name](this.settings, {
      receive: (messages) => current() && this.used === generation && this.receive(messages),
      down: (error) => {
        if (this.used !== generation) return;
        this.linkLost(error);
        this.tick();
      },
    });
    return { link, use: () => (this.used = generation) };
  }
  /** The link that is heard. */
  private used = 0;

  /** A link is open: what is not answered is asked again over it. */
  private begin({ link, use }: { link: Link; use: () => void }): void {
    if (this.state === 'DISCONNECTED') return link.close();
    this.link?.close();
    this.link = link;
    use();
    this.stands = false;
    this.askAgain();
    const first = this.usable()[0];
    // After an outage it may have been that, and not the transport.
    const pause = this.failures > 0 ? Math.min(SOON, this.upgradePause) : this.upgradePause;
    this.upgradeAt = link.name === first ? Infinity : Date.now() + pause * (0.75 + Math.random() / 2);
    log('info', `link opened: ${link.name}`);
  }

  private async upgrade(): Promise<void> {
    this.upgrading = true;
    this.upgradeAt = Infinity;
    const [name] = this.usable();
    const before = this.link;
    try {
      const opened = await this.openLink(name);
      // Some proxies let it open, and nothing through.
      const works = !opened.link.answers || (await opened.link.answers());
      if (this.link !== before || !before) opened.link.close();
      else if (works) this.begin(opened);
      else throw new LinkError('silent');
    } catch {
      this.upgradePause = Math.min(this.upgradePause * 2, this.options.upgradeAfter * 10);
      if (this.link === before) this.upgradeAt = Date.now() + this.upgradePause * (0.75 + Math.random() / 2);
    }
    this.upgrading = false;
    this.tick();
  }

  private askAgain(): void {
    if (this.connecting) this.retryId = this.connecting.id;
    this.connecting = null;
    this.connectAt = 0;
    this.shaking = null;
    for (const interest of this.interests.values()) {
      if (interest.state === 'asked') interest.state = 'new';
      interest.asked = null;
    }
    for (const name of this.leaving.keys()) this.leaving.set(name, null);
    this.outbox.again();
  }

  private linkLost(error: LinkError): void {
    const { link, stands } = this;
    if (!link) return;
    // The server has ended the session, and maybe its link before the answer; or it will by itself.
    if (this.said) return this.stop?.();
    link.close();
    this.link = null;
    this.used = 0;
    this.upgradeAt = Infinity;
    if (this.refusedBatch(error)) {
      this.askAgain();
      this.stands = false;
      this.openAt = 0;
      return;
    }
    this.askAgain();
    this.stands = false;
    // A socket that opens and lets nothing through.
    if (!stands && error.facts.silent && link.name === 'websocket') error.facts.blocked = true;
    if (!stands || error.facts.blocked) return this.failed(link.name, error);
    this.transportIs(false);
    if (this.lasted() || this.failures === 0) {
      // It worked: at once, and without a pause for the first time.
      this.failures = this.lasted() ? 0 : 1;
      this.openAt = 0;
      this.trigger('retry', { attempt: 0, delay: 0, reason: error.message });
    } else {
      this.openAt = Date.now() + this.pause(error.message);
    }
  }

  /** Whether the link, or session, that ends now was more than a beginning. */
  private lasted(): boolean {
    return Date.now() - this.stoodAt >= LASTING;
  }

  /** HTTP, or a close, refused a batch as such: true when a publish in it is or may be to blame. */
  private refusedBatch(error: LinkError): boolean {
    const { refusal } = error;
    return refusal !== undefined && !!this.session.id && this.outbox.refused(refusal, error.message);
  }

  private failed(name: string, error: LinkError): void {
    const { blocked, absent } = error.facts;
    this.linkFailures[name] = (this.linkFailures[name] || 0) + (blocked ? FAILURES : 1);
    this.transportIs(false);
    const others = this.usable().some((one) => (this.linkFailures[one] || 0) < FAILURES);
    // Neither does what always works: it is not about transports.
    if (!blocked && name !== this.usable()[0]) this.linkFailures = {};
    if (blocked && others) {
      this.openAt = 0;
      if (!absent) this.trigger('retry', { attempt: this.failures, delay: 0, reason: error.message });
      return;
    }
    this.openAt = Date.now() + this.pause(error.message);
  }

  /** One more failure: the pause before the next attempt, in ms. */
  private pause(reason: string, atLeast = 0): number {
    const { first, max, factor, jitter } = this.options.backoff;
    this.failures += 1;
    const longest = Math.min(max, first * factor ** (this.failures - 1));
    const delay = Math.max(atLeast, longest * (1 - jitter * Math.random()));
    log('warn', `${reason}; next attempt in ${Math.round(delay)} ms`);
    this.trigger('retry', { attempt: this.failures, delay, reason });
    return delay;
  }

  /** Sends what is due. */
  private flush(): void {
    if (!this.link || this.said || this.state === 'DISCONNECTED') return;
    const now = Date.now();
    const until = now + PATIENCE;
    const { session } = this;
    if (!session.id) {
      if (!this.shaking && this.handshakeAt <= now) {
        const id = this.nextId();
        this.shaking = { id, until };
        const supportedConnectionTypes = this.usable();
        this.send([
          { channel: '/meta/handshake', version: '1.0', supportedConnectionTypes, id, ext: session.handshakeExt() },
        ]);
      }
      return;
    }
    const batch: Envelope[] = [];
    const say = (message: Envelope): Asked => {
      const id = this.nextId();
      batch.push({ ...message, clientId: session.id as string, id });
      return { id, until };
    };
    for (const [name, asked] of this.leaving) {
      if (asked) continue;
      session.unsubscribed(name);
      this.leaving.set(name, say({ channel: '/meta/unsubscribe', subscription: name }));
    }
    for (const [name, interest] of this.interests) {
      if (interest.state !== 'new') continue;
      interest.state = 'asked';
      // What was replayed once is not replayed again after a gap.
      const replay = interest.proven ? undefined : interest.subscriptions[0].options.replay;
      const ext = session.subscribeExt(name, replay);
      interest.asked = say({ channel: '/meta/subscribe', subscription: name, ext });
    }
    for (const publication of this.outbox.due(now, batch.length > 0)) {
      const { message } = publication;
      const id = message.id ?? this.nextId();
      const ext = session.resumes && this.options.idempotent ? { ...message.ext, idempotencyKey: publication.key } : message.ext;
      batch.push({ ...message, ext, clientId: session.id, id });
      publication.send(id, UNANSWERED);
    }
    if (batch.length > 0) this.send(batch);
    // By other connections than the goodbye, publishes could come after it.
    if (this.stop && this.outbox.isEmpty) return this.sayGoodbye();
    if (!this.connecting && this.connectAt <= now && this.link) this.sendConnect(now);
  }

  private sayGoodbye(): void {
    this.said = true;
    this.send([{ channel: '/meta/disconnect', clientId: this.session.id as string, id: this.nextId() }]);
  }

  private sendConnect(now: number): void {
    const link = this.link as Link;
    const { session } = this;
    const id = this.retryId || this.nextId();
    this.retryId = null;
    const socket = link.name === 'websocket';
    // The first over a link is answered at once: so the session is known to live.
    const hold = !this.stands ? 0 : socket ? session.timeout : link.attach ? 0 : Math.min(HOLD, session.timeout);
    const advice = socket && this.stands ? undefined : { timeout: hold };
    const message: Envelope = {
      channel: '/meta/connect',
      clientId: session.id as string,
      connectionType: link.name,
      id,
      advice,
      ext: session.connectExt(),
    };
    this.connecting = { id, until: now + hold + PATIENCE };
    this.send([message], hold);
  }

  /** Passes messages by the extensions, and on to the link. */
  private send(messages: Envelope[], hold?: number): void {
    const { link } = this;
    let left = messages.length;
    const passed: Envelope[] = [];
    messages.forEach((message, at) =>
      this.extensions.pass('outgoing', message, (changed) => {
        if (changed) passed[at] = changed;
        else this.dropped(message);
        left -= 1;
        const batch = passed.filter(Boolean);
        if (left === 0 && batch.length > 0 && this.link === link) link?.send(batch, hold);
      }),
    );
  }

  /** An extension has dropped a message: nobody will answer it. */
  private dropped({ channel, id, subscription }: Envelope): void {
    if (channel === '/meta/subscribe') this.refused(subscription, new BayeuxError('dropped', 'dropped by an extension'));
    if (channel === '/meta/unsubscribe') this.leaving.delete(subscription);
    const publication = this.outbox.sentAs(id);
    if (publication) this.outbox.giveUp(publication, 'dropped', 'dropped by an extension');
  }

  private receive(messages: Envelope[]): void {
    if (!Array.isArray(messages)) return;
    for (const message of messages) {
      if (!message || typeof message !== 'object') continue;
      // Before extensions, which may take their time for one, and let the next pass.
      if (message.data !== undefined && !this.session.isNews(message)) {
        if (message.successful === undefined) continue;
        delete message.data;
      }
      this.extensions.pass('incoming', message, (passed) => passed && this.take(passed));
    }
    this.flushSoon();
  }

  private take(message: Envelope): void {
    if (this.state === 'DISCONNECTED') return;
    const { session } = this;
    if (message.advice) session.advise(message.advice);
    const failed = message.successful === false;
    const unknown = message.advice?.reconnect === 'handshake' || (message.error || '').indexOf('401') === 0;
    switch (message.channel) {
      case '/meta/handshake':
        return this.onHandshake(message);
      case '/meta/connect':
        return this.onConnect(message);
      case '/meta/subscribe':
        return this.onSubscribe(message, failed && unknown);
      case '/meta/unsubscribe':
        for (const [name, asked] of this.leaving) if (asked?.id === message.id) this.leaving.delete(name);
        return;
      case '/meta/disconnect':
        this.stop?.();
        return;
    }
    if (message.successful !== undefined) this.onPublished(message, failed && message.advice?.reconnect === 'handshake');
    if (message.data === undefined) return;
    for (const [name, { subscriptions }] of this.interests) {
      if (matches(name, message.channel)) for (const one of [...subscriptions]) one.deliver(message as Message<any>);
    }
  }

  private onHandshake(reply: Envelope): void {
    if (!this.shaking || reply.id !== this.shaking.id) return;
    this.shaking = null;
    const { session } = this;
    if (!reply.successful) {
      const error = BayeuxError.parse(reply.error);
      if (session.reconnect === 'none') return this.end(error, true);
      this.handshakeAt = Date.now() + this.pause(error.message, session.interval);
      return;
    }
    const { previous } = session;
    const { first, gap } = session.begin(reply);
    this.connectAt = 0;
    this.connecting = this.retryId = null;
    for (const [name, interest] of this.interests) {
      // Who left it and wants it again gets a new beginning.
      interest.state = session.has(name) && !this.leaving.has(name) ? 'active' : 'new';
      interest.asked = null;
      if (interest.state === 'active') interest.subscriptions.forEach((one) => one.settled || one.succeed(undefined));
    }
    for (const name of [...this.leaving.keys()]) {
      if (session.has(name)) this.leaving.set(name, null);
      else this.leaving.delete(name);
    }
    this.trigger('session:new', { clientId: session.id, previous });
    if (gap) this.trigger('gap', gap.length > 0 ? { channels: gap } : {});
    // Whether all of it is still there, its first connect tells.
    this.recovered = !first && !gap;
  }

  private onConnect(reply: Envelope): void {
    const { session } = this;
    if (!this.connecting || reply.id !== this.connecting.id) {
      // An older one was answered because a newer one came; or a stream tells of a gap.
      if (reply.successful && session.connected(reply)) this.trigger('gap', {});
      return;
    }
    this.connecting = null;
    if (this.said) return session.reconnect === 'none' ? this.stop?.() : undefined;
    if (session.reconnect === 'none') return this.end(BayeuxError.parse(reply.error || 'the server wants no more'), true);
    if (!reply.successful) return this.sessionLost(reply);
    this.connectAt = Date.now() + session.interval;
    const gap = session.connected(reply);
    if (gap) this.trigger('gap', {});
    else if (this.recovered) this.trigger('recovered', { clientId: session.id });
    this.recovered = false;
    const link = this.link as Link;
    link.attach?.(session.id as string);
    if (this.stands) return;
    this.stands = true;
    this.stoodAt = Date.now();
    this.linkFailures[link.name] = 0;
    if (link.name === this.usable()[0]) this.upgradePause = this.options.upgradeAfter;
    this.state = 'CONNECTED';
    const same = this.lastStood === session.id;
    this.lastStood = session.id as string;
    this.transportIs(true);
    if (this.lastTransport !== link.name) {
      this.trigger('transport', { name: link.name, previous: this.lastTransport });
      this.lastTransport = link.name;
    }
    this.trigger(same ? 'resumed' : 'connected', { clientId: session.id, transport: link.name });
    this.trigger('transport:stands');
  }

  /** The server does not know the session: a new one, some time from now. */
  private sessionLost(refusal: Envelope): void {
    const { session } = this;
    const error = BayeuxError.parse(refusal.error);
    if (!session.id) return;
    // Nobody makes a new one only to say goodbye.
    if (this.stop) return this.stop();
    log('warn', `session lost: ${error.message}`);
    const { stands } = this;
    session.id = null;
    this.askAgain();
    this.retryId = null;
    this.stands = false;
    this.state = 'CONNECTING';
    // A server that gives sessions and takes them away again is not asked in a tight loop.
    if (stands && this.lasted()) this.losses = 0;
    // It answers: what failed before is over.
    this.failures = this.losses++;
    // An interval that came before was for connects.
    const interval = refusal.advice?.interval === undefined ? 0 : session.interval;
    if (this.failures === 0) this.trigger('retry', { attempt: 0, delay: interval, reason: error.message });
    this.handshakeAt = Date.now() + (this.failures === 0 ? interval : this.pause(error.message, interval));
  }

  private onSubscribe(reply: Envelope, unknown: boolean): void {
    for (const [name, interest] of this.interests) {
      if (!interest.asked || interest.asked.id !== reply.id) continue;
      if (reply.successful) {
        interest.state = 'active';
        interest.asked = null;
        interest.proven = true;
        if (this.session.subscribed(name, reply)) this.trigger('gap', { channels: [name] });
        interest.subscriptions.forEach((one) => one.settled || one.succeed(undefined));
      } else if (unknown) this.sessionLost(reply);
      else this.refused(name, BayeuxError.parse(reply.error));
      return;
    }
  }

  private refused(name: string, error: BayeuxError): void {
    const interest = this.interests.get(name);
    if (!interest) return;
    this.interests.delete(name);
    this.session.unsubscribed(name);
    for (const one of interest.subscriptions) {
      one.end(error);
      if (!one.settled) one.fail(error);
    }
    if (interest.proven) this.trigger('unsubscribed', { channel: name, error });
  }

  private onPublished(reply: Envelope, unknown: boolean): void {
    const publication = this.outbox.sentAs(reply.id);
    if (!publication) return;
    // It goes out again under the new session.
    if (unknown) return this.sessionLost(reply);
    this.outbox.remove(publication);
    if (reply.successful) {
      publication.scheduler.succeed();
      publication.succeed(undefined);
    } else publication.fail(BayeuxError.parse(reply.error));
  }

  private leave(subscription: Subscription<any>): void {
    const name = subscription.channel;
    const interest = this.interests.get(name);
    if (!interest) return;
    interest.subscriptions = interest.subscriptions.filter((one) => one !== subscription);
    if (interest.subscriptions.length > 0) return;
    this.interests.delete(name);
    if (interest.state === 'new') return;
    this.leaving.set(name, null);
    this.flushSoon();
  }

  private transportIs(up: boolean): void {
    if (this.up === up) return;
    const first = this.up === null;
    this.up = up;
    if (up || !first) this.trigger(up ? 'transport:up' : 'transport:down');
  }

  private reason: BayeuxError | null = null;

  private ended(): BayeuxError {
    return this.reason || new BayeuxError('disconnected', 'the client is disconnected');
  }

  /** The end of the client: everything settles. */
  private end(error: BayeuxError, stopped = false): void {
    if (this.state === 'DISCONNECTED') return;
    const reason = stopped ? new BayeuxError('stopped', error.toString()) : error;
    this.reason = reason;
    this.state = 'DISCONNECTED';
    clearTimeout(this.timer);
    this.unwatch();
    this.link?.close();
    this.link = null;
    this.used = 0;
    this.stands = false;
    this.session.id = null;
    this.outbox.end(reason);
    for (const { subscriptions } of this.interests.values()) {
      for (const one of subscriptions) {
        one.end(stopped ? reason : undefined);
        if (!one.settled) one.fail(reason);
      }
    }
    this.interests.clear();
    this.transportIs(false);
    this.trigger('stopped', { reason: stopped ? error.message : 'disconnected', error: reason });
  }

  /** The page, the network or the machine is back: looks at once. */
  wake(): void {
    if (!this.started || this.state === 'DISCONNECTED') return;
    this.link?.probe();
    if (!this.link) this.openAt = 0;
    this.tick();
  }

  /** The page goes: a goodbye that outlives it. */
  leavePage(): void {
    const { session, settings } = this;
    if (!this.autodisconnect || !session.id || !settings.fetch) return;
    const body = JSON.stringify([{ channel: '/meta/disconnect', clientId: session.id, id: this.nextId() }]);
    settings
      .fetch(settings.url('long-polling'), { method: 'POST', body: `message=${encodeURIComponent(body)}`, keepalive: true,
        headers: { 'Content-Type': 'application/x-www-form-urlencoded' } })
      .catch(() => {});
    // If the page comes back after all, it finds its session gone and makes a new one.
  }

  private nextId(): string {
    return (++this.lastId).toString(36);
  }
}

export { TRANSPORTS };
