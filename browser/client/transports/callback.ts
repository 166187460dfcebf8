// JSONP, for pages from which nothing else gets through: messages in a URL, answers as scripts.

import { LinkError } from '../error';
import type { Envelope } from '../message';
import type { Hears, Link, Settings } from './link';
import { Requests } from './polling';

/** Longer URLs do not get through everywhere. */
const LONGEST = 2048;
let last = 0;

export async function openCallback(settings: Settings, hears: Hears): Promise<Link> {
  if (typeof document === 'undefined') throw new LinkError('no page here', { blocked: true, absent: true });
  const url = settings.url('callback-polling');
  const encoded = (messages: Envelope[]): string => encodeURIComponent(JSON.stringify(messages));
  const cut = (messages: Envelope[]): Envelope[] => {
    let count = 1;
    while (count < messages.length && encoded(messages.slice(0, count + 1)).length < LONGEST) count += 1;
    return messages.splice(0, count);
  };
  const exchange = (batch: Envelope[], limit: number, ended: AbortSignal): Promise<Envelope[]> =>
    new Promise((resolve, reject) => {
      const name = `__weft${++last}`;
      const script = document.createElement('script');
      const finish = (): void => {
        clearTimeout(timer);
        ended.removeEventListener('abort', abort);
        script.remove();
        // It may still be on its way.
        (globalThis as any)[name] = () => {};
      };
      const fail = (why: string): void => {
        finish();
        reject(new LinkError(why));
      };
      const abort = (): void => fail('ended');
      const timer = setTimeout(() => fail('no answer in time'), limit);
      ended.addEventListener('abort', abort);
      (globalThis as any)[name] = (messages: Envelope[]) => {
        finish();
        delete (globalThis as any)[name];
        resolve(messages);
      };
      script.onerror = () => fail('the script does not load');
      const separator = url.includes('?') ? '&' : '?';
      script.src = `${url}${separator}message=${encoded(batch)}&jsonp=${name}`;
      document.head.appendChild(script);
    });
  return new Requests('callback-polling', settings, hears, exchange, cut);
}
