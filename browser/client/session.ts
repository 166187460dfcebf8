// What a client knows of its session: its id, the server's advice, and on servers that resume the position of what was
// received (docs/delivery.md, "Resume"). No I/O; used by the client.

import type { Advice, Envelope } from './message';

type Position = Record<string, number>;

/** No server may send a client away for longer, in ms. */
const LONGEST = 3600e3;

export class Session {
  id: string | null = null;
  /** The id of the session before. */
  previous: string | null = null;
  reconnect: Advice['reconnect'] = 'retry';
  /** Whether the server resumes; then it knows repeated publishes by their key, too. */
  resumes = false;
  private position: Position = {};
  private claimed: Position | null = null;
  /** Up to where messages were missing, as the server told. */
  private lost: Position = {};
  private replayed: Record<string, number> = {};
  /** What the server has accepted, and where it began (`true`: before the position). */
  private accepted: Record<string, Position | true> = {};

  constructor(
    private wanted: boolean,
    public timeout: number,
    public interval: number,
  ) {}

  advise(advice: Advice): void {
    const number = (value: unknown): value is number => typeof value === 'number' && value >= 0;
    if (number(advice.timeout)) this.timeout = Math.min(advice.timeout, LONGEST);
    if (number(advice.interval)) this.interval = Math.min(advice.interval, LONGEST);
    if (advice.reconnect) this.reconnect = advice.reconnect;
  }

  handshakeExt(): Record<string, any> | undefined {
    this.claimed = null;
    if (!this.wanted) return undefined;
    if (!this.resumes) return { resume: true };
    this.claimed = { ...this.position };
    const subscriptions: Record<string, any> = {};
    for (const name in this.accepted) {
      const start = this.accepted[name];
      const replayed = this.replayed[name];
      const due = start !== true && replayed < Object.values(start)[0];
      subscriptions[name] = due ? { replay: replayed, ...(start as Position) } : start;
    }
    return { resume: true, position: this.claimed, subscriptions };
  }

  connectExt(): Record<string, any> | undefined {
    return this.resumes ? { position: { ...this.position } } : undefined;
  }

  subscribeExt(name: string, replay?: number): Record<string, any> | undefined {
    const ext: Record<string, any> = {};
    if (this.resumes) {
      ext.resume = true;
      // A replay that it may bring has a count of its own, from here on.
      delete this.replayed[name];
    }
    if (replay !== undefined) ext.replay = { [name]: replay };
    return this.resumes || replay !== undefined ? ext : undefined;
  }

  /** A successful handshake: the channels on which messages may be missing, `null` if on none. */
  begin(reply: Envelope): { first: boolean; gap: string[] | null } {
    const ext = reply.ext || {};
    const first = this.previous === null;
    this.id = this.previous = reply.clientId as string;
    this.reconnect = 'retry';
    this.resumes = this.wanted && ext.resume === true;
    const { claimed, accepted } = this;
    this.claimed = null;
    this.accepted = {};
    if (!this.resumes) {
      this.position = {};
      this.lost = {};
      this.replayed = {};
      return { first, gap: first ? null : [] };
    }
    const position: Position = { ...ext.position };
    for (const partition in claimed) {
      // What was received since the claim was made counts, where the server goes by the claim.
      if (position[partition] === claimed[partition]) position[partition] = this.position[partition];
    }
    this.position = position;
    // A server that begins anew, lower.
    for (const partition in this.lost) if (!(this.lost[partition] <= position[partition])) delete this.lost[partition];
    const goesOn: string[] = ext.subscriptions || [];
    for (const name of goesOn) if (accepted[name]) this.accepted[name] = accepted[name];
    for (const name in this.replayed) if (!this.accepted[name]) delete this.replayed[name];
    const lost = Object.keys(accepted).filter((name) => !this.accepted[name]);
    if (!claimed) return { first, gap: first ? null : [] };
    return { first, gap: lost.length > 0 ? lost : null };
  }

  has(name: string): boolean {
    return name in this.accepted;
  }

  /** A successful connect; true when messages may be missing that were not told of before. */
  connected(reply: Envelope): boolean {
    const ext = reply.ext || {};
    if (!this.resumes) return false;
    for (const partition in ext.position) {
      this.position[partition] = Math.max(this.position[partition] || 0, ext.position[partition]);
    }
    if (ext.gap !== true) return false;
    // Told again until the server knows that it arrived. One that does not say up to where is none that is known.
    let isNews = !ext.lost;
    for (const partition in ext.lost) {
      if (ext.lost[partition] <= this.lost[partition]) continue;
      this.lost[partition] = ext.lost[partition];
      isNews = true;
    }
    return isNews;
  }

  /** A successful subscribe; true when what was to be replayed is not kept any more. */
  subscribed(name: string, reply: Envelope): boolean {
    const ext = reply.ext || {};
    this.accepted[name] = (ext.since && ext.since[name]) || true;
    if (ext.replay && name in ext.replay) {
      this.replayed[name] = Math.max(this.replayed[name] || 0, ext.replay[name]);
    }
    return ext.gap === true;
  }

  unsubscribed(name: string): void {
    delete this.accepted[name];
    delete this.replayed[name];
  }

  /** Whether a message did not come before; it counts as received then. */
  isNews({ channel, ext }: Envelope): boolean {
    if (!this.resumes || !ext || !ext.position) return true;
    const replay = ext.replay === true;
    for (const partition in ext.position) {
      const number = ext.position[partition];
      const counts = replay ? this.replayed : this.position;
      const key = replay ? channel : partition;
      if (number <= counts[key]) return false;
      counts[key] = number;
    }
    return true;
  }
}
