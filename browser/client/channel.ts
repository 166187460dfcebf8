// Channel names and patterns: what is one, and what matches what. Used by the client and its subscriptions.

const SEGMENT = /^[A-Za-z0-9\-_!~()$@]+$/;

function segments(name: unknown): string[] | null {
  return typeof name === 'string' && name[0] === '/' ? name.slice(1).split('/') : null;
}

/** A channel that can be published to. */
export function isChannel(name: unknown): boolean {
  const parts = segments(name);
  return parts !== null && parts.every((part) => SEGMENT.test(part));
}

/** A channel, or a pattern whose last segment is `*` (one more) or `**` (any number). */
export function isPattern(name: unknown): boolean {
  const parts = segments(name);
  if (parts === null) return false;
  const last = parts.pop() as string;
  return (last === '*' || last === '**' || SEGMENT.test(last)) && parts.every((part) => SEGMENT.test(part));
}

/** Whether a pattern covers a channel. */
export function matches(pattern: string, channel: string): boolean {
  if (pattern === channel) return true;
  const base = pattern.slice(0, pattern.lastIndexOf('/') + 1);
  if (!channel.startsWith(base) || channel.length === base.length) return false;
  if (pattern.endsWith('/**')) return true;
  return pattern.endsWith('/*') && channel.indexOf('/', base.length) < 0;
}
