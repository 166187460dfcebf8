// One listener of a channel or pattern: a callback, an async iterator, and a promise for the server's yes. Made by the
// client, which hands it messages.

import type { Message } from './message';
import { Deferred } from './deferred';
import { BayeuxError } from './error';
import { call } from './events';

export interface SubscribeOptions {
  /** Cancels the subscription. */
  signal?: AbortSignal;
  /** On servers that keep messages: -2 for all that is kept, -1 for none, or a position to begin after. */
  replay?: number;
  /** Messages that may wait in an iterator (1000). */
  buffer?: number;
}

export class Subscription<T = unknown> extends Deferred<void> implements AsyncIterable<Message<T>> {
  private onChannel: { call: (...args: any[]) => void; context: unknown } | null = null;
  private iterators = new Set<Iterator<T>>();
  /** Keeps what comes before the first loop begins, where there is no listener. */
  private early: Iterator<T> | null = null;
  active = true;

  constructor(
    readonly channel: string,
    private listener: ((...args: any[]) => void) | undefined,
    private context: unknown,
    readonly options: SubscribeOptions,
    private leave: (subscription: Subscription<any>) => void,
  ) {
    super();
    const { signal } = options;
    if (signal?.aborted) this.cancel();
    else signal?.addEventListener('abort', this.abort);
    if (!listener) this.early = this.iterator();
  }

  private abort = (): void => this.cancel();

  /** Also tells the channel, for patterns: `(channel, data)`. */
  withChannel(listener: (channel: string, data: T, message: Message<T>) => void, context?: unknown): this {
    this.onChannel = { call: listener, context };
    if (this.early) this.iterators.delete(this.early);
    this.early = null;
    return this;
  }

  /** Hands a message over. */
  deliver(message: Message<T>): void {
    if (!this.active) return;
    if (this.listener) call(this.listener, this.context, [message.data, message]);
    if (this.onChannel) call(this.onChannel.call, this.onChannel.context, [message.channel, message.data, message]);
    for (const iterator of this.iterators) iterator.push(message);
  }

  /** As Faye's: calls the listener. */
  apply(context: unknown, args: unknown[]): void {
    if (this.listener) call(this.listener, context, args);
  }

  /** Ends it; unsubscribes when it was the last of its channel. */
  cancel(): void {
    if (!this.active) return;
    this.end();
    this.leave(this);
    this.fail(new BayeuxError('cancelled', 'the subscription was cancelled'));
  }

  unsubscribe(): void {
    this.cancel();
  }

  /** No more comes; with an error, iterators throw it after what they hold. */
  end(error?: BayeuxError): void {
    this.active = false;
    this.options.signal?.removeEventListener('abort', this.abort);
    for (const iterator of this.iterators) iterator.close(error);
    this.iterators.clear();
  }

  [Symbol.asyncIterator](): AsyncIterableIterator<Message<T>> {
    const iterator = this.early || this.iterator();
    this.early = null;
    return iterator;
  }

  private iterator(): Iterator<T> {
    const iterator = new Iterator<T>(this.options.buffer ?? 1000, (left) => {
      this.iterators.delete(iterator);
      // A loop that is left was the only one who wanted it.
      if (left && !this.listener && !this.onChannel && this.iterators.size === 0) this.cancel();
    });
    if (this.active) this.iterators.add(iterator);
    else iterator.close();
    return iterator;
  }
}

/** What waits to be read by one loop. */
class Iterator<T> implements AsyncIterableIterator<Message<T>> {
  private waiting: Message<T>[] = [];
  private readers: { resolve: (result: IteratorResult<Message<T>>) => void; reject: (error: unknown) => void }[] = [];
  private ended = false;
  private error: BayeuxError | undefined;

  constructor(
    private limit: number,
    private gone: (left: boolean) => void,
  ) {}

  push(message: Message<T>): void {
    const reader = this.readers.shift();
    if (reader) reader.resolve({ value: message, done: false });
    else if (this.waiting.length < this.limit) this.waiting.push(message);
    else {
      this.gone(false);
      this.close(new BayeuxError('slow-reader', `more than ${this.limit} messages wait to be read`));
    }
  }

  close(error?: BayeuxError): void {
    if (this.ended) return;
    this.ended = true;
    this.error = error;
    for (const { resolve, reject } of this.readers.splice(0)) {
      if (error) reject(error);
      else resolve({ value: undefined, done: true });
    }
  }

  next(): Promise<IteratorResult<Message<T>>> {
    const value = this.waiting.shift();
    if (value) return Promise.resolve({ value, done: false });
    if (this.ended) {
      const { error } = this;
      this.error = undefined;
      return error ? Promise.reject(error) : Promise.resolve({ value: undefined, done: true });
    }
    return new Promise((resolve, reject) => this.readers.push({ resolve, reject }));
  }

  return(): Promise<IteratorResult<Message<T>>> {
    this.gone(true);
    this.waiting = [];
    this.close();
    return Promise.resolve({ value: undefined, done: true });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
}
