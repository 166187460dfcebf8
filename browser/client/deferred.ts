// A promise that also has Faye's callbacks. Publications and subscriptions are such; each settles once, always.

import { BayeuxError } from './error';
import { call } from './events';

export class Deferred<T> implements PromiseLike<T> {
  protected promise: Promise<T>;
  private settle!: { resolve: (value: T) => void; reject: (error: BayeuxError) => void };
  private timer: ReturnType<typeof setTimeout> | undefined;
  settled = false;

  constructor() {
    this.promise = new Promise<T>((resolve, reject) => (this.settle = { resolve, reject }));
    // Nobody has to look, as with Faye.
    this.promise.catch(() => {});
  }

  succeed(value: T): void {
    this.settled = true;
    clearTimeout(this.timer);
    this.settle.resolve(value);
  }

  fail(error: BayeuxError): void {
    this.settled = true;
    clearTimeout(this.timer);
    this.settle.reject(error);
  }

  then<A = T, B = never>(
    done?: ((value: T) => A | PromiseLike<A>) | null,
    failed?: ((error: any) => B | PromiseLike<B>) | null,
  ): Promise<A | B> {
    return this.promise.then(done, failed);
  }

  catch<B = never>(failed?: ((error: any) => B | PromiseLike<B>) | null): Promise<T | B> {
    return this.promise.catch(failed);
  }

  finally(last?: (() => void) | null): Promise<T> {
    return this.promise.finally(last);
  }

  callback(done: (value: T) => void, context?: unknown): this {
    this.promise.then((value) => call(done, context, [value]), () => {});
    return this;
  }

  errback(failed: (error: BayeuxError) => void, context?: unknown): this {
    this.promise.catch((error) => call(failed, context, [error]));
    return this;
  }

  /** Fails unless it has settled within so many seconds. */
  timeout(seconds: number, message = 'timed out'): void {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.fail(new BayeuxError('timeout', message)), seconds * 1000);
  }
}
