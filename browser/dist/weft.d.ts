// The typings of Weft's client.

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

/** A refusal by the server (`401:id:Unknown client`), or a failure of the client's own, whose code is a word. */
export declare class BayeuxError extends Error {
    code: number | string;
    params: string[];
    constructor(code: number | string, message: string, params?: string[]);
    /** Reads the error of a reply. */
    static parse(error: unknown): BayeuxError;
    toString(): string;
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
export declare class LinkError extends Error {
    readonly facts: LinkFacts;
    constructor(message: string, facts?: LinkFacts);
    /** The status of a server that does not take what was sent, whoever sends it. Others are of servers that are not there. */
    get refusal(): number | undefined;
}

/** Logs of the client go here: a function, or an object with `debug`, `info`, `warn`, `error`; as `Faye.logger`. */
export declare const logging: {
    logger: any;
};
export declare function log(level: 'debug' | 'info' | 'warn' | 'error', message: string): void;
/** Calls what a user has given. What it throws is the user's to see, and nothing to us. */
export declare function call(what: (...args: any[]) => unknown, context: unknown, args: unknown[]): void;
export declare class Emitter {
    on(event: string, listener: (...args: any[]) => void, context?: unknown): this;
    once(event: string, listener: (...args: any[]) => void, context?: unknown): this;
    off(event: string, listener?: (...args: any[]) => void): this;
    trigger(event: string, ...args: unknown[]): void;
    countListeners(event: string): number;
    bind: (event: string, listener: (...args: any[]) => void, context?: unknown) => this;
    unbind: (event: string, listener?: (...args: any[]) => void) => this;
    addListener: (event: string, listener: (...args: any[]) => void, context?: unknown) => this;
    removeListener: (event: string, listener?: (...args: any[]) => void) => this;
    emit: (event: string, ...args: unknown[]) => void;
    removeAllListeners(event?: string): this;
}

export declare class Deferred<T> implements PromiseLike<T> {
    protected promise: Promise<T>;
    settled: boolean;
    constructor();
    succeed(value: T): void;
    fail(error: BayeuxError): void;
    then<A = T, B = never>(done?: ((value: T) => A | PromiseLike<A>) | null, failed?: ((error: any) => B | PromiseLike<B>) | null): Promise<A | B>;
    catch<B = never>(failed?: ((error: any) => B | PromiseLike<B>) | null): Promise<T | B>;
    finally(last?: (() => void) | null): Promise<T>;
    callback(done: (value: T) => void, context?: unknown): this;
    errback(failed: (error: BayeuxError) => void, context?: unknown): this;
    /** Fails unless it has settled within so many seconds. */
    timeout(seconds: number, message?: string): void;
}

export interface Extension {
    incoming?(message: any, callback: (message: any) => void): void;
    outgoing?(message: any, callback: (message: any) => void): void;
    added?(host: unknown): void;
    removed?(host: unknown): void;
}
export declare class Extensions {
    add(extension: Extension, host: unknown): void;
    remove(extension: Extension, host: unknown): void;
    /** Passes a message by all of them, in the order in which they were added; `done(null)` when one drops it. */
    pass(stage: 'incoming' | 'outgoing', message: Envelope, done: (message: Envelope | null) => void): void;
}

export interface PublishOptions {
    /** How often it may be sent. */
    attempts?: number;
    /** Seconds after which it is given up. */
    deadline?: number;
    /** Takes it back, unless it was sent. */
    signal?: AbortSignal;
    /** By which the server knows a repetition; made up if there is none. */
    key?: string;
}
export declare class Scheduler {
    readonly message: Envelope;
    readonly options: PublishOptions & {
        timeout?: number;
        interval?: number;
    };
    attempts: number;
    constructor(message: Envelope, options: PublishOptions & {
        timeout?: number;
        interval?: number;
    });
    /** Seconds until an answer is overdue. */
    getTimeout(): number | undefined;
    /** Seconds before it is sent again. */
    getInterval(): number | undefined;
    /** Whether it may be sent, for the first time or again. */
    isDeliverable(): boolean;
    /** It is sent. */
    send(): void;
    /** The server has stored it. */
    succeed(): void;
    /** The link broke, or nothing came. */
    fail(): void;
    /** It is given up. */
    abort(): void;
}

export interface ClientOptions {
    /** Seconds that a connect may be held until the server says otherwise (60). */
    timeout?: number;
    /** Seconds between connects until the server says otherwise (0). */
    interval?: number;
    /** Seconds: the longest pause between attempts. Faye's clients pause 5 s each time. */
    retry?: number;
    /** Other addresses for some transports. */
    endpoints?: Record<string, string>;
    /** A subclass of `Scheduler`. */
    scheduler?: typeof Scheduler;
    /** Each message exactly once, where the server can (true). */
    resume?: boolean;
    /** Publishes that are sent again are stored once, where the server can (true). */
    idempotent?: boolean;
    /** Pauses after failures, in ms (250, 30000, twice as long each time, half of it left to chance). */
    backoff?: {
        first?: number;
        max?: number;
        factor?: number;
        jitter?: number;
    };
    /** A link that is silent for `idle` ms is probed, and dead after `wait` more (5000, 3000). */
    liveness?: {
        idle?: number;
        wait?: number;
    };
    /** What may wait to be published (1000 messages, 1 MiB); beyond, `publish` fails with `queue-full`. */
    queue?: {
        messages?: number;
        bytes?: number;
    };
    /** How long to stay on a fall-back before the better transport is tried again, in ms (60000; longer each time). */
    upgradeAfter?: number;
    /** Headers of all requests that can have some. */
    headers?: Record<string, string>;
    /** Whether cookies go to other origins (true). */
    withCredentials?: boolean;
    /** Used instead of the global ones. */
    fetch?: typeof fetch;
    WebSocket?: typeof WebSocket;
    /** Which transports, and in which order. */
    transports?: string[];
    /** Accepted for Faye's sake. */
    proxy?: unknown;
    websocketExtensions?: unknown;
    tls?: unknown;
    ca?: unknown;
}
export declare const TRANSPORTS: string[];
export declare function resolve(options: ClientOptions): {
    /** Seconds: the longest pause between attempts. Faye's clients pause 5 s each time. */
    retry?: number;
    /** Accepted for Faye's sake. */
    proxy?: unknown;
    websocketExtensions?: unknown;
    tls?: unknown;
    ca?: unknown;
    timeout: number;
    interval: number;
    endpoints: Record<string, string>;
    scheduler: typeof Scheduler;
    resume: boolean;
    idempotent: boolean;
    upgradeAfter: number;
    headers: Record<string, string>;
    withCredentials: boolean;
    backoff: {
        first: number;
        max: number;
        factor: number;
        jitter: number;
    };
    liveness: {
        idle: number;
        wait: number;
    };
    queue: {
        messages: number;
        bytes: number;
    };
    fetch: typeof fetch;
    WebSocket: {
        new (url: string | URL, protocols?: string | string[]): WebSocket;
        prototype: WebSocket;
        readonly CONNECTING: 0;
        readonly OPEN: 1;
        readonly CLOSING: 2;
        readonly CLOSED: 3;
    };
    transports: string[];
};
export type Resolved = ReturnType<typeof resolve>;

export declare class Publication extends Deferred<void> {
    readonly message: Envelope;
    readonly size: number;
    readonly key: string;
    readonly scheduler: Scheduler;
    /** Sent over the link in use, under this id. */
    sent: boolean;
    /** When an answer is overdue, and before when it is not sent again. */
    until: number;
    after: number;
    /** How often a link that lived brought no answer. */
    unanswered: number;
    constructor(message: Envelope, size: number, key: string, scheduler: Scheduler);
    /** The server has it, maybe. */
    get wasSent(): boolean;
    /** It goes out under the id that it keeps, by which a server knows it again. */
    send(id: string, patience: number): void;
    /** It was not answered: again, after its pause. */
    again(): void;
}
/** Nobody else makes the same one. */
export declare function key(): string;

export interface SubscribeOptions {
    /** Cancels the subscription. */
    signal?: AbortSignal;
    /** On servers that keep messages: -2 for all that is kept, -1 for none, or a position to begin after. */
    replay?: number;
    /** Messages that may wait in an iterator (1000). */
    buffer?: number;
}
export declare class Subscription<T = unknown> extends Deferred<void> implements AsyncIterable<Message<T>> {
    readonly channel: string;
    readonly options: SubscribeOptions;
    /** Keeps what comes before the first loop begins, where there is no listener. */
    active: boolean;
    constructor(channel: string, listener: ((...args: any[]) => void) | undefined, context: unknown, options: SubscribeOptions, leave: (subscription: Subscription<any>) => void);
    /** Also tells the channel, for patterns: `(channel, data)`. */
    withChannel(listener: (channel: string, data: T, message: Message<T>) => void, context?: unknown): this;
    /** Hands a message over. */
    deliver(message: Message<T>): void;
    /** As Faye's: calls the listener. */
    apply(context: unknown, args: unknown[]): void;
    /** Ends it; unsubscribes when it was the last of its channel. */
    cancel(): void;
    unsubscribe(): void;
    /** No more comes; with an error, iterators throw it after what they hold. */
    end(error?: BayeuxError): void;
    [Symbol.asyncIterator](): AsyncIterableIterator<Message<T>>;
}

type Listener = (...args: any[]) => void;
export declare class Client extends Emitter {
    readonly endpoint: URL | string;
    state: 'UNCONNECTED' | 'CONNECTING' | 'CONNECTED' | 'DISCONNECTED';
    /** Unsubscribes that the server must be told of. */
    /** Counts links: what an older one says is not heard. */
    /** Sessions that were lost in a row, none of which had lasted. */
    /** The connect that was not answered: sent again under its id, which says that nothing of it arrived. */
    /** A connect was answered over the link in use. */
    /** The goodbye is sent: nothing else is. */
    constructor(url?: string | URL, options?: ClientOptions);
    get clientId(): string | null;
    /** The transport in use. */
    get transport(): string | null;
    handshake(callback?: Listener, context?: unknown): void;
    /** Connects; publishing and subscribing do that by themselves. */
    connect(callback?: Listener, context?: unknown): void;
    subscribe<T = any>(channel: string, options: SubscribeOptions, callback?: (data: T, message: Message<T>) => void): Subscription<T>;
    subscribe<T = any>(channel: string, callback?: (data: T, message: Message<T>) => void, context?: unknown): Subscription<T>;
    subscribe(channels: string[], callback?: Listener, context?: unknown): Subscription<any>[];
    unsubscribe(channel: string | string[], subscription?: Subscription<any>): void;
    publish(channel: string, data: unknown, options?: PublishOptions): Publication;
    /** Ends the session, once what was published is stored, and the client with it. Settles within seconds, whether or not the server can be reached. */
    disconnect(): Promise<void>;
    addExtension(extension: Extension): void;
    removeExtension(extension: Extension): void;
    /** Does without a transport, or without saying goodbye when the page is left (`autodisconnect`). */
    disable(feature: string): void;
    setHeader(name: string, value: string): void;
    /** As Faye's, which needs something installed for it: there is nothing to do here. */
    addWebsocketExtension(): void;
    /** What is asked for in one turn goes out together. */
    /** Looks at the clock: what is due, what is overdue, and when to look again. */
    /** The link that is heard. */
    /** A link is open: what is not answered is asked again over it. */
    /** Whether the link, or session, that ends now was more than a beginning. */
    /** HTTP, or a close, refused a batch as such: true when a publish in it is or may be to blame. */
    /** One more failure: the pause before the next attempt, in ms. */
    /** Sends what is due. */
    /** Passes messages by the extensions, and on to the link. */
    /** An extension has dropped a message: nobody will answer it. */
    /** The server does not know the session: a new one, some time from now. */
    /** The end of the client: everything settles. */
    /** The page, the network or the machine is back: looks at once. */
    wake(): void;
    /** The page goes: a goodbye that outlives it. */
    leavePage(): void;
}

export declare const VERSION = "0.1.0";
/** Where the client's logs go: a function, or an object with `debug`, `info`, `warn` and `error`. */
export declare function setLogger(logger: unknown): void;

export { BayeuxError as Error };
