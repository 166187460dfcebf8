// Errors as users see them: a code, what it is about, and a text. Used everywhere.

/** A refusal by the server (`401:id:Unknown client`), or a failure of the client's own, whose code is a word. */
export class BayeuxError extends Error {
  constructor(
    public code: number | string,
    message: string,
    public params: string[] = [],
  ) {
    super(message);
    this.name = 'BayeuxError';
  }

  /** Reads the error of a reply. */
  static parse(error: unknown): BayeuxError {
    const text = typeof error === 'string' ? error : '';
    const parts = /^(\d{3}):([^:]*):([^]*)$/.exec(text);
    if (!parts) return new BayeuxError(0, text || 'refused without a reason');
    return new BayeuxError(Number(parts[1]), parts[3], parts[2] ? parts[2].split(',') : []);
  }

  toString(): string {
    return `${this.code}:${this.params.join(',')}:${this.message}`;
  }
}

/** What is known of the end of a link beside its reason. */
export interface LinkFacts {
  /** The HTTP status, if that was it. */
  status?: number;
  /** The server answers, but this transport does not work here. */
  blocked?: boolean;
  /** There is no such thing here. */
  absent?: boolean;
  /** The other side has said nothing. */
  silent?: boolean;
  /** It was a connect that was refused, and nothing else. */
  connect?: boolean;
}

/** Why a link came to its end. */
export class LinkError extends Error {
  constructor(
    message: string,
    readonly facts: LinkFacts = {},
  ) {
    super(message);
  }

  /** The status of a server that does not take what was sent, whoever sends it. Others are of servers that are not there. */
  get refusal(): number | undefined {
    const { status = 0, connect } = this.facts;
    return [400, 413, 414, 422, 431].includes(status) && !connect ? status : undefined;
  }
}
