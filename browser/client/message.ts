// Bayeux on the wire, as far as a client looks at it.

export interface Advice {
  reconnect?: 'retry' | 'handshake' | 'none';
  interval?: number;
  timeout?: number;
}

/** What extensions see: any message in either direction. */
export interface Envelope {
  channel: string;
  id?: string;
  clientId?: string;
  data?: any;
  ext?: Record<string, any>;
  advice?: Advice;
  successful?: boolean;
  error?: string;
  [field: string]: any;
}

/** A message that was published. */
export interface Message<T = unknown> {
  channel: string;
  data: T;
  id?: string;
  ext?: Record<string, any>;
}
