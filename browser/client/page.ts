// What happens around a client: the network, the page and the machine come and go. Used by the client.

/** What is told of it. */
export interface Surrounded {
  wake(): void;
  leavePage(): void;
}

/** Tells a client what happens around it; gives what ends that. */
export function watch(client: Surrounded): () => void {
  const target = globalThis as any;
  if (typeof target.addEventListener !== 'function') return () => {};
  const page = target.document;
  const wake = (): void => client.wake();
  const visible = (): void => {
    if (page.visibilityState === 'visible') client.wake();
  };
  const leave = (event: any): void => {
    // A page that is kept may come back.
    if (!event.persisted) client.leavePage();
  };
  target.addEventListener('online', wake);
  target.addEventListener('offline', wake);
  target.addEventListener('pageshow', wake);
  target.addEventListener('pagehide', leave);
  page?.addEventListener('visibilitychange', visible);
  return () => {
    target.removeEventListener('online', wake);
    target.removeEventListener('offline', wake);
    target.removeEventListener('pageshow', wake);
    target.removeEventListener('pagehide', leave);
    page?.removeEventListener('visibilitychange', visible);
  };
}
