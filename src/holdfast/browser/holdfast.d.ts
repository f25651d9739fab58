/**
 * holdfast for browsers and Node: a client that stays in its rooms, whatever happens to the network.
 *
 *     const client = connect("/ws");
 *     const room = client.join("board-1");
 *     room.on("event", (event) => …);      // goes on across every disconnect
 *
 * The upper half decides: no clock, no dice, no socket; the same words as `core/` in Python. The lower
 * half carries it out. All times are seconds.
 */
export type Input = {
    type: string;
    code?: number;
    reason?: string;
    interval?: number;
    timeout?: number;
    after?: number;
    spread?: number;
};
export type Effect = {
    type: "authorize" | "dial" | "try" | "introduce" | "rejoin" | "probe" | "abandon" | "move";
    fresh?: boolean;
    road?: string;
    code?: number;
};
export type Status = {
    state: string;
    attempt: number;
    ceiling: number;
    delay: number;
    retryAt: number | null;
    code: number | null;
    reason: string;
    road: string;
};
export type User = {
    userId: string;
    name: string;
};
export type Message = {
    type: string;
    id?: string;
    [field: string]: any;
};
/** One rule: 40xx is about you, stay away; everything else, come back. @param {number} code */
export declare const mayReturn: (code: number) => boolean;
/** How long to wait before dialing again: ceilings that double, a delay drawn below them. */
export declare class Backoff {
    #private;
    jitter: boolean;
    /** @param {boolean} jitter */
    constructor(jitter: boolean);
    /** @param {number} now */
    welcomed(now: number): void;
    /** A link that died young twice in a row is still failing. @param {number} now */
    lost(now: number): void;
    /** The next wait, as `peek` says; the attempt that comes after it is counted.
     * @param {number} dice  @param {[number, number] | null} [advice] */
    next(dice: number, advice?: [number, number] | null): {
        attempt: number;
        ceiling: number;
        delay: number;
    };
    /** The next wait; nothing is counted: what is planned may not come to be tried.
     * @param {number} dice  @param {[number, number] | null} [advice]  the server's word: after, spread; whoever welcomes
     * and sends away, again and again, makes nobody dial more often than by our own rule */
    peek(dice: number, advice?: [number, number] | null): {
        attempt: number;
        ceiling: number;
        delay: number;
    };
    /** Count an attempt. */
    tried(): void;
}
/** The life of a link: [state, input] → state. What is not in it changes nothing. @type {Record<string, string>} */
export declare const LIFE: Record<string, string>;
/** The client's mind: is there a link, and if not, what is to be done about it? */
export declare class Link {
    #private;
    renewable: boolean;
    /** @type {Status} */
    status: Status;
    /** @param {{jitter?: boolean, renewable?: boolean, fallback?: boolean}} [options]  renewable: there is a way to a
     * fresh token; fallback: where there is no way for a WebSocket, plain HTTP is tried */
    constructor({ jitter, renewable, fallback }?: {
        jitter?: boolean;
        renewable?: boolean;
        fallback?: boolean;
    });
    get state(): string;
    /** Take in what happened; `dice` is uniform in [0, 1). @param {Input} input @returns {Effect[]}
     * @param {number} now  @param {number} dice */
    receive(input: Input, now: number, dice: number): Effect[];
    /** Take in that time has passed. @param {number} now  @param {number} dice  @returns {Effect[]} */
    tick(now: number, dice: number): Effect[];
    /** When `tick` is due next. */
    deadline(): number | null;
}
/** Where a cursor stands in a room; throws if it does not say so.
 * @param {string} cursor  @param {string} room  @returns {{epoch: string, offset: number}} */
export declare function position(cursor: string, room: string): {
    epoch: string;
    offset: number;
};
/**
 * A client's copy of one room: where does it stand, who is there, and what may the application be told?
 *
 * `receive` returns what the application is told (`items`) and what the server is asked (`ask`).
 */
export declare class Replica {
    #private;
    room: string;
    resume: boolean;
    stuck: boolean;
    /** @type {Map<string, User>} */ users: Map<string, User>;
    /** @type {Map<string, User>} */ typing: Map<string, User>;
    size: number;
    /** @param {string} room  @param {boolean} resume  join from the position that it has */
    constructor(room: string, resume: boolean);
    get cursor(): string | null;
    /** How to (re)join. @returns {Message} */
    join(): Message;
    /** Tell no event until `restart`: a snapshot is being taken. Until then it stands nowhere. */
    hold(): void;
    /** Go on from a snapshot. @param {string} cursor  @returns {Message} */
    restart(cursor: string): Message;
    /** Take in a message of this room. @param {Message} message  @returns {{items: Message[], ask?: Message}} */
    receive(message: Message): {
        items: Message[];
        ask?: Message;
    };
}
export type OutboxEffect = {
    type: string;
    key?: string;
    [field: string]: any;
};
/**
 * What was commanded, and not been answered yet? Kept in order, sent again under its key after a link that broke,
 * and settled once, honestly: done, rejected, not sent, or unknown.
 */
export declare class Outbox {
    #private;
    get size(): number;
    /** Take in what happened: `put`, `ready` (at a `rate`), `broken`, `answered`, `withdrawn` or `stop`.
     * `passing`: what was answered is not what a command came to, but why it did not come to anything just now.
     * @param {{type: string, key?: any, command?: any, rate?: any, ok?: boolean, value?: any, passing?: boolean}} input
     * @param {number} now  @returns {OutboxEffect[]} */
    receive({ type, key, command, rate, ok, value, passing }: {
        type: string;
        key?: any;
        command?: any;
        rate?: any;
        ok?: boolean;
        value?: any;
        passing?: boolean;
    }, now: number): OutboxEffect[];
    /** @param {number} now  @returns {OutboxEffect[]} */
    tick(now: number): OutboxEffect[];
    /** When `tick` is due next. */
    deadline(): number | null;
}
/** Tells listeners. One that throws is reported, and harms nobody else. @template Events */
declare class Emitter<Events> {
    #private;
    /** Listen; returns what ends it.
     * @template {keyof Events} Type @param {Type} type  @param {(what: Events[Type]) => void} listener */
    on<Type extends keyof Events>(type: Type, listener: (what: Events[Type]) => void): () => undefined;
    /** @template {keyof Events} Type @param {Type} type  @param {Events[Type]} what @returns {boolean} whether anybody listens */
    emit<Type extends keyof Events>(type: Type, what: Events[Type]): boolean;
}
export type Snapshot = () => Promise<{
    data: any;
    cursor: string;
}>;
export type Problem = {
    type: "error";
    error: string;
    code: string;
};
export type Resync = {
    type: "resync";
    reason: string;
    cursor: string;
};
export type RoomEvents = {
    /**
     * you are back and nothing is missing: what you missed follows
     */
    resumed: {
        type: "resumed";
        cursor: string;
    };
    /**
     * what you have cannot be continued: start afresh
     */
    resync: Resync;
    /**
     * what your function returned: replace what you have
     */
    snapshot: {
        data: any;
        cursor: string;
        reason: string;
    };
    /**
     * a publication, with its `id`
     */
    event: Message;
    /**
     * what is not recorded
     */
    broadcast: Message;
    /**
     * who is here
     */
    presence: User[];
    /**
     * who of them is typing
     */
    typing: User[];
    /**
     * the server lets us in no more, or not just now (`internal`, `unavailable`: it is asked again)
     */
    error: Problem;
    /**
     * the server has put us out
     */
    left: Message;
};
/** @typedef {() => Promise<{data: any, cursor: string}>} Snapshot  A room's state, and the position it was taken at. */
/** @typedef {{type: "error", error: string, code: string}} Problem */
/** @typedef {{type: "resync", reason: string, cursor: string}} Resync  Why nothing can be continued (`new`, `chosen`,
 *   `trimmed`, `epoch`, `ahead`), and where it goes on. */
/**
 * What a room tells. After each (re)join, exactly one of `resumed` and `resync`, before anything else: whoever listens
 * for events and not for `resync`, and gave no function that takes a snapshot, is reported when it happens.
 *
 * @typedef {object} RoomEvents
 * @property {{type: "resumed", cursor: string}} resumed  you are back and nothing is missing: what you missed follows
 * @property {Resync} resync  what you have cannot be continued: start afresh
 * @property {{data: any, cursor: string, reason: string}} snapshot  what your function returned: replace what you have
 * @property {Message} event  a publication, with its `id`
 * @property {Message} broadcast  what is not recorded
 * @property {User[]} presence  who is here
 * @property {User[]} typing  who of them is typing
 * @property {Problem} error  the server lets us in no more, or not just now (`internal`, `unavailable`: it is asked again)
 * @property {Message} left  the server has put us out
 */
/** A room that was joined. @extends {Emitter<RoomEvents>} */
declare class Room extends Emitter<RoomEvents> {
    #private;
    replica: Replica;
    snapshot: Snapshot | undefined;
    joinedOn: number;
    refusedOn: number;
    backoff: Backoff;
    outbox: Outbox;
    snapshots: number;
    /** @param {Client} client  @param {Replica} replica  @param {Snapshot | undefined} snapshot */
    constructor(client: Client, replica: Replica, snapshot: Snapshot | undefined);
    get name(): string;
    /** Let a while pass after a failure: longer each time. */
    wait(): Promise<any>;
    /** Who is here; `size` is how many, for of a crowd not all are named. */
    get users(): User[];
    get size(): number;
    get typing(): User[];
    /** Send a message of the application; whether there was a link to send it on.
     * @param {string} type  @param {Record<string, any>} [data] */
    send(type: string, data?: Record<string, any>): boolean;
    /** Have the server handle a message, once, whatever becomes of the link; resolves to what its handler returned.
     * Rejects with an `Error` whose `result` is rejected (then `code` says why), not sent, or unknown.
     * @param {string} type  @param {Record<string, any>} [data]  @returns {Promise<any>} */
    command(type: string, data?: Record<string, any>): Promise<any>;
    leave(): void;
}
export type State = "connecting" | "live" | "waiting" | "closed";
export type LinkStatus = Readonly<Omit<Status, "state"> & {
    state: State;
    detail: string;
    everLive: boolean;
}>;
export type ClientEvents = {
    status: LinkStatus;
    connected: User;
    error: Problem;
};
/** A client that stays connected, and in its rooms. See `connect`. @extends {Emitter<ClientEvents>} */
declare class Client extends Emitter<ClientEvents> {
    #private;
    url: URL;
    /** @type {User | null} */ user: User | null;
    /** @param {string} url  @param {Options} options */
    constructor(url: string, options: Options);
    /** How the link is. @returns {LinkStatus} */
    get status(): LinkStatus;
    /** Join a room, and stay in it. @param {string} name  @param {{snapshot?: Snapshot}} [options] */
    join(name: string, { snapshot }?: {
        snapshot?: Snapshot;
    }): Room;
    /** @param {Room} room */
    leave(room: Room): void;
    /** @param {Room} room  @param {any} command  @returns {Promise<any>} */
    command(room: Room, command: any): Promise<any>;
    /** How many commands have not been answered yet. */
    get unanswered(): number;
    /** Do not wait for the next attempt. */
    retryNow(): void;
    /** Say who you are on a live link: a token that was renewed. @param {string} token */
    authenticate(token: string): void;
    /** Dial again after `closed`, with whatever credentials there are now. */
    open(): void;
    /** End it. */
    close(): void;
    /** Send a message; whether there was a socket to send it on. @param {Message} message  @param {string} [room] */
    say(message: Message, room?: string): boolean;
}
export type Options = {
    /**
     * who you are; a function is asked again, once, after 4001, and in
     * the next attempt if it has not answered after 60 s
     */
    token?: string | (() => Promise<string>);
    /**
     * "snapshot": start afresh after each reconnect
     */
    recover?: "resume" | "snapshot";
    /**
     * without it, the delays are exactly 1, 2, 4, 8, 16, 30, 30 … seconds
     */
    jitter?: boolean;
    /**
     * what the room's field is called, until the server says it
     */
    roomKey?: string;
    /**
     * for Node before 22
     */
    WebSocket?: typeof globalThis.WebSocket;
};
/**
 * @typedef {object} Options
 * @property {string | (() => Promise<string>)} [token]  who you are; a function is asked again, once, after 4001, and in
 *   the next attempt if it has not answered after 60 s
 * @property {"resume" | "snapshot"} [recover]  "snapshot": start afresh after each reconnect
 * @property {boolean} [jitter]  without it, the delays are exactly 1, 2, 4, 8, 16, 30, 30 … seconds
 * @property {string} [roomKey]  what the room's field is called, until the server says it
 * @property {typeof globalThis.WebSocket} [WebSocket]  for Node before 22
 */
/**
 * Return a client of the hub at `url`, which keeps itself connected.
 *
 * @param {string} url  of the WebSocket; may be relative to the page
 * @param {Options} [options]
 */
export declare function connect(url: string, options?: Options): Client;
export {};
